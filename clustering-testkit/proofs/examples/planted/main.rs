//! Plants faults in the protocol, one at a time, and prints the first seed of the simulation that finds each fault.
//!
//! ```sh
//! cargo run --release -p clustering-proofs --example planted                # until the first seed that finds it
//! cargo run --release -p clustering-proofs --example planted -- 2000 --all  # all seeds: how often it is found
//! cargo run --release -p clustering-proofs --example planted -- 2000 elect  # faults with `elect` in their names
//! ```
//!
//! Copy the printed seeds to `tests/planted/bugs.rs`, so that the tests try them first.
//!
//! Exit codes: 0 if all faults are found, 1 if not.

#[path = "../../tests/planted/bugs.rs"]
mod bugs;
#[path = "../../tests/tampers/planted.rs"]
mod planted;
#[path = "../../tests/tampers/mod.rs"]
#[allow(dead_code, unused_imports, unused_macros, reason = "tests use the rest")]
mod tampers;

use std::{
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use clustering_proofs::sim::Simulation;

use self::bugs::{BUGS, Bug};

/// Returns the seeds that find the fault, with their reports: all such seeds, or only the first.
fn finders(bug: &Bug, seeds: u64, all: bool) -> Vec<(u64, String)> {
    let simulation = bug.planted_in(Simulation::new());
    let (next, last) = (AtomicU64::new(1), AtomicU64::new(seeds));
    let found = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let seed = next.fetch_add(1, Ordering::Relaxed)
                    && seed <= last.load(Ordering::Relaxed)
                {
                    if let Err(broken) = simulation.check(seed) {
                        if !all {
                            last.fetch_min(seed, Ordering::Relaxed);
                        }
                        found.lock().expect("no thread panics while it holds the lock").push((seed, broken));
                    }
                }
            });
        }
    });
    let mut found = found.into_inner().expect("no thread panics while it holds the lock");
    found.sort();
    found
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let count_all = arguments.iter().any(|argument| argument == "--all");
    let seeds = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(2_000);
    let name = |argument: &&String| argument.parse::<u64>().is_err() && *argument != "--all";
    let wanted = arguments.iter().find(name);
    let bugs = BUGS.iter().filter(|bug| wanted.is_none_or(|wanted| bug.name.contains(wanted.as_str())));
    let (mut all, mut found) = (0, 0);
    for bug in bugs {
        all += 1;
        let finders = finders(bug, seeds, count_all);
        match finders.first() {
            None => println!("{:48} not found: {}", bug.name, bug.what),
            Some((seed, broken)) => {
                let right = bug.is_reported_as(broken);
                found += u32::from(right);
                let often = if count_all { format!(", {} of {seeds}", finders.len()) } else { String::new() };
                let moved = if !count_all && *seed != bug.seed {
                    format!(" (recorded: {})", bug.seed)
                } else {
                    String::new()
                };
                let wrong = if right { "" } else { " (NOT AS EXPECTED)" };
                let line = broken.lines().next().unwrap_or_default();
                println!("{:48} seed {seed}{moved}{often}{wrong}: {line}", bug.name);
            }
        }
    }
    println!("\n{found} of {all} faults were found within {seeds} seeds");
    if found == all { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
