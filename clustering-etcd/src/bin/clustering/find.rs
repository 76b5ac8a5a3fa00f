use std::{io::BufRead, process::ExitCode};

use clap::Args;
use clustering_etcd::Report;
use serde_json::json;

use crate::{
    connection::Connection,
    failure::{Failure, NO, UNKNOWN},
    output,
};

/// Show which node takes each key: the key, its node and where that is reached, divided by tabs
///
/// By the nodes that are present, as a process that routes would. Exit codes: 0 each key has a node, 1 no node takes keys,
/// 2 it is not known.
#[derive(Args, Debug)]
pub(crate) struct Find {
    /// The keys; without any, each line of the standard input is one
    keys: Vec<String>,
    /// Also those next in line, so many nodes in all
    #[arg(long, short, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Print one JSON object for each key
    #[arg(long)]
    json: bool,
}

impl Find {
    pub(crate) async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        let report = existing(connection).await?;
        let nodes = report.placement();
        let keys = if self.keys.is_empty() { read_keys()? } else { self.keys };
        for key in keys {
            let found = nodes.find_n(&key, self.count as usize);
            if found.is_empty() {
                let text = match report.nodes.is_empty() {
                    true => format!("no node takes {key:?}: none is present"),
                    false => format!("no node takes {key:?}: all have weight 0"),
                };
                return Err(Failure::new(NO, text));
            }
            if self.json {
                let nodes: Vec<_> =
                    found.iter().map(|node| json!({ "name": node.name, "uri": node.uri })).collect();
                output::json(&json!({ "key": key, "nodes": nodes }))?;
            } else {
                for node in found {
                    output::line(format!("{key}\t{}\t{}", node.name, node.uri));
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The cluster; that there is none is a failure.
pub(crate) async fn existing(connection: &Connection) -> Result<Report, Failure> {
    let operator = connection.operator()?;
    let report = connection.quick(operator.report()).await?;
    report.ok_or_else(|| Failure::no_cluster(operator.keyspace().namespace()))
}

/// The lines of the standard input, without empty ones.
pub(crate) fn read_keys() -> Result<Vec<String>, Failure> {
    let lines: Result<Vec<_>, _> = std::io::stdin().lock().lines().collect();
    let lines = lines
        .map_err(|error| Failure::new(UNKNOWN, format!("the standard input cannot be read: {error}")))?;
    Ok(lines.into_iter().filter(|line| !line.is_empty()).collect())
}
