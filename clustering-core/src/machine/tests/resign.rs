//! The user makes the leader resign.

use super::bench::{Bench, ms, secs};
use crate::store::ErrorKind;

const NOT_LEADER: &str = "reply 1: this node does not lead: ask the leader, or wait until this node leads";

#[test]
fn p5_a_resigning_leader_stops_leading_before_its_commit_is_sent() {
    let mut a = Bench::node("a").joined().leading().stable();
    a.resign(1);
    a.expect(&["resign"]);
    assert!(!a.is_leader() && a.status().leadership.is_none());
    a.ok("resign");
    a.expect(&[]);
    a.deliver();
    a.expect(&["* nobody leads", "reply 1: done", "unwatch"]);
}

#[test]
fn p5_a_resigning_leader_neither_publishes_nor_confirms() {
    let mut a = Bench::node("a").joined().leading();
    a.resign(1);
    a.skip();
    a.joins("b");
    a.stabilized(crate::Outcome::Ready);
    a.ok("acknowledge");
    a.deliver();
    a.wait(secs(1));
    a.expect_only(&["publish", "confirm"], &[]);
}

#[test]
fn a_resign_is_repeated_until_the_log_shows_it() {
    let mut a = Bench::node("a").joined().leading();
    a.resign(1);
    a.drop_call("resign");
    assert!(!a.is_leader());
    a.skip();
    a.wait(ms(100));
    a.expect(&["resign"]);
    a.lose("resign");
    a.deliver();
    a.expect_only(&["reply"], &["reply 1: done"]);
    a.wait(secs(5));
    a.expect_only(&["resign"], &[]);
}

#[test]
fn two_resign_requests_are_both_answered() {
    let mut a = Bench::node("a").joined().leading();
    a.resign(1);
    a.resign(2);
    a.answer_all();
    a.expect_only(&["resign", "reply"], &["resign", "reply 1: done", "reply 2: done"]);
}

#[test]
fn a_node_that_resigned_does_not_campaign_for_one_ttl() {
    let mut a = Bench::node("a").joined().leading();
    a.resign(1);
    a.answer_all();
    a.wait(ms(14_999));
    assert!(!a.is_open("elect"));
    a.wait(ms(1));
    assert!(a.is_open("elect"));
}

#[test]
fn a_node_that_does_not_lead_cannot_resign() {
    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    b.resign(1);
    b.expect(&[NOT_LEADER]);
    let mut a = Bench::node("a").joined().leading();
    a.advance(secs(10));
    a.skip();
    a.resign(1);
    a.expect(&[NOT_LEADER]);
}

#[test]
fn losing_the_session_fulfils_a_resign_request() {
    let mut a = Bench::node("a").joined().leading();
    a.resign(1);
    a.fail("resign", ErrorKind::Unreachable);
    a.advance(secs(15));
    a.expect_only(&["reply"], &["reply 1: done"]);
}
