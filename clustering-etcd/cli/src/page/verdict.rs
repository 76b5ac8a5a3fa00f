//! The first sentence of the page. It says whether the cluster is fine, and otherwise names the problem, the node and
//! the reason.

use clustering_core::{ClusterState, Namespace, Readiness, Report, report::NodeReport};
use serde::Serialize;

use crate::{slots, status};

/// Maximum number of reasons in the sentence. The page lists all of them below.
const REASONS: usize = 2;

/// Maximum number of characters of a reason in the sentence.
const LENGTH: usize = 160;

/// A sentence about the whole cluster.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Verdict {
    pub(super) tone: Tone,
    pub(super) text: String,
}

/// Urgency of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Tone {
    /// There is nothing to do.
    Good,
    /// The cluster is changing, or something deserves attention.
    Wait,
    /// The cluster needs an operator to continue.
    Bad,
    /// Nothing is known, or there is no cluster.
    Unknown,
}

impl Verdict {
    /// Returns the verdict on a cluster that has not been read yet. `away` is the error of the last attempt.
    pub(super) fn unknown(store_name: &str, away: Option<&str>) -> Self {
        match away {
            None => new(Tone::Unknown, format!("Reading the cluster from {store_name}.")),
            Some(_) => new(
                Tone::Bad,
                format!(
                    "{store_name} does not answer, so the state of the cluster is not known. This page waits for \
                     {store_name}, and then shows the cluster."
                ),
            ),
        }
    }

    /// Returns the verdict on a cluster whose store does not answer any more.
    pub(super) fn away(store_name: &str) -> Self {
        let text = format!(
            "{store_name} does not answer. This is the last known state. Until {store_name} is back, no node can join \
             or lead."
        );
        new(Tone::Bad, text)
    }

    pub(super) fn no_cluster(namespace: &Namespace) -> Self {
        new(Tone::Unknown, format!("There is no cluster in the namespace {namespace} yet."))
    }

    pub(super) fn of(report: &Report) -> Self {
        let mut lines = status::state(report, None).into_iter();
        let first = capital(&lines.next().unwrap_or_default());
        if let ClusterState::Due { .. } = report.condition {
            // A node that refuses this version is likely to refuse the next one.
            let refusals = refusals(report);
            let tone = if refusals.is_empty() { Tone::Wait } else { Tone::Bad };
            return new(tone, sentence(&first, ": ", refusals.into_iter().chain(lines).collect()));
        }
        if !report.condition.is_stable() {
            return new(tone(&report.condition), sentence(&first, ": ", lines.collect()));
        }
        let concerns = concerns(report);
        let tone = if concerns.is_empty() { Tone::Good } else { Tone::Wait };
        new(tone, sentence(&first, ". But ", concerns))
    }
}

/// Appends the first reasons to a statement.
fn sentence(first: &str, link: &str, mut reasons: Vec<String>) -> String {
    for reason in &mut reasons {
        if let Some((end, _)) = reason.char_indices().nth(LENGTH) {
            reason.replace_range(end.., "…");
        }
    }
    if reasons.len() > REASONS {
        reasons.truncate(REASONS);
        reasons.push("and others".to_owned());
    }
    match reasons.is_empty() {
        true => format!("{first}."),
        false => format!("{first}{link}{}.", reasons.join("; ")),
    }
}

fn new(tone: Tone, text: String) -> Verdict {
    Verdict { tone, text }
}

/// Returns the urgency of a state, if nothing else is wrong.
fn tone(condition: &ClusterState) -> Tone {
    let is_refused = |late: &[clustering_core::Laggard]| late.iter().any(|late| late.refused.is_some());
    match condition {
        ClusterState::Adapting { waiting_for } | ClusterState::Releasing { waiting_for }
            if is_refused(waiting_for) =>
        {
            Tone::Bad
        }
        ClusterState::Unreadable | ClusterState::Empty => Tone::Bad,
        _ => Tone::Wait,
    }
}

