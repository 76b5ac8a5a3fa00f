//! Applying the changes of the store's history.

use std::collections::BTreeMap;

use clustering_core::{
    NodeName, Term,
    store::{Batch, Change, Entry, Revision, Snapshot},
};

use super::Era;
use crate::history::ledger::{
    Act,
    facts::{Acknowledged, Confirmed, LeaderCommit, Published, RecordId, Registration, Reign},
    key::Key,
    record,
};

impl Era {
    /// Continues from a snapshot, because changes are missing.
    pub(in crate::history::ledger) fn skip_to(&mut self, snapshot: &Snapshot) {
        self.gaps.push(snapshot.revision);
        self.revision = self.revision.max(snapshot.revision);
        self.entries.clear();
        for entry in &snapshot.entries {
            if let Some(key) = self.relative(&entry.key).map(str::to_owned) {
                self.entries.insert(key, entry.clone());
            }
        }
        self.skip_reigns(snapshot.revision);
        let version = self.entries.get("view/version").map(|entry| entry.modified);
        self.unversioned = version.is_none() || version != self.versions.last().map(|last| last.revision);
        self.unconfirmed = !self.entries.contains_key("view/stable");
        self.judge_all();
    }

    /// Ends the last reign unless the election key in the snapshot still belongs to it.
    fn skip_reigns(&mut self, revision: Revision) {
        let current = self.entries.get("view/leader").map(Reign::of);
        let last = self.reigns.last_mut();
        match (last, current) {
            (Some(last), Some(current)) if last.term == current.term => last.ended = None,
            (last, current) => {
                last.into_iter().for_each(|last| {
                    last.ended.get_or_insert(revision);
                });
                self.reigns.extend(current);
            }
        }
    }

    /// Applies the changes of one revision.
    pub(in crate::history::ledger) fn apply(&mut self, batch: &Batch) -> Vec<Act> {
        assert!(
            batch.revision > self.revision,
            "the ledger is at revision {}, but the next batch has revision {}",
            self.revision,
            batch.revision
        );
        self.revision = batch.revision;
        let relative = |change| Some((self.relative(Change::key(change))?, change));
        let mut changes: Vec<(Key, String, &Change)> = batch
            .changes
            .iter()
            .filter_map(relative)
            .map(|(key, change)| (Key::parse(key), key.to_owned(), change))
            .collect();
        changes.sort_by_key(|(key, ..)| key.rank());
        if changes.iter().any(|(key, ..)| key.is_own()) {
            self.commits.push(batch.revision);
        }
        // If a reign ends in this revision, the revision's writes were guarded by that reign.
        let before = self.reign().map(|reign| reign.term);
        let mut acts = Vec::new();
        for (key, relative, change) in changes {
            acts.extend(match change {
                Change::Put(entry) => {
                    let old = self.entries.insert(relative, entry.clone());
                    self.put(key, entry, old, before)
                }
                Change::Delete(_) => {
                    self.entries.remove(&relative);
                    self.delete(key, batch.revision)
                }
            });
        }
        if let Some(newest) = self.versions.last_mut()
            && newest.everyone.is_none()
            && self.missing.is_empty()
        {
            newest.everyone = Some(batch.revision);
        }
        acts
    }

    fn put(&mut self, key: Key, entry: &Entry, old: Option<Entry>, before: Option<Term>) -> Option<Act> {
        let term = self.reign().map(|reign| reign.term).or(before);
        Some(match key {
            Key::Node(name) => self.put_node(name, entry, old),
            Key::Leader => self.put_leader(entry),
            Key::Version => self.put_version(entry, term),
            Key::Ready(name) => self.put_acknowledgement(name, entry),
            Key::Stable => self.put_stable(entry, term),
            Key::Request => Act::Asked,
            Key::Gone | Key::History => return None,
            Key::LeaderCommit(key) => self.put_leader_commit(key, entry, term),
            Key::Other(key) => Act::Other(key),
        })
    }

    fn put_node(&mut self, name: NodeName, entry: &Entry, old: Option<Entry>) -> Act {
        let registration = Registration {
            member: record::member(&name, &entry.value),
            revision: entry.modified,
            lease: entry.lease,
            replaced: old.map(|old| old.lease),
            name: name.clone(),
        };
        self.registrations.push(registration.clone());
        self.judge(&name);
        Act::Registered(registration)
    }

