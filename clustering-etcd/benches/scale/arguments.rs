use std::{error::Error, ffi::OsString, time::Duration};

use lexopt::prelude::*;

use crate::asked::{Asked, sizes};

pub(crate) const HELP: &str = "\
Many nodes at once: storms of changes, and what a node takes.

Usage: cargo bench -p clustering-etcd --bench scale -- [PART] [OPTIONS]

Parts:
  storm     nodes join within a time, or are restarted one after the other: versions published, commits, how often each
            stabilize ran, the time from the last change until all are stable [default]
  size      nodes join one cluster: the time until all are stable, memory, processor time idle and for a change

Options:
  --nodes LIST       how many, one run for each [default: 100]
  --store WHICH      memory or etcd [default: memory]. An etcd is started; storms on the memory store run in virtual time
  --endpoint URL     an etcd that runs already, rather than one that is started; it should be empty
  --within MS        storm: they join evenly over this time [default: 1000]
  --restart          storm: a rolling restart instead, one node after the other, the oldest first: each is the leader then
  --leader-last      the youngest first, so that the leader comes last
  --every MS         storm: from one restart to the next [default: 500]
  --stabilize MS     storm: how long each stabilize takes [default: 20]
  --gap FIRST,MAX    the gap between versions while changes come in rows, in ms [default: the library's]
  --processes COUNT  size: over so many processes, on etcd [default: 1]
  --ttl SECONDS      of the leases [default: 15 in virtual time, else 60]
  --json             one JSON object a line
  --help             print this
";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Storm,
    Size,
    /// A process of a `size` with several.
    Worker,
}

#[derive(Clone, Debug)]
pub(crate) struct Arguments {
    pub(crate) part: Part,
    pub(crate) nodes: Vec<usize>,
    pub(crate) etcd: bool,
    pub(crate) within: Duration,
    pub(crate) restart: bool,
    pub(crate) leader_last: bool,
    pub(crate) every: Duration,
    pub(crate) stabilize: Duration,
    pub(crate) gap: Option<(Duration, Duration)>,
    pub(crate) processes: usize,
    pub(crate) ttl: Option<Duration>,
    pub(crate) json: bool,
    /// Where etcd is; empty if one is to be started.
    pub(crate) endpoint: String,
    /// A worker: the number of its first node.
    pub(crate) first: usize,
}

impl Arguments {
    pub(crate) fn is_virtual(&self) -> bool {
        self.part == Part::Storm && !self.etcd
    }

    pub(crate) fn ttl(&self) -> Duration {
        self.ttl.unwrap_or(Duration::from_secs(if self.is_virtual() { 15 } else { 60 }))
    }

    pub(crate) fn store(&self) -> &'static str {
        if self.etcd { "etcd" } else { "memory" }
    }
}

fn millis(parser: &mut lexopt::Parser) -> Result<Duration, Box<dyn Error>> {
    Ok(Duration::from_millis(parser.value()?.parse()?))
}

pub(crate) fn parse(given: impl Iterator<Item = OsString>) -> Result<Asked<Arguments>, Box<dyn Error>> {
    let mut arguments = Arguments {
        part: Part::Storm,
        nodes: vec![100],
        etcd: false,
        within: Duration::from_secs(1),
        restart: false,
        leader_last: false,
        every: Duration::from_millis(500),
        stabilize: Duration::from_millis(20),
        gap: None,
        processes: 1,
        ttl: None,
        json: false,
        endpoint: String::new(),
        first: 0,
    };
    let mut benches = false;
    let mut parser = lexopt::Parser::from_args(given);
    while let Some(argument) = parser.next()? {
        match argument {
            Value(part) => {
                arguments.part = match part.string()?.as_str() {
                    "storm" => Part::Storm,
                    "size" => Part::Size,
                    "worker" => Part::Worker,
                    other => return Err(format!("{other:?}: expected storm or size").into()),
                };
            }
            Long("nodes") => arguments.nodes = sizes(&mut parser, 1)?,
            Long("store") => {
                arguments.etcd = match parser.value()?.string()?.as_str() {
                    "memory" => false,
                    "etcd" => true,
                    other => return Err(format!("--store {other:?}: expected memory or etcd").into()),
                };
            }
            Long("within") => arguments.within = millis(&mut parser)?,
            Long("restart") => arguments.restart = true,
            Long("leader-last") => (arguments.restart, arguments.leader_last) = (true, true),
            Long("every") => arguments.every = millis(&mut parser)?,
            Long("stabilize") => arguments.stabilize = millis(&mut parser)?,
            Long("gap") => {
                let given = parser.value()?.string()?;
                let (first, max) = given.split_once(',').ok_or("--gap: expected FIRST,MAX")?;
                let ms = |text: &str| text.trim().parse().map(Duration::from_millis);
                arguments.gap = Some((ms(first)?, ms(max)?));
            }
            Long("processes") => arguments.processes = parser.value()?.parse::<usize>()?.max(1),
            Long("ttl") => arguments.ttl = Some(Duration::from_secs(parser.value()?.parse()?)),
            Long("endpoint") => arguments.endpoint = parser.value()?.string()?,
            Long("first") => arguments.first = parser.value()?.parse()?,
            Long("json") => arguments.json = true,
            Long("bench") => benches = true,
            Long("help") | Short('h') => return Ok(Asked::Help),
            // What test runners say.
            Long("test" | "list" | "ignored" | "nocapture") => return Ok(Asked::Nothing),
            Long("format") => drop(parser.value()?),
            _ => return Err(argument.unexpected().into()),
        }
    }
    arguments.etcd |=
        arguments.processes > 1 || !arguments.endpoint.is_empty() || arguments.part == Part::Worker;
    Ok(if benches { Asked::Run(arguments) } else { Asked::Nothing })
}
