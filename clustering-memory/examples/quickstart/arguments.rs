use std::error::Error;

use lexopt::prelude::*;

pub(crate) const HELP: &str = "\
A cluster in one process, on the memory store: five nodes join, elect a leader and become stable; one leaves, the leader
crashes, another is elected; a node refuses to stabilize for a while. It takes a few seconds and ends by itself.

Usage: cargo run --example quickstart [-- OPTIONS]

Options:
  --nodes N   how many nodes join, from 4 to 50 [default: 5]
  --json      print one event per line as JSON, with `at_ms`, and `node` where a node tells it
  --help      print this

Exit codes: 0 if everything happened that is to be shown, 1 if not, 2 for wrong arguments.
";

pub(crate) const NODES: std::ops::RangeInclusive<usize> = 4..=50;

pub(crate) struct Arguments {
    pub(crate) nodes: usize,
    pub(crate) json: bool,
}

pub(crate) enum Asked {
    Run(Arguments),
    Help,
}

pub(crate) fn parse() -> Result<Asked, Box<dyn Error>> {
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
            Long("help") | Short('h') => return Ok(Asked::Help),
            _ => return Err(argument.unexpected().into()),
        }
    }
    Ok(Asked::Run(arguments))
}
