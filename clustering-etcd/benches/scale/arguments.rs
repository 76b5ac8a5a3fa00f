use std::{error::Error, ffi::OsString, time::Duration};

use lexopt::prelude::*;

use crate::{
    asked::{Asked, sizes},
    stores::Store,
};

pub(crate) const HELP: &str = "\
Measures many nodes at once: storms of changes, and the resources that a node uses.

Usage: cargo bench -p clustering-etcd --bench scale -- [PART] [OPTIONS]

Parts:
  storm     nodes join within a short time, or are restarted one after another: counts versions, commits and stabilize
            runs per node, and the time from the last change until all are stable [default]
  size      nodes join one cluster: measures the time until all are stable, memory, and CPU time when idle and per change

Options:
  --nodes LIST       numbers of nodes, separated by commas, one run each [default: 100]
  --store WHICH      memory, etcd or postgres [default: memory]. Storms on the memory store run in virtual time
  --endpoint URL     use this etcd or PostgreSQL instead of starting one. It should be empty. Its resources are not measured
  --within MS        storm: time over which the joins are spread evenly [default: 1000]
  --restart          storm: a rolling restart instead of joins, the oldest node first
  --youngest-first   storm: a rolling restart instead of joins, the youngest node first
  --every MS         storm: time from one restart to the next [default: 500]
  --stabilize MS     storm: duration of each stabilize [default: 20]
  --gap FIRST,MAX    shortest and longest gap between versions during a series of changes, in ms [default: the library's]
  --processes COUNT  size: number of processes over which the nodes are spread, on etcd or PostgreSQL [default: 1]
  --ttl SECONDS      TTL of the leases [default: 15 in virtual time, else 60]
  --json             print one JSON object per line
  --help             print this help
";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Storm,
    Size,
    /// A worker process of a `size` run.
    Worker,
}

#[derive(Clone, Debug)]
pub(crate) struct Arguments {
    pub(crate) part: Part,
    pub(crate) nodes: Vec<usize>,
    pub(crate) store: Store,
    pub(crate) within: Duration,
    pub(crate) restart: bool,
    pub(crate) youngest_first: bool,
    pub(crate) every: Duration,
    pub(crate) stabilize: Duration,
    pub(crate) gap: Option<(Duration, Duration)>,
    pub(crate) processes: usize,
    pub(crate) ttl: Option<Duration>,
    pub(crate) json: bool,
    /// Endpoint of a running server.
    pub(crate) endpoint: Option<String>,
    /// Number of the first node of a worker.
    pub(crate) first: usize,
}

impl Arguments {
    pub(crate) fn is_virtual(&self) -> bool {
        self.part == Part::Storm && self.store == Store::Memory
    }

    pub(crate) fn ttl(&self) -> Duration {
        self.ttl.unwrap_or(Duration::from_secs(if self.is_virtual() { 15 } else { 60 }))
    }
}

fn millis(parser: &mut lexopt::Parser) -> Result<Duration, Box<dyn Error>> {
    Ok(Duration::from_millis(parser.value()?.parse()?))
}

pub(crate) fn parse(given: impl Iterator<Item = OsString>) -> Result<Asked<Arguments>, Box<dyn Error>> {
    let mut arguments = Arguments {
        part: Part::Storm,
        nodes: vec![100],
        store: Store::Memory,
        within: Duration::from_secs(1),
        restart: false,
        youngest_first: false,
        every: Duration::from_millis(500),
        stabilize: Duration::from_millis(20),
        gap: None,
        processes: 1,
        ttl: None,
        json: false,
        endpoint: None,
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
            Long("store") => arguments.store = Store::parse(&mut parser)?,
            Long("within") => arguments.within = millis(&mut parser)?,
            Long("restart") => arguments.restart = true,
            Long("youngest-first") => (arguments.restart, arguments.youngest_first) = (true, true),
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
            Long("endpoint") => arguments.endpoint = Some(parser.value()?.string()?),
            Long("first") => arguments.first = parser.value()?.parse()?,
            Long("json") => arguments.json = true,
            Long("bench") => benches = true,
            Long("help") | Short('h') => return Ok(Asked::Help),
            // Arguments of test runners.
            Long("test" | "list" | "ignored" | "nocapture") => return Ok(Asked::Nothing),
            Long("format") => drop(parser.value()?),
            _ => return Err(argument.unexpected().into()),
        }
    }
    if arguments.store == Store::Memory && (arguments.processes > 1 || arguments.endpoint.is_some()) {
        return Err(
            "--processes and --endpoint need a store with a server: --store etcd or --store postgres".into(),
        );
    }
    Ok(if benches { Asked::Run(arguments) } else { Asked::Nothing })
}
