use std::{error::Error, ffi::OsString};

use lexopt::prelude::*;

use crate::asked::{Asked, sizes};

pub(crate) const HELP: &str = "\
Measures the store on PostgreSQL beside the one on etcd, by turns, each on a server of its own with its default durability.

Usage: cargo bench -p clustering-postgres --bench beside_etcd -- [OPTIONS]

Options:
  --nodes LIST       sizes of the cluster, separated by commas [default: 5,20]
  --rounds COUNT     rounds per size, each with two joins, a follower's leave and the leader's leave [default: 10]
  --failovers COUNT  rounds per size in which the leader dies [default: 5]
  --json             print one JSON object per line
  --help             print this help

  commit, read, renewal  latency of one call by a single client: a put of 16 bytes, a read of 20 entries, a renewal
  commits of N clients   commits per second, of a key of its own by each client
  join, leave            time from the call until every node sees the next stable version
  failover               the same from the moment the leader dies without a farewell. Includes its TTL of 2 s
  connections            connections at the server that the nodes have opened

Each node has a runtime and a store of its own, as if it ran in its own process. The bench starts the PostgreSQL at
CLUSTERING_POSTGRES_BIN or the newest of Debian's packages, and the etcd at CLUSTERING_ETCD_BIN or on the PATH. Their data
are in TMPDIR.
";

#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) nodes: Vec<usize>,
    pub(crate) rounds: usize,
    pub(crate) failovers: usize,
    pub(crate) json: bool,
}

pub(crate) fn parse(given: impl Iterator<Item = OsString>) -> Result<Asked<Arguments>, Box<dyn Error>> {
    let mut arguments = Arguments { nodes: vec![5, 20], rounds: 10, failovers: 5, json: false };
    let mut benches = false;
    let mut parser = lexopt::Parser::from_args(given);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("nodes") => arguments.nodes = sizes(&mut parser, 3)?,
            Long("rounds") => arguments.rounds = parser.value()?.parse::<usize>()?.max(1),
            Long("failovers") => arguments.failovers = parser.value()?.parse::<usize>()?.max(1),
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
