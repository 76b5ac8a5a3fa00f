use std::error::Error;

use lexopt::prelude::*;

pub(crate) const HELP: &str = "\
Runs a cluster in one process, on the in-memory store. Five nodes join, elect a leader and become stable. Then one node
leaves, the leader crashes and another one is elected, and a node refuses to stabilize for a while. The demo takes a few
seconds and ends by itself.

Usage: cargo run --example quickstart [-- OPTIONS]

Options:
  --nodes N   number of nodes that join, from 4 to 50 [default: 5]
  --json      print one JSON object per line, with `at_ms`, and with `node` if the event comes from a node
  --help      print this help

Exit codes: 0 if everything happened as expected, 1 if not, 2 for invalid arguments.
";

pub(crate) const NODES: std::ops::RangeInclusive<usize> = 4..=50;

pub(crate) struct Arguments {
    pub(crate) nodes: usize,
    pub(crate) json: bool,
}

pub(crate) enum Command {
    Run(Arguments),
    Help,
}

pub(crate) fn parse() -> Result<Command, Box<dyn Error>> {
    let mut arguments = Arguments { nodes: 5, json: false };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("nodes") => {
                let given = parser.value()?;
                let given = given.to_string_lossy();
                arguments.nodes =
                    given.parse().ok().filter(|nodes| NODES.contains(nodes)).ok_or_else(|| {
                        format!(
                            "--nodes {given:?}: expected a number from {} to {}",
                            NODES.start(),
                            NODES.end()
                        )
                    })?;
            }
            Long("json") => arguments.json = true,
            Long("help") | Short('h') => return Ok(Command::Help),
            _ => return Err(argument.unexpected().into()),
        }
    }
    Ok(Command::Run(arguments))
}
