use std::{error::Error, str::FromStr, time::Duration};

use lexopt::prelude::*;

pub(crate) const HELP: &str = "\
Runs an instance of a service whose instances own devices, or measures a rolling restart of several instances.

Usage: cargo run -p clustering-etcd --example devices -- [OPTIONS]

Options:
  --name NAME          name of the instance [default: a]
  --listen ADDRESS     address to serve at [default: 127.0.0.1:0]
  --uri URI            address under which the other instances reach this one [default: that of --listen]
  --store STORE        etcd, at ETCD_ENDPOINTS or localhost:2379, or memory, for one process [default: etcd]
  --rolling-restart    restart each instance in turn under load, print a line of JSON, and exit
  --instances COUNT    instances to restart [default: 5]
  --rate COUNT         requests a second [default: 500]
  --devices COUNT      devices that are requested in turn [default: 10]
  --pause SECONDS      time between two restarts [default: 2]
  --help               print this help

Exit codes: 0 on success, 1 if an instance failed, or if a request failed or overlapped with another, 2 for wrong arguments.
";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreKind {
    Etcd,
    Memory,
}

pub(crate) struct Instance {
    pub(crate) name: String,
    pub(crate) listen: String,
    pub(crate) uri: Option<String>,
    pub(crate) store: StoreKind,
}

/// A rolling restart.
pub(crate) struct Plan {
    pub(crate) store: StoreKind,
    pub(crate) instances: usize,
    pub(crate) rate: u32,
    pub(crate) devices: usize,
    pub(crate) pause: Duration,
}

pub(crate) enum Arguments {
    Instance(Instance),
    RollingRestart(Plan),
}

pub(crate) enum Asked {
    Run(Arguments),
    Help,
}

pub(crate) fn parse() -> Result<Asked, Box<dyn Error>> {
    let mut instance = Instance {
        name: "a".to_owned(),
        listen: "127.0.0.1:0".to_owned(),
        uri: None,
        store: StoreKind::Etcd,
    };
    let mut plan =
        Plan { store: StoreKind::Etcd, instances: 5, rate: 500, devices: 10, pause: Duration::from_secs(2) };
    let mut is_rolling = false;
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("name") => instance.name = parser.value()?.string()?,
            Long("listen") => instance.listen = parser.value()?.string()?,
            Long("uri") => instance.uri = Some(parser.value()?.string()?),
            Long("store") => {
                instance.store = match parser.value()?.string()?.as_str() {
                    "etcd" => StoreKind::Etcd,
                    "memory" => StoreKind::Memory,
                    other => return Err(format!("--store {other:?}: expected etcd or memory").into()),
                }
            }
            Long("rolling-restart") => is_rolling = true,
            Long("instances") => plan.instances = at_least(2, &mut parser, "--instances")?,
            Long("rate") => plan.rate = at_least(1, &mut parser, "--rate")?,
            Long("devices") => plan.devices = at_least(1, &mut parser, "--devices")?,
            Long("pause") => plan.pause = Duration::from_secs(at_least(1, &mut parser, "--pause")?),
            Long("help") | Short('h') => return Ok(Asked::Help),
            _ => return Err(argument.unexpected().into()),
        }
    }
    plan.store = instance.store;
    Ok(Asked::Run(if is_rolling { Arguments::RollingRestart(plan) } else { Arguments::Instance(instance) }))
}

fn at_least<N: FromStr + PartialOrd + std::fmt::Display>(
    least: N,
    parser: &mut lexopt::Parser,
    option: &str,
) -> Result<N, Box<dyn Error>> {
    let given = parser.value()?.string()?;
    let number = given.parse().ok().filter(|number| *number >= least);
    number.ok_or_else(|| format!("{option} {given:?}: expected a number of at least {least}").into())
}
