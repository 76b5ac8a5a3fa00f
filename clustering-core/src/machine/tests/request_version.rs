//! The user requests a new version.

use super::bench::{Bench, secs};
use crate::store::{ErrorKind, Revision, WatchEnd};

#[test]
fn the_leader_publishes_immediately_and_replies_with_the_version() {
    let mut a = Bench::node("a").joined().leading();
    // Requests of the leader's own service are never delayed, not even right after another version.
    a.request_version(1, "rebalance");
    a.expect(&["publish V2: a asked (rebalance)"]);
    a.ok("publish");
    a.expect(&[]);
    a.deliver();
    a.expect_only(&["reply"], &["reply 1: V2"]);
}

#[test]
fn a_follower_writes_a_request_and_replies_once_a_version_is_published() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.request_version(1, "rebalance");
    b.expect(&["request: b, rebalance"]);
    b.ok("request");
    b.deliver();
    b.expect(&[]);
    b.publishes();
    b.expect_only(&["reply"], &["reply 1: V2"]);
}

#[test]
fn two_requests_share_one_version() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.request_version(1, "one");
    b.request_version(2, "two");
    b.answer_all();
    b.publishes();
    b.expect_only(&["request", "reply"], &["request: b, one", "reply 1: V2", "reply 2: V2"]);
}

#[test]
fn a_pending_request_of_another_client_is_reused() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.requests("ops");
    b.request_version(1, "rebalance");
    b.expect(&[]);
    b.publishes();
    b.expect_only(&["reply"], &["reply 1: V2"]);
}

#[test]
fn a_version_published_while_the_request_is_in_flight_fulfils_it() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.request_version(1, "rebalance");
    b.unseen(Bench::publishes);
    b.skip();
    b.ok("request");
    b.expect(&[]);
    b.deliver();
    b.expect_only(&["request", "reply"], &["reply 1: V2"]);
}

#[test]
fn an_observer_can_request_a_version() {
    let mut o = Bench::observer().with(&["a"]).joined().led_by("a");
    o.request_version(1, "ops");
    o.expect(&["request: observer, ops"]);
}

#[test]
fn without_a_leader_the_next_election_fulfils_the_request() {
    let mut b = Bench::node("b").with(&["a"]).joined();
    b.request_version(1, "rebalance");
    b.answer_all();
    b.skip();
    b.elects("a");
    b.expect_only(&["reply"], &["reply 1: V1"]);
}

#[test]
fn a_request_made_before_the_log_was_read_is_sent_afterwards() {
    let mut o = Bench::observer().with(&["a"]).led_by("a");
    o.request_version(1, "early");
    o.answer_all();
    o.expect_only(&["request", "reply"], &["request: observer, early"]);
    o.publishes();
    o.expect_only(&["reply"], &["reply 1: V2"]);
}

#[test]
fn a_version_that_was_only_seen_in_a_snapshot_fulfils_the_request() {
    let mut o = Bench::observer().with(&["a"]).joined().led_by("a");
    o.request_version(1, "ops");
    o.answer_all();
    o.unseen(Bench::publishes);
    o.store.compact();
    o.watch_ends("view/", WatchEnd::Compacted { compacted: o.store.revision });
    o.skip();
    o.answer_all();
    o.expect_only(&["request", "reply"], &["reply 1: V2"]);
}

#[test]
fn p9_a_request_pending_during_a_rewind_leads_to_one_version_only() {
    let mut a = Bench::node("a");
    for _ in 0..20 {
        a.joins("x");
        a.ends("x");
    }
    let mut a = a.joined().leading();
    a.request_version(1, "rebalance");
    a.fail("publish", ErrorKind::Unreachable);
    a.store.rewind(Revision::new(2));
    a.watch_ends("view/", WatchEnd::Rewound { revision: Revision::new(2) });
    a.skip();
    a.answer_all();
    // V2 was never written to the store.
    let elected = "elect V3: a was elected, a joined, a asked (rebalance)";
    a.expect_only(&["elect", "publish", "reply"], &[elected, "reply 1: V3"]);
    a.wait(secs(10));
    a.expect_only(&["publish"], &[]);
}

/// While the store is away, a service may request a version repeatedly, and cancel each request.
#[test]
fn cancelled_requests_do_not_accumulate() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    let size = |b: &Bench| format!("{:?}", b.machine).len();
    b.request_version(0, "first");
    b.fail("request", ErrorKind::Unreachable);
    b.abandon(&[0]);
    b.skip();
    let before = size(&b);
    for id in 1..1_000 {
        b.request_version(id, "again");
        b.update(id + 10_000, "x");
        b.abandon(&[id, id + 10_000]);
    }
    assert!(size(&b) < before + 1_000, "{} bytes after {before}", size(&b));
    // The request is kept, and callers that still wait get a reply.
    b.request_version(1_000, "kept");
    b.abandon(&[]);
    b.wait(secs(10));
    b.answer_all();
    b.publishes();
    b.expect_only(&["reply"], &["reply 1000: V2"]);
}

#[test]
fn a_cancelled_request_is_still_sent() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.request_version(1, "rebalance");
    b.fail("request", ErrorKind::Unreachable);
    b.abandon(&[1]);
    b.skip();
    b.wait(secs(10));
    b.expect(&["request: b, rebalance"]);
    b.answer_all();
    b.publishes();
    b.skip();
    b.wait(secs(60));
    b.expect_only(&["request", "reply"], &[]);
}

#[test]
fn pending_and_later_requests_fail_when_the_node_stops() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.request_version(1, "rebalance");
    b.stop();
    b.request_version(2, "late");
    b.stabilized(crate::Outcome::Ready);
    b.ok("leave");
    b.ok("revoke");
    b.request_version(3, "after the stop");
    b.expect_only(
        &["reply"],
        &[
            "reply 1: the node has ended: it was asked to stop",
            "reply 2: the node has ended: it was asked to stop",
            "reply 3: the node has ended: it was asked to stop",
        ],
    );
}
