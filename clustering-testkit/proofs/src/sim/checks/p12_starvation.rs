use std::time::Duration;

use clustering_core::{
    View,
    machine::Machine,
    store::{Operation, Txn},
    time::Timestamp,
};
use clustering_testkit::history::Life;
use serde_json::Value;

/// Longest time for which joins wait for a hand-over.
const JOINS_WAIT: Duration = Duration::from_secs(30);

/// P12. While slots are being handed over, no version is published only because nodes have joined or returned:
/// otherwise a node that keeps crashing would keep slots unheld.
///
/// `since` is the time since which the leader has known the newest version.
pub(in crate::sim) fn check(who: &Life, machine: &Machine, since: Duration, txn: &Txn) -> Result<(), String> {
    // A cluster that waits for its minimum size has no slots yet.
    let handed_over = machine.newest().filter(|view| view.has_handover() && view.slot_count().is_some());
    let Some(view) = handed_over.filter(|_| since < JOINS_WAIT && has_only_arrivals(machine, txn)) else {
        return Ok(());
    };
    let is_stable = machine.status(Timestamp::ZERO).stable == Some(view.version());
    let waits = machine.unready().is_some_and(|unready| unready > 0) && !is_stable;
    match waits && is_whole(machine, view) {
        true => Err(format!(
            "P12, joins do not wait: {who} publishes a version only because of joins, {since:?} after {}, whose slots are \
             still being handed over",
            view.version()
        )),
        false => Ok(()),
    }
}

/// True if the commit publishes a version whose only causes are nodes that joined or returned.
fn has_only_arrivals(machine: &Machine, txn: &Txn) -> bool {
    let version = txn.operations().iter().find_map(|operation| match operation {
        Operation::Put { key, value, .. } if key == machine.keyspace().version_key() => Some(value),
        _ => None,
    });
    let record: Option<Value> = version.and_then(|value| serde_json::from_slice(value).ok());
    let causes = record.as_ref().and_then(|record| record["cause"].as_array());
    let is_arrival = |cause: &Value| cause.get("joined").is_some() || cause.get("returned").is_some();
    causes.is_some_and(|causes| !causes.is_empty() && causes.iter().all(is_arrival))
}

/// True if all nodes of the view are present and have not changed.
fn is_whole(machine: &Machine, view: &View) -> bool {
    view.iter().all(|node| machine.node_named(&node.name).is_some_and(|now| now.modified == node.modified))
}
