mod apply;

use std::collections::{BTreeMap, BTreeSet};

use clustering_core::{
    NodeName, Term,
    store::{Entry, LeaseId, Revision},
};

use super::{
    facts::{Acknowledged, Confirmed, FencedWrite, Published, Registration, Reign},
    record,
};
use crate::history::Member;

/// Section of the store's history in which revisions only increase.
#[derive(Clone, Debug)]
pub struct Era {
    namespace: String,
    number: usize,
    revision: Revision,
    /// All current keys, without the namespace.
    entries: BTreeMap<String, Entry>,
    versions: Vec<Published>,
    confirmed: Vec<Confirmed>,
    reigns: Vec<Reign>,
    fenced: Vec<FencedWrite>,
    registrations: Vec<Registration>,
    commits: Vec<Revision>,
    gaps: Vec<Revision>,
    /// Nodes of the newest version without a valid acknowledgement.
    missing: BTreeSet<NodeName>,
    /// True if the record of the stable version was deleted since it was last put.
    unconfirmed: bool,
    /// True if the version key was deleted, or put with an unreadable value, since the last version.
    unversioned: bool,
}

impl Era {
    pub(super) fn new(namespace: &str, number: usize) -> Self {
        Era {
            namespace: namespace.to_owned(),
            number,
            revision: Revision::ZERO,
            entries: BTreeMap::new(),
            versions: Vec::new(),
            confirmed: Vec::new(),
            reigns: Vec::new(),
            fenced: Vec::new(),
            registrations: Vec::new(),
            commits: Vec::new(),
            gaps: Vec::new(),
            missing: BTreeSet::new(),
            unconfirmed: true,
            unversioned: true,
        }
    }

    /// Returns the number of the era, from 0.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Returns the last known revision.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Returns all versions in order.
    pub fn versions(&self) -> &[Published] {
        &self.versions
    }

    /// Returns all records of stable versions in order.
    pub fn confirmed(&self) -> &[Confirmed] {
        &self.confirmed
    }

    /// Returns the reigns of all terms in order.
    pub fn reigns(&self) -> &[Reign] {
        &self.reigns
    }

    /// Returns all leader commits in order.
    pub fn fenced(&self) -> &[FencedWrite] {
        &self.fenced
    }

    /// Returns all puts of node records in order.
    pub fn registrations(&self) -> &[Registration] {
        &self.registrations
    }

    /// Returns the revisions that changed the cluster's own keys, under `view/`, `ready/` and `history/`. Their number
    /// is the cost of the changes.
    pub fn commits(&self) -> &[Revision] {
        &self.commits
    }

    /// True if changes of the era are missing.
    pub fn has_gaps(&self) -> bool {
        !self.gaps.is_empty()
    }

    /// Returns the newest version, if the version key currently has one.
    pub fn newest(&self) -> Option<&Published> {
        self.versions.last().filter(|_| !self.unversioned)
    }

    /// Returns the newest version at the revision, if it is known.
    pub fn newest_at(&self, revision: Revision) -> Option<&Published> {
        let until = self.versions.partition_point(|published| published.revision <= revision);
        self.versions.get(until.checked_sub(1)?)
    }

    /// True if the newest version is recorded as stable.
    pub fn is_stable(&self) -> bool {
        let (Some(newest), Some(confirmed)) = (self.newest(), self.confirmed.last()) else { return false };
        !self.unconfirmed && confirmed.version == newest.version && confirmed.revision > newest.revision
    }

    /// Returns the current reign, if there is a leader.
    pub fn reign(&self) -> Option<&Reign> {
        self.reigns.last().filter(|reign| reign.ended.is_none())
    }

    /// Returns the reign that was current right after the revision.
    pub fn reign_at(&self, revision: Revision) -> Option<&Reign> {
        let until = self.reigns.partition_point(|reign| reign.term.revision() <= revision);
        let reign = self.reigns.get(until.checked_sub(1)?)?;
        reign.ended.is_none_or(|ended| ended > revision).then_some(reign)
    }

    /// Returns the reign of the term.
    pub fn reign_of(&self, term: Term) -> Option<&Reign> {
        self.reigns.binary_search_by_key(&term, |reign| reign.term).ok().map(|place| &self.reigns[place])
    }

    /// Returns the nodes present, by name.
    pub fn present(&self) -> Vec<Member> {
        self.nodes().filter_map(|(name, entry)| record::member(&name, &entry.value)).collect()
    }

    /// Returns the lease of a node's record, or `None` if the node has no record.
    pub fn lease_of(&self, name: &NodeName) -> Option<Option<LeaseId>> {
        self.entries.get(&format!("view/nodes/{name}")).map(|entry| entry.lease)
    }

    /// Returns a node's acknowledgement, if it has a readable one.
    pub fn acknowledgement(&self, name: &NodeName) -> Option<Acknowledged> {
        let entry = self.entries.get(&format!("ready/{name}"))?;
        let (version, ready) = record::acknowledgement(&entry.value)?;
        Some(Acknowledged { version, ready, lease: entry.lease })
    }

    /// Returns the nodes of the newest version without a valid acknowledgement.
    pub fn missing(&self) -> &BTreeSet<NodeName> {
        &self.missing
    }

    /// Returns all current keys, without the namespace.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Returns the value of a key, which is given without the namespace.
    pub fn value(&self, key: &str) -> Option<&[u8]> {
        self.entries.get(key).map(|entry| &*entry.value)
    }

    fn nodes(&self) -> impl Iterator<Item = (NodeName, &Entry)> {
        let below = self.entries.range("view/nodes/".to_owned().."view/nodes0".to_owned());
        below
            .filter_map(|(key, entry)| Some((NodeName::parse(key.strip_prefix("view/nodes/")?).ok()?, entry)))
    }

    /// Returns a key without the namespace, or `None` if it is outside of the namespace.
    fn relative<'a>(&self, key: &'a str) -> Option<&'a str> {
        key.strip_prefix(&self.namespace)?.strip_prefix('/')
    }
}
