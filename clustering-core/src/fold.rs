//! A node's replica of the log, built by folding its changes.
//!
//! Every node applies the changes under `{ns}/view/` in the order of their revisions, so all nodes pass through the
//! same states. A version is a **cut** through these states: its view is the set of nodes present after all changes
//! of the revision that wrote the version. No member lists are sent, and P1 and P2 hold because there is only one
//! log.
//!
//! ```text
//!  revision   11          12            13                14            15
//!  change     nodes/a     nodes/b       leader, version   nodes/c       version
//!  present    a           a b           a b               a b c         a b c
//!  newest                               V1 = {a b}        V1            V2 = {a b c}
//! ```

mod apply;
mod resync;
mod route;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crate::{
    keyspace::Keyspace,
    name::NodeName,
    node::Node,
    record::{
        CordonRecord, Departure, DepartureRecord, DrainRecord, HoldsRecord, LeaderRecord, ReleasedRecord,
        RequestRecord, StableRecord, StoredRecord, VersionRecord,
    },
    slots::Assignment,
    store::{Key, LeaseId, Revision},
    version::Term,
    view::View,
};

/// A change of the replica, caused by a batch or a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Changed {
    /// A node joined.
    Up(Arc<Node>),
    /// A node's record was put again.
    Renewed(Arc<Node>),
    /// A node is gone: how it departed, and the time for which its slots wait for it.
    Down(Arc<Node>, Departure, Duration),
    /// The departure key was put.
    Departed(DepartureRecord),
    /// The election key changed.
    Leader,
    /// The version key changed.
    Version,
    /// The key of the newest stable version changed.
    Stable,
    /// The request key changed.
    Request,
    /// The key of the newest released version changed.
    Released,
    /// A node was cordoned.
    Cordoned(NodeName),
    /// The cordon of a node was lifted.
    Uncordoned(NodeName),
    /// Another key changed: the witness of a session, the assignment, or a request to leave. The concerns read these
    /// from the replica.
    Other,
    /// A record cannot be decoded, or a key under `nodes/` contains no valid name.
    Malformed { key: Key, reason: String },
}

/// A node's replica of the log at a revision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Fold {
    keyspace: Keyspace,
    /// The name of the node that owns this replica; `None` for observers.
    me: Option<NodeName>,
    revision: Revision,
    leader: Option<StoredRecord<LeaderRecord>>,
    version: Option<StoredRecord<VersionRecord>>,
    request: Option<StoredRecord<RequestRecord>>,
    stable: Option<StoredRecord<StableRecord>>,
    released: Option<StoredRecord<ReleasedRecord>>,
    slots: Option<StoredRecord<Arc<Assignment>>>,
    /// Witnesses of sessions that may still hold keys.
    holds: BTreeMap<LeaseId, StoredRecord<HoldsRecord>>,
    /// Leases outside of the newest cut whose witness was created before that version and still exists.
    standing: BTreeSet<LeaseId>,
    cordoned: BTreeMap<NodeName, StoredRecord<CordonRecord>>,
    drains: BTreeMap<NodeName, StoredRecord<DrainRecord>>,
    /// The nodes present: those with a valid record.
    nodes: BTreeMap<NodeName, Arc<Node>>,
    /// Node records that cannot be decoded.
    malformed_nodes: BTreeMap<NodeName, StoredRecord<Arc<Node>>>,
    /// The record under the owner's name. Kept here because every input reads it.
    own: Option<StoredRecord<Arc<Node>>>,
    /// The view of the newest version, if its cut is known.
    newest: Option<View>,
    /// The view of the version before the newest, if both cuts are known and it had hand-over.
    previous: Option<View>,
    /// Names whose records differ from those in the newest view. Maintained with each change, so that no change needs a
    /// comparison of the whole lists.
    drift: BTreeSet<NodeName>,
    /// How nodes of the newest view departed, except for those whose sessions ended.
    departures: BTreeMap<NodeName, Departure>,
    /// Revision of the newest version that was recorded as stable. If that version was missed, the revision of the
    /// record, which is later.
    stable_cut: Option<Revision>,
    /// The number of the last numbered version.
    last_number: u64,
    /// True if a version record said that the cluster has reached its minimum size.
    formed: bool,
}

