use std::{process::ExitCode, time::Duration};

use clap::Args;
use clustering_core::{ClusterState, NodeName, Readiness, Report};

use crate::{
    context::Context,
    failure::{Failure, NO},
    find::existing,
    lists::{are, counted, laggards, limited, members},
    nodes,
    output::{self, Format},
    slots,
    times::{brief, moment},
};

/// Show the state of the cluster
///
/// Prints the leader, the newest version, the state and the nodes. If the cluster is not stable, names the nodes that
/// it waits for, with their reasons. Of an exclusive cluster it also prints the slots: how many each node owns, what
/// keeps those that move from being acquired, and which wait for an absent node. The columns PRIORITY, GRACE and
/// ENDPOINT are shown if a node has another priority than 100, a restart grace, or crash detection. Exit codes: 0
/// stable, 1 not stable, 2 unknown: the store cannot be reached or refuses, or there is no cluster.
#[derive(Args, Debug)]
pub(crate) struct Status {
    #[command(flatten)]
    format: Format,
}

impl Status {
    pub(crate) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let report = existing(context).await?;
        match self.format.is_json() {
            true => output::json(&report)?,
            false => output::lines(text(&report)),
        }
        Ok(if report.condition.is_stable() { ExitCode::SUCCESS } else { ExitCode::from(NO) })
    }
}

/// Formats a report as text.
fn text(report: &Report) -> Vec<String> {
    let mut lines = labelled("cluster", vec![report.namespace.to_string()]);
    lines.extend(labelled("leader", vec![leader(report)]));
    lines.extend(labelled("version", vec![version(report)]));
    lines.extend(labelled("slots", slots::summary(report)));
    lines.extend(labelled("state", state(report, None)));
    lines.extend(labelled("minimum", shortage(report).into_iter().collect()));
    lines.extend(labelled("cordoned", slots::cordoned(report)));
    lines.extend(labelled("draining", slots::draining(report)));
    let malformed = report.malformed.iter().map(|bad| format!("{} ({})", bad.key, bad.reason));
    lines.extend(labelled("garbage", malformed.collect()));
    if !report.nodes.is_empty() {
        lines.push(String::new());
        lines.extend(nodes::table(report));
    }
    lines
}

/// Puts a label before the first line, and indents the others.
fn labelled(label: &str, lines: Vec<String>) -> Vec<String> {
    let labels = [label].into_iter().chain(std::iter::repeat(""));
    labels.zip(lines).map(|(label, line)| format!("{label:<10}{line}")).collect()
}

pub(crate) fn leader(report: &Report) -> String {
    match &report.leader {
        None => "none".to_owned(),
        Some(leader) => match &leader.name {
            Some(name) => format!("{name}, term {}", leader.term),
            None => format!("unreadable, term {}", leader.term),
        },
    }
}

pub(crate) fn version(report: &Report) -> String {
    let Some(version) = &report.version else { return "none yet".to_owned() };
    let Some(label) = version.version else { return "unreadable".to_owned() };
    let causes: Vec<_> = version.causes.iter().map(ToString::to_string).collect();
    let labelled = version.published_ms.map(|ms| format!(", labelled {}", moment(ms))).unwrap_or_default();
    match causes.is_empty() {
        true => format!("{label}{labelled}"),
        false => format!("{label}{labelled}: {}", causes.join(", ")),
    }
}

/// Describes the state in one or more lines. If the cluster is not stable, the lines name the reasons.
///
/// `watched` is the time for which the caller has seen that the cluster is not stable. It cannot be derived from a
/// single report, since the label's time comes from another machine's clock.
pub(crate) fn state(report: &Report, watched: Option<Duration>) -> Vec<String> {
    let mut lines = condition(report, watched);
    lines.extend(limited(&waiting_joiners(report), |name| {
        format!("{name} joins once this version is stable, after at most 30s")
    }));
    lines
}

/// Returns the nodes that wait for a hand-over of slots to finish before they join.
fn waiting_joiners(report: &Report) -> Vec<&NodeName> {
    let nodes = match report.condition {
        ClusterState::Releasing { .. } | ClusterState::Adapting { .. } | ClusterState::Confirming => {
            &report.nodes[..]
        }
        _ => &[],
    };
    nodes.iter().filter(|node| node.readiness == Readiness::New).map(|node| &node.name).collect()
}

fn condition(report: &Report, watched: Option<Duration>) -> Vec<String> {
    let watched = watched.map(|time| format!(", watched for {}", brief(time))).unwrap_or_default();
    let leader = report.leader_name().map_or("the leader", |name| name.as_str());
    match &report.condition {
        ClusterState::Stable => {
            let all = match report.nodes.len() {
                1 => "its one node is ready".to_owned(),
                nodes => format!("all {nodes} nodes are ready"),
            };
            vec![format!("stable, {all}")]
        }
        ClusterState::Confirming => {
            vec![format!("not stable{watched}: all nodes are ready, {leader} has yet to record that")]
        }
        ClusterState::WaitingForNodes { nodes, min_nodes } => {
            vec![format!("not stable{watched}: waits for {min_nodes} nodes, {} present", are(*nodes))]
        }
        ClusterState::Releasing { waiting_for } => slots::releasing(report, &watched, waiting_for),
        ClusterState::Adapting { waiting_for } => {
            let (late, all) = (waiting_for.len(), counted(members(report)));
            let first = format!("not stable{watched}: waiting for {late} of {all}");
            [first].into_iter().chain(laggards(waiting_for, "refused", "has not answered")).collect()
        }
        ClusterState::Due { changed, gone, asked } => {
            let first = format!("not stable{watched}: {leader} has yet to publish a new version");
            let mut lines = vec![first];
            lines.extend(limited(changed, |name| format!("{name} is new or changed")));
            if *gone > 0 {
                lines.push(format!("{} gone", counted(*gone)));
            }
            lines.extend(asked.then(|| request(report)));
            lines
        }
        ClusterState::Leaderless => vec![format!("not stable{watched}: there is no leader")],
        ClusterState::Unreadable => {
            let fix =
                "not stable: the record of the leader or the version is unreadable; delete the key below";
            vec![fix.to_owned()]
        }
        ClusterState::Empty => {
            let left = report.stable.map(|version| format!("; {version} was the last stable version"));
            vec![format!("not stable: no node is present{}", left.unwrap_or_default())]
        }
        other => vec![format!("not stable: {other:?}")],
    }
}

/// Describes a cluster that keeps working with fewer nodes than its minimum size.
pub(crate) fn shortage(report: &Report) -> Option<String> {
    let min_nodes = report.version.as_ref()?.min_nodes?;
    let nodes = report.nodes.len();
    let is_waiting = matches!(report.condition, ClusterState::WaitingForNodes { .. });
    let is_short = nodes < min_nodes as usize && !is_waiting;
    is_short.then(|| format!("{min_nodes} nodes, only {} present; the cluster keeps working", are(nodes)))
}

/// Describes the pending request for a version.
fn request(report: &Report) -> String {
    let request = report.request.as_ref();
    let by = request.and_then(|request| request.by.as_deref()).unwrap_or("an operator");
    match request.and_then(|request| request.why.as_deref()) {
        Some(why) => format!("{by} asked ({why})"),
        None => format!("{by} asked"),
    }
}
