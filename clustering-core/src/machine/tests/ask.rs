//! The user asks for a new version.

use super::bench::{Bench, secs};
use crate::store::{ErrorKind, Revision, WatchEnd};

#[test]
fn the_leader_publishes_at_once_and_answers_with_the_version() {
    let mut a = Bench::node("a").joined().leading();
    // Not even a row of changes makes it wait.
    a.ask(1, "rebalance");
    a.says(&["publish V2: a asked (rebalance)"]);
    a.ok("publish");
    a.says(&[]);
    a.deliver();
    a.says_of(&["reply"], &["reply 1: V2"]);
}

#[test]
fn another_node_writes_a_request() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.ask(1, "rebalance");
    b.says(&["ask: b, rebalance"]);
    b.ok("ask");
    b.deliver();
    b.says(&[]);
    b.publishes();
    b.says_of(&["reply"], &["reply 1: V2"]);
}

#[test]
fn two_who_ask_get_one_version() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.ask(1, "one");
    b.ask(2, "two");
    b.answer_all();
    b.publishes();
    b.says_of(&["ask", "reply"], &["ask: b, one", "reply 1: V2", "reply 2: V2"]);
}

#[test]
fn a_request_of_somebody_else_serves_as_well() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.asks("ops");
    b.ask(1, "rebalance");
    b.says(&[]);
    b.publishes();
    b.says_of(&["reply"], &["reply 1: V2"]);
}

#[test]
fn a_request_that_a_version_overtook_is_granted_by_it() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.ask(1, "rebalance");
    b.unseen(Bench::publishes);
    b.skip();
    b.ok("ask");
    b.says(&[]);
    b.deliver();
    b.says_of(&["ask", "reply"], &["reply 1: V2"]);
}

#[test]
fn an_observer_may_ask() {
    let mut o = Bench::observer().with(&["a"]).joined().led_by("a");
    o.ask(1, "ops");
    o.says(&["ask: observer, ops"]);
}

#[test]
fn while_nobody_leads_the_next_election_grants_it() {
    let mut b = Bench::node("b").with(&["a"]).joined();
    b.ask(1, "rebalance");
    b.answer_all();
    b.skip();
    b.elects("a");
    b.says_of(&["reply"], &["reply 1: V1"]);
}

#[test]
fn what_was_asked_before_the_log_was_read_is_not_forgotten() {
    let mut o = Bench::observer().with(&["a"]).led_by("a");
    o.ask(1, "early");
    o.answer_all();
    o.says_of(&["ask", "reply"], &["ask: observer, early"]);
    o.publishes();
    o.says_of(&["reply"], &["reply 1: V2"]);
}

#[test]
fn a_version_that_was_missed_grants_it_too() {
    let mut o = Bench::observer().with(&["a"]).joined().led_by("a");
    o.ask(1, "ops");
    o.answer_all();
    o.unseen(Bench::publishes);
    o.store.compact();
    o.watch_ends("view/", WatchEnd::Compacted { compacted: o.store.revision });
    o.skip();
    o.answer_all();
    o.says_of(&["ask", "reply"], &["reply 1: V2"]);
}

#[test]
fn p9_a_rewind_does_not_make_the_leader_publish_without_end() {
    let mut a = Bench::node("a");
    for _ in 0..20 {
        a.joins("x");
        a.ends("x");
    }
    let mut a = a.joined().leading();
    a.ask(1, "rebalance");
    a.fail("publish", ErrorKind::Unreachable);
    a.store.rewind(Revision::new(2));
    a.watch_ends("view/", WatchEnd::Rewound { revision: Revision::new(2) });
    a.skip();
    a.answer_all();
    // V2 is the one that never got there.
    let elected = "elect V3: a was elected, a joined, a asked (rebalance)";
    a.says_of(&["elect", "publish", "reply"], &[elected, "reply 1: V3"]);
    a.wait(secs(10));
    a.says_of(&["publish"], &[]);
}

/// While the store is away, a service may request a version repeatedly, and cancel each request.
#[test]
fn requests_that_were_dropped_are_one_wish_and_do_not_pile_up() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    let size = |b: &Bench| format!("{:?}", b.machine).len();
    b.ask(0, "first");
    b.fail("ask", ErrorKind::Unreachable);
    b.abandon(&[0]);
    b.skip();
    let before = size(&b);
    for id in 1..1_000 {
        b.ask(id, "again");
        b.update(id + 10_000, "x");
        b.abandon(&[id, id + 10_000]);
    }
    assert!(size(&b) < before + 1_000, "{} bytes after {before}", size(&b));
    // The request is kept, and callers that still wait get an answer.
    b.ask(1_000, "kept");
    b.abandon(&[]);
    b.wait(secs(10));
    b.answer_all();
    b.publishes();
    b.says_of(&["reply"], &["reply 1000: V2"]);
}

#[test]
fn a_wish_that_nobody_waits_for_any_more_is_granted_all_the_same() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.ask(1, "rebalance");
    b.fail("ask", ErrorKind::Unreachable);
    b.abandon(&[1]);
    b.skip();
    b.wait(secs(10));
    b.says(&["ask: b, rebalance"]);
    b.answer_all();
    b.publishes();
    b.skip();
    b.wait(secs(60));
    b.says_of(&["ask", "reply"], &[]);
}

#[test]
fn a_node_that_ends_refuses_what_it_was_asked() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.ask(1, "rebalance");
    b.stop();
    b.ask(2, "late");
    b.stabilized(crate::Outcome::Ready);
    b.ok("leave");
    b.ok("revoke");
    b.ask(3, "after the end");
    b.says_of(
        &["reply"],
        &[
            "reply 1: the node has ended: it was asked to stop",
            "reply 2: the node has ended: it was asked to stop",
            "reply 3: the node has ended: it was asked to stop",
        ],
    );
}
