//! Explores all states of a few nodes within bounds. See `--help`.

mod arguments;
#[path = "../parsing/numbers.rs"]
mod numbers;

use std::process::ExitCode;

use clustering_proofs::model::{Checked, ClusterModel, Promise, Reached};
use serde_json::json;

use self::arguments::Asked;

fn main() -> ExitCode {
    match arguments::parse() {
        Ok(Asked::Help) => {
            print!("{}", arguments::HELP);
            ExitCode::SUCCESS
        }
        Ok(Asked::Check(asked)) => check(&asked),
        Err(error) => {
            eprintln!("{error}\n\n{}", arguments::HELP);
            ExitCode::from(2)
        }
    }
}

/// Explores a model for each of the bounds and prints a summary.
fn check(asked: &arguments::Check) -> ExitCode {
    if !asked.json {
        println!("checked in every state:");
        Promise::ALL.iter().for_each(|promise| println!("  {}", promise.name()));
        println!();
    }
    let mut all: Vec<Checked> = Vec::new();
    for bounds in &asked.bounds {
        let checked = ClusterModel::new(*bounds).check(asked.jobs, asked.limit);
        match asked.json {
            true => println!("{}", json!(checked)),
            false => println!("{checked}"),
        }
        all.push(checked);
    }
    let (states, steps) = all.iter().fold((0, 0), |sum, one| (sum.0 + one.states, sum.1 + one.steps));
    let missed: Vec<&str> = Reached::ALL
        .iter()
        .filter(|what| !all.iter().any(|one| one.reached(**what)))
        .map(|what| what.name())
        .collect();
    let broken = all.iter().filter_map(|one| one.broken.as_ref()).count();
    let exhausted = all.iter().filter(|one| one.exhausted).count();
    match asked.json {
        true => println!(
            "{}",
            json!({ "models": all.len(), "exhausted": exhausted, "broken": broken, "states": states, "steps": steps,
                    "not_reached": missed })
        ),
        false => {
            println!(
                "{} models, {exhausted} exhausted, {broken} broken: {states} states, {steps} steps",
                all.len()
            );
            match missed.as_slice() {
                [] => println!("all {} situations were reached", Reached::ALL.len()),
                missed => println!("not reached: {}", missed.join(", ")),
            }
        }
    }
    // A suite must be explored completely and reach all situations. Bounds given by the user need not.
    let complete = !asked.is_suite || exhausted == all.len() && missed.is_empty();
    if broken == 0 && complete { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
