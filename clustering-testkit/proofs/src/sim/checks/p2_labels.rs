use clustering_core::{
    Keyspace, Version,
    store::{Operation, Txn},
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Label {
    version: Version,
}

/// P2. A publisher generates a label above the last label that it saw, even if the store has been restored since.
pub(in crate::sim) fn check(keys: &Keyspace, txn: &Txn, seen: Option<Version>) -> Result<(), String> {
    let label = txn.operations().iter().find_map(|operation| match operation {
        Operation::Put { key, value, .. } if key == keys.version_key() => {
            serde_json::from_slice::<Label>(value).ok().map(|label| label.version)
        }
        _ => None,
    });
    match (label, seen) {
        (Some(label), Some(seen)) if label <= seen => {
            Err(format!("P2, label not above the last: {label} is published by a node that saw {seen}"))
        }
        _ => Ok(()),
    }
}
