//! The user registers the node again.

use super::bench::Bench;
use crate::machine::Phase;

#[test]
fn an_unregistered_node_rejoins_when_it_registers() {
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
fn registering_a_member_succeeds_immediately() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    b.register(1);
    b.expect(&["reply 1: done"]);
}

#[test]
fn registering_a_joining_node_succeeds_once_it_has_joined() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a");
    b.register(1);
    b.expect_only(&["reply"], &[]);
    b.answer_all();
    b.expect_only(&["reply"], &["reply 1: done"]);
}

#[test]
fn registering_a_leaving_node_lets_it_leave_first() {
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
fn registering_an_observer_fails() {
    let mut o = Bench::observer();
    o.register(1);
    o.expect_only(&["reply"], &["reply 1: this process only observes: it has no name to register"]);
}

#[test]
fn registering_a_stopping_node_fails() {
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
