//! A commit was answered: it succeeded, failed, or its outcome is unknown.
//!
//! The log shows what happened. The reply only decides when to try again.

use std::time::Duration;

use super::bench::{Bench, ms, secs};
use crate::{
    event::{Event, StoreCall},
    machine::{Output, Phase},
    store::{ErrorKind, Revision, StoreError},
};

/// Returns a machine that has just sent a commit with this purpose.
fn in_flight(purpose: &str) -> Bench {
    let follower = || Bench::node("b").with(&["a"]).joined().led_by("a");
    let leader = || Bench::node("a").joined().leading().stable().after(secs(2));
    let start = |mut b: Bench| {
        b.tick();
        b.ok("grant");
        b.ok("read");
        b.ok("watch");
        b
    };
    let mut bench = match purpose {
        "join" => start(Bench::node("b").with(&["a"]).led_by("a")),
        "take over" => {
            let mut b = Bench::node("b").with(&["a"]).led_by("a");
            b.put("view/nodes/b", "garbage");
            start(b)
        }
        "rewrite" => {
            let mut b = follower();
            b.update(1, "x");
            b
        }
        "request" => {
            let mut b = follower();
            b.request_version(1, "why");
            b
        }
        "elect" => {
            let mut b = Bench::node("b").with(&["a"]).joined();
            b.wait(ms(50));
            b
        }
        "publish" => {
            let mut a = leader();
            a.joins("b");
            a
        }
        "acknowledge" => {
            let mut b = follower();
            b.stabilized(crate::Outcome::Ready);
            b
        }
        "confirm" => {
            let mut a = leader();
            a.delete("view/stable");
            a
        }
        "evict" => {
            let mut a = Bench::evicting("a").joined().leading().stable().after(secs(2));
            a.joins("b");
            a.answer_all();
            a = a.acknowledged();
            a.wait(secs(10));
            a
        }
        "resign" => {
            let mut a = leader();
            a.resign(1);
            a
        }
        _ => unreachable!(),
    };
    assert!(bench.is_open(purpose));
    bench.skip();
    bench
}

const ALL: [&str; 10] = [
    "join",
    "take over",
    "rewrite",
    "request",
    "elect",
    "publish",
    "acknowledge",
    "confirm",
    "evict",
    "resign",
];

#[test]
fn a_successful_commit_whose_reply_was_lost_is_not_repeated() {
    for purpose in ALL {
        let mut bench = in_flight(purpose);
        bench.lose(purpose);
        bench.deliver();
        bench.collect(purpose, &mut Vec::new());
        bench.wait(secs(2));
        let mut again = Vec::new();
        bench.collect(purpose, &mut again);
        // Only the leader watches acknowledgements. The node repeats its acknowledgement, and reads it when the guard
        // fails.
        assert_eq!(again.len(), usize::from(purpose == "acknowledge"), "{purpose}: {again:?}");
    }
}

#[test]
fn p8_a_successful_commit_that_a_restored_store_lost_is_repeated() {
    // The watch had not delivered the commit yet, so it resumes without reporting the restore.
    for purpose in ALL.into_iter().filter(|purpose| *purpose != "acknowledge") {
        let mut bench = in_flight(purpose);
        let before = bench.store.revision;
        bench.unseen(|bench| bench.ok(purpose));
        bench.store.rewind(before);
        bench.disconnects("view/");
        bench.wait(ms(100));
        bench.ok("watch view/");
        bench.skip();
        bench.wait(secs(4));
        assert!(!bench.is_open(purpose), "{purpose}: repeated although the log may only be slow");
        bench.wait(secs(1));
        assert!(bench.is_open(purpose), "{purpose} is not repeated");
        bench.ok(purpose);
        bench.deliver();
        bench.skip();
        bench.wait(secs(6));
        let mut again = Vec::new();
        bench.collect(purpose, &mut again);
        assert!(again.is_empty(), "{purpose}: repeated again, {again:?}");
    }
}