impl Fold {
    pub(crate) fn new(keyspace: Keyspace, me: Option<NodeName>) -> Self {
        Fold {
            keyspace,
            me,
            revision: Revision::ZERO,
            leader: None,
            version: None,
            request: None,
            stable: None,
            released: None,
            slots: None,
            holds: BTreeMap::new(),
            standing: BTreeSet::new(),
            cordoned: BTreeMap::new(),
            drains: BTreeMap::new(),
            nodes: BTreeMap::new(),
            malformed_nodes: BTreeMap::new(),
            own: None,
            newest: None,
            previous: None,
            drift: BTreeSet::new(),
            departures: BTreeMap::new(),
            stable_cut: None,
            last_number: 0,
            formed: false,
        }
    }

    pub(crate) fn keyspace(&self) -> &Keyspace {
        &self.keyspace
    }

    /// Returns the last revision that was folded.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// Returns the nodes present, sorted by name.
    pub(crate) fn present(&self) -> impl Iterator<Item = &Arc<Node>> + Clone {
        self.nodes.values()
    }

    pub(crate) fn present_count(&self) -> usize {
        self.nodes.len()
    }

    /// Returns the record under the owner's name, which may be malformed.
    pub(crate) fn own(&self) -> Option<&StoredRecord<Arc<Node>>> {
        self.own.as_ref()
    }

    /// Returns the node with that name if it is present.
    pub(crate) fn node(&self, name: &NodeName) -> Option<&Arc<Node>> {
        self.nodes.get(name)
    }

    pub(crate) fn leader(&self) -> Option<&StoredRecord<LeaderRecord>> {
        self.leader.as_ref()
    }

    /// Returns the term of the current leader.
    pub(crate) fn term(&self) -> Option<Term> {
        self.leader().map(|leader| Term::new(leader.created))
    }

    pub(crate) fn version(&self) -> Option<&StoredRecord<VersionRecord>> {
        self.version.as_ref()
    }

    /// Returns the revision at which the version key was last put, or zero if the key is absent.
    pub(crate) fn version_modified(&self) -> Revision {
        self.version.as_ref().map_or(Revision::ZERO, |version| version.modified)
    }

    /// Returns the number of the next version.
    pub(crate) fn next_number(&self) -> u64 {
        self.last_number.checked_add(1).unwrap_or(1)
    }

    pub(crate) fn request(&self) -> Option<&StoredRecord<RequestRecord>> {
        self.request.as_ref()
    }

    /// Returns the node that an open request proposes as the next leader, if that node is present.
    pub(crate) fn favoured(&self) -> Option<&Arc<Node>> {
        let request = self.request().filter(|request| request.modified > self.version_modified())?;
        self.node(request.record.as_ref()?.leader.as_ref()?)
    }

    pub(crate) fn stable(&self) -> Option<&StoredRecord<StableRecord>> {
        self.stable.as_ref()
    }

    /// Returns the view of the newest version; `None` if there is no version, or if its changes were missed, so that
    /// its cut cannot be known.
    pub(crate) fn newest(&self) -> Option<&View> {
        self.newest.as_ref()
    }

    /// Returns the view of the version before the newest, if both cuts are known and it had hand-over.
    pub(crate) fn previous(&self) -> Option<&View> {
        self.previous.as_ref()
    }

    pub(crate) fn released(&self) -> Option<&StoredRecord<ReleasedRecord>> {
        self.released.as_ref()
    }

    /// Returns the stored assignment of slots. The assignment of a version is the one in its [view](Self::newest).
    pub(crate) fn slots(&self) -> Option<&StoredRecord<Arc<Assignment>>> {
        self.slots.as_ref()
    }

    /// Returns the witnesses of all sessions that may still hold keys.
    pub(crate) fn holds(&self) -> &BTreeMap<LeaseId, StoredRecord<HoldsRecord>> {
        &self.holds
    }

