use std::{error::Error, thread, time::Duration};

use clustering_proofs::model::{Bounds, Limited, Start};
use lexopt::prelude::*;

use crate::numbers::number;

pub(crate) const HELP: &str = "\
Explores all states of a few real machines and a store within bounds, and checks the promises in each state.

Usage: cargo run --release -p clustering-proofs --example model -- [OPTIONS]

Without bounds, explores a suite of models that together reach all relevant situations.

Options:
  --deep           explore a suite of models with wider bounds, of a million states and more each. They need much time
                   and memory; limit them with --seconds
  --nodes N        number of nodes, from 1 to 9 [default: 3]
  --slots N        make the nodes exclusive, with this many slots
  --trusting       make the nodes trust reports that a process is gone, which are then all true
  --empty          start from an empty store instead of a stable cluster
  --crashes N      maximum number of process crashes on one path. Likewise for other actions:
                   --expiries --losses --delays --breaks --gaps --wakes --pauses --refusals
                   --asks --updates --resigns --writes [default: 0]
  --seconds N      time limit for each model
  --jobs N         number of threads [default: one per core]
  --json           print JSON, one object per line
  --help           print this help

--nodes, --empty and the maximum numbers of actions set the bounds of a single model.

Exit codes: 0 if all promises hold (and a suite was fully explored and reached all situations), 1 if not (the path that
breaks a promise is printed), 2 if the arguments are invalid.
";

pub(crate) struct Check {
    pub(crate) bounds: Vec<Bounds>,
    pub(crate) is_suite: bool,
    pub(crate) jobs: usize,
    pub(crate) limit: Option<Duration>,
    pub(crate) json: bool,
}

pub(crate) enum Asked {
    Check(Check),
    Help,
}

pub(crate) fn parse() -> Result<Asked, Box<dyn Error>> {
    let mut own: Option<Bounds> = None;
    let mut deep = false;
    let mut jobs = thread::available_parallelism().map_or(1, usize::from);
    let (mut limit, mut json) = (None, false);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        let bounds = own.unwrap_or_else(|| Bounds::nodes(3));
        match argument {
            Long("deep") => deep = true,
            Long("nodes") => {
                let mut bounds = bounds;
                bounds.nodes = number(&mut parser, "--nodes", 1..=9)? as u8;
                own = Some(bounds);
            }
            Long("trusting") => own = Some(bounds.trusting()),
            Long("slots") => own = Some(bounds.exclusive(number(&mut parser, "--slots", 1..=255)? as u8)),
            Long("empty") => own = Some(bounds.from(Start::Empty)),
            Long("seconds") => {
                limit = Some(Duration::from_secs(number(&mut parser, "--seconds", 1..=1_000_000)?));
            }
            Long("jobs") => jobs = number(&mut parser, "--jobs", 1..=1024)? as usize,
            Long("json") => json = true,
            Long("help") | Short('h') => return Ok(Asked::Help),
            Long(name) => {
                let limited = Limited::ALL.into_iter().find(|limited| limited.name() == name);
                let Some(limited) = limited else { return Err(argument.unexpected().into()) };
                own = Some(bounds.with(limited, number(&mut parser, limited.name(), 0..=255)? as u8));
            }
            _ => return Err(argument.unexpected().into()),
        }
    }
    let (bounds, is_suite) = match own {
        Some(_) if deep => {
            return Err("--deep selects its own bounds and cannot be combined with others".into());
        }
        Some(bounds) => (vec![bounds], false),
        None if deep => (Bounds::deep_suite(), true),
        None => (Bounds::suite(), true),
    };
    Ok(Asked::Check(Check { bounds, is_suite, jobs, limit, json }))
}
