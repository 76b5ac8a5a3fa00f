use std::process::ExitCode;

use clap::Args;
use clustering_core::{ClusterState, Report};

use crate::{
    connect::Purpose,
    context::Context,
    failure::Failure,
    output::{self, Format},
    status,
};

/// List the clusters in the store
///
/// Each line has the namespace, the number of nodes, the state and the leader. Reads the names of all keys with the
/// prefix, or of all keys in the store if there is no prefix, but only values of clusters. Give a prefix if the store
/// holds millions of other keys, or if the user may not read all of them.
#[derive(Args, Debug)]
pub(crate) struct Services {
    /// List only namespaces that start with this
    #[arg(default_value = "")]
    prefix: String,
    /// List also the remains of clusters without nodes
    #[arg(long, short)]
    all: bool,
    #[command(flatten)]
    format: Format,
}

impl Services {
    pub(crate) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let store = context.store(Purpose::Operator).await?;
        let mut reports = context.quick(Report::read_all(&store, &self.prefix)).await?;
        reports.retain(|report| self.all || report.condition != ClusterState::Empty);
        if self.format.is_json() {
            for report in &reports {
                output::json(report)?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        if reports.is_empty() {
            let hint = if self.all { "" } else { "; --all lists the remains of clusters without nodes" };
            output::note(format!("clustering: there is no cluster with nodes here{hint}"));
        }
        let rows: Vec<_> = reports.iter().map(row).collect();
        output::lines(output::table(&["NAMESPACE", "NODES", "STATE", "LEADER"], &rows));
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
