use std::{error::Error, ffi::OsString};

use lexopt::prelude::*;

use crate::{
    asked::{Asked, sizes},
    stores::Store,
};

pub(crate) const HELP: &str = "\
Measures the time from a change until all nodes have adapted to it, on a server of its own. On etcd they alternate with a bare
client: members that make the same commits by hand (join, publish, one acknowledgement each, confirm), with the same watches.

Usage: cargo bench -p clustering-etcd --bench convergence -- [OPTIONS]

Options:
  --store WHICH   etcd, memory or postgres [default: etcd]
  --nodes LIST    sizes of the cluster, separated by commas [default: 2,6,21,51,101,201]
  --rounds COUNT  rounds per size, each with two joins, a follower's leave and a leader's leave [default: 10]
  --only LIST     run only some of: times, killed, counts, trace [default: all that run on the store, except trace]
  --json          print one JSON object per line
  --help          print this help

  times    time from the call until the leader, and until every node, sees the next stable version, and on etcd the ratio
           to the bare client
  killed   time from the end of a dead leader's keys, as seen by a separate watcher, until the next version
  trace    time of each step on the critical path of a join, for the library and for the bare client. Only on etcd
  counts   commits, requests, watch events and bytes of a change and of an idle cluster, from etcd's metrics. Only on etcd

The bench starts the etcd at CLUSTERING_ETCD_BIN or on the PATH, or the PostgreSQL at CLUSTERING_POSTGRES_BIN or the newest
of Debian's packages, with its default durability. Their data are in TMPDIR.
";

#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) store: Store,
    pub(crate) nodes: Vec<usize>,
    pub(crate) rounds: usize,
    only: Vec<String>,
    pub(crate) json: bool,
}

const PARTS: &[&str] = &["times", "killed", "counts", "trace"];

/// Parts that run on etcd only: they compare each step with the bare client, or read etcd's metrics.
const ONLY_ETCD: &[&str] = &["counts", "trace"];

impl Arguments {
    pub(crate) fn does(&self, part: &str) -> bool {
        match self.only.is_empty() {
            true => part != "trace" && self.store_has(part),
            false => self.only.iter().any(|only| only == part),
        }
    }

    fn store_has(&self, part: &str) -> bool {
        self.store == Store::Etcd || !ONLY_ETCD.contains(&part)
    }
}

pub(crate) fn parse(given: impl Iterator<Item = OsString>) -> Result<Asked<Arguments>, Box<dyn Error>> {
    let mut arguments = Arguments {
        store: Store::Etcd,
        nodes: vec![2, 6, 21, 51, 101, 201],
        rounds: 10,
        only: Vec::new(),
        json: false,
    };
    let mut benches = false;
    let mut parser = lexopt::Parser::from_args(given);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("store") => arguments.store = Store::parse(&mut parser)?,
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
    if let Some(part) = arguments.only.iter().find(|part| !arguments.store_has(part)) {
        return Err(
            format!("--only {part}: runs on etcd only, not on --store {}", arguments.store.name()).into()
        );
    }
    Ok(if benches { Asked::Run(arguments) } else { Asked::Nothing })
}
