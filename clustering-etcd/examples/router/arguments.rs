use std::error::Error;

use lexopt::prelude::*;

pub(crate) const HELP: &str = "\
Prints which node of a cluster owns a key, for the given keys or for each line of standard input.

Usage: cargo run -p clustering-etcd --example router -- [OPTIONS] [KEY]...

Options:
  -n COUNT            number of nodes to print: the owner and its successors [default: 1]
  --namespace NAME    name of the cluster [default: demo]
  --endpoints LIST    endpoints of etcd, separated by commas [default: from the environment, as for the node example]
  --json              print one JSON object per key
  --help              print this help

Exit codes: 0 if every key has an owner, 1 if not or if etcd does not answer, 2 for wrong arguments.
";

pub(crate) struct Arguments {
    pub(crate) namespace: String,
    pub(crate) endpoints: Vec<String>,
    pub(crate) keys: Vec<String>,
    pub(crate) n: usize,
    pub(crate) json: bool,
}

pub(crate) enum Asked {
    Run(Arguments),
    Help,
}

pub(crate) fn parse() -> Result<Asked, Box<dyn Error>> {
    let mut arguments = Arguments {
        namespace: "demo".to_owned(),
        endpoints: Vec::new(),
        keys: Vec::new(),
        n: 1,
        json: false,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('n') => {
                let given = parser.value()?.string()?;
                arguments.n = given
                    .parse()
                    .ok()
                    .filter(|n| *n > 0)
                    .ok_or_else(|| format!("-n {given:?}: expected a number of at least 1"))?;
            }
            Long("namespace") => arguments.namespace = parser.value()?.string()?,
            Long("endpoints") => {
                arguments.endpoints =
                    parser.value()?.string()?.split(',').map(|endpoint| endpoint.trim().to_owned()).collect();
            }
            Long("json") => arguments.json = true,
            Long("help") | Short('h') => return Ok(Asked::Help),
            Value(key) => arguments.keys.push(key.string()?),
            _ => return Err(argument.unexpected().into()),
        }
    }
    Ok(Asked::Run(arguments))
}
