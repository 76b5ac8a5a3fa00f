use std::{
    error::Error,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clustering_proofs::{node, work};
use lexopt::prelude::*;

use crate::{
    kinds::kinds,
    numbers::number,
    plan::{Exclusive, Kind},
    servers::Store,
};

pub(crate) const HELP: &str = "\
Tortures a cluster: runs nodes as separate processes on the servers of a store, and injects faults drawn from a
seed. Leaders increment a counter and append to a list, fenced by their terms. Exclusive nodes increment counters of the
keys that they hold. Afterwards the histories are checked: the promises P1 to P8 and P12, that no step was lost or done
twice, and that the nodes' calls to the store are linearizable.

Usage: cargo run --release -p clustering-proofs --example torture -- [OPTIONS]

Options:
  --seconds N      time during which faults are injected [default: 120]
  --nodes N        number of nodes [default: 7]
  --store STORE    store of the cluster: etcd or postgres [default: etcd]
  --members N      number of servers: 1, 3 or 5 of etcd [default: 3], 1 of PostgreSQL, whose only server cannot lose a
                   quorum or move a leader
  --ttl SECONDS    TTL of the nodes' leases, at least 3 [default: 3]
  --seed N         seed of the faults, their times and their targets [default: random]
  --only LIST      inject only these faults, separated by commas, such as Kill,HangAnswers
  --exclusive WHO  nodes that hold keys exclusively: all, mixed (some lives are not exclusive) or none
                   [default: drawn from the seed]
  --keep FOLDER    folder for the logs if a promise is broken [default: a new folder in TMPDIR]
  --breach KIND    make the nodes work incorrectly, to test the checks: unfenced, last-write-wins or repeats-lost for the
                   writes of leaders, goes-on or unfenced-work for work on keys that are not held any more
  --json           print the result as one JSON object
  --help           print this help

The same seed plans the same faults. Their effects depend on timing: it may take several runs to reproduce a failure.

Needs an etcd on the PATH or at CLUSTERING_ETCD_BIN, or the programs of PostgreSQL in /usr/lib/postgresql or in the
folder CLUSTERING_POSTGRES_BIN. Leaves no process and no temporary folder behind, however it ends.

Exit codes: 0 if all promises hold, 1 if one is broken (the logs are kept, and the command to reproduce it is printed),
2 if it could not run, 130 if it was interrupted.
";

/// Settings of a run.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) time: Duration,
    pub(crate) nodes: usize,
    pub(crate) store: Store,
    pub(crate) members: usize,
    pub(crate) ttl: Duration,
    pub(crate) seed: u64,
    pub(crate) only: Vec<Kind>,
    pub(crate) keep: Option<PathBuf>,
    pub(crate) exclusive: Exclusive,
    pub(crate) breach: Option<Breach>,
    pub(crate) json: bool,
}

/// Deliberate fault of the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Breach {
    Writes(node::Breach),
    Work(work::Breach),
}

const BREACHES: [(&str, Breach); 5] = [
    ("unfenced", Breach::Writes(node::Breach::Unfenced)),
    ("last-write-wins", Breach::Writes(node::Breach::LastWriteWins)),
    ("repeats-lost", Breach::Writes(node::Breach::RepeatsLost)),
    ("goes-on", Breach::Work(work::Breach::GoesOn)),
    ("unfenced-work", Breach::Work(work::Breach::Unfenced)),
];

pub(crate) enum Asked {
    Run(Settings),
    Help,
}

pub(crate) fn parse() -> Result<Asked, Box<dyn Error>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let mut settings = Settings {
        time: Duration::from_secs(120),
        nodes: 7,
        store: Store::Etcd,
        members: 0,
        ttl: Duration::from_secs(3),
        // Small enough to be typed.
        seed: (now.as_nanos() % 1_000_000_007) as u64,
        only: Kind::ALL.to_vec(),
        keep: None,
        exclusive: Exclusive::None,
        breach: None,
        json: false,
    };
    let (mut exclusive, mut members) = (None, None);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("seconds") => {
                settings.time = Duration::from_secs(number(&mut parser, "--seconds", 1..=86_400)?);
            }
            Long("nodes") => settings.nodes = number(&mut parser, "--nodes", 1..=50)? as usize,
            Long("store") => settings.store = named(&mut parser, "--store", &Store::NAMED)?,
            Long("members") => members = Some(number(&mut parser, "--members", 1..=5)? as usize),
            Long("ttl") => settings.ttl = Duration::from_secs(number(&mut parser, "--ttl", 3..=60)?),
            Long("seed") => settings.seed = number(&mut parser, "--seed", 0..=u64::MAX)?,
            Long("only") => settings.only = kinds(&mut parser, &Kind::ALL)?,
            Long("keep") => settings.keep = Some(parser.value()?.into()),
            Long("exclusive") => exclusive = Some(named(&mut parser, "--exclusive", &Exclusive::NAMED)?),
            Long("breach") => settings.breach = Some(named(&mut parser, "--breach", &BREACHES)?),
            Long("json") => settings.json = true,
            Long("help") | Short('h') => return Ok(Asked::Help),
            _ => return Err(argument.unexpected().into()),
        }
    }
    settings.members = settings
        .store
        .members(members)
        .map_err(|expected| format!("--members {}: {expected}", members.unwrap_or_default()))?;
    settings.exclusive = exclusive.unwrap_or_else(|| Exclusive::drawn(settings.seed));
    Ok(Asked::Run(settings))
}

/// Parses a name.
fn named<T: Copy>(
    parser: &mut lexopt::Parser,
    option: &str,
    named: &[(&str, T)],
) -> Result<T, Box<dyn Error>> {
    let given = parser.value()?.string()?;
    let found = named.iter().find(|(name, _)| *name == given);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = named.iter().map(|(name, _)| *name).collect();
        format!("{option} {given:?}: expected one of {}", names.join(", ")).into()
    })
}

fn name_of<T: PartialEq>(value: &T, named: &[(&'static str, T)]) -> Option<&'static str> {
    named.iter().find(|(_, other)| other == value).map(|(name, _)| *name)
}

impl Settings {
    /// Returns the command that repeats this run.
    pub(crate) fn command(&self) -> String {
        let mut command = format!(
            "cargo run --release -p clustering-proofs --example torture -- --store {} --seconds {} --nodes {} --members {} --ttl {} --seed {}",
            self.store_name(),
            self.time.as_secs(),
            self.nodes,
            self.members,
            self.ttl.as_secs(),
            self.seed
        );
        if self.only != Kind::ALL {
            let only: Vec<_> = self.only.iter().map(|kind| format!("{kind:?}")).collect();
            command += &format!(" --only {}", only.join(","));
        }
        command += &format!(" --exclusive {}", self.exclusive_name());
        if let Some(breach) = self.breach.and_then(|breach| name_of(&breach, &BREACHES)) {
            command += &format!(" --breach {breach}");
        }
        command
    }

    pub(crate) fn store_name(&self) -> &'static str {
        name_of(&self.store, &Store::NAMED).unwrap_or_default()
    }

    pub(crate) fn exclusive_name(&self) -> &'static str {
        name_of(&self.exclusive, &Exclusive::NAMED).unwrap_or_default()
    }
}
