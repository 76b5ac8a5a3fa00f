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

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    decoded,
    keyspace::{Holds, Keyspace},
    name::NodeName,
    node::Node,
    record::{LeaderRecord, RequestRecord, StableRecord, VersionRecord, decode},
    store::{Batch, Change, Entry, Key, LeaseId, Revision, Snapshot},
    version::{Term, Version},
    view::{Label, View},
};

/// A key as it stands, whether its value can be read or not. What cannot be read still stands for guards.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Standing<T> {
    pub(crate) created: Revision,
    pub(crate) modified: Revision,
    pub(crate) lease: Option<LeaseId>,
    pub(crate) record: Option<T>,
}

impl<T> Standing<T> {
    fn of(entry: &Entry, record: Option<T>) -> Self {
        Standing { created: entry.created, modified: entry.modified, lease: entry.lease, record }
    }
}

/// What one batch or snapshot changed, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    /// A node appeared.
    Up(Arc<Node>),
    /// A node's record was put again.
    Renewed(Arc<Node>),
    /// A node vanished.
    Down(Arc<Node>),
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

/// The state that the log adds up to, at [`revision`](Self::revision).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Fold {
    keyspace: Keyspace,
    /// Whose replica it is; views know their holder.
    me: Option<NodeName>,
    revision: Revision,
    /// What stands under `nodes/`; `None` if it cannot be read. Each node holds it of all others: every byte counts.
    nodes: BTreeMap<NodeName, Option<Arc<Node>>>,
    /// How many of those can be read.
    present: usize,
    /// What stands under the own name, readable or not. It is asked for at every input.
    own: Option<Standing<Arc<Node>>>,
    leader: Option<Standing<LeaderRecord>>,
    version: Option<Standing<VersionRecord>>,
    request: Option<Standing<RequestRecord>>,
    stable: Option<Standing<StableRecord>>,
    newest: Option<View>,
    /// Names that stand otherwise now than in the newest view. Kept along, so that nobody compares lists per change.
    drift: BTreeSet<NodeName>,
    /// The last version whose label was read. New ones are minted above it, also when the key was deleted.
    last_label: Option<Version>,
    /// The number of the last version that had one.
    last_number: u64,
}

impl Fold {
    pub(crate) fn new(keyspace: Keyspace, me: Option<NodeName>) -> Self {
        Fold {
            keyspace,
            me,
            revision: Revision::ZERO,
            nodes: BTreeMap::new(),
            present: 0,
            own: None,
            leader: None,
            version: None,
            request: None,
            stable: None,
            newest: None,
            drift: BTreeSet::new(),
            last_label: None,
            last_number: 0,
        }
    }

    pub(crate) fn keyspace(&self) -> &Keyspace {
        &self.keyspace
    }

    /// The last revision folded.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// The nodes present, sorted by name.
    pub(crate) fn present(&self) -> impl Iterator<Item = &Arc<Node>> + Clone {
        self.nodes.values().flatten()
    }

    /// How many nodes are present.
    pub(crate) fn present_count(&self) -> usize {
        self.present
    }

    /// What stands under the own name, readable or not.
    pub(crate) fn own(&self) -> Option<&Standing<Arc<Node>>> {
        self.own.as_ref()
    }

    /// The node of that name, if it is present.
    pub(crate) fn node(&self, name: &NodeName) -> Option<&Arc<Node>> {
        self.nodes.get(name)?.as_ref()
    }

    pub(crate) fn leader(&self) -> Option<&Standing<LeaderRecord>> {
        self.leader.as_ref()
    }

    /// The present leader's term.
    pub(crate) fn term(&self) -> Option<Term> {
        self.leader.as_ref().map(|leader| Term::new(leader.created))
    }

    pub(crate) fn version(&self) -> Option<&Standing<VersionRecord>> {
        self.version.as_ref()
    }

    /// When the version key was last put; zero if it is absent.
    pub(crate) fn version_modified(&self) -> Revision {
        self.version.as_ref().map_or(Revision::ZERO, |version| version.modified)
    }

    pub(crate) fn last_label(&self) -> Option<Version> {
        self.last_label
    }

    /// The number of the next version.
    pub(crate) fn next_number(&self) -> u64 {
        self.last_number.checked_add(1).unwrap_or(1)
    }

    pub(crate) fn request(&self) -> Option<&Standing<RequestRecord>> {
        self.request.as_ref()
    }

