//! A commit was answered: done, refused, not done, or nobody knows.
//!
//! The log tells what happened, the reply only when to try again.

use std::time::Duration;

use super::bench::{Bench, ms, secs};
use crate::{
    event::{Event, StoreCall},
    machine::{Output, Phase},
    store::{ErrorKind, Revision, StoreError},
};

/// A state in which the machine has just sent one commit, for each purpose.
fn on_its_way(purpose: &str) -> Bench {
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
        "ask" => {
            let mut b = follower();
            b.ask(1, "why");
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

const ALL: [&str; 10] =
    ["join", "take over", "rewrite", "ask", "elect", "publish", "acknowledge", "confirm", "evict", "resign"];

#[test]
fn a_reply_that_was_lost_after_the_commit_applied_costs_nothing() {
    for purpose in ALL {
        let mut bench = on_its_way(purpose);
        bench.lose(purpose);
        bench.deliver();
        bench.says_if(purpose, &mut Vec::new());
        bench.wait(secs(2));
        let mut again = Vec::new();
        bench.says_if(purpose, &mut again);
        // An acknowledgement is watched by the leader alone: its node repeats it, and looks when it is refused.
        assert_eq!(again.len(), usize::from(purpose == "acknowledge"), "{purpose}: {again:?}");
    }
}

#[test]
fn p8_a_commit_that_a_restored_store_lost_is_repeated_though_it_was_done() {
    // The watch had not delivered the commit yet, so it resumes without reporting the restore.
    for purpose in ALL.into_iter().filter(|purpose| *purpose != "acknowledge") {
        let mut bench = on_its_way(purpose);
        let before = bench.store.revision;
        bench.unseen(|bench| bench.ok(purpose));
        bench.store.rewind(before);
        bench.disconnects("view/");
        bench.wait(ms(100));
        bench.ok("watch view/");
        bench.skip();
        bench.wait(secs(4));
        assert!(!bench.is_open(purpose), "{purpose}: the log may only be slow");
        bench.wait(secs(1));
        assert!(bench.is_open(purpose), "{purpose} is not repeated");
        bench.ok(purpose);
        bench.deliver();
        bench.skip();
        bench.wait(secs(6));
        let mut again = Vec::new();
        bench.says_if(purpose, &mut again);
        assert!(again.is_empty(), "{purpose}: once is enough, {again:?}");
    }
}

#[test]
fn a_commit_that_did_not_happen_is_repeated_with_growing_pauses() {
    for purpose in ALL {
        for kind in [ErrorKind::Unreachable, ErrorKind::OutcomeUnknown, ErrorKind::Busy] {
            let mut bench = on_its_way(purpose);
            for whole in [100, 200, 400] {
                bench.fail(purpose, kind);
                assert!(!bench.is_open(purpose), "{purpose} {kind:?}: not at once");
                let pause = bench.wait_for(purpose);
                assert!((ms(whole * 3 / 4)..=ms(whole)).contains(&pause), "{purpose} {kind:?}: {pause:?}");
            }
            bench.ok(purpose);
            bench.deliver();
            bench.skip();
            bench.wait(secs(2));
            let mut again = Vec::new();
            bench.says_if(purpose, &mut again);
            assert!(again.is_empty(), "{purpose}: {again:?}");
        }
    }
}

#[test]
fn what_the_store_refuses_for_good_is_reported_and_tried_seldom() {
    for purpose in ALL {
        for kind in [ErrorKind::Refused, ErrorKind::Invalid] {
            let mut bench = on_its_way(purpose);
            bench.fail(purpose, kind);
            let mut told = Vec::new();
            bench.says_if("* operator action needed", &mut told);
            assert_eq!(told.len(), 1, "{purpose} {kind:?}");
            bench.wait(ms(3_700));
            assert!(!bench.is_open(purpose), "{purpose} {kind:?}");
            bench.wait(ms(1_300));
            assert!(bench.is_open(purpose), "{purpose} {kind:?}");
        }
    }
}

/// Returns the call of that commit, as events name it.
fn call(purpose: &str) -> StoreCall {
    match purpose {
        "join" | "take over" => StoreCall::Join,
        "rewrite" => StoreCall::Rewrite,
        "ask" => StoreCall::RequestVersion,
        "elect" => StoreCall::Elect,
        "publish" => StoreCall::Publish,
        "acknowledge" => StoreCall::Acknowledge,
        "confirm" => StoreCall::Confirm,
        "evict" => StoreCall::Evict,
        "resign" => StoreCall::Resign,
        other => panic!("{other}"),
    }
}

/// Lets that commit fail repeatedly for that time.
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

fn told(bench: &mut Bench) -> Vec<String> {
    let mut told = Vec::new();
    for output in std::mem::take(&mut bench.said) {
        if let Output::Event(event @ (Event::CallFailing { .. } | Event::CallRecovered { .. })) = output {
            told.push(event.to_string());
        }
    }
    told
}

#[test]
fn p10_a_commit_that_keeps_failing_is_told_once_with_its_reason_and_again_when_it_works() {
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
            let (mut bench, what) = (on_its_way(purpose), call(purpose));
            let since = bench.now;
            keeps_failing(&mut bench, purpose, kind, ms(29_900));
            assert_eq!(told(&mut bench), [""; 0], "{purpose} {kind:?}: not yet");
            assert_eq!(bench.status().failing, []);
            keeps_failing(&mut bench, purpose, kind, secs(60));
            let error = StoreError::new(kind, "as the test has it").to_string();
            let failing = format!("{what} has been failing for 30s and is being retried: {error}");
            assert_eq!(told(&mut bench), [failing], "{purpose} {kind:?}");
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
            assert_eq!(told(&mut bench), [recovered], "{purpose} {kind:?}");
            assert_eq!(bench.status().failing, []);
        }
    }
}

