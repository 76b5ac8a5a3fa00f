use std::collections::BTreeSet;

use clustering_core::{
    Keyspace, ProcessId,
    machine::Purpose,
    store::{Operation, Txn},
};
use clustering_testkit::history::Life;
use serde_json::Value;

use crate::sim::Store;

/// P7. A node is removed as crashed only if the process in its record was reported as gone, so a process that came in
/// its place stays. P5. If the node leads, its leadership ends with the removal. P9. The log says why the node
/// departed.
///
/// Checked against the store's state just before the commit.
pub(in crate::sim) fn removal(
    store: &Store,
    keys: &Keyspace,
    purpose: Purpose,
    txn: &Txn,
    reported: &BTreeSet<ProcessId>,
) -> Result<(), String> {
    if purpose != Purpose::RemoveCrashed {
        return Ok(());
    }
    let deleted = |operation: &&Operation| matches!(operation, Operation::Delete { key } if key.starts_with(keys.nodes_prefix().as_str()));
    let record = txn.operations().iter().find(deleted).map(Operation::key);
    let Some(entry) = record.and_then(|key| store.get(key)) else {
        return Err("P7, removal of nothing: a node is removed as crashed that is not in the log".to_owned());
    };
    let value: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
    let process =
        value["endpoint"]["process"].as_str().and_then(|text| ProcessId::try_from(text.to_owned()).ok());
    if process.is_none_or(|process| !reported.contains(&process)) {
        return Err(format!(
            "P7, removal without a report: {} is removed as crashed, but its process was never reported as gone",
            entry.key
        ));
    }
    let leads =
        |leader: &clustering_core::store::Entry| leader.lease.is_some() && leader.lease == entry.lease;
    let ends_lead =
        |operation: &Operation| matches!(operation, Operation::Delete { key } if key == keys.election_key());
    if store.get(keys.election_key()).is_some_and(leads) && !txn.operations().iter().any(ends_lead) {
        return Err(format!("P5, leadership of a removed node: {} is removed, but still leads", entry.key));
    }
    let told = txn.operations().iter().find_map(|operation| match operation {
        Operation::Put { key, value, .. } if key == keys.departure_key() => {
            serde_json::from_slice(value).ok()
        }
        _ => None,
    });
    match told.is_some_and(|gone: Value| gone["how"] == "crashed") {
        true => Ok(()),
        false => Err(format!("false cause: the log does not say that {} has crashed", entry.key)),
    }
}

/// P7. A node that was removed by mistake does not publish its endpoint again, or it would be removed again and again.
pub(in crate::sim) fn hidden(who: &Life, purpose: Purpose, txn: &Txn) -> Result<(), String> {
    if !matches!(purpose, Purpose::Join | Purpose::TakeOver | Purpose::Rewrite) {
        return Ok(());
    }
    let shows = |operation: &Operation| match operation {
        Operation::Put { value, .. } => value.windows(10).any(|part| part == b"\"endpoint\""),
        Operation::Delete { .. } => false,
    };
    match txn.operations().iter().any(shows) {
        true => Err(format!("P7, flapping: {who} was removed by mistake, and publishes its endpoint again")),
        false => Ok(()),
    }
}
