use std::{process::ExitCode, time::Duration};

use clap::Args;
use clustering_core::{Operator, Report, store::Revision};

use crate::{
    context::Context,
    failure::Failure,
    lists::counted,
    output::{self, Format},
    status::state,
    times::{brief, duration},
};

/// Wait until the cluster is stable
///
/// Also waits for a cluster that does not exist yet, and while the store is away. Prints the stable version, or with
/// --json the whole report. Exit codes: 0 stable, 1 timed out, 2 the store could not be reached at the start, or it
/// refused.
#[derive(Args, Debug)]
pub(crate) struct Wait {
    /// Has no effect, because the command always waits for a stable version; it makes scripts explicit
    #[arg(long)]
    stable: bool,
    /// Wait until the cluster is stable with this number of nodes
    #[arg(long, value_name = "N")]
    nodes: Option<usize>,
    /// Time limit [default: none]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    format: Format,
}

impl Wait {
    pub(crate) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let operator = context.operator().await?;
        let is_wanted = |report: &Report| {
            report.condition.is_stable() && self.nodes.is_none_or(|nodes| report.nodes.len() == nodes)
        };
        let missing = match self.nodes {
            Some(nodes) => format!("not stable with {}", counted(nodes)),
            None => "not stable".to_owned(),
        };
        let report = until(context, &operator, self.timeout, &missing, is_wanted).await?;
        match self.format.is_json() {
            true => output::json(&report)?,
            false => output::line(stable_line(&report)),
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Formats the stable version as a line.
pub(crate) fn stable_line(report: &Report) -> String {
    let version = report.stable.map(|version| version.to_string()).unwrap_or_default();
    format!("{version} is stable, with {}", counted(report.nodes.len()))
}

/// Follows the cluster until `is_wanted` returns true for the report. After the time limit, fails with the message
/// `missing` and the state of the cluster.
pub(crate) async fn until(
    context: &Context,
    operator: &Operator,
    limit: Option<Duration>,
    missing: &str,
    is_wanted: impl Fn(&Report) -> bool,
) -> Result<Report, Failure> {
    let mut monitor = context.quick(operator.monitor()).await?;
    let waiting = async {
        loop {
            if let Some(report) = monitor.report().filter(|report| !monitor.is_away() && is_wanted(report)) {
                return report;
            }
            monitor.next().await;
        }
    };
    let Some(limit) = limit else { return Ok(waiting.await) };
    if let Ok(report) = tokio::time::timeout(limit, waiting).await {
        return Ok(report);
    }
    let failure = Failure::no(format!("{missing} within {}", brief(limit)));
    Err(match monitor.report() {
        _ if monitor.is_away() => failure.hint(format!("{} does not answer", context.store_name)),
        Some(report) => failure.hints(state(&report, None)),
        None => {
            let namespace = operator.keyspace().namespace();
            failure.hint(format!("there is no cluster in the namespace {namespace}"))
        }
    })
}

/// Waits until a version that was written after the revision is stable, and prints it.
pub(crate) async fn stable_after(
    context: &Context,
    operator: &Operator,
    seen: Revision,
    limit: Duration,
) -> Result<(), Failure> {
    let is_newer = |report: &Report| {
        report.condition.is_stable() && report.version.as_ref().is_some_and(|version| version.revision > seen)
    };
    let missing = "the new version is not stable";
    let report = until(context, operator, Some(limit), missing, is_newer).await?;
    output::line(stable_line(&report));
    Ok(())
}
