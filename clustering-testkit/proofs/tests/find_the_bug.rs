//! The sample service of `examples/pulses`: it survives every seed if it is correct, and the seeds find each of its
//! mistakes.

#![allow(clippy::unwrap_used, reason = "a panic fails the test, also in helpers")]

#[path = "../../examples/pulses/database.rs"]
mod database;
#[path = "../../examples/pulses/scenario.rs"]
mod scenario;
#[path = "../../examples/pulses/service.rs"]
mod service;

use clustering_testkit::cluster::{Seeds, seeds};

use self::{scenario::every_pulse_counts, service::Mistake};

const WITHIN: u64 = 50;

#[test]
fn every_mistake_is_tested() {
    // When you add a mistake, add a test below.
    assert_eq!(
        Mistake::ALL,
        [Mistake::OwnList, Mistake::IgnoresPhase, Mistake::IgnoresLost, Mistake::Detached, Mistake::Unfenced]
    );
}

#[test]
fn the_service_counts_every_pulse_once() {
    seeds(0..WITHIN, async |seed| every_pulse_counts(seed, None).await);
}

/// Checks that the mistake is found within [`WITHIN`] seeds, and that the failure contains `says`.
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
fn placing_by_the_current_node_list_is_found() {
    found(Mistake::OwnList, "");
}

#[test]
fn working_before_the_slots_are_held_is_found() {
    found(Mistake::IgnoresPhase, "");
}

#[test]
fn working_after_the_hold_is_lost_is_found() {
    found(Mistake::IgnoresLost, "");
}

#[test]
fn a_hold_that_is_kept_in_a_detached_task_is_found() {
    found(Mistake::Detached, "");
}

#[test]
fn writing_without_a_fence_is_found() {
    found(Mistake::Unfenced, "pulses");
}
