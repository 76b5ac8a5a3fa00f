use std::{process::ExitCode, time::Duration};

use clap::Args;
use clustering_etcd::{Operator, Report, store::Revision};

use crate::{
    connection::Connection,
    failure::{Failure, NO},
    output::{self, Format, counted},
    status::state,
    times::{brief, duration},
};

/// Wait until the cluster is stable
///
/// Also waits while there is no cluster yet, and while etcd is away. Prints the version at the end, or with --json the
/// whole report. Exit codes: 0 stable, 1 timed out, 2 etcd could not be reached at the start, or refuses.
#[derive(Args, Debug)]
pub(crate) struct Wait {
    /// Until every node is ready at the newest version; this is what it waits for in any case
    #[arg(long)]
    stable: bool,
    /// Until it is stable with so many nodes
    #[arg(long, value_name = "N")]
    nodes: Option<usize>,
    /// Give up after that time
    #[arg(long, value_name = "TIME", value_parser = duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    format: Format,
}

impl Wait {
    pub(crate) async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        let operator = connection.operator()?;
        let good = |report: &Report| {
            report.condition.is_stable() && self.nodes.is_none_or(|nodes| report.nodes.len() == nodes)
        };
        let missing = match self.nodes {
            Some(nodes) => format!("not stable with {}", counted(nodes)),
            None => "not stable".to_owned(),
        };
        let report = until(connection, &operator, self.timeout, &missing, good).await?;
        match self.format.is_json() {
            true => output::json(&report)?,
            false => output::line(stable_line(&report)),
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What became stable, in a line.
pub(crate) fn stable_line(report: &Report) -> String {
    let version = report.stable.map(|version| version.to_string()).unwrap_or_default();
    format!("{version} is stable, with {}", counted(report.nodes.len()))
}

/// Follows the cluster until the report is as wanted. If the time runs out it says what is missing.
pub(crate) async fn until(
    connection: &Connection,
    operator: &Operator,
    timeout: Option<Duration>,
    missing: &str,
    good: impl Fn(&Report) -> bool,
) -> Result<Report, Failure> {
    let mut monitor = connection.quick(operator.monitor()).await?;
    let mut away = false;
    let waiting = async {
        loop {
            if let Some(report) = monitor.report().filter(|report| !monitor.is_away() && good(report)) {
                return report;
            }
            monitor.next().await;
            away = monitor.is_away();
        }
    };
    let Some(timeout) = timeout else { return Ok(waiting.await) };
    if let Ok(report) = tokio::time::timeout(timeout, waiting).await {
        return Ok(report);
    }
    let text = format!("{missing} within {}", brief(timeout));
    if away {
        return Err(Failure::new(NO, text).hint("etcd does not answer"));
    }
    match monitor.report() {
        Some(report) => Err(Failure::new(NO, text).hints(state(&report, None))),
        None => {
            let namespace = operator.keyspace().namespace();
            Err(Failure::new(NO, text).hint(format!("there is no cluster in the namespace {namespace}")))
        }
    }
}

/// Waits until a version written after the revision is stable, and says so.
pub(crate) async fn stable_after(
    connection: &Connection,
    operator: &Operator,
    seen: Revision,
    timeout: Option<Duration>,
) -> Result<(), Failure> {
    let newer = |report: &Report| {
        report.condition.is_stable() && report.version.as_ref().is_some_and(|version| version.revision > seen)
    };
    let report = until(connection, operator, timeout, "the new version is not stable", newer).await?;
    output::line(stable_line(&report));
    Ok(())
}
