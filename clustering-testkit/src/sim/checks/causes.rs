use clustering_core::{
    Keyspace,
    store::{Batch, Change, Key},
};
use serde_json::Value;

/// A version that says of a node that it left in order, or was evicted, tells the truth: since the version before, the node's
/// record was deleted in a revision that says just that.
///
/// Not the other way round: who read a snapshot in between does not know how nodes went.
pub(in crate::sim) fn check(history: &[Batch], keys: &Keyspace) -> Result<(), String> {
    let Some((last, earlier)) = history.split_last() else { return Ok(()) };
    let Some(version) = put(last, keys.version_key()) else { return Ok(()) };
    let before = earlier.iter().rposition(|batch| put(batch, keys.version_key()).is_some());
    let since = &earlier[before.map_or(0, |before| before + 1)..];
    let causes = version["cause"].as_array().into_iter().flatten();
    for cause in causes {
        for how in ["left", "evicted"] {
            let Some(name) = cause.get(how).and_then(Value::as_str) else { continue };
            let record = format!("{}{name}", keys.service_namespace());
            let so = |batch: &Batch| {
                let deleted =
                    |change: &Change| matches!(change, Change::Delete(key) if *key.as_str() == record);
                let says = |gone: Value| gone["node"] == name && gone["how"] == how;
                batch.changes.iter().any(deleted) && put(batch, keys.gone_key()).is_some_and(says)
            };
            if !since.iter().any(so) {
                return Err(format!(
                    "a cause that is not true: {name} {how}, says the version @{}",
                    last.revision
                ));
            }
        }
    }
    Ok(())
}

/// What a revision put under that key, if it can be read.
fn put(batch: &Batch, key: &Key) -> Option<Value> {
    batch.changes.iter().find_map(|change| match change {
        Change::Put(entry) if entry.key == *key => serde_json::from_slice(&entry.value).ok(),
        _ => None,
    })
}
