use std::{error::Error, thread, time::Duration};

use clustering_proofs::sim::{Kind, Simulation};
use lexopt::prelude::*;

use crate::{kinds::kinds, numbers::number};

pub(crate) const HELP: &str = "\
Runs seeds of the simulation: real machines share one store in virtual time while all kinds of faults occur. All promises
are checked after every step.

Usage: cargo run --release -p clustering-proofs --example simulate -- [OPTIONS]

Options:
  --seeds N        number of seeds [default: 10000]
  --from N         first seed [default: 1]
  --nodes N        number of nodes [default: 7]
  --seconds N      duration of the faults in virtual seconds [default: 60]
  --ttl SECONDS    TTL of the leases, from 1 to 60 [default: 5]
  --only LIST      inject only these faults, separated by commas, such as Crash,Pause
  --without LIST   do not inject these faults
  --jobs N         number of threads [default: one per core]
  --json           print progress and summary as JSON, one object per line
  --seed N         run only this seed
  --trace          with --seed: log everything that happens
  --keep LIST      with --seed: inject only these faults of its plan, by their numbers, or `none`
  --help           print this help

Exit codes: 0 if all promises hold, 1 if one is broken (the log and the command to reproduce it are printed), 2 if the
arguments are invalid.
";

#[derive(Clone, Copy)]
pub(crate) struct Seeds {
    pub(crate) from: u64,
    pub(crate) count: u64,
}

pub(crate) enum Asked {
    Run { simulation: Simulation, seeds: Seeds, json: bool, jobs: usize },
    Story { simulation: Simulation, seed: u64 },
    Help,
}

pub(crate) fn parse() -> Result<Asked, Box<dyn Error>> {
    let mut simulation = Simulation::new();
    let mut seeds = Seeds { from: 1, count: 10_000 };
    let mut jobs = thread::available_parallelism().map_or(1, usize::from);
    let (mut json, mut trace, mut seed) = (false, false, None);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("seeds") => seeds.count = number(&mut parser, "--seeds", 1..=u64::MAX)?,
            Long("from") => seeds.from = number(&mut parser, "--from", 0..=u64::MAX)?,
            Long("nodes") => {
                simulation = simulation.nodes(number(&mut parser, "--nodes", 1..=1000)? as usize);
            }
            Long("seconds") => {
                let seconds = number(&mut parser, "--seconds", 0..=86_400)?;
                simulation = simulation.storm(Duration::from_secs(seconds));
            }
            Long("ttl") => {
                simulation = simulation.ttl(Duration::from_secs(number(&mut parser, "--ttl", 1..=60)?));
            }
            Long("only") => simulation = simulation.only(kinds(&mut parser, &Kind::ALL)?),
            Long("without") => simulation = simulation.without(kinds(&mut parser, &Kind::ALL)?),
            Long("jobs") => jobs = number(&mut parser, "--jobs", 1..=1024)? as usize,
            Long("json") => json = true,
            Long("seed") => seed = Some(number(&mut parser, "--seed", 0..=u64::MAX)?),
            Long("trace") => trace = true,
            Long("keep") => simulation = simulation.keep(numbers(&parser.value()?.string()?)?),
            Long("help") | Short('h') => return Ok(Asked::Help),
            _ => return Err(argument.unexpected().into()),
        }
    }
    match seed {
        Some(seed) if trace => Ok(Asked::Story { simulation, seed }),
        None if trace => Err("--trace requires --seed".into()),
        Some(from) => Ok(Asked::Run { simulation, seeds: Seeds { from, count: 1 }, json, jobs: 1 }),
        None => Ok(Asked::Run { simulation, seeds, json, jobs }),
    }
}

fn numbers(list: &str) -> Result<Vec<usize>, Box<dyn Error>> {
    if list == "none" {
        return Ok(Vec::new());
    }
    let number = |text: &str| text.trim().parse();
    list.split(',').map(number).collect::<Result<_, _>>().map_err(|_| {
        format!("--keep {list:?}: expected numbers of faults, separated by commas, such as 3,17, or `none`")
            .into()
    })
}
