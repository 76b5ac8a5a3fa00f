//! The sample service of `examples/pulses`: right, it survives every seed; with a mistake, the seeds find it.

#![allow(clippy::unwrap_used, reason = "what is not as expected fails the test, in helpers too")]

#[path = "../examples/pulses/database.rs"]
mod database;
#[path = "../examples/pulses/scenario.rs"]
mod scenario;
#[path = "../examples/pulses/service.rs"]
mod service;

use clustering_testkit::cluster::{Seeds, seeds};

use self::{scenario::every_pulse_counts, service::Mistake};

const WITHIN: u64 = 50;

#[test]
fn every_mistake_is_tested() {
    // Whoever adds one adds a test below.
    assert_eq!(Mistake::ALL, [Mistake::OwnList, Mistake::KeepsGoing, Mistake::Unfenced]);
}

#[test]
fn the_service_counts_every_pulse_once() {
    seeds(0..WITHIN, async |seed| every_pulse_counts(seed, None).await);
}

/// The mistake is found within that many seeds, and the failure says this.
#[track_caller]
fn found(mistake: Mistake, says: &str) {
    let found =
        Seeds::new(0..WITHIN).first_failure(async |seed| every_pulse_counts(seed, Some(mistake)).await);
    let (seed, failure) = found.unwrap_or_else(|| panic!("not found within {WITHIN} seeds"));
    println!("seed {seed}: {failure}");
    assert!(failure.what.contains(says), "{failure}");
    assert!(failure.timeline.len() > 20 && failure.nodes.len() == 5, "{failure}");
}

#[test]
fn placing_by_the_nodes_at_hand_is_found() {
    found(Mistake::OwnList, "by the stable version");
}

#[test]
fn going_on_after_the_session_is_found() {
    found(Mistake::KeepsGoing, "pulses");
}

#[test]
fn writing_without_a_fence_is_found() {
    found(Mistake::Unfenced, "pulses");
}