#[test]
fn a_failed_commit_is_repeated_with_backoff() {
    for purpose in ALL {
        for kind in [ErrorKind::Unreachable, ErrorKind::OutcomeUnknown, ErrorKind::Busy] {
            let mut bench = in_flight(purpose);
            for whole in [100, 200, 400] {
                bench.fail(purpose, kind);
                assert!(!bench.is_open(purpose), "{purpose} {kind:?}: repeated immediately");
                let pause = bench.wait_for(purpose);
                assert!((ms(whole * 3 / 4)..=ms(whole)).contains(&pause), "{purpose} {kind:?}: {pause:?}");
            }
            bench.ok(purpose);
            bench.deliver();
            bench.skip();
            bench.wait(secs(2));
            let mut again = Vec::new();
            bench.collect(purpose, &mut again);
            assert!(again.is_empty(), "{purpose}: {again:?}");
        }
    }
}

#[test]
fn a_commit_that_needs_operator_action_is_reported_and_rarely_retried() {
    for purpose in ALL {
        for kind in [ErrorKind::Refused, ErrorKind::Invalid] {
            let mut bench = in_flight(purpose);
            bench.fail(purpose, kind);
            let mut reports = Vec::new();
            bench.collect("* operator action needed", &mut reports);
            assert_eq!(reports.len(), 1, "{purpose} {kind:?}");
            bench.wait(ms(3_700));
            assert!(!bench.is_open(purpose), "{purpose} {kind:?}");
            bench.wait(ms(1_300));
            assert!(bench.is_open(purpose), "{purpose} {kind:?}");
        }
    }
}

/// Returns the call that events name for this purpose.
fn call(purpose: &str) -> StoreCall {
    match purpose {
        "join" | "take over" => StoreCall::Join,
        "rewrite" => StoreCall::Rewrite,
        "request" => StoreCall::RequestVersion,
        "elect" => StoreCall::Elect,
        "publish" => StoreCall::Publish,
        "acknowledge" => StoreCall::Acknowledge,
        "confirm" => StoreCall::Confirm,
        "evict" => StoreCall::Evict,
        "resign" => StoreCall::Resign,
        other => panic!("{other}"),
    }
}

/// Lets the commit fail repeatedly for this time.
fn keeps_failing(bench: &mut Bench, purpose: &str, kind: ErrorKind, time: Duration) {
    let end = bench.now + time;
    while bench.now < end {
        if bench.is_open(purpose) {
            bench.fail(purpose, kind);
        }
        if bench.is_open("read ready/b") {
            bench.ok("read ready/b");
        }
        bench.wait(ms(100));
    }
}

/// Returns the events about failing and recovered calls since the last check.
fn failure_events(bench: &mut Bench) -> Vec<String> {
    let mut events = Vec::new();
    for output in std::mem::take(&mut bench.outputs) {
        if let Output::Event(event @ (Event::CallFailing { .. } | Event::CallRecovered { .. })) = output {
            events.push(event.to_string());
        }
    }
    events
}

#[test]
fn p10_a_commit_that_keeps_failing_is_reported_once_and_so_is_its_recovery() {
    let guard = ErrorKind::GuardFailed { revision: Revision::new(1) };
    for purpose in ALL {
        for kind in [
            ErrorKind::Unreachable,
            ErrorKind::OutcomeUnknown,
            ErrorKind::Busy,
            ErrorKind::Refused,
            ErrorKind::Invalid,
            guard,
        ] {
            let (mut bench, what) = (in_flight(purpose), call(purpose));
            let since = bench.now;
            keeps_failing(&mut bench, purpose, kind, ms(29_900));
            assert_eq!(failure_events(&mut bench), [""; 0], "{purpose} {kind:?}: reported too early");
            assert_eq!(bench.status().failing, []);
            keeps_failing(&mut bench, purpose, kind, secs(60));
            let error = StoreError::new(kind, "injected by the test").to_string();
            let failing = format!("{what} has been failing for 30s and is being retried: {error}");
            assert_eq!(failure_events(&mut bench), [failing], "{purpose} {kind:?}");
            let status = bench.status().failing;
            assert_eq!(
                (status.len(), status[0].call, status[0].since),
                (1, what, since),
                "{purpose} {kind:?}"
            );
            assert_eq!(status[0].reason, error);
            while !bench.is_open(purpose) {
                bench.wait(ms(10));
                if bench.is_open("read ready/b") {
                    bench.ok("read ready/b");
                }
            }
            let failed = bench.now.since(since);
            bench.ok(purpose);
            let recovered = format!("{what} no longer fails, after {failed:?}");
            assert_eq!(failure_events(&mut bench), [recovered], "{purpose} {kind:?}");
            assert_eq!(bench.status().failing, []);
        }
    }
}