    /// Whom the next election is to favour: the node that an open wish names, if it is present.
    pub(crate) fn favoured(&self) -> Option<&Arc<Node>> {
        let request = self.request.as_ref().filter(|request| request.modified > self.version_modified())?;
        self.node(request.record.as_ref()?.leader.as_ref()?)
    }

    pub(crate) fn stable(&self) -> Option<&Standing<StableRecord>> {
        self.stable.as_ref()
    }

    /// The view of the newest version; `None` if there is none, or if its cut was not seen and cannot be known.
    pub(crate) fn newest(&self) -> Option<&View> {
        self.newest.as_ref()
    }

    /// Whether the newest version is recorded as stable: under its label, and after it was cut. A label may be written
    /// twice, by hand; revisions are not.
    pub(crate) fn is_stable(&self) -> bool {
        let (Some(newest), Some(stable)) = (&self.newest, &self.stable) else { return false };
        let says_so = stable.record.as_ref().is_some_and(|record| record.version == newest.version());
        says_so && stable.modified > newest.revision()
    }

    /// Names that stand otherwise now than in the newest view.
    pub(crate) fn drift(&self) -> &BTreeSet<NodeName> {
        &self.drift
    }

    /// Folds the changes of one revision. Those that were folded already change nothing.
    pub(crate) fn apply(&mut self, batch: &Batch) -> Vec<Changed> {
        let mut changed = Vec::new();
        if batch.revision <= self.revision {
            return changed;
        }
        self.revision = batch.revision;
        let mut cut = false;
        for change in &*batch.changes {
            let holds = self.keyspace.holds(change.key());
            cut |= holds == Holds::Version;
            match change {
                Change::Put(entry) => self.put(holds, entry, &mut changed),
                Change::Delete(_) => self.delete(holds, &mut changed),
            }
        }
        // Only after all changes of the revision: a version that is written together with a node has it in its view.
        if cut {
            self.cut();
        }
        changed
    }

    /// Starts from a snapshot, after a gap or at first.
    ///
    /// If the version is still the one folded, its view is kept: it was cut when it was seen. Otherwise nobody can tell
    /// from a snapshot who was present when it was written, and there is no newest view until the next version. After
    /// a rewind nothing that was seen can be kept.
    pub(crate) fn resync(&mut self, snapshot: &Snapshot, rewound: bool) -> Vec<Changed> {
        let before = std::mem::replace(self, Fold::new(self.keyspace.clone(), self.me.clone()));
        self.revision = snapshot.revision;
        let mut read = Vec::new();
        for entry in &snapshot.entries {
            self.put(self.keyspace.holds(&entry.key), entry, &mut read);
        }
        if !rewound && self.version_modified() == before.version_modified() {
            self.newest = before.newest.clone();
        }
        // A store that was rewound shows an older label; new ones are minted above all that were ever seen.
        self.last_label = self.last_label.max(before.last_label);
        if self.last_number == 0 {
            self.last_number = before.last_number;
        }
        if let Some(newest) = &self.newest {
            let names = newest.iter().map(|node| &node.name).chain(self.nodes.keys());
            let modified = |name: &NodeName| self.node(name).map(|node| node.modified);
            self.drift = names.filter(|name| self.drifts(name, modified(name))).cloned().collect();
        }
        self.differences(&before, read)
    }

