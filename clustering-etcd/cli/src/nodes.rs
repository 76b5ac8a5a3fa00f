//! The nodes of a cluster: their table, and the settings that differ from the defaults.

use clustering_core::{Config, Report, report::NodeReport};

use crate::{
    output, slots,
    times::{brief, moment},
};

/// A column of the table of nodes. A column without cells is left out.
struct Column {
    title: &'static str,
    /// Returns the cell of a node; `None` if the node has nothing to show.
    cell: fn(&Report, &NodeReport) -> Option<String>,
}

const COLUMNS: [Column; 9] = [
    Column { title: "NAME", cell: |_, node| Some(node.name.to_string()) },
    Column { title: "READINESS", cell: |report, node| Some(readiness(report, node)) },
    Column { title: "SLOTS", cell: |_, node| node.exclusive.then(|| node.slots.len().to_string()) },
    Column { title: "PRIORITY", cell: |_, node| priority(node) },
    Column { title: "GRACE", cell: |_, node| grace(node) },
    Column { title: "ENDPOINT", cell: |_, node| endpoint(node) },
    Column { title: "REGISTERED", cell: |_, node| Some(registered(node)) },
    Column { title: "URI", cell: |_, node| Some(node.uri.to_string()) },
    Column { title: "METADATA", cell: |_, node| Some(metadata(node)) },
];

/// Formats the nodes as a table. Columns that only some clusters have, such as the number of slots, are left out if no
/// node has anything to show there.
pub(crate) fn table(report: &Report) -> Vec<String> {
    let is_used = |column: &&Column| report.nodes.iter().any(|node| (column.cell)(report, node).is_some());
    let columns: Vec<_> = COLUMNS.iter().filter(is_used).collect();
    let head: Vec<_> = columns.iter().map(|column| column.title).collect();
    let cell = |column: &&Column, node: &NodeReport| (column.cell)(report, node);
    let row = |node: &NodeReport| -> Vec<String> {
        columns.iter().map(|column| cell(column, node).unwrap_or_else(|| "-".to_owned())).collect()
    };
    output::table(&head, &report.nodes.iter().map(row).collect::<Vec<_>>())
}

/// Describes the settings of a node that differ from the defaults.
pub(crate) fn settings(node: &NodeReport) -> Vec<String> {
    let settings = [
        priority(node).map(|priority| format!("priority {priority}")),
        grace(node).map(|grace| format!("grace {grace}")),
        endpoint(node).map(|address| format!("endpoint {address}")),
    ];
    settings.into_iter().flatten().collect()
}

fn priority(node: &NodeReport) -> Option<String> {
    let priority = node.priority.filter(|priority| *priority != Config::default().priority)?;
    Some(priority.to_string())
}

fn grace(node: &NodeReport) -> Option<String> {
    (!node.restart_grace.is_zero()).then(|| brief(node.restart_grace))
}

/// Returns the address at which other nodes watch the process, if the node has crash detection.
fn endpoint(node: &NodeReport) -> Option<String> {
    node.endpoint.as_ref().map(|endpoint| endpoint.address.clone())
}

fn readiness(report: &Report, node: &NodeReport) -> String {
    let remarks = slots::remarks(node).into_iter().map(str::to_owned);
    [slots::readiness(report, node)].into_iter().chain(remarks).collect::<Vec<_>>().join(", ")
}

fn registered(node: &NodeReport) -> String {
    node.registered_ms.map_or_else(|| "?".to_owned(), moment)
}

pub(crate) fn metadata(node: &NodeReport) -> String {
    let entries: Vec<_> = node.metadata.iter().map(|(key, value)| format!("{key}={value}")).collect();
    entries.join(" ")
}
