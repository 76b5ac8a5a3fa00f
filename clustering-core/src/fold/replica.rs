//! The state that the log adds up to, whoever holds it.

use std::{collections::BTreeMap, sync::Arc};

use super::{Changed, StoredRecord, gone, sorted::Sorted};
use crate::{
    decoded,
    keyspace::{KeyKind, Keyspace},
    name::NodeName,
    node::Node,
    record::{Departure, DepartureRecord, LeaderRecord, RequestRecord, StableRecord, VersionRecord, decode},
    store::{Batch, Change, Entry, Revision, Snapshot},
    version::Term,
    view::{Cut, Label},
};

/// The state that the log adds up to, at a revision. The same on all nodes that followed the same log, so that those of one
/// process can [share](super::kin) it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Replica {
    pub(super) revision: Revision,
    pub(super) newest: Option<Arc<Cut>>,
    pub(super) leader: Option<StoredRecord<LeaderRecord>>,
    pub(super) version: Option<StoredRecord<VersionRecord>>,
    pub(super) request: Option<StoredRecord<RequestRecord>>,
    pub(super) stable: Option<StoredRecord<StableRecord>>,
    /// What stands under `nodes/`; `None` if it cannot be read. Each node holds it of all others: every byte counts.
    pub(super) nodes: Sorted<NodeName, Option<Arc<Node>>>,
    /// How those stand that cannot be read.
    unreadable: BTreeMap<NodeName, StoredRecord<Arc<Node>>>,
    /// Names that stand otherwise now than in the newest view, if there is one. Kept along, so that nobody compares lists
    /// per change.
    pub(super) drift: Sorted<NodeName, ()>,
    /// How those of them went who are gone, if not with their session. Mostly empty.
    pub(super) departures: BTreeMap<NodeName, Departure>,
    /// The number of the last version that had one.
    pub(super) last_number: u64,
}

impl Replica {
    /// The nodes present, sorted by name.
    pub(super) fn present(&self) -> impl Iterator<Item = &Arc<Node>> + Clone {
        self.nodes.values().flatten()
    }

    /// How many there are.
    pub(super) fn present_count(&self) -> usize {
        self.nodes.len() - self.unreadable.len()
    }

    /// The node of that name, if it is present.
    pub(super) fn node(&self, name: &NodeName) -> Option<&Arc<Node>> {
        self.nodes.get(name)?.as_ref()
    }

    /// What stands under that name, readable or not.
    pub(super) fn standing(&self, name: &NodeName) -> Option<StoredRecord<Arc<Node>>> {
        match self.nodes.get(name)? {
            Some(node) => Some(StoredRecord {
                created: node.created,
                modified: node.modified,
                lease: node.lease,
                record: Some(node.clone()),
            }),
            None => self.unreadable.get(name).cloned(),
        }
    }

    /// When the version key was last put; zero if it is absent.
    pub(super) fn version_modified(&self) -> Revision {
        self.version.as_ref().map_or(Revision::ZERO, |version| version.modified)
    }

    /// Folds the changes of one revision, which is a later one.
    pub(super) fn apply(&mut self, keyspace: &Keyspace, batch: &Batch) -> Vec<Changed> {
        let mut changed = Vec::new();
        self.revision = batch.revision;
        let mut cut = false;
        for change in &*batch.changes {
            let holds = keyspace.kind_of(change.key());
            cut |= holds == KeyKind::Version;
            match change {
                Change::Put(entry) => self.put(holds, entry, &mut changed),
                Change::Delete(_) => self.delete(holds, &mut changed),
            }
        }
        self.note_departures(&mut changed);
        // Only after all changes of the revision: a version that is written together with a node has it in its view.
        if cut {
            self.cut();
        }
        changed
    }

    /// Takes down how those went who went in this revision. The order of its changes means nothing.
    fn note_departures(&mut self, changed: &mut [Changed]) {
        let gone = gone(changed).cloned();
        for change in changed {
            let Changed::Down(node, how) = change else { continue };
            *how = DepartureRecord::tells(gone.as_ref(), node);
            self.departures.remove(&node.name);
            if *how != Departure::Ended && self.drift.get(&node.name).is_some() {
                self.departures.insert(node.name.clone(), *how);
            }
        }
    }

