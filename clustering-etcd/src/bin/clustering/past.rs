//! The versions of the past: `history` and `why`.

use std::process::ExitCode;

use clap::Args;
use clustering_etcd::{HistoryEntry, Operator, history};

use crate::{
    connection::Connection,
    failure::{Failure, NO},
    output::{self, Format, counted},
    status::state,
    times::{brief, label_time, moment},
};

/// List the last versions, newest first: time of the label, time until stable, the last node to become ready, and
/// causes
///
/// The label shows the wall clock of the leader that published the version, or a later time if an earlier label was
/// ahead of that clock. Durations are measured by the leader.
#[derive(Args, Debug)]
pub(crate) struct History {
    /// How many at most
    #[arg(long, short = 'c', value_name = "N")]
    count: Option<usize>,
    #[command(flatten)]
    format: Format,
}

/// Say why the newest version was published, or another one, and what became of it
///
/// Exit codes: 0 it is known, 1 there is no such version in the history, 2 it is not known: etcd cannot be reached or
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
    pub(crate) async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        let (_, mut entries) = read(connection).await?;
        entries.truncate(self.count.unwrap_or(usize::MAX));
        if self.format.is_json() {
            for entry in &entries {
                output::json(entry)?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        let rows: Vec<_> = entries.iter().map(row).collect();
        output::lines(output::table(["NUMBER", "LABELLED", "BY", "STABLE", "NODES", "LAST", "WHY"], &rows));
        Ok(ExitCode::SUCCESS)
    }
}

impl Why {
    pub(crate) async fn run(self, connection: &Connection) -> Result<ExitCode, Failure> {
        let (operator, entries) = read(connection).await?;
        let wanted = |entry: &&HistoryEntry| match &self.which {
            None => true,
            Some(wanted) => {
                let wanted = wanted.trim_start_matches('#');
                entry.number.to_string() == wanted || entry.version.to_string().eq_ignore_ascii_case(wanted)
            }
        };
        let Some(entry) = entries.iter().find(wanted) else {
            let text = match &self.which {
                Some(version) => format!("there is no version {version} in the history"),
                None => "the history is empty".to_owned(),
            };
            return Err(
                Failure::new(NO, text).hint("`clustering history` lists those that are; older ones are gone")
            );
        };
        if self.format.is_json() {
            output::json(entry)?;
            return Ok(ExitCode::SUCCESS);
        }
        output::lines(text(entry));
        // What keeps the newest one from becoming stable is what one asks for then.
        if entry.stable.is_none() && entries.first() == Some(entry) {
            let report = connection.quick(operator.report()).await?;
            let state = report.map(|report| state(&report, None)).unwrap_or_default();
            let lines = state.iter().enumerate();
            output::lines(
                lines.map(|(place, line)| if place == 0 { line.clone() } else { format!("  {line}") }),
            );
        } else if entry.stable.is_none() {
            output::line("it was superseded before it became stable");
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn read(connection: &Connection) -> Result<(Operator, Vec<HistoryEntry>), Failure> {
    let operator = connection.operator()?;
    let store = connection.store()?;
    let entries = connection.quick(history(&store, operator.keyspace())).await?;
    if entries.is_empty() && connection.quick(operator.report()).await?.is_none() {
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
        causes(entry),
    ]
}

fn causes(entry: &HistoryEntry) -> String {
    entry.causes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
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
    if let Some(stable) = &entry.stable {
        let mut text = format!("stable after {}, with {}", brief(stable.after), counted(stable.nodes));
        if let Some(last) = &stable.last {
            text += &format!("; {last} was the last to be ready, after {}", brief(stable.last_after));
        }
        lines.push(text);
    }
    lines
}
