//! The simulation, as it is run by default, finds each of these faults of the protocol within 2,000 seeds.

mod bugs;
#[path = "../tampers/planted.rs"]
mod planted;
#[path = "../tampers/mod.rs"]
#[allow(dead_code, unused_imports, unused_macros, reason = "other tests use the rest")]
mod tampers;

use std::iter;

use clustering_proofs::sim::Simulation;

use self::bugs::BUGS;

/// Within so many seeds each fault has to be found.
const SEEDS: u64 = 2_000;

fn is_found(name: &str) {
    let bug = BUGS.iter().find(|bug| bug.name == name).expect("it is in the list");
    let simulation = bug.planted_in(Simulation::new());
    let found =
        iter::once(bug.seed).chain(1..=SEEDS).find_map(|seed| Some((seed, simulation.check(seed).err()?)));
    let Some((seed, broken)) = found else {
        panic!("{name} is not found within {SEEDS} seeds: {}", bug.what);
    };
    println!("found by seed {seed}: {broken}");
    assert!(bug.is_said_by(&broken), "expected a breach of one of {:?}, and found: {broken}", bug.says);
}