    /// What a snapshot shows; and who last went in order, and what of it cannot be read. Where its nodes are those of a
    /// replica that is `known`, they are not read anew. There is no newest view: nobody can tell from a snapshot who was
    /// present when the version was written.
    pub(super) fn read(
        keyspace: &Keyspace,
        snapshot: &Snapshot,
        known: &[Arc<Replica>],
    ) -> (Self, Vec<Changed>) {
        let mut replica = Replica { revision: snapshot.revision, ..Replica::default() };
        // Entries come in the order of their keys, so these stand together.
        let prefix = keyspace.nodes_prefix().as_str();
        let (before, nodes) =
            snapshot.entries.split_at(snapshot.entries.partition_point(|entry| *entry.key < *prefix));
        let (nodes, after) = nodes.split_at(nodes.partition_point(|entry| entry.key.starts_with(prefix)));
        let known = known.iter().find(|known| known.has_nodes(prefix, nodes));
        let nodes = match known {
            Some(known) => {
                replica.nodes = known.nodes.clone();
                &[][..]
            }
            None => nodes,
        };
        let mut changed = Vec::new();
        for entry in [before, nodes, after].into_iter().flatten() {
            replica.put(keyspace.kind_of(&entry.key), entry, &mut changed);
        }
        changed.retain(|change| matches!(change, Changed::Malformed { .. } | Changed::Departed(_)));
        (replica, changed)
    }

    /// Whether just these node records stand in it, and all can be read.
    fn has_nodes(&self, prefix: &str, entries: &[Entry]) -> bool {
        let stands = |((name, node), entry): ((&NodeName, &Option<Arc<Node>>), &Entry)| {
            let of = |node: &Arc<Node>| node.is_of(entry);
            node.as_ref().is_some_and(of) && entry.key[prefix.len()..] == *name.as_str()
        };
        self.nodes.len() == entries.len() && self.nodes.iter().zip(entries).all(stands)
    }

    fn put(&mut self, holds: KeyKind, entry: &Entry, changed: &mut Vec<Changed>) {
        fn read<T>(entry: &Entry, record: Result<T, String>, changed: &mut Vec<Changed>) -> StoredRecord<T> {
            let record =
                record.map_err(|reason| changed.push(Changed::Malformed { key: entry.key.clone(), reason }));
            StoredRecord::of(entry, record.ok())
        }
        match holds {
            KeyKind::Node(name) => {
                let standing = read(entry, decoded::node(name.clone(), entry), changed);
                let new = standing.record.clone();
                let modified = new.as_ref().map(|node| node.modified);
                // The name in the record's node, which all nodes of the process share.
                let name = new.as_ref().map_or(name, |node| node.name.clone());
                let old = self.nodes.insert(name.clone(), new.clone());
                if new.is_none() {
                    self.unreadable.insert(name.clone(), standing);
                } else {
                    // It is back, however it went.
                    self.departures.remove(&name);
                    self.unreadable.remove(&name);
                }
                changed.extend(match (old.flatten(), new) {
                    (None, Some(new)) => Some(Changed::Up(new)),
                    (Some(_), Some(new)) => Some(Changed::Renewed(new)),
                    (Some(old), None) => Some(Changed::Down(old, Departure::Ended)),
                    (None, None) => None,
                });
                self.note_drift(name, modified);
            }
            KeyKind::Leader => {
                self.leader = Some(read(entry, decode(&entry.value), changed));
                changed.push(Changed::Leader);
            }
            KeyKind::Version => {
                let standing: StoredRecord<VersionRecord> = read(entry, decode(&entry.value), changed);
                if let Some(record) = &standing.record {
                    self.last_number = if record.number > 0 { record.number } else { self.last_number };
                }
                self.version = Some(standing);
                changed.push(Changed::Version);
            }
            KeyKind::Request => {
                self.request = Some(read(entry, decode(&entry.value), changed));
                changed.push(Changed::Request);
            }
            KeyKind::Stable => {
                self.stable = Some(read(entry, decode(&entry.value), changed));
                changed.push(Changed::Stable);
            }
            KeyKind::Departure => {
                let record = read(entry, decode(&entry.value), changed).record;
                changed.extend(record.map(Changed::Departed));
            }
            KeyKind::BadName(reason) => changed.push(Changed::Malformed { key: entry.key.clone(), reason }),
            KeyKind::Unknown => {}
        }
    }

