use std::{error::Error, time::Duration};

use lexopt::prelude::*;

pub(crate) const HELP: &str = "\
One node of a cluster. It joins, shares 24 imaginary devices with the other nodes, and prints events.

Usage: cargo run -p clustering-etcd --example node -- [OPTIONS]

Options:
  --name NAME         name of the node; with the same name after a restart it gets its devices back [default: a ULID]
  --uri URI           address for other nodes [default: http://localhost:8080]
  --namespace NAME    name of the cluster [default: demo]
  --endpoints LIST    endpoints of etcd, separated by commas [default: ETCD_ENDPOINTS, ETCD_HOST and ETCD_PORT, ETCDCTL_ENDPOINTS,
                      localhost:2379]
  --ttl SECONDS       time after which a crash is noticed [default: 15]
  --probes ADDRESS    serve /livez, /readyz, /leaderz and /metrics on this address, such as [::]:8081 [default:
                      NODE_PROBES, or none]; requires the features metrics and probes
  --json              print one event per line as JSON, with `at_ms`
  --help              print this help

User, password and TLS are configured by environment variables, as for etcdctl: ETCDCTL_USER, ETCDCTL_CACERT, ETCDCTL_CERT, ETCDCTL_KEY.

Ctrl-C or SIGTERM makes the node leave; a second signal ends the process at once. Exit codes: 0 after leaving, 1 if the node
ended by itself or could not start, 2 for wrong arguments.
";

pub(crate) struct Arguments {
    pub(crate) name: Option<String>,
    pub(crate) uri: String,
    pub(crate) namespace: String,
    pub(crate) endpoints: Vec<String>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) probes: Option<String>,
    pub(crate) json: bool,
}

pub(crate) enum Asked {
    Run(Arguments),
    Help,
}

pub(crate) fn parse() -> Result<Asked, Box<dyn Error>> {
    let mut arguments = Arguments {
        name: None,
        uri: "http://localhost:8080".to_owned(),
        namespace: "demo".to_owned(),
        endpoints: Vec::new(),
        ttl: None,
        probes: std::env::var("NODE_PROBES").ok().filter(|address| !address.is_empty()),
        json: false,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("name") => arguments.name = Some(parser.value()?.string()?),
            Long("uri") => arguments.uri = parser.value()?.string()?,
            Long("namespace") => arguments.namespace = parser.value()?.string()?,
            Long("endpoints") => {
                arguments.endpoints =
                    parser.value()?.string()?.split(',').map(|endpoint| endpoint.trim().to_owned()).collect();
            }
            Long("ttl") => {
                let given = parser.value()?.string()?;
                let seconds = given
                    .parse()
                    .map_err(|_| format!("--ttl {given:?}: expected a number of seconds, such as 15"))?;
                arguments.ttl = Some(Duration::from_secs(seconds));
            }
            Long("probes") => arguments.probes = Some(parser.value()?.string()?),
            Long("json") => arguments.json = true,
            Long("help") | Short('h') => return Ok(Asked::Help),
            _ => return Err(argument.unexpected().into()),
        }
    }
    Ok(Asked::Run(arguments))
}
