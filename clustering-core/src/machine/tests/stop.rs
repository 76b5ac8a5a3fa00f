//! The user ends the node.

use super::bench::{Bench, ms, secs};
use crate::{event::StopReason, machine::Phase, outcome::Outcome, store::ErrorKind};

#[test]
fn stop_is_leave_alone() {
    let mut a = Bench::node("a").joined().leading().stable();
    a.stop();
    a.says(&["unwatch", "leave"]);
    assert_eq!((a.status().phase, a.is_leader()), (Phase::Leaving, false));
    a.ok("leave");
    a.says(&["revoke 1"]);
    assert!(!a.machine.is_given_back());
    a.ok("revoke");
    assert!(a.machine.is_given_back());
    a.says(&["unwatch", "* stopped: it was asked to stop", "stopped: it was asked to stop"]);
    assert_eq!(a.status().phase, Phase::Stopped(StopReason::Asked));
    assert_eq!(a.machine.next_wakeup(), None);
    a.tick();
    a.stop();
    a.says(&[]);
}

#[test]
fn a_node_that_was_never_driven_ends_at_once() {
    let mut a = Bench::node("a");
    a.stop();
    a.says(&["* stopped: it was asked to stop", "stopped: it was asked to stop"]);
}

#[test]
fn it_waits_for_callbacks_that_run() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.stop();
    b.says(&["supersede", "* stabilize of V1 superseded", "leave"]);
    b.ok("leave");
    b.says(&["revoke 2"]);
    b.ok("revoke");
    b.says(&[]);
    b.stabilized(Outcome::Ready);
    b.says_of(&["stopped", "acknowledge"], &["stopped: it was asked to stop"]);
}

#[test]
fn a_store_that_does_not_answer_is_asked_until_the_timeout() {
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
fn a_callback_that_does_not_end_is_waited_for_until_the_timeout() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.stop();
    b.ok("leave");
    b.ok("revoke");
    b.skip();
    b.wait(ms(4_999));
    b.says(&[]);
    b.wait(ms(1));
    b.says_of(&["stopped"], &["stopped: it was asked to stop"]);
}

#[test]
fn nothing_is_committed_or_begun_while_it_ends() {
    let mut a = Bench::node("a").joined().leading();
    a.stop();
    a.skip();
    a.ask(1, "late");
    a.joins("b");
    a.asks("ops");
    a.delete("view/leader");
    a.wait(secs(1));
    a.says_of(&["publish", "elect", "confirm", "ask", "stabilize", "announce", "read", "grant"], &[]);
}

#[test]
fn what_waits_is_refused() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.update(1, "x");
    b.ask(2, "why");
    b.stabilized(Outcome::Ready);
    b.stop();
    b.resign(3);
    b.unregister(4);
    b.ok("leave");
    b.ok("revoke");
    b.says_of(
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
fn a_node_that_nobody_drives_any_more_has_ended_as_it_is() {
    let mut a = Bench::node("a").joined().leading();
    a.machine.abort();
    assert_eq!(a.status().phase, Phase::Stopped(StopReason::Aborted));
    assert_eq!((a.is_leader(), a.machine.next_wakeup()), (false, None));
    assert!(!a.machine.is_given_back());
    a.ask(1, "late");
    a.says_of(
        &["reply"],
        &["reply 1: the node has ended: its task was aborted: the runtime was shut down, or the store panicked"],
    );
}

#[test]
fn one_that_has_ended_ended_for_that_reason_whatever_comes_later() {
    let mut a = Bench::node("a");
    a.stop();
    a.machine.abort();
    assert_eq!(a.status().phase, Phase::Stopped(StopReason::Asked));
}

#[test]
fn an_observer_ends_at_once() {
    let mut o = Bench::observer().joined();
    o.stop();
    o.says(&["unwatch", "* stopped: it was asked to stop", "stopped: it was asked to stop"]);
}
