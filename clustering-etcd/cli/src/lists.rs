//! Numbers of nodes, and lists that stay short however large the cluster is.

use clustering_core::{Laggard, Readiness, Report};

/// Maximum number of items that a list names.
pub(crate) const NAMED: usize = 10;

/// Returns the number of nodes of the newest version.
pub(crate) fn members(report: &Report) -> usize {
    report.nodes.iter().filter(|node| node.readiness != Readiness::New).count()
}

/// Formats a number of nodes, such as "1 node" or "3 nodes".
pub(crate) fn counted(nodes: usize) -> String {
    if nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") }
}

/// Formats a number of nodes with its verb.
pub(crate) fn are(nodes: usize) -> String {
    format!("{nodes} {}", if nodes == 1 { "is" } else { "are" })
}

/// Formats the first items as lines, and the number of the others.
pub(crate) fn limited<T>(items: &[T], line: impl Fn(&T) -> String) -> Vec<String> {
    let mut lines: Vec<_> = items.iter().take(NAMED).map(line).collect();
    if items.len() > NAMED {
        lines.push(format!("… and {} more", items.len() - NAMED));
    }
    lines
}

/// Describes the nodes that a version waits for, each with the reason that it gave, or else with what it has yet to do.
/// Nodes with a reason come first: they need help, while the others may only need time.
pub(crate) fn laggards(late: &[Laggard], refused: &str, yet_to_do: &str) -> Vec<String> {
    let mut late: Vec<_> = late.iter().collect();
    late.sort_by_key(|late| late.refused.is_none());
    limited(&late, |Laggard { name, refused: reason, .. }| match reason {
        Some(reason) => format!("{name} {refused}: {reason}"),
        None => format!("{name} {yet_to_do}"),
    })
}
