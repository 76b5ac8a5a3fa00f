//! Versions of the past: `history` and `why`.

use std::process::ExitCode;

use clap::Args;
use clustering_core::{ClusterState, HistoryEntry, Operator, Report, history};

use crate::{
    connect::Purpose,
    context::Context,
    failure::Failure,
    lists::{NAMED, are, counted},
    output::{self, Format},
    slots,
    status::state,
    times::{brief, label_time, moment},
};

/// List the last versions and their causes
///
/// The newest version comes first. Each line also has the time of the label, the time until the version was stable, and
/// the last node to become ready.
///
/// The label contains the wall clock time of the leader that published the version, or a later time if an earlier label
/// was ahead of that clock. The leader measures the durations.
#[derive(Args, Debug)]
pub(crate) struct History {
    /// Maximum number of versions [default: all]
    #[arg(long, short = 'c', value_name = "N")]
    count: Option<usize>,
    #[command(flatten)]
    format: Format,
}

/// Print why a version was published, and whether it became stable
///
/// For the newest version, also prints what keeps it from becoming stable, and in an exclusive cluster what keeps slots
/// from being acquired, and what ends that.
///
/// Exit codes: 0 printed, 1 the history does not contain the version, 2 unknown: the store cannot be reached or
/// refuses, or there is no cluster.
#[derive(Args, Debug)]
pub(crate) struct Why {
    /// The version, or its number [default: the newest]
    #[arg(value_name = "VERSION")]
    which: Option<String>,
    #[command(flatten)]
    format: Format,
}

impl History {
    pub(crate) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let (_, mut entries) = read(context).await?;
        entries.truncate(self.count.unwrap_or(usize::MAX));
        if self.format.is_json() {
            for entry in &entries {
                output::json(entry)?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        let rows: Vec<_> = entries.iter().map(row).collect();
        output::lines(output::table(&["NUMBER", "LABELLED", "BY", "STABLE", "NODES", "LAST", "WHY"], &rows));
        Ok(ExitCode::SUCCESS)
    }
}

impl Why {
    pub(crate) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let (operator, entries) = read(context).await?;
        let entry = self.find(&entries)?;
        if self.format.is_json() {
            output::json(entry)?;
            return Ok(ExitCode::SUCCESS);
        }
        output::lines(text(entry));
        if entries.first() == Some(entry) {
            let report = context.quick(operator.report()).await?;
            output::lines(report.map(|report| blockers(entry, &report)).unwrap_or_default());
        } else if entry.stable.is_none() {
            output::line("it was superseded before it became stable");
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Returns the entry of the version that the argument names.
    fn find<'a>(&self, entries: &'a [HistoryEntry]) -> Result<&'a HistoryEntry, Failure> {
        let (found, missing) = match self.which.as_deref() {
            None => (entries.first(), "the history is empty".to_owned()),
            Some(which) => {
                let number = which.trim_start_matches('#');
                let is_wanted = |entry: &&HistoryEntry| {
                    entry.number.to_string() == number
                        || entry.version.to_string().eq_ignore_ascii_case(number)
                };
                (entries.iter().find(is_wanted), format!("there is no version {which} in the history"))
            }
        };
        let hint = "`clustering history` lists the versions that are kept; older ones have been dropped";
        found.ok_or_else(|| Failure::no(missing).hint(hint))
    }
}

/// Describes what keeps the newest version from becoming stable, or its slots from being acquired.
fn blockers(entry: &HistoryEntry, report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    if entry.stable.is_none() {
        let state = state(report, None).into_iter().enumerate();
        lines.extend(state.map(|(place, line)| if place == 0 { line } else { format!("  {line}") }));
    }
    if let ClusterState::WaitingForNodes { nodes, min_nodes } = report.condition {
        let (number, present) = (entry.number, are(nodes));
        lines.push(format!(
            "  version {number} waits for {min_nodes} nodes, {present} present: start the others, or lower --min-nodes"
        ));
    }
    let summary = slots::summary(report);
    if summary.len() > 1 {
        lines.push(format!("slots: {}", summary.join("; ")));
    }
    lines.extend(slots::advice(report).into_iter().map(|line| format!("  {line}")));
    lines
}

/// Reads the history. An empty history without a cluster is a failure.
async fn read(context: &Context) -> Result<(Operator, Vec<HistoryEntry>), Failure> {
    let operator = context.operator().await?;
    let store = context.store(Purpose::Operator).await?;
    let entries = context.quick(history(&store, operator.keyspace())).await?;
    if entries.is_empty() && context.quick(operator.report()).await?.is_none() {
        return Err(Failure::no_cluster(operator.keyspace().namespace()));
    }
    Ok((operator, entries))
}

fn row(entry: &HistoryEntry) -> [String; 7] {
    let by = entry.leader.as_ref().map(ToString::to_string).unwrap_or_default();
    let stable = entry.stable.as_ref();
    let cell = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        entry.number.to_string(),
        label_time(entry.version),
        by,
        cell(stable.map(|stable| brief(stable.after))),
        cell(stable.map(|stable| stable.nodes.to_string())),
        cell(stable.and_then(|stable| stable.last.as_ref()).map(ToString::to_string)),
        [causes(entry)].into_iter().chain(waiting(entry)).collect::<Vec<_>>().join("; "),
    ]
}

fn causes(entry: &HistoryEntry) -> String {
    entry.causes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Names the absent nodes for which slots waited when the version was published.
fn waiting(entry: &HistoryEntry) -> Option<String> {
    let names: Vec<_> = entry.kept.keys().take(NAMED).map(ToString::to_string).collect();
    let more = entry.kept.len() - names.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!names.is_empty()).then(|| format!("slots wait for {}{more}", names.join(", ")))
}

fn text(entry: &HistoryEntry) -> Vec<String> {
    let by = entry.leader.as_ref().map(|leader| format!(" by {leader}")).unwrap_or_default();
    let labelled = match entry.version.is_plausible() {
        true => format!(", labelled {}", moment(entry.version.minted_ms())),
        false => String::new(),
    };
    let (version, number, term) = (entry.version, entry.number, entry.term);
    let first = format!("{version} (number {number}) was published{by}, term {term}{labelled}");
    let mut lines = vec![first, format!("because {}", causes(entry))];
    lines.extend(waiting(entry));
    if let Some(stable) = &entry.stable {
        let mut text = format!("stable after {}, with {}", brief(stable.after), counted(stable.nodes));
        if let Some(last) = &stable.last {
            text += &format!("; {last} was the last to become ready, after {}", brief(stable.last_after));
        }
        lines.push(text);
    }
    lines
}