#[test]
fn p10_a_commit_that_fails_now_and_then_is_not_reported() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    for round in 0..20 {
        a.request_version(round, "again");
        a.fail("publish", ErrorKind::Busy);
        a.wait(secs(6));
        a.answer_all();
        assert!(a.status().failing.is_empty());
        a = a.acknowledged();
    }
    assert_eq!(failure_events(&mut a), [""; 0]);
}

#[test]
fn p10_the_end_of_a_failure_is_reported_when_the_commit_is_no_longer_needed() {
    let mut a = in_flight("publish");
    keeps_failing(&mut a, "publish", ErrorKind::Busy, secs(31));
    assert_eq!(failure_events(&mut a).len(), 1);
    a.delete("view/leader");
    a.wait(secs(5));
    assert_eq!(failure_events(&mut a).len(), 1, "another node publishes from now on");
    assert_eq!(a.status().failing, []);
}

#[test]
fn p10_repeated_failures_to_grant_or_revoke_a_lease_are_reported() {
    let mut a = Bench::node("a");
    a.tick();
    keeps_failing(&mut a, "grant", ErrorKind::Busy, secs(31));
    let failing = "granting a lease has been failing for 30s and is being retried: the store is busy: injected by the test";
    assert_eq!(failure_events(&mut a), [failing]);
    a.wait_for("grant");
    a.ok("grant");
    assert_eq!(failure_events(&mut a).len(), 1, "the recovery is reported");

    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    b.delete("view/nodes/b");
    keeps_failing(&mut b, "revoke", ErrorKind::Refused, secs(31));
    let failing = "revoking an old lease has been failing for 30s and is being retried: the store refused: injected by the test";
    assert_eq!(failure_events(&mut b), [failing]);
    b.wait_for("revoke");
    b.ok("revoke");
    assert_eq!(failure_events(&mut b).len(), 1, "the recovery is reported");
}

#[test]
fn p10_repeated_failures_to_read_the_acknowledgements_are_reported() {
    let mut b = Bench::node("b").with(&["a"]).joined();
    b.wait(ms(50));
    // The node learns too late that it leads, and has to read the acknowledgements that arrived meanwhile.
    b.lose("elect");
    b.deliver();
    keeps_failing(&mut b, "read ready/", ErrorKind::Refused, secs(31));
    let failing = "watching the acknowledgements has been failing for 30s and is being retried: the store refused: injected by the test";
    assert_eq!(failure_events(&mut b), [failing]);
    b.wait_for("read ready/");
    b.ok("read ready/");
    b.ok("watch ready/");
    assert_eq!(failure_events(&mut b).len(), 1, "the recovery is reported");
}

#[test]
fn p7_any_commit_that_finds_the_lease_gone_ends_the_session() {
    for purpose in ["join", "take over", "rewrite", "elect", "acknowledge"] {
        let mut bench = in_flight(purpose);
        bench.fail(purpose, ErrorKind::LeaseNotFound);
        let mut revokes = Vec::new();
        bench.collect("revoke", &mut revokes);
        assert_eq!(revokes.len(), 1, "{purpose}");
        assert_eq!(bench.status().phase, Phase::Joining, "{purpose}");
        bench.answer_all();
        assert_eq!(bench.status().phase, Phase::Member, "{purpose}");
    }
}

#[test]
fn a_commit_whose_guard_failed_waits_for_news_in_the_log() {
    for purpose in ALL.into_iter().filter(|purpose| *purpose != "acknowledge") {
        let mut bench = in_flight(purpose);
        let revision = bench.store.revision;
        bench.fail(purpose, ErrorKind::GuardFailed { revision });
        bench.wait(ms(1_000));
        assert!(!bench.is_open(purpose), "{purpose}");
        // Any change in the log triggers another attempt.
        bench.put("view/something", "{}");
        assert!(bench.is_open(purpose), "{purpose}");
    }
}

