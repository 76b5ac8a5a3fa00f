//! The user changes the node's metadata.

use super::bench::{Bench, ms, secs};
use crate::store::ErrorKind;

#[test]
fn the_record_is_put_again_under_a_new_incarnation() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a").acknowledged();
    let before = b.status().session.unwrap().incarnation;
    b.update(1, "x");
    b.says(&["rewrite"]);
    assert_eq!(b.status().session.unwrap().incarnation, before, "until it stands");
    b.answer_all();
    b.says(&["* b has a new record, at http://b", "reply 1: done"]);
    assert_ne!(b.status().session.unwrap().incarnation, before);
    assert_eq!(b.machine.present().find(|node| node.name == "b").unwrap().metadata["zone"], "x");
    assert!(b.store.get(&"c/ready/b".into()).is_none(), "the acknowledgement went with the record");
    b.publishes();
    b.stabilized(crate::Outcome::Ready);
    b.answer_all();
    b.says_of(&["acknowledge", "read", "* ready"], &["acknowledge V2", "* ready at V2"]);
}

#[test]
fn changes_that_come_while_one_is_on_its_way_are_granted_together() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    for (id, zone) in [(1, "x"), (2, "y"), (3, "z")] {
        b.update(id, zone);
    }
    b.answer_all();
    b.says_of(
        &["rewrite", "reply"],
        &["rewrite", "rewrite", "reply 1: done", "reply 2: done", "reply 3: done"],
    );
    assert_eq!(b.machine.present().find(|node| node.name == "b").unwrap().metadata["zone"], "z");
}

#[test]
fn a_node_without_a_session_registers_with_it() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a");
    b.update(1, "x");
    b.says_of(&["reply"], &["reply 1: done"]);
    b.answer_all();
    assert_eq!(b.machine.present().find(|node| node.name == "b").unwrap().metadata["zone"], "x");
}

#[test]
fn a_change_while_the_node_joins_is_granted_once_it_stands() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a");
    b.tick();
    b.ok("grant");
    b.ok("read");
    b.ok("watch");
    b.update(1, "x");
    b.skip();
    b.answer_all();
    b.says_of(&["rewrite", "reply", "* joined"], &["* joined as a life", "rewrite", "reply 1: done"]);
}

#[test]
fn p7_a_change_that_waits_is_granted_by_the_next_session() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.update(1, "x");
    b.fail("rewrite", ErrorKind::Unreachable);
    b.advance(secs(15));
    b.answer_all();
    b.says_of(&["reply", "* joined again"], &["* joined again as a life", "reply 1: done"]);
    assert_eq!(b.machine.present().find(|node| node.name == "b").unwrap().metadata["zone"], "x");
}

#[test]
fn p5_a_leader_that_changes_its_record_leads_on() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.update(1, "x");
    a.answer_all();
    a.wait(ms(1_100));
    a.answer_all();
    a.says_of(&["publish", "reply", "* nobody"], &["reply 1: done", "publish V2: a changed"]);
    assert!(a.is_leader());
}

#[test]
fn a_node_elected_while_its_change_waits_names_the_incarnation_that_stands() {
    let mut b = Bench::node("b").with(&["a"]).joined();
    b.update(1, "x");
    b.wait(ms(50));
    let elected: crate::record::LeaderRecord = super::render::value(b.txn("elect"), "leader").unwrap();
    assert_eq!(elected.incarnation, b.status().session.unwrap().incarnation);
}

#[test]
fn an_observer_has_no_metadata() {
    let mut o = Bench::observer();
    o.update(1, "x");
    o.says_of(&["reply"], &["reply 1: this process only observes: it has no name to register"]);
}
