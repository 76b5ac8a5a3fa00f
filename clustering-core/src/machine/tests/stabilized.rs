//! The user's `stabilize` callback has ended.

use super::bench::{Bench, ms, secs};
use crate::outcome::Outcome;

#[test]
fn p4_a_successful_stabilize_is_acknowledged() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.stabilized(Outcome::Ready);
    b.expect(&["acknowledge V1"]);
    assert_eq!(b.status().acknowledged, None, "acknowledged before the store has it");
    b.ok("acknowledge");
    b.expect(&["* ready at V1"]);
    assert_eq!(b.status().acknowledged.unwrap().version(), b.newest());
}

#[test]
fn a_refused_stabilize_is_published_with_its_reason_and_retried() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.stabilized(Outcome::refused("disk full"));
    b.expect(&["* stabilize of V1 refused, attempt 1: disk full", "acknowledge V1 failed: disk full"]);
    b.ok("acknowledge");
    b.expect(&[]);
    b.wait(ms(100));
    b.expect(&["* stabilizing V1, attempt 2", "stabilize V1 of a b, attempt 2"]);
    b.stabilized(Outcome::Ready);
    b.expect(&["acknowledge V1"]);
}

#[test]
fn repeated_refusals_are_published_only_when_the_reason_changes() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    let mut commits = Vec::new();
    for reason in ["disk full", "disk full", "no route", "disk full"] {
        b.stabilized(Outcome::refused(reason));
        b.answer_all();
        b.collect("acknowledge", &mut commits);
        b.wait(secs(1));
    }
    assert_eq!(
        commits,
        [
            "acknowledge V1 failed: disk full",
            "acknowledge V1 failed: no route",
            "acknowledge V1 failed: disk full",
        ]
    );
}

#[test]
fn a_success_is_acknowledged_after_a_refusal_that_is_still_in_flight() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.stabilized(Outcome::refused("not yet"));
    b.wait(ms(100));
    b.skip();
    b.stabilized(Outcome::Ready);
    b.expect(&[]);
    b.ok("acknowledge V1 failed");
    b.expect(&["acknowledge V1"]);
    b.ok("acknowledge V1");
    b.expect(&["* ready at V1"]);
}

#[test]
fn a_long_reason_is_truncated_at_a_character_boundary() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.stabilized(Outcome::refused("ä".repeat(10_000)));
    let record: crate::record::ReadinessRecord = super::render::value(b.txn("acknowledge"), "").unwrap();
    let detail = record.detail.unwrap();
    assert!(detail.len() <= 1100 && detail.ends_with("ä…"), "{} bytes", detail.len());
}

#[test]
fn p3_the_result_of_a_superseded_stabilize_is_discarded() {
    // Nothing is acknowledged and nothing is retried. A success only determines the previous view of the next call.
    for (outcome, next) in
        [(Outcome::Ready, "stabilize V2 of a b after V1"), (Outcome::refused("no"), "stabilize V2 of a b")]
    {
        let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
        b.publishes();
        b.skip();
        b.stabilized(outcome);
        b.expect(&["* stabilizing V2, attempt 1", next]);
    }
}

#[test]
fn p3_p7_a_stabilize_of_a_lost_session_delays_the_next_one_and_its_result_is_discarded() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a");
    b.advance(secs(15));
    b.answer_all();
    b.publishes();
    b.expect_only(&["stabilize", "supersede"], &["supersede"]);
    b.stabilized(Outcome::Ready);
    b.expect(&["* stabilizing V2, attempt 1", "stabilize V2 of a b after V1"]);
}

#[test]
fn the_previous_view_is_the_last_one_that_was_stabilized_successfully() {
    let mut b = Bench::node("b").with(&["a"]).joined().led_by("a").acknowledged();
    b.publishes();
    b.stabilized(Outcome::refused("no"));
    b.answer_all();
    b.skip();
    b.publishes();
    b.expect_only(&["stabilize"], &["stabilize V3 of a b after V1"]);
}