#[test]
fn p10_a_commit_that_fails_now_and_then_is_not_told() {
    let mut a = Bench::node("a").joined().leading().stable().after(secs(2));
    for round in 0..20 {
        a.ask(round, "again");
        a.fail("publish", ErrorKind::Busy);
        a.wait(secs(6));
        a.answer_all();
        assert!(a.status().failing.is_empty());
        a = a.acknowledged();
    }
    assert_eq!(told(&mut a), [""; 0]);
}

#[test]
fn p10_a_failing_commit_that_is_no_longer_needed_is_told_too() {
    let mut a = on_its_way("publish");
    keeps_failing(&mut a, "publish", ErrorKind::Busy, secs(31));
    assert_eq!(told(&mut a).len(), 1);
    a.delete("view/leader");
    a.wait(secs(5));
    assert_eq!(told(&mut a).len(), 1, "another publishes");
    assert_eq!(a.status().failing, []);
}

#[test]
fn p10_a_lease_that_cannot_be_had_or_given_back_is_told() {
    let mut a = Bench::node("a");
    a.tick();
    keeps_failing(&mut a, "grant", ErrorKind::Busy, secs(31));
    let failing = "granting a lease has been failing for 30s and is being retried: the store is busy: as the test has it";
    assert_eq!(told(&mut a), [failing]);
    a.wait_for("grant");
    a.ok("grant");
    assert_eq!(told(&mut a).len(), 1, "it works again");

    let mut b = Bench::node("b").with(&["a"]).led_by("a").joined();
    b.delete("view/nodes/b");
    keeps_failing(&mut b, "revoke", ErrorKind::Refused, secs(31));
    let failing = "revoking an old lease has been failing for 30s and is being retried: the store refused: as the test has it";
    assert_eq!(told(&mut b), [failing]);
    b.wait_for("revoke");
    b.ok("revoke");
    assert_eq!(told(&mut b).len(), 1, "it works again");
}

#[test]
fn p10_a_leader_that_cannot_read_the_acknowledgements_says_so() {
    let mut b = Bench::node("b").with(&["a"]).joined();
    b.wait(ms(50));
    // It learns too late that it leads, and has to read the acknowledgements that arrived meanwhile.
    b.lose("elect");
    b.deliver();
    keeps_failing(&mut b, "read ready/", ErrorKind::Refused, secs(31));
    let failing = "watching the acknowledgements has been failing for 30s and is being retried: the store refused: as the test has it";
    assert_eq!(told(&mut b), [failing]);
    b.wait_for("read ready/");
    b.ok("read ready/");
    b.ok("watch ready/");
    assert_eq!(told(&mut b).len(), 1, "it works again");
}

#[test]
fn p7_a_lease_that_is_gone_ends_the_session_whichever_commit_finds_out() {
    for purpose in ["join", "take over", "rewrite", "elect", "acknowledge"] {
        let mut bench = on_its_way(purpose);
        bench.fail(purpose, ErrorKind::LeaseNotFound);
        let mut told = Vec::new();
        bench.says_if("revoke", &mut told);
        assert_eq!(told.len(), 1, "{purpose}");
        assert_eq!(bench.status().phase, Phase::Joining, "{purpose}");
        bench.answer_all();
        assert_eq!(bench.status().phase, Phase::Member, "{purpose}");
    }
}

