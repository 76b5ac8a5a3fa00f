//! The records of a cluster as an outside reader knows them.

use std::collections::BTreeMap;

use super::Readiness;
use crate::{
    fold::{Changed, Fold},
    keyspace::Keyspace,
    name::NodeName,
    node::Node,
    record::{ReadinessOutcome, ReadinessRecord, RequestRecord, StoredRecord},
    store::{Batch, Change, Entry, Key, Snapshot},
    version::Version,
};

/// The records under `{ns}/view/`, folded as nodes do, and the acknowledgements under `{ns}/ready/`.
///
/// Reports do not depend on the cut of the newest version, because a snapshot does not show it. A node whose record is
/// older than the version belongs to the version. The leader is about to publish a new version without the nodes that
/// have left since.
#[derive(Clone, Debug)]
pub(super) struct Records {
    pub(super) log: Fold,
    pub(super) ready: BTreeMap<NodeName, StoredRecord<ReadinessRecord>>,
    pub(super) malformed: BTreeMap<Key, String>,
}

impl Records {
    pub(super) fn new(keyspace: Keyspace) -> Self {
        Records { log: Fold::new(keyspace, None), ready: BTreeMap::new(), malformed: BTreeMap::new() }
    }

    /// Reads snapshots of the two prefixes.
    pub(super) fn read(keyspace: &Keyspace, view: &Snapshot, ready: &Snapshot) -> Self {
        let mut records = Records::new(keyspace.clone());
        let changed = records.log.resync(view, false);
        records.note_malformed(&changed);
        for entry in &ready.entries {
            records.put_acknowledgement(entry);
        }
        records
    }

    /// Folds a batch of the watch of `{ns}/view/`, and returns the changes.
    pub(super) fn apply(&mut self, batch: &Batch) -> Vec<Changed> {
        for change in &*batch.changes {
            self.malformed.remove(change.key());
        }
        let changed = self.log.apply(batch);
        self.note_malformed(&changed);
        changed
    }

    /// Handles a batch of the watch of `{ns}/ready/`.
    pub(super) fn apply_acknowledgements(&mut self, batch: &Batch) {
        for change in &*batch.changes {
            self.malformed.remove(change.key());
            match change {
                Change::Put(entry) => self.put_acknowledgement(entry),
                Change::Delete(key) => {
                    let name = self.keyspace().acknowledger(key);
                    name.and_then(|name| self.ready.remove(&name));
                }
            }
        }
    }

    fn put_acknowledgement(&mut self, entry: &Entry) {
        let Some(name) = self.keyspace().acknowledger(&entry.key) else { return };
        let acknowledgement = StoredRecord::decode(entry, |reason| {
            self.malformed.insert(entry.key.clone(), reason);
        });
        self.ready.insert(name, acknowledgement);
    }

    fn note_malformed(&mut self, changed: &[Changed]) {
        for change in changed {
            if let Changed::Malformed { key, reason } = change {
                self.malformed.insert(key.clone(), reason.clone());
            }
        }
    }

    pub(super) fn keyspace(&self) -> &Keyspace {
        self.log.keyspace()
    }

    /// Returns the reason if the record under a key is malformed.
    pub(super) fn malformed(&self, key: &Key) -> Option<&String> {
        self.malformed.get(key)
    }

    /// True if the records are those of a cluster. Keys under `{ns}/ready/` alone are not enough: any client may have
    /// written them.
    pub(super) fn is_cluster(&self) -> bool {
        let keyspace = self.keyspace();
        let view = keyspace.view_prefix().as_str();
        let is_own = |key: &Key| key.starts_with(view) && keyspace.is_own(key);
        self.log.leader().is_some()
            || self.log.version().is_some()
            || self.log.stable().is_some()
            || self.log.request().is_some()
            || self.log.slots().is_some()
            || self.log.released().is_some()
            || !self.log.cordoned().is_empty()
            || self.log.present_count() > 0
            || self.malformed.keys().any(is_own)
    }

    fn label(&self) -> Option<Version> {
        Some(self.log.version()?.record.as_ref()?.version)
    }

    /// Returns a node's readiness for the newest version, as the leader judges it: the acknowledgement must be of the
    /// node's current session and newer than the version's revision. An operator may write the same label twice, but
    /// revisions are unique.
    pub(super) fn readiness(&self, node: &Node) -> Readiness {
        let is_new = self.log.version().is_none_or(|version| node.modified > version.modified);
        if is_new {
            return Readiness::New;
        }
        match self.acknowledgement(node) {
            None => Readiness::Stabilizing,
            Some(record) => match record.outcome {
                ReadinessOutcome::Ready => Readiness::Ready,
                ReadinessOutcome::Pending => Readiness::Stabilizing,
                ReadinessOutcome::Failed => {
                    Readiness::Refused(record.detail.clone().unwrap_or_else(|| "without a reason".to_owned()))
                }
            },
        }
    }

    /// True if the node has acknowledged that it released the slots that the newest version takes from it.
    pub(super) fn has_released(&self, node: &Node) -> bool {
        self.acknowledgement(node).is_some_and(ReadinessRecord::is_released)
    }

    /// Returns the answer of the node's current session to the newest version.
    fn acknowledgement(&self, node: &Node) -> Option<&ReadinessRecord> {
        let is_current = |stored: &&StoredRecord<ReadinessRecord>| {
            stored.lease == node.lease && stored.modified > self.log.version_modified()
        };
        let record = self.ready.get(&node.name).filter(is_current)?.record.as_ref()?;
        (Some(record.version) == self.label()).then_some(record)
    }

    /// True if the slots that move in the newest version are recorded as released.
    pub(super) fn is_released(&self) -> bool {
        let Some(released) = self.log.released() else { return false };
        let label = released.record.as_ref().map(|record| record.version);
        label.is_some() && label == self.label() && released.modified > self.log.version_modified()
    }

    /// True if the newest version is recorded as stable.
    pub(super) fn is_stable(&self) -> bool {
        let (Some(version), Some(stable)) = (self.log.version(), self.log.stable()) else { return false };
        let label = stable.record.as_ref().map(|record| record.version);
        label.is_some() && label == self.label() && stable.modified > version.modified
    }

    pub(super) fn open_request(&self) -> Option<&StoredRecord<RequestRecord>> {
        self.log.request().filter(|request| request.modified > self.log.version_modified())
    }

    /// Returns the minimum size that keeps the newest version, which has this number of nodes, from becoming stable.
    pub(super) fn waits_for_nodes(&self, nodes: usize) -> Option<u32> {
        let version = self.log.version()?.record.as_ref().filter(|version| !version.formed)?;
        version.min_nodes.filter(|min| nodes < *min as usize)
    }
}