/// Describes the nodes that refused the newest version.
fn refusals(report: &Report) -> Vec<String> {
    let refusal = |node: &NodeReport| match &node.readiness {
        Readiness::Refused(reason) => Some(format!("{} refused: {reason}", node.name)),
        _ => None,
    };
    report.nodes.iter().filter_map(refusal).collect()
}

/// Returns what deserves attention although it does not keep the cluster from being stable.
fn concerns(report: &Report) -> Vec<String> {
    let mut concerns = Vec::new();
    if let Some(slots) = &report.slots {
        concerns.extend(slots::idle(slots));
    }
    concerns.extend(status::shortage(report).map(|shortage| format!("its minimum size is {shortage}")));
    if !report.malformed.is_empty() {
        concerns.push(match report.malformed.len() {
            1 => "1 record is malformed".to_owned(),
            count => format!("{count} records are malformed"),
        });
    }
    concerns
}

/// Returns the text, which begins with an ASCII word, with a capital first letter.
fn capital(text: &str) -> String {
    text.chars().take(1).map(|first| first.to_ascii_uppercase()).chain(text.chars().skip(1)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use clustering_core::NodeName;

    use super::*;
    use crate::watch::tests::{releasing, report};

    fn of(report: Option<Report>) -> (Tone, String) {
        let verdict = Verdict::of(&report.unwrap());
        (verdict.tone, verdict.text)
    }

    #[test]
    fn the_sentence_names_who_blocks_and_why_and_refusals_come_first() {
        assert_eq!(of(report(3, 0)), (Tone::Good, "Stable, all 3 nodes are ready.".to_owned()));
        let refused = "Not stable: waiting for 1 of 3 nodes: node-002 refused: its disk is full.";
        assert_eq!(of(report(3, 1)), (Tone::Bad, refused.to_owned()));
        // The node that refused has the last name of all.
        let many = "Not stable: waiting for 400 of 500 nodes: node-499 refused: its disk is full; node-100 has not \
                    answered; and others.";
        assert_eq!(of(report(500, 400)), (Tone::Bad, many.to_owned()));
        let (tone, text) = of(releasing());
        let parts = "Not stable: slots move, waiting for 1 of 2 nodes to release them: node-1 has not released the slots";
        assert!(
            tone == Tone::Wait && text.starts_with(parts) && text.contains("node-9 is gone, but may hold"),
            "{text}"
        );
    }

    #[test]
    fn nodes_that_wait_to_join_come_after_those_that_the_hand_over_waits_for() {
        let mut report = releasing().unwrap();
        let mut joiner = report.nodes[1].clone();
        Arc::make_mut(&mut joiner.node).name = NodeName::parse("node-3").unwrap();
        joiner.readiness = Readiness::New;
        report.nodes.push(joiner);
        assert_eq!(
            status::state(&report, None),
            [
                "not stable: slots move, waiting for 1 of 2 nodes to release them",
                "node-1 has not released the slots that it lost",
                "node-9 is gone, but may hold slots until its lease 9 expires, in at most 15s",
                "node-3 joins once this version is stable, after at most 30s",
            ]
        );
    }

    #[test]
    fn a_long_reason_is_cut_off() {
        let text = sentence("Not stable", ": ", vec!["ü".repeat(LENGTH + 1), "ü".repeat(LENGTH)]);
        assert_eq!(text, format!("Not stable: {0}…; {0}.", "ü".repeat(LENGTH)));
    }

    #[test]
    fn a_store_that_is_away_is_said_before_anything_else() {
        assert_eq!(Verdict::unknown("etcd", None).tone, Tone::Unknown);
        let away = Verdict::unknown("etcd", Some("refused"));
        assert!(away.tone == Tone::Bad && away.text.contains("This page waits for etcd"), "{away:?}");
        assert!(Verdict::away("etcd").text.contains("last known state"));
    }
}
