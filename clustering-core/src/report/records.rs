//! The records of a cluster as an outside reader knows them.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    ClusterState, DrainReport, LeaderReport, Malformed, NodeReport, Readiness, Report, RequestReport,
    VersionReport,
    ownership::{Ownership, cordon},
};
use crate::{
    event::Laggard,
    fold::{Changed, Fold},
    keyspace::Keyspace,
    name::NodeName,
    node::Node,
    record::{ReadinessOutcome, ReadinessRecord, RequestRecord, StoredRecord},
    store::{Batch, Change, Entry, Key, Snapshot},
    version::{Term, Version},
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
    malformed: BTreeMap<Key, String>,
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
    fn is_stable(&self) -> bool {
        let (Some(version), Some(stable)) = (self.log.version(), self.log.stable()) else { return false };
        let label = stable.record.as_ref().map(|record| record.version);
        label.is_some() && label == self.label() && stable.modified > version.modified
    }

    fn open_request(&self) -> Option<&StoredRecord<RequestRecord>> {
        self.log.request().filter(|request| request.modified > self.log.version_modified())
    }

    fn state(&self, nodes: &[NodeReport], ownership: &Ownership<'_>) -> ClusterState {
        if nodes.is_empty() {
            return ClusterState::Empty;
        }
        if self.log.leader().is_some_and(|leader| leader.record.is_none())
            || self.log.version().is_some_and(|version| version.record.is_none())
        {
            return ClusterState::Unreadable;
        }
        if self.log.leader().is_none() {
            return ClusterState::Leaderless;
        }
        let is_stable = self.is_stable();
        let changed: Vec<_> = nodes
            .iter()
            .filter(|node| node.readiness == Readiness::New)
            .map(|node| node.name.clone())
            .collect();
        // A snapshot does not show which nodes have left, but the stability record contains the number of nodes.
        let stable = self.log.stable().filter(|_| is_stable);
        let had = stable.and_then(|stable| stable.record.as_ref()?.nodes).unwrap_or_default();
        let gone = had.saturating_sub(nodes.len());
        let asked = self.open_request().is_some();
        if !changed.is_empty() || gone > 0 || asked {
            return ClusterState::Due { changed, gone, asked };
        }
        if is_stable {
            return ClusterState::Stable;
        }
        if let Some(min_nodes) = self.waits_for_nodes(ownership.members()) {
            return ClusterState::WaitingForNodes { nodes: ownership.members(), min_nodes };
        }
        if let Some(releasing) = ownership.releasing(nodes) {
            return releasing;
        }
        let waiting_for: Vec<_> = nodes.iter().filter_map(laggard).collect();
        match waiting_for.is_empty() {
            true => ClusterState::Confirming,
            false => ClusterState::Adapting { waiting_for },
        }
    }

    /// Returns the minimum size that keeps the newest version, which has this number of nodes, from becoming stable.
    pub(super) fn waits_for_nodes(&self, nodes: usize) -> Option<u32> {
        let version = self.log.version()?.record.as_ref().filter(|version| !version.formed)?;
        version.min_nodes.filter(|min| nodes < *min as usize)
    }

    pub(super) fn report(&self) -> Report {
        let leader = self.log.leader().map(|leader| LeaderReport {
            name: leader.record.as_ref().map(|record| record.node.clone()),
            term: Term::new(leader.created),
        });
        let leader_name = leader.as_ref().and_then(|leader| leader.name.as_ref());
        let ownership = Ownership::new(self);
        let nodes: Vec<_> =
            self.log.present().map(|node| self.node_report(node, leader_name, &ownership)).collect();
        let request = self.open_request().map(|request| RequestReport {
            by: request.record.as_ref().and_then(|record| record.by.clone()),
            why: request.record.as_ref().and_then(|record| record.why.clone()),
        });
        let stable = self.log.stable().and_then(|stable| stable.record.as_ref());
        let malformed = self.malformed.iter();
        Report {
            namespace: self.keyspace().namespace().clone(),
            revision: self.log.revision(),
            condition: self.state(&nodes, &ownership),
            version: self.version_report(),
            stable: stable.map(|record| record.version),
            request,
            slots: ownership.report(),
            cordoned: self.log.cordoned().iter().map(|(name, stored)| cordon(name, stored)).collect(),
            malformed: malformed
                .map(|(key, reason)| Malformed { key: key.clone(), reason: reason.clone() })
                .collect(),
            leader,
            nodes,
        }
    }

    fn node_report(
        &self,
        node: &Arc<Node>,
        leader: Option<&NodeName>,
        ownership: &Ownership<'_>,
    ) -> NodeReport {
        NodeReport {
            exclusive: ownership.is_exclusive(node),
            slots: ownership.slots_of(&node.name),
            handover: ownership.handover(node),
            cordon: self.log.cordoned().get(&node.name).map(|stored| cordon(&node.name, stored)),
            drain: self.drain(node),
            readiness: match self.readiness(node) {
                // All nodes have acknowledged a stable version, even if acknowledgements were deleted since.
                Readiness::Stabilizing | Readiness::Refused(_) if self.is_stable() => Readiness::Ready,
                readiness => readiness,
            },
            leads: leader == Some(&node.name),
            registered_ms: node.incarnation.as_str().parse().ok().and_then(minted_ms),
            node: node.clone(),
        }
    }

    /// Returns the request to the node's session to leave.
    fn drain(&self, node: &Node) -> Option<DrainReport> {
        let stored = self.log.drain(&node.name).filter(|stored| stored.lease == node.lease)?;
        let record = stored.record.as_ref()?;
        Some(DrainReport { by: record.by.clone(), why: record.why.clone() })
    }

    fn version_report(&self) -> Option<VersionReport> {
        let version = self.log.version()?;
        let record = version.record.as_ref();
        Some(VersionReport {
            version: record.map(|record| record.version),
            revision: version.modified,
            // The record of an election omits the term, because the term is the revision of that commit.
            term: record.map(|record| record.term.unwrap_or_else(|| Term::new(version.modified))),
            leader: record.and_then(|record| record.leader.clone()),
            causes: record.map(|record| record.causes.clone()).unwrap_or_default(),
            min_nodes: record.and_then(|record| record.min_nodes),
            published_ms: record.and_then(|record| minted_ms(record.version)),
        })
    }
}

/// Returns the node as a laggard if it has not acknowledged the newest version.
fn laggard(node: &NodeReport) -> Option<Laggard> {
    let refused = match &node.readiness {
        Readiness::Stabilizing => None,
        Readiness::Refused(reason) => Some(reason.clone()),
        Readiness::Ready | Readiness::New => return None,
    };
    Some(Laggard { name: node.name.clone(), refused })
}

/// Returns the time in a label, in milliseconds since 1970; `None` if no clock generated the label.
fn minted_ms(label: Version) -> Option<u64> {
    label.is_plausible().then(|| label.minted_ms())
}
