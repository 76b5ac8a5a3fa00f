use std::{
    error::Error,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clustering_testkit::node::Breach;
use lexopt::prelude::*;

use crate::{kinds::kinds, numbers::number, plan::Kind};

pub(crate) const HELP: &str = "\
Tortures a cluster: nodes as processes of their own on an etcd of several members, and everything done to them that can
be, as a seed has it. Leaders count and keep a list, fenced by their terms. Afterwards the histories are judged: the
promises P1 to P8, that no step was lost or doubled, and that all that the nodes asked of etcd is linearizable.

Usage: cargo run --release -p clustering-testkit --example torture -- [OPTIONS]

Options:
  --seconds N      for how long faults come [default: 120]
  --nodes N        how many nodes [default: 7]
  --members N      how many members etcd has: 1, 3 or 5 [default: 3]
  --ttl SECONDS    the TTL of the nodes' leases, at least 3 [default: 3]
  --seed N         which faults, when, to whom [default: another one each time]
  --only LIST      these faults alone, with commas, such as Kill,HangAnswers
  --keep FOLDER    where the story goes if a promise is broken [default: a new folder in TMPDIR]
  --breach KIND    break the nodes' writes, to see that it is found: unfenced, last-write-wins or repeats-lost
  --json           print the result as one JSON object
  --help           print this

The same seed plans the same faults. What they meet depends on the machine: a failure may take several runs to come again.

Needs an etcd on the PATH, or the one that CLUSTERING_ETCD_BIN names. Leaves no process and no folder behind, however it
ends.

Exit codes: 0 if all promises hold, 1 if one is broken (the story is kept, and the command that does it again printed),
2 if it could not run, 130 if it was interrupted.
";

/// What is done.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) time: Duration,
    pub(crate) nodes: usize,
    pub(crate) members: usize,
    pub(crate) ttl: Duration,
    pub(crate) seed: u64,
    pub(crate) only: Vec<Kind>,
    pub(crate) keep: Option<PathBuf>,
    pub(crate) breach: Option<Breach>,
    pub(crate) json: bool,
}

pub(crate) enum Asked {
    Run(Settings),
    Help,
}

pub(crate) fn parse() -> Result<Asked, Box<dyn Error>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let mut settings = Settings {
        time: Duration::from_secs(120),
        nodes: 7,
        members: 3,
        ttl: Duration::from_secs(3),
        // Short enough to be typed.
        seed: (now.as_nanos() % 1_000_000_007) as u64,
        only: Kind::ALL.to_vec(),
        keep: None,
        breach: None,
        json: false,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("seconds") => {
                settings.time = Duration::from_secs(number(&mut parser, "--seconds", 1..=86_400)?);
            }
            Long("nodes") => settings.nodes = number(&mut parser, "--nodes", 1..=50)? as usize,
            Long("members") => settings.members = members(&mut parser)?,
            Long("ttl") => settings.ttl = Duration::from_secs(number(&mut parser, "--ttl", 3..=60)?),
            Long("seed") => settings.seed = number(&mut parser, "--seed", 0..=u64::MAX)?,
            Long("only") => settings.only = kinds(&mut parser, &Kind::ALL)?,
            Long("keep") => settings.keep = Some(parser.value()?.into()),
            Long("breach") => settings.breach = Some(breach(&parser.value()?.string()?)?),
            Long("json") => settings.json = true,
            Long("help") | Short('h') => return Ok(Asked::Help),
            _ => return Err(argument.unexpected().into()),
        }
    }
    Ok(Asked::Run(settings))
}

fn members(parser: &mut lexopt::Parser) -> Result<usize, Box<dyn Error>> {
    match number(parser, "--members", 1..=5)? {
        even @ (2 | 4) => Err(format!("--members {even}: expected an odd number, 1, 3 or 5").into()),
        odd => Ok(odd as usize),
    }
}

fn breach(given: &str) -> Result<Breach, Box<dyn Error>> {
    match given {
        "unfenced" => Ok(Breach::Unfenced),
        "last-write-wins" => Ok(Breach::LastWriteWins),
        "repeats-lost" => Ok(Breach::RepeatsLost),
        _ => Err(format!("--breach {given:?}: expected unfenced, last-write-wins or repeats-lost").into()),
    }
}

impl Settings {
    /// What does it again.
    pub(crate) fn command(&self) -> String {
        let mut command = format!(
            "cargo run --release -p clustering-testkit --example torture -- --seconds {} --nodes {} --members {} --ttl {} --seed {}",
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
        let breach = match self.breach {
            None => return command,
            Some(Breach::Unfenced) => "unfenced",
            Some(Breach::LastWriteWins) => "last-write-wins",
            Some(Breach::RepeatsLost) => "repeats-lost",
        };
        command += &format!(" --breach {breach}");
        command
    }
}
