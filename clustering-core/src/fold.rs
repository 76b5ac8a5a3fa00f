//! The replica of the log: what all nodes make of the same changes.
//!
//! Every node folds the changes under `{ns}/view/` in the order of their revisions, so all pass through the same states.
//! A version is a **cut** through them: its view is the set of nodes present after all changes of the revision that
//! wrote it. Nobody sends member lists around, and P1 and P2 hold because the log is one.
//!
//! ```text
//!  revision   11          12            13                14            15
//!  change     nodes/a     nodes/b       leader, version   nodes/c       version
//!  present    a           a b           a b               a b c         a b c
//!  newest                               V1 = {a b}        V1            V2 = {a b c}
//! ```

mod kin;
mod replica;
mod sorted;

use std::{
    collections::VecDeque,
    hash::{Hash, Hasher},
    ops::Deref,
    sync::Arc,
};

use self::{kin::Kinship, replica::Replica};
use crate::{
    keyspace::Keyspace,
    name::NodeName,
    node::Node,
    record::{Departure, DepartureRecord, LeaderRecord, RequestRecord, StableRecord, VersionRecord},
    store::{Batch, Entry, Key, LeaseId, Revision, Snapshot},
    version::Term,
    view::View,
};

/// A key as it stands, whether its value can be read or not. What cannot be read still stands for guards.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StoredRecord<T> {
    pub(crate) created: Revision,
    pub(crate) modified: Revision,
    pub(crate) lease: Option<LeaseId>,
    pub(crate) record: Option<T>,
}

impl<T> StoredRecord<T> {
    fn of(entry: &Entry, record: Option<T>) -> Self {
        StoredRecord { created: entry.created, modified: entry.modified, lease: entry.lease, record }
    }
}

/// What one batch or snapshot changed, in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Changed {
    /// A node appeared.
    Up(Arc<Node>),
    /// A node's record was put again.
    Renewed(Arc<Node>),
    /// A node vanished, in that way.
    Down(Arc<Node>, Departure),
    /// The key of who last went in order was put.
    Departed(DepartureRecord),
    /// The election key changed.
    Leader,
    /// The version key changed.
    Version,
    /// The key of the newest stable version changed.
    Stable,
    /// The request key changed.
    Request,
    /// A record or key under the cluster's prefix cannot be read.
    Malformed { key: Key, reason: String },
}

/// What a batch or snapshot changed. Those who share the replica share that as well.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Changes(Arc<[Changed]>);

impl Changes {
    /// Whether it is that very list.
    pub(crate) fn is(&self, other: &Changes) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Deref for Changes {
    type Target = [Changed];
    fn deref(&self) -> &[Changed] {
        &self.0
    }
}

/// What is known to come of the next batches, one after the other.
pub(crate) type Known = VecDeque<(Arc<Replica>, Arc<[Changed]>)>;

/// A node's replica of the log, and what of it is about the node itself.
#[derive(Clone, Debug)]
pub(crate) struct Fold {
    keyspace: Keyspace,
    /// Whose replica it is, and the key of its record; views know their holder.
    me: Option<(NodeName, Key)>,
    replica: Arc<Replica>,
    /// What stands under the own name, readable or not. It is asked for at every input.
    own: Option<StoredRecord<Arc<Node>>>,
    /// The newest view, as it is for the holder.
    newest: Option<View>,
    kinship: Kinship,
}

impl Fold {
    pub(crate) fn new(keyspace: Keyspace, me: Option<NodeName>) -> Self {
        Fold {
            me: me.map(|me| {
                let key = keyspace.node_key(&me);
                (me, key)
            }),
            keyspace,
            replica: Arc::default(),
            own: None,
            newest: None,
            kinship: Kinship::default(),
        }
    }

    /// From now on it shares its replica with those folds of this process that follow the same log and share theirs. It
    /// changes nothing but what it costs.
    pub(crate) fn share(&mut self) {
        self.kinship = Kinship::of(&self.keyspace);
    }

    pub(crate) fn keyspace(&self) -> &Keyspace {
        &self.keyspace
    }

    /// The last revision folded.
    pub(crate) fn revision(&self) -> Revision {
        self.replica.revision
    }

    /// The nodes present, sorted by name.
    pub(crate) fn present(&self) -> impl Iterator<Item = &Arc<Node>> + Clone {
        self.replica.present()
    }

    /// How many nodes are present.
    pub(crate) fn present_count(&self) -> usize {
        self.replica.present_count()
    }

    /// What stands under the own name, readable or not.
    pub(crate) fn own(&self) -> Option<&StoredRecord<Arc<Node>>> {
        self.own.as_ref()
    }

    /// The node of that name, if it is present.
    pub(crate) fn node(&self, name: &NodeName) -> Option<&Arc<Node>> {
        self.replica.node(name)
    }

    pub(crate) fn leader(&self) -> Option<&StoredRecord<LeaderRecord>> {
        self.replica.leader.as_ref()
    }

    /// The present leader's term.
    pub(crate) fn term(&self) -> Option<Term> {
        self.leader().map(|leader| Term::new(leader.created))
    }

    pub(crate) fn version(&self) -> Option<&StoredRecord<VersionRecord>> {
        self.replica.version.as_ref()
    }

    /// When the version key was last put; zero if it is absent.
    pub(crate) fn version_modified(&self) -> Revision {
        self.replica.version_modified()
    }

    /// The number of the next version.
    pub(crate) fn next_number(&self) -> u64 {
        self.replica.last_number.checked_add(1).unwrap_or(1)
    }

    pub(crate) fn request(&self) -> Option<&StoredRecord<RequestRecord>> {
        self.replica.request.as_ref()
    }

