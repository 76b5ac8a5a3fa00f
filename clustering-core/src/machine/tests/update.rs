//! The user changes the node's metadata.

use super::bench::{Bench, ms, secs};
use crate::store::ErrorKind;

#[test]
fn an_update_rewrites_the_record_with_a_new_incarnation() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a").acknowledged();
    let before = b.status().session.unwrap().incarnation;
    b.update(1, "x");
    b.expect(&["rewrite"]);
    assert_eq!(
        b.status().session.unwrap().incarnation,
        before,
        "the incarnation stays the same until the rewrite is in the log"
    );
    b.answer_all();
    b.expect(&["* b has a new record, at http://b", "reply 1: done"]);
    assert_ne!(b.status().session.unwrap().incarnation, before);
    assert_eq!(b.machine.present().find(|node| node.name == "b").unwrap().metadata["zone"], "x");
    assert!(b.store.get(&"c/ready/b".into()).is_none(), "the rewrite deletes the acknowledgement");
    b.publishes();
    b.stabilized(crate::Outcome::Ready);
    b.answer_all();
    b.expect_only(&["acknowledge", "read", "* ready"], &["acknowledge V2", "* ready at V2"]);
}

#[test]
fn updates_made_while_one_is_in_flight_are_written_together() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    for (id, zone) in [(1, "x"), (2, "y"), (3, "z")] {
        b.update(id, zone);
    }
    b.answer_all();
    b.expect_only(
        &["rewrite", "reply"],
        &["rewrite", "rewrite", "reply 1: done", "reply 2: done", "reply 3: done"],
    );
    assert_eq!(b.machine.present().find(|node| node.name == "b").unwrap().metadata["zone"], "z");
}

#[test]
fn a_node_without_a_session_joins_with_the_updated_metadata() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a");
    b.update(1, "x");
    b.expect_only(&["reply"], &["reply 1: done"]);
    b.answer_all();
    assert_eq!(b.machine.present().find(|node| node.name == "b").unwrap().metadata["zone"], "x");
}

#[test]
fn an_update_while_the_node_joins_is_written_once_it_is_a_member() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a");
    b.tick();
    b.ok("grant");
    b.ok("read");
    b.ok("watch");
    b.update(1, "x");
    b.skip();
    b.answer_all();
    b.expect_only(&["rewrite", "reply", "* joined"], &["* joined as <ULID>", "rewrite", "reply 1: done"]);
}

#[test]
fn p7_an_update_interrupted_by_a_lost_session_is_written_by_the_next_one() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.update(1, "x");
    b.fail("rewrite", ErrorKind::Unreachable);
    b.advance(secs(15));
    b.answer_all();
    b.expect_only(&["reply", "* joined again"], &["* joined again as <ULID>", "reply 1: done"]);
    assert_eq!(b.machine.present().find(|node| node.name == "b").unwrap().metadata["zone"], "x");
}

#[test]
fn p5_a_leader_that_updates_its_record_keeps_leading() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    a.update(1, "x");
    a.answer_all();
    a.wait(ms(1_100));
    a.answer_all();
    a.expect_only(&["publish", "reply", "* nobody"], &["reply 1: done", "publish V2: a changed"]);
    assert!(a.is_leader());
}

#[test]
fn a_node_elected_during_an_update_names_the_incarnation_that_is_in_the_store() {
    let mut b = Bench::node("b").with(&["a"]).joined();
    b.update(1, "x");
    b.wait(ms(50));
    let elected: crate::record::LeaderRecord = super::render::value(b.txn("elect"), "leader").unwrap();
    assert_eq!(elected.incarnation, b.status().session.unwrap().incarnation);
}

#[test]
fn updating_an_observer_fails() {
    let mut o = Bench::observer();
    o.update(1, "x");
    o.expect_only(&["reply"], &["reply 1: this process only observes: it has no name to register"]);
}
