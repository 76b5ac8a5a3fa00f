use clustering_core::{
    Keyspace,
    store::{Change, Key, Operation, Txn},
};
use serde::Deserialize;

use crate::sim::Store;

#[derive(Default, Deserialize)]
struct Version {
    #[serde(default)]
    formed: bool,
}

#[derive(Deserialize)]
struct Stable {
    nodes: usize,
}

/// P8. Until a version with the minimum size was recorded as stable, no version with fewer nodes is, and no slots are
/// assigned. Once a version record says that the cluster has formed, so does the next one.
///
/// Checked against the store's state just before the commit.
pub(crate) fn check(store: &Store, keys: &Keyspace, min_nodes: usize, txn: &Txn) -> Result<(), String> {
    let put = |wanted: &Key| {
        txn.operations().iter().find_map(|operation| match operation {
            Operation::Put { key, value, .. } if key == wanted => Some(value),
            _ => None,
        })
    };
    let version = |value: &[u8]| serde_json::from_slice::<Version>(value).unwrap_or_default();
    let before = store.get(keys.version_key()).is_some_and(|entry| version(&entry.value).formed);
    if before && put(keys.version_key()).is_some_and(|value| !version(value).formed) {
        return Err("P8, formation forgotten: the next version record does not say it".to_owned());
    }
    let nodes = |value: &[u8]| serde_json::from_slice::<Stable>(value).map_or(0, |stable| stable.nodes);
    let is_small = put(keys.stable_key()).is_some_and(|value| nodes(value) < min_nodes);
    let assigns = put(keys.slots_key()).is_some() && min_nodes > 1;
    if !is_small && !assigns {
        return Ok(());
    }
    let changes = store.history().iter().flat_map(|batch| batch.changes.iter());
    let has_formed = changes.into_iter().any(|change| match change {
        Change::Put(entry) => entry.key == *keys.stable_key() && nodes(&entry.value) >= min_nodes,
        Change::Delete(_) => false,
    });
    match (has_formed, is_small) {
        (true, _) => Ok(()),
        (false, true) => {
            Err(format!("P8, formed too early: a version with fewer than {min_nodes} nodes is stable"))
        }
        (false, false) => {
            Err(format!("P8, formed too early: slots are assigned before {min_nodes} nodes were stable"))
        }
    }
}
