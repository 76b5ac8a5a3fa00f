//! Folding the changes of one revision.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use serde::de::DeserializeOwned;

use super::{Changed, Fold};
use crate::{
    keyspace::KeyKind,
    name::NodeName,
    node::Node,
    record::{Departure, DepartureRecord, HoldsRecord, StoredRecord, VersionRecord, decode_node},
    slots::Assignment,
    store::{Batch, Change, Entry, LeaseId},
    version::Term,
    view::{Label, View, ViewSlots},
};

impl Fold {
    /// Folds the changes of one revision. A batch that was folded before changes nothing.
    pub(crate) fn apply(&mut self, batch: &Batch) -> Vec<Changed> {
        let mut changed = Vec::new();
        if batch.revision <= self.revision {
            return changed;
        }
        self.revision = batch.revision;
        for change in &*batch.changes {
            match change {
                Change::Put(entry) => self.put(entry, &mut changed),
                Change::Delete(key) => self.delete(self.keyspace.kind_of(key), &mut changed),
            }
        }
        self.record_departures(&mut changed);
        // Cut only after all changes of the revision: a node that was written together with a version belongs to it.
        if changed.contains(&Changed::Version) {
            self.cut();
        }
        if changed.contains(&Changed::Stable) {
            self.note_stable();
        }
        changed
    }

    pub(super) fn put(&mut self, entry: &Entry, changed: &mut Vec<Changed>) {
        match self.keyspace.kind_of(&entry.key) {
            KeyKind::Node(name) => self.put_node(name, entry, changed),
            KeyKind::Leader => {
                self.leader = Some(read(entry, changed));
                changed.push(Changed::Leader);
            }
            KeyKind::Version => {
                let version: StoredRecord<VersionRecord> = read(entry, changed);
                let number = version.record.as_ref().map(|record| record.number);
                self.last_number = number.filter(|number| *number > 0).unwrap_or(self.last_number);
                self.formed |= version.record.as_ref().is_some_and(|record| record.formed);
                self.version = Some(version);
                changed.push(Changed::Version);
            }
            KeyKind::Request => {
                self.request = Some(read(entry, changed));
                changed.push(Changed::Request);
            }
            KeyKind::Stable => {
                self.stable = Some(read(entry, changed));
                changed.push(Changed::Stable);
            }
            KeyKind::Departure => {
                let record = read(entry, changed).record;
                changed.extend(record.map(Changed::Departed));
            }
            KeyKind::Released => {
                self.released = Some(read(entry, changed));
                changed.push(Changed::Released);
            }
            KeyKind::Slots => {
                let malformed = |reason| {
                    changed.push(Changed::Malformed { key: entry.key.clone(), reason });
                };
                let assignment = Assignment::decode(&entry.value).map(Arc::new).map_err(malformed);
                self.slots = Some(StoredRecord::new(entry, assignment.ok()));
                changed.push(Changed::Other);
            }
            KeyKind::Holds(lease) => {
                let record = read(entry, changed);
                self.holds.insert(lease, record);
                changed.push(Changed::Other);
            }
            KeyKind::Cordon(name) => {
                let record = read(entry, changed);
                if self.cordoned.insert(name.clone(), record).is_none() {
                    changed.push(Changed::Cordoned(name));
                }
            }
            KeyKind::Drain(name) => {
                let record = read(entry, changed);
                self.drains.insert(name, record);
                changed.push(Changed::Other);
            }
            KeyKind::BadName(reason) => changed.push(Changed::Malformed { key: entry.key.clone(), reason }),
            KeyKind::Unknown => {}
        }
    }

    fn put_node(&mut self, name: NodeName, entry: &Entry, changed: &mut Vec<Changed>) {
        match decode_node(name.clone(), entry).map(Arc::new) {
            Ok(node) => {
                self.malformed_nodes.remove(&name);
                self.departures.remove(&name);
                changed.push(match self.nodes.insert(name.clone(), node.clone()) {
                    None => Changed::Up(node),
                    Some(_) => Changed::Renewed(node),
                });
            }
            Err(reason) => {
                changed.push(Changed::Malformed { key: entry.key.clone(), reason });
                self.malformed_nodes.insert(name.clone(), StoredRecord::new(entry, None));
                changed.extend(self.nodes.remove(&name).map(down));
            }
        }
        self.note_node(&name);
    }

