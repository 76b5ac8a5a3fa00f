use clustering_core::{
    Keyspace, NodeName, Version,
    store::{LeaseId, Operation, Txn},
};
use serde::Deserialize;

use crate::sim::Store;

#[derive(Deserialize)]
struct Label {
    version: Version,
}

/// P4. An acknowledgement is accepted only while its version is the newest and the node's record belongs to the same
/// session. A late acknowledgement must not replace a newer one.
///
/// Checked against the store's state just before the commit.
pub(crate) fn check(store: &Store, keys: &Keyspace, name: &NodeName, txn: &Txn) -> Result<(), String> {
    let read = |value: &[u8]| serde_json::from_slice::<Label>(value).ok().map(|label| label.version);
    let own = keys.readiness_key(name);
    let put = txn.operations().iter().find_map(|operation| match operation {
        Operation::Put { key, value, lease } if *key == own => Some((read(value), *lease)),
        _ => None,
    });
    let Some((Some(version), lease)) = put else { return Ok(()) };
    let newest = store.get(keys.version_key()).and_then(|entry| read(&entry.value));
    let record: Option<LeaseId> = store.get(&keys.node_key(name)).and_then(|entry| entry.lease);
    if newest != Some(version) {
        return Err(format!(
            "P4, late acknowledgement: {name} acknowledges {version}, but the newest version is {newest:?}"
        ));
    }
    match record == lease {
        true => Ok(()),
        false => Err(format!(
            "P4, acknowledgement of another session: {name} acknowledges under {lease:?}, but its record has {record:?}"
        )),
    }
}
