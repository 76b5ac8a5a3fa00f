//! Proof that the simulation finds what it looks for: the protocol is given one fault at a time, between the machine and
//! its world, and the simulation must find it within a number of seeds, as a breach of the right promise.
//!
//! The code that is tested has no switches for this: a [`Tamper`] falsifies what goes in and out.

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

/// Within so many seeds each fault has to be found, unless a test says otherwise.
const SEEDS: u64 = 50;

/// Finds the fault within that many seeds, and checks that what is said begins like that.
fn found_within<T: Tamper + 'static>(seeds: u64, simulation: Simulation, make: fn() -> T, says: &[&str]) {
    let simulation = simulation.tampered(make);
    let Some((seed, broken)) = (1..=seeds).find_map(|seed| Some((seed, simulation.check(seed).err()?)))
    else {
        panic!("not found within {seeds} seeds");
    };
    println!("found by seed {seed}: {broken}");
    let right = says.iter().any(|says| broken.starts_with(says));
    assert!(right, "expected a breach of one of {says:?}, and seed {seed} found: {broken}");
}

fn found<T: Tamper + 'static>(make: fn() -> T, says: &[&str]) {
    found_within(SEEDS, Simulation::new(), make, says);
}

/// Few nodes for a short time: for faults that take many seeds to show.
fn brief(nodes: usize) -> Simulation {
    Simulation::new().nodes(nodes).storm(Duration::from_secs(20))
}

#[test]
fn a_tamper_that_changes_nothing_changes_nothing() {
    let simulation = Simulation::new();
    for seed in 1..=10 {
        let (plain, tampered) =
            (simulation.run(seed).unwrap(), simulation.clone().tampered(|| Honest).run(seed));
        assert_eq!(plain, tampered.unwrap());
    }
}

/// Whether that node leads, by its own machine.
fn leads(seat: &Seat<'_>) -> bool {
    seat.machine.status(seat.now).leadership.is_some_and(|leadership| seat.now < leadership.until)
}

/// The version that a record under `version` or `stable`, or an acknowledgement, is about.
fn version(value: &[u8]) -> Option<Version> {
    let record: Value = serde_json::from_slice(value).ok()?;
    record.get("version")?.as_str()?.parse().ok()
}