    fn delete(&mut self, kind: KeyKind, changed: &mut Vec<Changed>) {
        match kind {
            KeyKind::Node(name) => {
                self.malformed_nodes.remove(&name);
                changed.extend(self.nodes.remove(&name).map(down));
                self.note_node(&name);
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
            KeyKind::Released => {
                self.released = None;
                changed.push(Changed::Released);
            }
            KeyKind::Slots => {
                self.slots = None;
                changed.push(Changed::Other);
            }
            KeyKind::Holds(lease) => {
                self.holds.remove(&lease);
                self.standing.remove(&lease);
                changed.push(Changed::Other);
            }
            KeyKind::Cordon(name) => {
                if self.cordoned.remove(&name).is_some() {
                    changed.push(Changed::Uncordoned(name));
                }
            }
            KeyKind::Drain(name) => {
                self.drains.remove(&name);
                changed.push(Changed::Other);
            }
            KeyKind::Departure | KeyKind::BadName(_) | KeyKind::Unknown => {}
        }
    }

    /// Finds the revision of the version that the stability record names.
    pub(super) fn note_stable(&mut self) {
        self.stable_cut = self.stable.as_ref().map(|stable| {
            let label = stable.record.as_ref().map(|record| record.version);
            let is_named = |version: &&StoredRecord<VersionRecord>| {
                let own = version.record.as_ref().map(|record| record.version);
                own.is_some() && own == label && version.modified < stable.modified
            };
            self.version.as_ref().filter(is_named).map_or(stable.modified, |version| version.modified)
        });
    }

    /// Updates everything that is derived from the record under a name.
    fn note_node(&mut self, name: &NodeName) {
        if self.me.as_ref() == Some(name) {
            self.own = self.stored_node(name);
        }
        self.note_drift(name);
    }

    /// Returns the record under a name, which may be malformed.
    pub(super) fn stored_node(&self, name: &NodeName) -> Option<StoredRecord<Arc<Node>>> {
        match self.nodes.get(name) {
            Some(node) => Some(StoredRecord {
                created: node.created,
                modified: node.modified,
                lease: node.lease,
                record: Some(node.clone()),
            }),
            None => self.malformed_nodes.get(name).cloned(),
        }
    }

    /// Compares the record under a name with that in the newest view.
    pub(super) fn note_drift(&mut self, name: &NodeName) {
        let Some(newest) = &self.newest else { return };
        let modified = |node: Option<&Arc<Node>>| node.map(|node| node.modified);
        if modified(newest.get(name)) == modified(self.nodes.get(name)) {
            self.drift.remove(name);
        } else {
            self.drift.insert(name.clone());
        }
    }

    /// Records how the nodes of this revision departed. Runs after all its changes, whose order means nothing.
    fn record_departures(&mut self, changed: &mut [Changed]) {
        let departed = departed(changed).cloned();
        for change in changed {
            let Changed::Down(node, how, grace) = change else { continue };
            *how = DepartureRecord::how_departed(departed.as_ref(), node);
            *grace = DepartureRecord::grace(departed.as_ref(), node);
            self.departures.remove(&node.name);
            if *how != Departure::Ended && self.drift.contains(&node.name) {
                self.departures.insert(node.name.clone(), *how);
            }
        }
    }

    /// Creates the view of the version that was just written.
    fn cut(&mut self) {
        self.previous = self.newest.take().filter(View::has_handover);
        self.newest = self.version.as_ref().and_then(|version| {
            let record = version.record.as_ref()?;
            let label = Label {
                version: record.version,
                revision: version.modified,
                // The record of an election omits the term, because the term is the revision of that commit.
                term: record.term.unwrap_or_else(|| Term::new(version.modified)),
                leader: record.leader.clone(),
                causes: record.causes.clone(),
                clean: record.clean,
                kept: record
                    .kept
                    .iter()
                    .map(|(name, ms)| (name.clone(), Duration::from_millis(*ms)))
                    .collect(),
                min_nodes: record.min_nodes,
                formed: record.formed,
            };
            Some(View::new(label, self.present().cloned(), self.me.clone(), self.view_slots()))
        });
        self.drift.clear();
        self.departures.clear();
        self.find_standing();
    }

    /// Returns the assignment for the version that was just written; `None` if no present node is exclusive.
    fn view_slots(&self) -> Option<ViewSlots> {
        let is_exclusive =
            |node: &&Arc<Node>| node.lease.is_some_and(|lease| self.holds.contains_key(&lease));
        if !self.present().any(|node| is_exclusive(&node)) {
            return None;
        }
        let lacking = self.present().filter(|node| !is_exclusive(node)).map(|node| node.name.clone());
        let assignment = self.slots.as_ref().and_then(|slots| slots.record.clone());
        Some(ViewSlots::new(assignment, lacking.collect(), self.present()))
    }

    /// Finds the sessions outside of the newest cut that may still hold keys.
    pub(super) fn find_standing(&mut self) {
        self.standing.clear();
        let Some(newest) = self.newest.as_ref().filter(|_| !self.holds.is_empty()) else { return };
        let cut: BTreeSet<LeaseId> = newest.iter().filter_map(|node| node.lease).collect();
        let is_standing = |(lease, witness): &(&LeaseId, &StoredRecord<HoldsRecord>)| {
            witness.created <= newest.revision() && !cut.contains(lease)
        };
        self.standing = self.holds.iter().filter(is_standing).map(|(lease, _)| *lease).collect();
    }
}

/// Decodes a record, and reports it if it is malformed.
fn read<T: DeserializeOwned>(entry: &Entry, changed: &mut Vec<Changed>) -> StoredRecord<T> {
    StoredRecord::decode(entry, |reason| changed.push(Changed::Malformed { key: entry.key.clone(), reason }))
}

/// Returns the departure of a node. How it departed is determined after all changes of the revision.
fn down(node: Arc<Node>) -> Changed {
    Changed::Down(node, Departure::Ended, Duration::ZERO)
}

/// Returns the departure record among the changes.
pub(super) fn departed(changed: &[Changed]) -> Option<&DepartureRecord> {
    changed.iter().find_map(|change| match change {
        Changed::Departed(record) => Some(record),
        _ => None,
    })
}
