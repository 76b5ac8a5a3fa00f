//! The user unregisters the node, which then only observes.

use super::bench::{Bench, secs};
use crate::{machine::Phase, store::ErrorKind};

#[test]
fn an_unregister_request_succeeds_once_the_lease_is_revoked() {
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
fn unregistering_supersedes_a_running_stabilize() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.unregister(1);
    b.expect(&["supersede", "* stabilize of V1 superseded", "leave"]);
    b.stabilized(crate::Outcome::Ready);
    b.expect(&[]);
}

#[test]
fn a_lease_granted_after_unregistering_is_revoked() {
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
fn a_grant_that_fails_after_unregistering_does_not_count_as_an_outage() {
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
fn a_node_that_never_joined_only_revokes_its_lease() {
    let mut b = Bench::node("b").with(&["b"]).joined();
    b.unregister(1);
    b.expect(&["revoke 2"]);
    b.ok("revoke");
    b.expect(&["* unregistered", "reply 1: done"]);
    b.ends("b");
    b.expect(&["* b is gone: its session ended"]);
}

#[test]
fn p10_unregistering_is_reported_even_if_the_request_was_cancelled() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.unregister(1);
    b.abandon(&[1]);
    b.answer_all();
    b.expect_only(&["* unregistered", "reply"], &["* unregistered"]);
}

#[test]
fn unregistering_an_observer_fails() {
    let mut o = Bench::observer();
    o.unregister(1);
    o.expect_only(&["reply"], &["reply 1: this process only observes: it has no name to register"]);
}
