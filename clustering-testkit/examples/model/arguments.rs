use std::{error::Error, thread, time::Duration};

use clustering_testkit::model::{Bounds, Limited, Start};
use lexopt::prelude::*;

use crate::numbers::number;

pub(crate) const HELP: &str = "\
Model checking: explores all states of a few real machines and a store within bounds, and judges the promises in each.

Usage: cargo run --release -p clustering-testkit --features model --example model -- [OPTIONS]

Without bounds it explores a suite of models, which together reach all that is worth reaching.

Options:
  --deep           models with wider bounds, of a million states and more each: give them time and memory, or --seconds
  --nodes N        bounds: how many nodes, from 1 to 9 [default: 3]
  --empty          bounds: from an empty store, not from a stable cluster
  --crashes N      bounds: how often on one path a process dies; likewise
                   --expiries --losses --delays --breaks --gaps --wakes --pauses --refusals
                   --asks --updates --resigns --writes [default: 0]
  --seconds N      no longer than that for each model
  --jobs N         how many threads [default: one for each core]
  --json           print as JSON, one object a line
  --help           print this

Exit codes: 0 if all promises hold (and, of a suite, all is explored and reached); 1 if not: the way there is printed; 2 for
wrong arguments.
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
        Some(_) if deep => return Err("--deep is a suite of its own: give no bounds with it".into()),
        Some(bounds) => (vec![bounds], false),
        None if deep => (Bounds::deep_suite(), true),
        None => (Bounds::suite(), true),
    };
    Ok(Asked::Check(Check { bounds, is_suite, jobs, limit, json }))
}
