use std::{error::Error, ffi::OsString};

use lexopt::prelude::*;

use crate::asked::{Asked, sizes};

pub(crate) const HELP: &str = "\
Measures what a change of an exclusive cluster costs, on an etcd of its own, alternating with a cluster that is not exclusive:
commits, the time for which nobody holds a moved slot, and the time until all nodes see the next stable version.

Usage: cargo bench -p clustering-etcd --bench handover -- [OPTIONS]

Options:
  --nodes LIST    sizes of the view after the change, separated by commas [default: 2,6,21,101]
  --slots LIST    numbers of slots, separated by commas [default: 1,256,4096]
  --rounds COUNT  rounds per size and number of slots; crashes have at most 3 [default: 5]
  --json          print one JSON object per line
  --help          print this help

  case          join, stop (of a node that holds slots, a follower if possible), stop with release (it has such a
                callback), crash
  commits       commits of the change in the exclusive cluster, without the end of a dead node's lease; the most of all rounds
  gap_ms        longest time for which nobody holds a moved slot, from the last moment at its old holder to the first one at
                its new holder; after a crash from the end of the lease. null if no slot moves. `release` and `stabilize`
                return at once
  kept_gap_ms   the same for slots that do not move
  stable_ms     time from the change until all nodes see the next stable version, in the cluster that is not exclusive
  own_stable_ms the same in the exclusive cluster
  gap_ratio     gap_ms / stable_ms

The bench starts its own etcd: the binary at CLUSTERING_ETCD_BIN, or else the one on the PATH.
";

#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) nodes: Vec<usize>,
    pub(crate) slots: Vec<u16>,
    pub(crate) rounds: usize,
    pub(crate) json: bool,
}

pub(crate) fn parse(given: impl Iterator<Item = OsString>) -> Result<Asked<Arguments>, Box<dyn Error>> {
    let mut arguments =
        Arguments { nodes: vec![2, 6, 21, 101], slots: vec![1, 256, 4_096], rounds: 5, json: false };
    let mut benches = false;
    let mut parser = lexopt::Parser::from_args(given);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("nodes") => arguments.nodes = sizes(&mut parser, 2)?,
            Long("slots") => arguments.slots = slots(&parser.value()?.string()?)?,
            Long("rounds") => arguments.rounds = parser.value()?.parse::<usize>()?.max(1),
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

fn slots(list: &str) -> Result<Vec<u16>, Box<dyn Error>> {
    let numbers = list.split(',').map(|number| number.trim().parse().ok());
    let numbers = numbers.map(|number| number.filter(|number| (1..=4_096).contains(number)));
    numbers.collect::<Option<_>>().ok_or_else(|| {
        format!("--slots {list:?}: expected numbers from 1 to 4096, separated by commas").into()
    })
}
