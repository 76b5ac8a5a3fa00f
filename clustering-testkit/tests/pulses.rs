//! The sample service of the example `pulses`: its test finds each mistake with one of the first seeds, and the correct
//! service passes.

#[path = "../examples/pulses/database.rs"]
mod database;
#[path = "../examples/pulses/scenario.rs"]
mod scenario;
#[path = "../examples/pulses/service.rs"]
mod service;

use clustering_testkit::cluster::{Seeds, seeds};

use self::{scenario::every_pulse_counts, service::Mistake};

#[test]
fn p12_the_correct_service_keeps_p12_in_any_storm() {
    seeds(0..40, async |seed| every_pulse_counts(seed, None).await);
}

/// Panics unless one of the first seeds finds the mistake, with one of these texts in the report.
#[track_caller]
fn found(mistake: Mistake, within: u64, reports: &[&str]) {
    let found =
        Seeds::new(0..within).first_failure(async |seed| every_pulse_counts(seed, Some(mistake)).await);
    let Some((seed, failure)) = found else {
        panic!("{within} seeds do not find that the service {mistake}");
    };
    println!("seed {seed}: {failure}");
    assert!(reports.iter().any(|report| failure.what.contains(report)), "{failure}");
}

const WITHOUT_HOLD: [&str; 2] = ["P12 (one holder) is broken", "has worked on meter-"];

#[test]
fn p12_placing_meters_by_the_current_nodes_is_found_within_3_seeds() {
    found(Mistake::OwnList, 3, &WITHOUT_HOLD);
}

#[test]
fn p12_working_on_slots_before_they_are_held_is_found_within_3_seeds() {
    found(Mistake::IgnoresPhase, 3, &WITHOUT_HOLD);
}

#[test]
fn p12_working_after_lost_is_found_within_10_seeds() {
    found(Mistake::IgnoresLost, 10, &WITHOUT_HOLD);
}

#[test]
fn p12_a_hold_in_a_detached_task_is_found_within_10_seeds() {
    found(Mistake::Detached, 10, &WITHOUT_HOLD);
}

#[test]
fn p12_writing_without_the_token_is_found_within_20_seeds() {
    found(Mistake::Unfenced, 20, &["pulses"]);
}
