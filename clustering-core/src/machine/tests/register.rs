//! The user takes the node's place again.

use super::bench::Bench;
use crate::machine::Phase;

#[test]
fn a_node_that_had_left_joins_again() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    b.unregister(1);
    b.answer_all();
    b.skip();
    b.register(2);
    b.expect(&["grant 15s"]);
    b.answer_all();
    b.expect_only(&["* joined", "reply"], &["* joined again as <ULID>", "reply 2: done"]);
}

#[test]
fn a_member_has_its_place_already() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    b.register(1);
    b.expect(&["reply 1: done"]);
}

#[test]
fn one_that_is_joining_is_answered_when_it_has_joined() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a");
    b.register(1);
    b.expect_only(&["reply"], &[]);
    b.answer_all();
    b.expect_only(&["reply"], &["reply 1: done"]);
}

#[test]
fn one_that_is_leaving_leaves_first() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    b.unregister(1);
    b.register(2);
    b.expect(&["leave"]);
    b.answer_all();
    b.expect_only(
        &["revoke", "grant", "reply"],
        &["revoke 2", "grant 15s", "reply 1: done", "reply 2: done"],
    );
    assert_eq!(b.status().phase, Phase::Member);
}

#[test]
fn an_observer_has_no_name_to_register() {
    let mut o = Bench::observer();
    o.register(1);
    o.expect_only(&["reply"], &["reply 1: this process only observes: it has no name to register"]);
}

#[test]
fn a_node_that_ends_refuses() {
    let mut b = Bench::node("b").with(&["b"]).joined();
    b.register(1);
    b.stop();
    b.ok("revoke");
    b.register(2);
    b.expect_only(
        &["reply"],
        &[
            "reply 1: the node has ended: it was asked to stop",
            "reply 2: the node has ended: it was asked to stop",
        ],
    );
}
