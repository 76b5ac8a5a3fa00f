use clustering_core::{
    Keyspace, Node, NodeName,
    machine::Machine,
    store::{Batch, Change, Key, Operation, Txn},
};
use serde_json::Value;

/// Checks that a version tells the truth if it names as a cause a node that left gracefully, was evicted or crashed:
/// the node's record was deleted since the previous version, by a revision that records this departure.
///
/// The reverse does not hold: a leader that has read a snapshot in between does not know how nodes departed.
pub(in crate::sim) fn check(history: &[Batch], keys: &Keyspace) -> Result<(), String> {
    let Some((last, earlier)) = history.split_last() else { return Ok(()) };
    let Some(version) = put(last, keys.version_key()) else { return Ok(()) };
    let before = earlier.iter().rposition(|batch| put(batch, keys.version_key()).is_some());
    let since = &earlier[before.map_or(0, |before| before + 1)..];
    let causes = version["cause"].as_array().into_iter().flatten();
    for cause in causes {
        if let Some(name) = cause.get("ended").and_then(Value::as_str)
            && is_known_to_have_crashed(since, keys, name)
        {
            return Err(format!(
                "false cause: the version @{} says that the session of {name} ended, but the log says that it has crashed",
                last.revision
            ));
        }
        for how in ["left", "evicted", "crashed"] {
            let Some(name) = cause.get(how).and_then(Value::as_str) else { continue };
            let record = format!("{}{name}", keys.nodes_prefix());
            let so = |batch: &Batch| {
                let deleted =
                    |change: &Change| matches!(change, Change::Delete(key) if *key.as_str() == record);
                let says = |gone: Value| gone["node"] == name && gone["how"] == how;
                batch.changes.iter().any(deleted) && put(batch, keys.departure_key()).is_some_and(says)
            };
            if !since.iter().any(so) {
                return Err(format!(
                    "false cause: the version @{} says that {name} {how}, but no such departure is in the log",
                    last.revision
                ));
            }
        }
    }
    Ok(())
}

/// True if even a node that has read a snapshot knows that the node was removed as crashed: the node's record was not
/// put in these revisions, it was deleted once, and that revision's record of the departure is the last one.
fn is_known_to_have_crashed(since: &[Batch], keys: &Keyspace, name: &str) -> bool {
    let record = Key::from(format!("{}{name}", keys.nodes_prefix()));
    let changes = since.iter().flat_map(|batch| batch.changes.iter());
    let touched = changes.filter(|change| *change.key() == record).count();
    let last = since.iter().rev().find_map(|batch| Some((batch, put(batch, keys.departure_key())?)));
    touched == 1
        && last.is_some_and(|(batch, gone)| {
            let deleted = |change: &Change| matches!(change, Change::Delete(key) if *key == record);
            gone["node"] == name && gone["how"] == "crashed" && batch.changes.iter().any(deleted)
        })
}

/// A version that names a node's lost acknowledgement as a cause is published by a leader that knows the node's record
/// to be unchanged since the previous version. If a node leaves or changes its record, the loss of its acknowledgement
/// is expected.
pub(in crate::sim) fn unacknowledged(machine: &Machine, txn: &Txn) -> Result<(), String> {
    let version = txn.operations().iter().find_map(|operation| match operation {
        Operation::Put { key, value, .. } if key == machine.keyspace().version_key() => Some(value),
        _ => None,
    });
    let named = version.filter(|value| value.windows(16).any(|part| part == b"\"unacknowledged\""));
    let record: Option<Value> = named.and_then(|value| serde_json::from_slice(value).ok());
    let causes = record.as_ref().and_then(|record| record["cause"].as_array()).into_iter().flatten();
    for name in causes.filter_map(|cause| cause["unacknowledged"].as_str()) {
        let Ok(name) = NodeName::parse(name) else { continue };
        let stands = machine.node_named(&name).map(|node: &std::sync::Arc<Node>| node.modified);
        let cut = machine.newest().and_then(|view| view.get(&name)).map(|node| node.modified);
        if stands.is_none() || stands != cut {
            return Err(format!(
                "false cause: the lost acknowledgement of {name} is named although its record has changed"
            ));
        }
    }
    Ok(())
}

/// Returns the value that a revision put under a key, if it can be parsed.
fn put(batch: &Batch, key: &Key) -> Option<Value> {
    batch.changes.iter().find_map(|change| match change {
        Change::Put(entry) if entry.key == *key => serde_json::from_slice(&entry.value).ok(),
        _ => None,
    })
}
