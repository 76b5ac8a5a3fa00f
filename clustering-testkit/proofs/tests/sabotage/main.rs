//! Tests of the simulation's checks: one fault at a time is injected between the machines and their world, and the
//! simulation must find it within a number of seeds, as a violation of the expected promise.
//!
//! The tested code has no switches for this. A [`Tamper`] falsifies the inputs and outputs of the machines.

mod barrier;
mod guards;
mod health;
mod progress;
mod stabilizing;
#[path = "../tampers/mod.rs"]
mod tampers;
mod time;
mod views;

use std::time::Duration;

use clustering_core::Version;
use clustering_proofs::sim::{Seat, Simulation, Tamper};
use serde_json::Value;

use self::tampers::Honest;

/// Number of seeds within which each fault must be found, unless a test overrides it.
const SEEDS: u64 = 50;

/// Checks that one of the seeds finds the fault, and that the report starts with one of the expected texts.
fn found_within<T: Tamper + 'static>(seeds: u64, simulation: Simulation, make: fn() -> T, says: &[&str]) {
    let simulation = simulation.tampered(make);
    let Some((seed, broken)) = (1..=seeds).find_map(|seed| Some((seed, simulation.check(seed).err()?)))
    else {
        panic!("not found within {seeds} seeds");
    };
    println!("found by seed {seed}: {broken}");
    let right = says.iter().any(|says| broken.starts_with(says));
    assert!(right, "expected a report that starts with one of {says:?}, but seed {seed} found: {broken}");
}

fn found<T: Tamper + 'static>(make: fn() -> T, says: &[&str]) {
    found_within(SEEDS, Simulation::new(), make, says);
}

/// Creates a short simulation of a few nodes, for faults that need many seeds.
fn brief(nodes: usize) -> Simulation {
    Simulation::new().nodes(nodes).storm(Duration::from_secs(20))
}

#[test]
fn a_tamper_without_a_fault_does_not_change_the_run() {
    let simulation = Simulation::new();
    for seed in 1..=10 {
        let (plain, tampered) =
            (simulation.run(seed).unwrap(), simulation.clone().tampered(|| Honest).run(seed));
        assert_eq!(plain, tampered.unwrap());
    }
}

/// True if the node leads, according to its own machine.
fn leads(seat: &Seat<'_>) -> bool {
    seat.machine.status(seat.now).leadership.is_some_and(|leadership| seat.now < leadership.until)
}

/// Returns the version in a version record, stability record or acknowledgement.
fn version(value: &[u8]) -> Option<Version> {
    let record: Value = serde_json::from_slice(value).ok()?;
    record.get("version")?.as_str()?.parse().ok()
}
