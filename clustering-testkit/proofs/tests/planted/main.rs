//! The simulation finds each of these faults in the protocol within 2,000 seeds, with its default settings.

mod bugs;
#[path = "../tampers/planted.rs"]
mod planted;
#[path = "../tampers/mod.rs"]
#[allow(dead_code, unused_imports, unused_macros, reason = "other tests use the rest")]
mod tampers;

use std::iter;

use clustering_proofs::sim::Simulation;

use self::bugs::BUGS;

/// Number of seeds within which each fault must be found.
const SEEDS: u64 = 2_000;

fn is_found(name: &str) {
    let bug = BUGS.iter().find(|bug| bug.name == name).expect("the fault is in the list");
    let simulation = bug.planted_in(Simulation::new());
    let found =
        iter::once(bug.seed).chain(1..=SEEDS).find_map(|seed| Some((seed, simulation.check(seed).err()?)));
    let Some((seed, broken)) = found else {
        panic!("{name} was not found within {SEEDS} seeds: {}", bug.what);
    };
    println!("found by seed {seed}: {broken}");
    assert!(
        bug.is_reported_as(&broken),
        "expected a report that starts with one of {:?}, but found: {broken}",
        bug.says
    );
}
