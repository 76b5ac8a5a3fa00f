use std::process::ExitCode;

use clap::Args;
use clustering_etcd::{ClusterState, Report};

use crate::{
    connection::Connection,
    failure::Failure,
    output::{self, Format},
    status,
};

/// List the clusters in the store: namespace, nodes, state, leader
///
/// Reads all keys with the prefix, or all keys of etcd if there is no prefix, but values only of clusters. Give a
/// prefix if etcd holds millions of other keys, or if the user may not read all of them.
#[derive(Args, Debug)]
pub(crate) struct Services {
    /// Only namespaces that start with that
    #[arg(default_value = "")]
    prefix: String,
    /// Also what is left of clusters without nodes
    #[arg(long, short)]
    all: bool,
    #[command(flatten)]
    format: Format,
}

impl Services {
    pub(crate) async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        let store = connection.store()?;
        let mut reports = connection.quick(Report::read_all(&store, &self.prefix)).await?;
        reports.retain(|report| self.all || report.condition != ClusterState::Empty);
        if self.format.is_json() {
            for report in &reports {
                output::json(report)?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        if reports.is_empty() {
            let hint = if self.all { "" } else { "; --all lists what is left of those without" };
            output::note(format!("clustering: there is no cluster with nodes here{hint}"));
        }
        let rows: Vec<_> = reports.iter().map(row).collect();
        output::lines(output::table(["NAMESPACE", "NODES", "STATE", "LEADER"], &rows));
        Ok(ExitCode::SUCCESS)
    }
}

fn row(report: &Report) -> [String; 4] {
    let state = match &report.condition {
        ClusterState::Stable => "stable",
        ClusterState::Empty => "left over",
        _ => "not stable",
    };
    [report.namespace.to_string(), report.nodes.len().to_string(), state.to_owned(), status::leader(report)]
}