    /// Returns the sessions that keep the slots of the newest version from being acquired, even if all nodes
    /// acknowledge it: sessions outside of its cut whose witness was created before the version and still exists.
    pub(crate) fn standing(&self) -> impl ExactSizeIterator<Item = LeaseId> {
        self.standing.iter().copied()
    }

    pub(crate) fn is_cordoned(&self, name: &NodeName) -> bool {
        self.cordoned.contains_key(name)
    }

    pub(crate) fn cordoned(&self) -> &BTreeMap<NodeName, StoredRecord<CordonRecord>> {
        &self.cordoned
    }

    /// Returns the request to leave for the node with that name.
    pub(crate) fn drain(&self, name: &NodeName) -> Option<&StoredRecord<DrainRecord>> {
        self.drains.get(name)
    }

    /// True if the slots of the newest version may be acquired: all nodes that lost slots have let go of them.
    pub(crate) fn is_released(&self) -> bool {
        let (Some(newest), Some(released)) = (&self.newest, &self.released) else { return false };
        let names_it = released.record.as_ref().is_some_and(|record| record.version == newest.version());
        names_it && released.modified > newest.revision()
    }

    /// True if the newest version is recorded as stable. The record must be newer than the cut: an operator may write
    /// the same label twice, but revisions are unique.
    pub(crate) fn is_stable(&self) -> bool {
        let (Some(newest), Some(stable)) = (&self.newest, self.stable()) else { return false };
        let names_it = stable.record.as_ref().is_some_and(|record| record.version == newest.version());
        names_it && stable.modified > newest.revision()
    }

    /// True if the node, with the record that it has now, belongs to the newest version that was recorded as stable.
    pub(crate) fn was_stable_with(&self, node: &Node) -> bool {
        // A record that was created by the version's revision and still exists was present in its cut.
        self.stable_cut.is_some_and(|cut| node.created <= cut)
    }

    /// True if a version record said that the cluster has reached its minimum size. Stays true if the record is
    /// deleted, or overwritten by a release that does not know the field.
    pub(crate) fn has_formed(&self) -> bool {
        self.formed
    }

    /// True if the newest version is recorded as stable and no other version is due: the nodes present are those of its
    /// view, there is a leader whose record can be read, and no newer version has been requested.
    pub(crate) fn is_settled(&self) -> bool {
        let is_led = self.leader().is_some_and(|leader| leader.record.is_some());
        let is_requested = self.request().is_some_and(|request| request.modified > self.version_modified());
        is_led && !is_requested && self.present_count() > 0 && self.is_current()
    }

    /// True if the newest version is recorded as stable, and the nodes present are those of its view.
    ///
    /// If that view is not known, as on an observer that has just started, this is decided from the records: nodes that
    /// have not changed since the version was written belong to it, and the stability record contains the number of
    /// nodes.
    fn is_current(&self) -> bool {
        if self.newest.is_some() {
            return self.is_stable() && !self.has_drifted();
        }
        let (Some(version), Some(stable)) = (self.version(), self.stable()) else { return false };
        let (Some(record), Some(label)) =
            (&stable.record, version.record.as_ref().map(|record| record.version))
        else {
            return false;
        };
        record.version == label
            && stable.modified > version.modified
            && record.nodes == Some(self.present_count())
            && self.present().all(|node| node.modified <= version.modified)
    }

    /// Returns the names whose records differ from those in the newest view: nodes that joined, left or changed. Empty
    /// if there is no newest view.
    pub(crate) fn drift(&self) -> impl Iterator<Item = &NodeName> {
        self.drift.iter()
    }

    /// True if the nodes present are not those of the newest view.
    pub(crate) fn has_drifted(&self) -> bool {
        !self.drift.is_empty()
    }

    /// Returns how a node of the newest view departed. After a resync, this is known only of the last node that left or
    /// was evicted.
    pub(crate) fn departure(&self, name: &NodeName) -> Departure {
        self.departures.get(name).copied().unwrap_or(Departure::Ended)
    }

    /// True if a node was removed as crashed since the newest version.
    pub(crate) fn has_crashed(&self) -> bool {
        self.departures.values().any(|how| *how == Departure::Crashed)
    }
}

#[cfg(test)]
mod tests;
