//! A service tested with `TestCluster`, and five mistakes in it that the test finds.
//!
//! ```text
//! cargo run -p clustering-testkit --example pulses
//! ```

mod database;
mod scenario;
mod service;

use std::process::ExitCode;

use clustering_testkit::cluster::Seeds;

use self::{scenario::every_pulse_counts, service::Mistake};

/// Number of seeds to try.
const SEEDS: u64 = 50;

/// All mistakes.
const MISTAKES: [Mistake; 5] =
    [Mistake::OwnList, Mistake::IgnoresPhase, Mistake::IgnoresLost, Mistake::Detached, Mistake::Unfenced];

fn main() -> ExitCode {
    let mut wrong = false;
    for mistake in MISTAKES {
        println!("A service that {mistake}:");
        match Seeds::new(0..SEEDS).first_failure(async |seed| every_pulse_counts(seed, Some(mistake)).await) {
            Some((seed, failure)) => {
                println!("  found, with seed {seed}: {}", failure.what);
                let last = failure.timeline.len().saturating_sub(12);
                failure.timeline[last..].iter().for_each(|line| println!("    | {line}"));
            }
            None => {
                println!("  not found with {SEEDS} seeds");
                wrong = true;
            }
        }
    }
    println!("The correct service:");
    match Seeds::new(0..SEEDS).first_failure(async |seed| every_pulse_counts(seed, None).await) {
        None => println!("  counts every pulse once with all {SEEDS} seeds"),
        Some((seed, failure)) => {
            println!("  seed {seed}: {failure}");
            wrong = true;
        }
    }
    ExitCode::from(u8::from(wrong))
}
