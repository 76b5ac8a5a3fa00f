//! Runs seeds of the simulation on all cores. See `--help`.

mod arguments;
#[path = "../parsing/kinds.rs"]
mod kinds;
#[path = "../parsing/numbers.rs"]
mod numbers;
mod progress;

use std::{
    error::Error,
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clustering_proofs::sim::{Failure, Simulation};

use self::{
    arguments::{Asked, Seeds},
    progress::Progress,
};

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}\n\n{}", arguments::HELP);
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<ExitCode, Box<dyn Error>> {
    match arguments::parse()? {
        Asked::Help => {
            print!("{}", arguments::HELP);
            Ok(ExitCode::SUCCESS)
        }
        Asked::Story { simulation, seed } => Ok(story(&simulation, seed)),
        Asked::Run { simulation, seeds, json, jobs } => Ok(run_all(&simulation, seeds, json, jobs)),
    }
}

/// Runs one seed and logs everything that happens.
fn story(simulation: &Simulation, seed: u64) -> ExitCode {
    println!("faults of seed {seed}, with their numbers for --keep:");
    for (number, fault) in simulation.plan(seed) {
        println!("{number:>4}  {fault}");
    }
    let (story, result) = simulation.story(seed);
    story.iter().for_each(|line| println!("{line}"));
    match result {
        Ok(report) => {
            println!("stable {:?} after the last fault; hash {:016x}", report.settled_after, report.hash);
            ExitCode::SUCCESS
        }
        Err(broken) => {
            println!("{broken}");
            ExitCode::FAILURE
        }
    }
}

/// Runs all seeds, or until one fails.
fn run_all(simulation: &Simulation, seeds: Seeds, json: bool, jobs: usize) -> ExitCode {
    let began = Instant::now();
    let (next, failed) = (AtomicU64::new(seeds.from), AtomicBool::new(false));
    let progress = Mutex::new(Progress::new(seeds, json));
    let failures = Mutex::new(Vec::<Failure>::new());
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while !failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed - seeds.from >= seeds.count {
                        return;
                    }
                    match simulation.run(seed) {
                        Ok(report) => {
                            progress
                                .lock()
                                .expect("no thread panics while it holds the lock")
                                .add(&report, began.elapsed());
                        }
                        Err(failure) => {
                            failed.store(true, Ordering::Relaxed);
                            failures.lock().expect("no thread panics while it holds the lock").push(*failure);
                        }
                    }
                }
            });
        }
    });
    let progress = progress.into_inner().expect("no thread panics while it holds the lock");
    let mut failures = failures.into_inner().expect("no thread panics while it holds the lock");
    failures.sort_by_key(|failure| failure.seed);
    progress.summary(began.elapsed().max(Duration::from_millis(1)), &failures);
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
