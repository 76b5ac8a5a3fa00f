//! The user gives the node's place up, and follows on.

use super::bench::{Bench, secs};
use crate::{machine::Phase, store::ErrorKind};

#[test]
fn it_is_answered_once_the_lease_is_given_back() {
    let mut a = Bench::node("a").joined().leading().stable();
    a.unregister(1);
    a.expect(&["unwatch", "leave"]);
    assert_eq!((a.status().phase, a.is_leader()), (Phase::Observing, false));
    a.ok("leave");
    a.expect(&["revoke 1"]);
    a.deliver();
    a.expect(&["* a is gone: it left", "* nobody leads"]);
    a.ok("revoke");
    a.expect(&["* unregistered", "reply 1: done"]);
    a.wait(secs(60));
    a.expect(&[]);
}

#[test]
fn a_running_stabilize_is_superseded() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.unregister(1);
    b.expect(&["supersede", "* stabilize of V1 superseded", "leave"]);
    b.stabilized(crate::Outcome::Ready);
    b.expect(&[]);
}

#[test]
fn a_grant_on_its_way_is_given_back() {
    let mut a = Bench::node("a");
    a.tick();
    a.unregister(1);
    a.skip();
    a.ok("grant");
    a.expect(&["revoke 1"]);
    a.ok("revoke");
    a.expect(&["* unregistered", "reply 1: done"]);
}

#[test]
fn a_grant_that_fails_meanwhile_leaves_nothing_to_be_away_for() {
    let mut a = Bench::node("a");
    a.tick();
    a.ok("read");
    a.ok("watch");
    a.fail("grant", ErrorKind::Unreachable);
    a.wait(secs(1));
    a.unregister(1);
    a.fail("grant", ErrorKind::Unreachable);
    assert_eq!(a.status().stale_since, None);
    a.expect_only(&["reply"], &["reply 1: done"]);
}

#[test]
fn a_place_that_was_never_taken_is_given_up_at_once() {
    let mut b = Bench::node("b").with(&["b"]).joined();
    b.unregister(1);
    b.expect(&["revoke 2"]);
    b.ok("revoke");
    b.expect(&["* unregistered", "reply 1: done"]);
    b.ends("b");
    b.expect(&["* b is gone: its session ended"]);
}

#[test]
fn p10_a_place_that_is_given_up_is_told_of_although_nobody_waits() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.unregister(1);
    b.abandon(&[1]);
    b.answer_all();
    b.expect_only(&["* unregistered", "reply"], &["* unregistered"]);
}

#[test]
fn an_observer_has_no_place() {
    let mut o = Bench::observer();
    o.unregister(1);
    o.expect_only(&["reply"], &["reply 1: this process only observes: it has no name to register"]);
}
