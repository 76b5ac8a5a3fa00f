//! The user stops the node.

use super::bench::{Bench, ms, secs};
use crate::{event::StopReason, machine::Phase, outcome::Outcome, store::ErrorKind};

#[test]
fn a_stopping_node_leaves_and_then_revokes_its_lease() {
    let mut a = Bench::node("a").joined().leading().stable();
    a.stop();
    a.expect(&["unwatch", "leave"]);
    assert_eq!((a.status().phase, a.is_leader()), (Phase::Leaving, false));
    a.ok("leave");
    a.expect(&["revoke 1"]);
    assert!(!a.machine.is_given_back());
    a.ok("revoke");
    assert!(a.machine.is_given_back());
    a.expect(&["unwatch", "* stopped: it was asked to stop", "stopped: it was asked to stop"]);
    assert_eq!(a.status().phase, Phase::Stopped(StopReason::Asked));
    assert_eq!(a.machine.next_wakeup(), None);
    a.tick();
    a.stop();
    a.expect(&[]);
}

#[test]
fn a_node_that_was_never_driven_stops_immediately() {
    let mut a = Bench::node("a");
    a.stop();
    a.expect(&["* stopped: it was asked to stop", "stopped: it was asked to stop"]);
}

#[test]
fn a_stopping_node_waits_for_running_callbacks() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.stop();
    b.expect(&["supersede", "* stabilize of V1 superseded", "leave"]);
    b.ok("leave");
    b.expect(&["revoke 2"]);
    b.ok("revoke");
    b.expect(&[]);
    b.stabilized(Outcome::Ready);
    b.expect_only(&["stopped", "acknowledge"], &["stopped: it was asked to stop"]);
}

#[test]
fn a_revoke_is_retried_until_the_stop_timeout() {
    let mut a = Bench::node("a").joined().leading().stable();
    a.stop();
    let end = a.now + secs(5);
    a.fail("leave", ErrorKind::Unreachable);
    while a.now < end && a.is_open("revoke") {
        a.fail("revoke", ErrorKind::Unreachable);
        let pause = a.wakes_in().unwrap();
        a.wait(pause);
    }
    assert_eq!(a.now, end);
    assert_eq!(a.status().phase, Phase::Stopped(StopReason::Asked));
}

#[test]
fn a_stopping_node_waits_for_a_callback_until_the_stop_timeout() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.stop();
    b.ok("leave");
    b.ok("revoke");
    b.skip();
    b.wait(ms(4_999));
    b.expect(&[]);
    b.wait(ms(1));
    b.expect_only(&["stopped"], &["stopped: it was asked to stop"]);
}

#[test]
fn a_stopping_node_commits_and_starts_nothing() {
    let mut a = Bench::node("a").joined().leading();
    a.stop();
    a.skip();
    a.request_version(1, "late");
    a.joins("b");
    a.requests("ops");
    a.delete("view/leader");
    a.wait(secs(1));
    a.expect_only(&["publish", "elect", "confirm", "request", "stabilize", "announce", "read", "grant"], &[]);
}

#[test]
fn pending_requests_fail_when_the_node_stops() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.update(1, "x");
    b.request_version(2, "why");
    b.stabilized(Outcome::Ready);
    b.stop();
    b.resign(3);
    b.unregister(4);
    b.ok("leave");
    b.ok("revoke");
    b.expect_only(
        &["reply"],
        &[
            "reply 3: this node does not lead: ask the leader, or wait until this node leads",
            "reply 2: the node has ended: it was asked to stop",
            "reply 1: the node has ended: it was asked to stop",
            "reply 4: the node has ended: it was asked to stop",
        ],
    );
}

#[test]
fn an_aborted_node_stops_without_revoking_its_lease() {
    let mut a = Bench::node("a").joined().leading();
    a.machine.abort();
    assert_eq!(a.status().phase, Phase::Stopped(StopReason::Aborted));
    assert_eq!((a.is_leader(), a.machine.next_wakeup()), (false, None));
    assert!(!a.machine.is_given_back());
    a.request_version(1, "late");
    a.expect_only(
        &["reply"],
        &["reply 1: the node has ended: its task was aborted: the runtime was shut down, or the store panicked"],
    );
}

#[test]
fn aborting_a_stopped_node_does_not_change_its_stop_reason() {
    let mut a = Bench::node("a");
    a.stop();
    a.machine.abort();
    assert_eq!(a.status().phase, Phase::Stopped(StopReason::Asked));
}

#[test]
fn an_observer_stops_immediately() {
    let mut o = Bench::observer().joined();
    o.stop();
    o.expect(&["unwatch", "* stopped: it was asked to stop", "stopped: it was asked to stop"]);
}
