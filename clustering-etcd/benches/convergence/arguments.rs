use std::{error::Error, ffi::OsString};

use lexopt::prelude::*;

use crate::asked::{Asked, sizes};

pub(crate) const HELP: &str = "\
Measures the time from a change until all nodes have adapted to it, on an etcd of its own, alternating with a bare client:
members that make the same commits by hand (join, publish, one acknowledgement each, confirm), with the same watches.

Usage: cargo bench -p clustering-etcd --bench convergence -- [OPTIONS]

Options:
  --nodes LIST    sizes of the cluster, separated by commas [default: 2,6,21,51,101,201]
  --rounds COUNT  rounds per size, each with two joins, a follower's leave and a leader's leave [default: 10]
  --only LIST     run only some of: times, killed, counts, trace [default: all but trace]
  --json          print one JSON object per line
  --help          print this help

  times    time from the call until the leader, and until every node, sees the next stable version, and the ratio to
           the bare client
  killed   time from the end of a dead leader's keys, as seen by a separate watcher, until the next version
  trace    time of each step on the critical path of a join, for the library and for the bare client
  counts   commits, requests, watch events and bytes of a change and of an idle cluster, from etcd's metrics

The bench starts its own etcd: the binary at CLUSTERING_ETCD_BIN, or else the one on the PATH.
";

#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) nodes: Vec<usize>,
    pub(crate) rounds: usize,
    only: Vec<String>,
    pub(crate) json: bool,
}

const PARTS: &[&str] = &["times", "killed", "counts", "trace"];

impl Arguments {
    /// True if the part runs only when it is named.
    pub(crate) fn asks_for(&self, part: &str) -> bool {
        self.only.iter().any(|only| only == part)
    }

    pub(crate) fn does(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == part)
    }
}

pub(crate) fn parse(given: impl Iterator<Item = OsString>) -> Result<Asked<Arguments>, Box<dyn Error>> {
    let mut arguments =
        Arguments { nodes: vec![2, 6, 21, 51, 101, 201], rounds: 10, only: Vec::new(), json: false };
    let mut benches = false;
    let mut parser = lexopt::Parser::from_args(given);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("nodes") => arguments.nodes = sizes(&mut parser, 2)?,
            Long("rounds") => arguments.rounds = parser.value()?.parse::<usize>()?.max(1),
            Long("only") => {
                arguments.only =
                    parser.value()?.string()?.split(',').map(|part| part.trim().to_owned()).collect();
                if let Some(unknown) = arguments.only.iter().find(|part| !PARTS.contains(&part.as_str())) {
                    return Err(format!("--only {unknown:?}: expected some of {}", PARTS.join(", ")).into());
                }
            }
            Long("json") => arguments.json = true,
            Long("bench") => benches = true,
            Long("help") | Short('h') => return Ok(Asked::Help),
            // Do nothing if a test runner passes its own arguments.
            Long("test" | "list" | "ignored" | "nocapture") => return Ok(Asked::Nothing),
            Long("format") => drop(parser.value()?),
            _ => return Err(argument.unexpected().into()),
        }
    }
    Ok(if benches { Asked::Run(arguments) } else { Asked::Nothing })
}