    /// Whom the next election is to favour: the node that an open wish names, if it is present.
    pub(crate) fn favoured(&self) -> Option<&Arc<Node>> {
        let request = self.request().filter(|request| request.modified > self.version_modified())?;
        self.node(request.record.as_ref()?.leader.as_ref()?)
    }

    pub(crate) fn stable(&self) -> Option<&StoredRecord<StableRecord>> {
        self.replica.stable.as_ref()
    }

    /// The view of the newest version; `None` if there is none, or if its cut was not seen and cannot be known.
    pub(crate) fn newest(&self) -> Option<&View> {
        self.newest.as_ref()
    }

    /// Whether the newest version is recorded as stable: under its label, and after it was cut. A label may be written
    /// twice, by hand; revisions are not.
    pub(crate) fn is_stable(&self) -> bool {
        let (Some(newest), Some(stable)) = (&self.newest, self.stable()) else { return false };
        let says_so = stable.record.as_ref().is_some_and(|record| record.version == newest.version());
        says_so && stable.modified > newest.revision()
    }

    /// True if the newest version is recorded as stable and no other version is due: the nodes present are those of its
    /// view, there is a leader whose record can be read, and no newer version has been requested.
    pub(crate) fn is_settled(&self) -> bool {
        let is_led = self.leader().is_some_and(|leader| leader.record.is_some());
        let is_asked = self.request().is_some_and(|request| request.modified > self.version_modified());
        is_led && !is_asked && self.present_count() > 0 && self.is_current()
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

    /// Names that stand otherwise now than in the newest view; none if there is no such view.
    pub(crate) fn drift(&self) -> impl Iterator<Item = &NodeName> {
        self.replica.drift.keys()
    }

    /// Whether any does.
    pub(crate) fn has_drifted(&self) -> bool {
        !self.replica.drift.is_empty()
    }

    /// How a node of the newest view went that is gone. After a resync it is known only of who went in order last.
    pub(crate) fn departure(&self, name: &NodeName) -> Departure {
        self.replica.departures.get(name).copied().unwrap_or(Departure::Ended)
    }

    /// What is known to come of these batches, for [`apply_known`](Self::apply_known) to take.
    pub(crate) fn look_ahead(&self, batches: &[Batch]) -> Known {
        let new = || batches.iter().filter(|batch| batch.revision > self.revision());
        self.kinship.kin().map(|kin| kin.walk(&self.replica, new())).unwrap_or_default()
    }

    /// Folds the changes of one revision, or takes what is known to come of them. Those that were folded already change
    /// nothing.
    pub(crate) fn apply_known(&mut self, batch: &Batch, known: &mut Known) -> Changes {
        if batch.revision <= self.revision() {
            return Changes([].into());
        }
        let changes = if let Some((replica, changes)) = known.pop_front() {
            self.replica = replica;
            changes
        } else if let Some(kin) = self.kinship.kin() {
            let (replica, changes) = kin.step(&self.replica, batch);
            self.replica = replica;
            changes
        } else {
            Arc::make_mut(&mut self.replica).apply(&self.keyspace, batch).into()
        };
        if self.me.as_ref().is_some_and(|(_, own)| batch.changes.iter().any(|change| is(change.key(), own))) {
            self.look_at_own();
        }
        self.look_at_newest();
        Changes(changes)
    }

    /// Starts from a snapshot, after a gap or at first.
    ///
    /// If the version is still the one folded, its view is kept: it was cut when it was seen. Otherwise nobody can tell
    /// from a snapshot who was present when it was written, and there is no newest view until the next version. After
    /// a rewind nothing that was seen can be kept.
    pub(crate) fn resync(&mut self, snapshot: &Snapshot, rewound: bool) -> Changes {
        let kin = self.kinship.kin();
        let known = kin.map(|kin| kin.known(snapshot.revision)).unwrap_or_default();
        let (mut replica, read) = Replica::read(&self.keyspace, snapshot, &known);
        replica.succeed(&self.replica, rewound, gone(&read));
        let mut changed = replica.differences(&self.replica, gone(&read));
        changed.extend(read);
        self.replica = match kin {
            None => Arc::new(replica),
            Some(kin) => kin.join(replica),
        };
        self.look_at_own();
        self.look_at_newest();
        Changes(changed.into())
    }

    fn look_at_own(&mut self) {
        self.own = self.me.as_ref().and_then(|(me, _)| self.replica.standing(me));
    }

    fn look_at_newest(&mut self) {
        let same = match (&self.newest, &self.replica.newest) {
            (Some(view), Some(cut)) => view.is_of(cut),
            (view, cut) => view.is_none() && cut.is_none(),
        };
        if !same {
            let me = self.me.as_ref().map(|(me, _)| me);
            self.newest = self.replica.newest.clone().map(|cut| View::new(cut, me.cloned()));
        }
    }
}

/// Whether two keys are the same. Those of one cluster differ at the end, if at all.
fn is(key: &Key, other: &Key) -> bool {
    key.len() == other.len() && key.as_bytes().last() == other.as_bytes().last() && key == other
}

/// All else that a fold holds follows from these.
impl PartialEq for Fold {
    fn eq(&self, other: &Self) -> bool {
        self.keyspace == other.keyspace && self.me == other.me && self.replica == other.replica
    }
}

impl Eq for Fold {}

impl Hash for Fold {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.keyspace, &self.me, &self.replica).hash(state);
    }
}

/// Who last went in order, if that is among the changes.
fn gone(changed: &[Changed]) -> Option<&DepartureRecord> {
    changed.iter().find_map(|change| match change {
        Changed::Departed(gone) => Some(gone),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