#[test]
fn a_successful_commit_is_not_repeated_while_the_log_is_slow() {
    for purpose in ALL {
        let mut bench = in_flight(purpose);
        bench.ok(purpose);
        bench.skip();
        bench.wait(secs(4));
        let mut again = Vec::new();
        bench.collect(purpose, &mut again);
        assert!(again.is_empty(), "{purpose}: {again:?}");
    }
}

#[test]
fn p5_a_deposed_leader_cannot_publish() {
    let mut a = in_flight("publish");
    let version = a.newest();
    a.unseen(|a| {
        a.delete("view/leader");
        a.elects("b");
    });
    a.ok("publish");
    assert_ne!(a.newest(), version);
    a.deliver();
    a.wait(secs(60));
    a.expect_only(&["publish", "confirm"], &[]);
}

#[test]
fn p4_a_confirm_of_a_superseded_version_fails_and_is_not_repeated() {
    let mut a = in_flight("confirm");
    a.unseen(Bench::publishes);
    a.ok("confirm");
    a.skip();
    a.deliver();
    a.wait(secs(5));
    a.expect_only(&["confirm", "announce"], &[]);
}

#[test]
fn p7_a_join_that_lost_a_race_for_the_name_waits_until_it_is_free() {
    let mut b = in_flight("join");
    b.unseen(|b| b.joins("b"));
    b.ok("join");
    b.expect(&[]);
    b.deliver();
    b.expect_only(
        &["* the name"],
        &["* the name is held by the process at http://other-b; waiting until it is free"],
    );
}

#[test]
fn p4_a_late_repeat_of_an_older_acknowledgement_changes_nothing() {
    let mut b = in_flight("acknowledge");
    let late = b.txn("acknowledge").clone();
    b.drop_call("acknowledge");
    b.publishes();
    b.stabilized(crate::Outcome::Ready);
    b.ok("acknowledge V2");
    assert_eq!(
        b.store.commit(&late).unwrap_err().kind(),
        ErrorKind::GuardFailed { revision: b.store.revision }
    );
}

#[test]
fn p8_a_node_reads_its_acknowledgement_if_its_reply_was_lost() {
    let mut b = in_flight("acknowledge");
    b.lose("acknowledge");
    b.wait(ms(100));
    b.ok("acknowledge");
    b.expect(&["acknowledge V1", "read ready/b"]);
    b.ok("read ready/b");
    b.expect(&["* ready at V1"]);
    assert!(b.status().acknowledged.is_some());
}

#[test]
fn p8_an_older_acknowledgement_of_unknown_outcome_is_read_and_overwritten() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.stabilized(crate::Outcome::refused("disk full"));
    b.lose("acknowledge V1 failed");
    b.wait(ms(60));
    b.publishes();
    b.stabilized(crate::Outcome::Ready);
    b.skip();
    b.ok("acknowledge V2");
    b.expect(&["read ready/b"]);
    b.ok("read ready/b");
    b.expect(&["acknowledge V2"]);
    b.ok("acknowledge V2");
    b.expect(&["* ready at V2"]);
}

#[test]
fn p8_a_failed_read_of_the_nodes_own_acknowledgement_is_repeated() {
    let mut b = in_flight("acknowledge");
    b.lose("acknowledge");
    b.wait(ms(100));
    b.ok("acknowledge");
    b.fail("read ready/b", ErrorKind::Unreachable);
    b.skip();
    b.wait(ms(400));
    b.expect(&["read ready/b"]);
    b.ok("read ready/b");
    b.expect(&["* ready at V1"]);
}

#[test]
fn p4_a_failed_acknowledgement_of_a_superseded_version_is_not_repeated() {
    let mut b = in_flight("acknowledge");
    b.unseen(Bench::publishes);
    b.ok("acknowledge");
    // The log has not shown the newer version yet, so the node reads its acknowledgement.
    b.expect(&["read ready/b"]);
    b.ok("read ready/b");
    b.deliver();
    b.expect_only(&["acknowledge", "stabilize"], &["stabilize V2 of a b after V1"]);
    b.stabilized(crate::Outcome::Ready);
    b.expect_only(&["acknowledge"], &["acknowledge V2"]);
}

#[test]
fn the_result_of_a_commit_from_an_ended_session_is_ignored() {
    let mut b = in_flight("elect");
    b.advance(secs(15));
    b.skip();
    b.fail("elect", ErrorKind::LeaseNotFound);
    b.expect(&[]);
}
