use std::{error::Error, ffi::OsString};

use lexopt::prelude::*;

use crate::asked::{Asked, sizes};

pub(crate) const HELP: &str = "\
Restarts the nodes of an exclusive cluster one after another, on an etcd of its own, and counts what that costs. The next
step begins when all nodes have seen that the last one is stable. Also stops etcd for three TTLs. Fails if a target is missed.

Usage: cargo bench -p clustering-etcd --bench rollout -- [OPTIONS]

Options:
  --nodes COUNT         nodes that are restarted [default: 10]
  --outage-nodes COUNT  nodes that live through the outage [default: 50]
  --slots COUNT         number of slots [default: 120]
  --seed NUMBER         seed of the random order [default: 1]
  --only TEXT           run only the cases whose name contains this text
  --json                print one JSON object per line
  --help                print this help

  case            KIND/ORDER or KIND/ORDER/grace, or outage
                  KIND   statefulset (a node stops, and then starts under the same name), deployment (a node with a new
                         name starts, and then an old one stops)
                  ORDER  age (the oldest first), reverse (the youngest first), random
                  grace  all nodes have a restart grace, and a statefulset stops them for a restart
  nodes           size of the cluster
  versions        published versions
  elections       elections of a leader
  stabilizes      runs of the stabilize callback on all nodes together
  moves_per_slot  changes of the owner of a slot, on average over all slots. A slot that waits for an absent node and
                  returns to it does not change its owner
  stable_ms       outage: time from the first answer of the restarted etcd until all nodes see a stable version of all nodes

Targets: at most 2 elections. With grace and in the outage no slot moves. Otherwise, slots move no more often than exact
balance demands: 2.0 times in a statefulset of 10 nodes, 1.75 times in a deployment.

The bench starts its own etcd: the binary at CLUSTERING_ETCD_BIN, or else the one on the PATH.
";

#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) nodes: usize,
    pub(crate) outage_nodes: usize,
    pub(crate) slots: u16,
    pub(crate) seed: u64,
    only: String,
    pub(crate) json: bool,
}

impl Arguments {
    pub(crate) fn includes(&self, case: &str) -> bool {
        case.contains(&self.only)
    }
}

pub(crate) fn parse(given: impl Iterator<Item = OsString>) -> Result<Asked<Arguments>, Box<dyn Error>> {
    let mut arguments =
        Arguments { nodes: 10, outage_nodes: 50, slots: 120, seed: 1, only: String::new(), json: false };
    let mut benches = false;
    let mut parser = lexopt::Parser::from_args(given);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("nodes") => arguments.nodes = size(&mut parser)?,
            Long("outage-nodes") => arguments.outage_nodes = size(&mut parser)?,
            Long("slots") => arguments.slots = slots(&parser.value()?.string()?)?,
            Long("seed") => arguments.seed = parser.value()?.parse()?,
            Long("only") => arguments.only = parser.value()?.string()?,
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

fn size(parser: &mut lexopt::Parser) -> Result<usize, Box<dyn Error>> {
    match sizes(parser, 2)?[..] {
        [size] => Ok(size),
        _ => Err("expected one number of nodes".into()),
    }
}

fn slots(number: &str) -> Result<u16, Box<dyn Error>> {
    let slots = number.parse().ok().filter(|slots| (1..=4_096).contains(slots));
    slots.ok_or_else(|| format!("--slots {number:?}: expected a number from 1 to 4096").into())
}