    fn delete(&mut self, holds: KeyKind, changed: &mut Vec<Changed>) {
        match holds {
            KeyKind::Node(name) => {
                let old = self.nodes.remove(&name);
                if old == Some(None) {
                    self.unreadable.remove(&name);
                }
                changed.extend(old.flatten().map(|old| Changed::Down(old, Departure::Ended)));
                self.note_drift(name, None);
            }
            KeyKind::Leader => {
                self.leader = None;
                changed.push(Changed::Leader);
            }
            KeyKind::Version => {
                self.version = None;
                changed.push(Changed::Version);
            }
            KeyKind::Request => {
                self.request = None;
                changed.push(Changed::Request);
            }
            KeyKind::Stable => {
                self.stable = None;
                changed.push(Changed::Stable);
            }
            KeyKind::Departure | KeyKind::BadName(_) | KeyKind::Unknown => {}
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
            Some(Arc::new(Cut::new(label, self.present().cloned())))
        });
        self.drift = Sorted::default();
        self.departures.clear();
    }

    /// Takes down whether a node whose record was put at that revision, or that is gone, stands otherwise than in the newest
    /// view.
    fn note_drift(&mut self, name: NodeName, modified: Option<Revision>) {
        let Some(newest) = &self.newest else { return };
        if newest.nodes.get(&name).map(|node| node.modified) != modified {
            self.drift.insert(name, ());
        } else {
            self.drift.remove(&name);
        }
    }

    /// Goes on with what was known before a snapshot, so far as it still holds.
    pub(super) fn succeed(&mut self, before: &Replica, rewound: bool, gone: Option<&DepartureRecord>) {
        if self.last_number == 0 {
            self.last_number = before.last_number;
        }
        if rewound || self.version_modified() != before.version_modified() {
            return;
        }
        self.newest = before.newest.clone();
        let Some(newest) = &before.newest else { return };
        let names: Vec<NodeName> =
            newest.nodes.iter().map(|node| &node.name).chain(self.nodes.keys()).cloned().collect();
        for name in names {
            let modified = self.node(&name).map(|node| node.modified);
            self.note_drift(name, modified);
        }
        // Nobody saw how those went who went meanwhile. Of the last who went in order it still stands there.
        let missed =
            |gone: &&DepartureRecord| self.drift.get(&gone.node).is_some() && self.node(&gone.node).is_none();
        if let Some(gone) = gone.filter(missed)
            && let Some(last) = before.node(&gone.node).or_else(|| newest.nodes.get(&gone.node))
            && DepartureRecord::tells(Some(gone), last) != Departure::Ended
        {
            self.departures.insert(gone.node.clone(), gone.how);
        }
    }

    /// What is different from `before`, as changes.
    pub(super) fn differences(&self, before: &Replica, gone: Option<&DepartureRecord>) -> Vec<Changed> {
        let down = before.present().filter(|old| self.node(&old.name).is_none());
        let how = |old: &Arc<Node>| DepartureRecord::tells(gone, old);
        let mut changed: Vec<Changed> = down.map(|old| Changed::Down(old.clone(), how(old))).collect();
        changed.extend(self.present().filter_map(|node| match before.node(&node.name) {
            None => Some(Changed::Up(node.clone())),
            Some(old) if old.modified != node.modified => Some(Changed::Renewed(node.clone())),
            Some(_) => None,
        }));
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
