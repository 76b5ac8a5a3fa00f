use std::{error::Error, ffi::OsString};

use lexopt::prelude::*;

use crate::{
    asked::{Asked, sizes},
    process::{Kind, Spec},
};

pub(crate) const HELP: &str = "\
Kills a node process (SIGKILL) and measures the time until all other processes know the next stable version, at a TTL of 15 s,
on an etcd of its own. Fails if a median with crash detection is not below 100 ms.

Usage: cargo bench -p clustering-etcd --bench failover -- [OPTIONS]

Options:
  --nodes LIST    numbers of node processes, separated by commas [default: 3,10,20]
  --rounds COUNT  kills per case; cases that wait for the TTL have at most two [default: 10]
  --only LIST     run only some of: crash-detection, ttl, bare, idle [default: all]
  --json          print one JSON object per line
  --help          print this help

  case    KIND/ROLE, or idle
          KIND  crash-detection; ttl, the library without crash detection; bare, processes that do the minimum with an etcd
                client: a lease, a key under it, a watch, and a transaction that creates the leader's key if it is absent
          ROLE  leader or follower: the process that is killed
  median_ms, max_ms
          time from the kill until all other processes know the next stable version. For bare: until they know that the key is
          gone, and the next leader
  idle    cost of crash detection for each node of the largest cluster, which is the difference between a minute with it and a
          minute without it
  connections
          TCP connections per node, other than those to etcd. Each of them counts for both of its nodes
  bytes_per_minute, packets_per_minute
          traffic on the loopback interface per node. If other programs use the interface, the difference is noise. Run the
          bench in a network of its own to exclude them: unshare --net sh -c 'ip link set lo up && cargo bench ...'
  wakeups_per_minute
          voluntary context switches of all threads per node

The bench starts its own etcd: the binary at CLUSTERING_ETCD_BIN, or else the one on the PATH.
";

#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) nodes: Vec<usize>,
    pub(crate) rounds: usize,
    only: Vec<String>,
    pub(crate) json: bool,
}

#[derive(Debug)]
pub(crate) enum Asks {
    Measure(Arguments),
    /// This process is one of the nodes.
    Node(Spec),
}

const PARTS: &[&str] = &["crash-detection", "ttl", "bare", "idle"];

impl Arguments {
    pub(crate) fn does(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == part)
    }
}

pub(crate) fn parse(given: impl Iterator<Item = OsString>) -> Result<Asked<Asks>, Box<dyn Error>> {
    let mut arguments = Arguments { nodes: vec![3, 10, 20], rounds: 10, only: Vec::new(), json: false };
    let mut benches = false;
    let mut node = None;
    let mut parser = lexopt::Parser::from_args(given);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("node") => node = Some(spec(&mut parser)?),
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
    Ok(match node {
        Some(spec) => Asked::Run(Asks::Node(spec)),
        None if benches => Asked::Run(Asks::Measure(arguments)),
        None => Asked::Nothing,
    })
}

/// Parses the arguments with which this bench starts itself as a node.
fn spec(parser: &mut lexopt::Parser) -> Result<Spec, Box<dyn Error>> {
    let mut next = || Ok::<_, Box<dyn Error>>(parser.value()?.string()?);
    let (kind, endpoint, namespace, name) = (next()?, next()?, next()?, next()?);
    Ok(Spec { kind: Kind::parse(&kind).ok_or("no such kind of node")?, endpoint, namespace, name })
}