#[test]
fn a_refused_guard_waits_for_the_log_to_tell_why() {
    for purpose in ALL.into_iter().filter(|purpose| *purpose != "acknowledge") {
        let mut bench = on_its_way(purpose);
        let revision = bench.store.revision;
        bench.fail(purpose, ErrorKind::GuardFailed { revision });
        bench.wait(ms(1_000));
        assert!(!bench.is_open(purpose), "{purpose}");
        // Anything new in the log, and it is looked at again.
        bench.put("view/something", "{}");
        assert!(bench.is_open(purpose), "{purpose}");
    }
}

#[test]
fn a_done_commit_is_not_repeated_before_the_log_has_it() {
    for purpose in ALL {
        let mut bench = on_its_way(purpose);
        bench.ok(purpose);
        bench.skip();
        bench.wait(secs(4));
        let mut again = Vec::new();
        bench.says_if(purpose, &mut again);
        assert!(again.is_empty(), "{purpose}: {again:?}");
    }
}

#[test]
fn p5_a_publish_of_a_deposed_leader_is_refused() {
    let mut a = on_its_way("publish");
    let version = a.newest();
    a.unseen(|a| {
        a.delete("view/leader");
        a.elects("b");
    });
    a.ok("publish");
    assert_ne!(a.newest(), version);
    a.deliver();
    a.wait(secs(60));
    a.says_of(&["publish", "confirm"], &[]);
}

#[test]
fn p4_a_confirm_that_a_newer_version_overtook_is_refused_and_dropped() {
    let mut a = on_its_way("confirm");
    a.unseen(Bench::publishes);
    a.ok("confirm");
    a.skip();
    a.deliver();
    a.wait(secs(5));
    a.says_of(&["confirm", "announce"], &[]);
}

#[test]
fn p7_a_join_that_found_the_name_taken_meets_whoever_took_it() {
    let mut b = on_its_way("join");
    b.unseen(|b| b.joins("b"));
    b.ok("join");
    b.says(&[]);
    b.deliver();
    b.says_of(
        &["* the name"],
        &["* the name is held by the process at http://other-b; waiting until it is free"],
    );
}

#[test]
fn p4_a_late_repeat_of_an_older_acknowledgement_changes_nothing() {
    let mut b = on_its_way("acknowledge");
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
fn p8_an_acknowledgement_whose_reply_was_lost_looks_what_became_of_it() {
    let mut b = on_its_way("acknowledge");
    b.lose("acknowledge");
    b.wait(ms(100));
    b.ok("acknowledge");
    b.says(&["acknowledge V1", "read ready/b"]);
    b.ok("read ready/b");
    b.says(&["* ready at V1"]);
    assert!(b.status().acknowledged.is_some());
}

#[test]
fn p8_an_older_answer_that_stands_is_overwritten_after_a_look() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.stabilized(crate::Outcome::refused("disk full"));
    b.lose("acknowledge V1 failed");
    b.wait(ms(60));
    b.publishes();
    b.stabilized(crate::Outcome::Ready);
    b.skip();
    b.ok("acknowledge V2");
    b.says(&["read ready/b"]);
    b.ok("read ready/b");
    b.says(&["acknowledge V2"]);
    b.ok("acknowledge V2");
    b.says(&["* ready at V2"]);
}

#[test]
fn p8_a_look_that_failed_is_repeated() {
    let mut b = on_its_way("acknowledge");
    b.lose("acknowledge");
    b.wait(ms(100));
    b.ok("acknowledge");
    b.fail("read ready/b", ErrorKind::Unreachable);
    b.skip();
    b.wait(ms(400));
    b.says(&["read ready/b"]);
    b.ok("read ready/b");
    b.says(&["* ready at V1"]);
}

#[test]
fn p4_a_refused_acknowledgement_of_an_overtaken_version_is_dropped() {
    let mut b = on_its_way("acknowledge");
    b.unseen(Bench::publishes);
    b.ok("acknowledge");
    // The log has not told yet, so it looks; then the log tells.
    b.says(&["read ready/b"]);
    b.ok("read ready/b");
    b.deliver();
    b.says_of(&["acknowledge", "stabilize"], &["stabilize V2 of a b after V1"]);
    b.stabilized(crate::Outcome::Ready);
    b.says_of(&["acknowledge"], &["acknowledge V2"]);
}

#[test]
fn a_commit_under_a_session_that_is_over_means_nothing() {
    let mut b = on_its_way("elect");
    b.advance(secs(15));
    b.skip();
    b.fail("elect", ErrorKind::LeaseNotFound);
    b.says(&[]);
}