    fn put_leader(&mut self, entry: &Entry) -> Act {
        let reign = Reign::of(entry);
        match self.reigns.last_mut() {
            Some(last) if last.term == reign.term && last.ended.is_none() => *last = reign.clone(),
            last => {
                // A reign that has not ended yet ended in this revision, which replaced its key.
                last.into_iter().for_each(|last| {
                    last.ended.get_or_insert(entry.modified);
                });
                self.reigns.push(reign.clone());
            }
        }
        Act::Led(reign)
    }

    fn put_version(&mut self, entry: &Entry, standing: Option<Term>) -> Act {
        let Some((version, term)) = record::version(&entry.value) else {
            self.unversioned = true;
            return Act::Unversioned;
        };
        let (revision, anew) = (entry.modified, std::mem::take(&mut self.unversioned));
        let term = term.unwrap_or(Term::new(revision));
        let mut cut = Vec::new();
        let mut records = BTreeMap::new();
        for (name, entry) in self.nodes() {
            if let Some(member) = record::member(&name, &entry.value) {
                cut.push(member);
                records.insert(name, RecordId::of(entry));
            }
        }
        let published = Published { version, revision, term, standing, anew, cut, everyone: None, records };
        self.versions.push(published);
        self.judge_all();
        Act::Published(version)
    }

    fn put_acknowledgement(&mut self, name: NodeName, entry: &Entry) -> Act {
        self.judge(&name);
        let acknowledgement = record::acknowledgement(&entry.value);
        let version = acknowledgement.map(|(version, _)| version);
        Act::Acknowledged { name, version, ready: acknowledgement.is_some_and(|(_, ready)| ready) }
    }

    fn put_stable(&mut self, entry: &Entry, standing: Option<Term>) -> Act {
        let Some((version, term)) = record::version(&entry.value) else {
            self.unconfirmed = true;
            return Act::Unconfirmed;
        };
        let newest = self.newest().map(|published| published.version);
        let was_confirmed = self.confirmed.iter().any(|confirmed| confirmed.version == version);
        let again = !std::mem::take(&mut self.unconfirmed) && was_confirmed;
        self.confirmed.push(Confirmed { version, revision: entry.modified, term, standing, newest, again });
        Act::Confirmed(version)
    }

    fn put_leader_commit(&mut self, key: String, entry: &Entry, standing: Option<Term>) -> Act {
        let Some((id, term)) = record::leader_commit(&entry.value) else { return Act::Other(key) };
        let write = LeaderCommit { key, id, revision: entry.modified, term, standing };
        self.leader_commits.push(write.clone());
        Act::Wrote(write)
    }

    fn delete(&mut self, key: Key, revision: Revision) -> Option<Act> {
        Some(match key {
            Key::Node(name) => {
                self.judge(&name);
                Act::Gone(name)
            }
            Key::Leader => {
                let reign = self.reigns.last_mut()?;
                reign.ended = Some(revision);
                Act::Vacated(reign.clone())
            }
            Key::Version => {
                self.unversioned = true;
                Act::Unversioned
            }
            Key::Ready(name) => {
                self.judge(&name);
                Act::Unacknowledged(name)
            }
            Key::Stable => {
                self.unconfirmed = true;
                Act::Unconfirmed
            }
            Key::Request | Key::Gone | Key::History => return None,
            Key::LeaderCommit(key) | Key::Other(key) => Act::Other(key),
        })
    }

    fn judge_all(&mut self) {
        self.missing.clear();
        let names: Vec<_> =
            self.versions.last().into_iter().flat_map(|newest| newest.records.keys().cloned()).collect();
        names.iter().for_each(|name| self.judge(name));
    }

    /// Updates the validity of a node's acknowledgement of the newest version. It is valid if the node's record is the
    /// same as in the version's view, and the acknowledgement is positive and has the same lease.
    fn judge(&mut self, name: &NodeName) {
        let Some(newest) = self.versions.last() else { return };
        let Some(cut) = newest.records.get(name) else { return };
        let current = self.entries.get(&format!("view/nodes/{name}")).map(RecordId::of);
        let valid = Acknowledged { version: newest.version, ready: true, lease: cut.lease };
        if current == Some(*cut) && self.acknowledgement(name) == Some(valid) {
            self.missing.remove(name);
        } else {
            self.missing.insert(name.clone());
        }
    }
}