    fn put(&mut self, holds: Holds, entry: &Entry, changed: &mut Vec<Changed>) {
        fn read<T>(entry: &Entry, record: Result<T, String>, changed: &mut Vec<Changed>) -> Standing<T> {
            let record =
                record.map_err(|reason| changed.push(Changed::Malformed { key: entry.key.clone(), reason }));
            Standing::of(entry, record.ok())
        }
        match holds {
            Holds::Node(name) => {
                let standing = read(entry, decoded::node(name.clone(), entry), changed);
                let new = standing.record.clone();
                let modified = new.as_ref().map(|node| node.modified);
                // The name in the record's node, which all nodes of the process share.
                let name = new.as_ref().map_or(name, |node| node.name.clone());
                if self.me.as_ref() == Some(&name) {
                    self.own = Some(standing);
                }
                let old = self.nodes.insert(name.clone(), new.clone()).flatten();
                self.present = self.present + usize::from(new.is_some()) - usize::from(old.is_some());
                changed.extend(match (old, new) {
                    (None, Some(new)) => Some(Changed::Up(new)),
                    (Some(_), Some(new)) => Some(Changed::Renewed(new)),
                    (Some(old), None) => Some(Changed::Down(old)),
                    (None, None) => None,
                });
                self.note_drift(name, modified);
            }
            Holds::Leader => {
                self.leader = Some(read(entry, decode(&entry.value), changed));
                changed.push(Changed::Leader);
            }
            Holds::Version => {
                let standing: Standing<VersionRecord> = read(entry, decode(&entry.value), changed);
                if let Some(record) = &standing.record {
                    self.last_label = Some(record.version);
                    self.last_number = if record.number > 0 { record.number } else { self.last_number };
                }
                self.version = Some(standing);
                changed.push(Changed::Version);
            }
            Holds::Request => {
                self.request = Some(read(entry, decode(&entry.value), changed));
                changed.push(Changed::Request);
            }
            Holds::Stable => {
                self.stable = Some(read(entry, decode(&entry.value), changed));
                changed.push(Changed::Stable);
            }
            Holds::BadName(reason) => changed.push(Changed::Malformed { key: entry.key.clone(), reason }),
            Holds::Unknown => {}
        }
    }

    fn delete(&mut self, holds: Holds, changed: &mut Vec<Changed>) {
        match holds {
            Holds::Node(name) => {
                let old = self.nodes.remove(&name).flatten();
                self.present -= usize::from(old.is_some());
                if self.me.as_ref() == Some(&name) {
                    self.own = None;
                }
                changed.extend(old.map(Changed::Down));
                self.note_drift(name, None);
            }
            Holds::Leader => {
                self.leader = None;
                changed.push(Changed::Leader);
            }
            Holds::Version => {
                self.version = None;
                changed.push(Changed::Version);
            }
            Holds::Request => {
                self.request = None;
                changed.push(Changed::Request);
            }
            Holds::Stable => {
                self.stable = None;
                changed.push(Changed::Stable);
            }
            Holds::BadName(_) | Holds::Unknown => {}
        }
    }

    /// Cuts the view of the version just written.
    fn cut(&mut self) {
        self.newest = self.version.as_ref().and_then(|version| {
            let record = version.record.as_ref()?;
            let label = Label {
                version: record.version,
                revision: version.modified,
                // The commit that elects leaves the term out: it is its own revision.
                term: record.term.unwrap_or_else(|| Term::new(version.modified)),
                leader: record.leader.clone(),
                causes: record.causes.clone(),
            };
            Some(View::new(label, self.present(), self.me.clone()))
        });
        self.drift.clear();
        if self.newest.is_none() {
            self.drift.extend(self.nodes.values().flatten().map(|node| node.name.clone()));
        }
    }

    /// Whether a node whose record was put at that revision, or that is gone, stands otherwise than in the newest view.
    fn drifts(&self, name: &NodeName, modified: Option<Revision>) -> bool {
        let cut = self.newest.as_ref().and_then(|newest| newest.get(name));
        cut.map(|node| node.modified) != modified
    }

    fn note_drift(&mut self, name: NodeName, modified: Option<Revision>) {
        if self.drifts(&name, modified) {
            self.drift.insert(name);
        } else {
            self.drift.remove(&name);
        }
    }

    /// What is different from `before`, as changes; `read` are those that reading the snapshot gave.
    fn differences(&self, before: &Fold, read: Vec<Changed>) -> Vec<Changed> {
        let mut changed = Vec::new();
        let gone = before.present().filter(|old| self.node(&old.name).is_none());
        changed.extend(gone.cloned().map(Changed::Down));
        for change in read {
            let differs = match &change {
                Changed::Up(node) => match before.node(&node.name) {
                    None => true,
                    Some(old) if old.modified != node.modified => {
                        changed.push(Changed::Renewed(node.clone()));
                        false
                    }
                    Some(_) => false,
                },
                Changed::Malformed { .. } => true,
                _ => false,
            };
            if differs {
                changed.push(change);
            }
        }
        let keys = [
            (before.leader != self.leader, Changed::Leader),
            (before.version != self.version, Changed::Version),
            (before.request != self.request, Changed::Request),
            (before.stable != self.stable, Changed::Stable),
        ];
        changed.extend(keys.into_iter().filter_map(|(differs, change)| differs.then_some(change)));
        changed
    }
}

#[cfg(test)]
mod tests;
