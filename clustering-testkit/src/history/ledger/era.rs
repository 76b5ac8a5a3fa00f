use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use clustering_core::{
    NodeName, Term, Version,
    store::{Batch, Change, Entry, LeaseId, Revision, Snapshot},
};

use super::{Act, Ledger, record};
use crate::history::Member;

/// Section of the store's history in which revisions only increase.
#[derive(Clone, Debug)]
pub struct Era {
    namespace: String,
    number: usize,
    revision: Revision,
    standing: BTreeMap<String, Entry>,
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

/// A published version and its view.
#[derive(Clone, Debug)]
pub struct Published {
    /// The version.
    pub version: Version,
    /// The revision that wrote it.
    pub revision: Revision,
    /// Term that the version's record claims. A version written by an election claims the term of its own revision.
    pub term: Term,
    /// Current term at that revision, if there was one.
    pub standing: Option<Term>,
    /// True if the version key was absent or unreadable before.
    pub anew: bool,
    /// View of the version: the nodes present after all changes of the revision, by name.
    pub cut: Vec<Member>,
    /// First revision at which every node of the view still had the same record and had acknowledged the version.
    pub everyone: Option<Revision>,
    records: BTreeMap<NodeName, StoredEntry>,
}

/// Identity of a node's record: a change of either field means a new record or session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct StoredEntry {
    modified: Revision,
    lease: Option<LeaseId>,
}

/// Record that a version is stable.
#[derive(Clone, Debug)]
pub struct Confirmed {
    /// The version.
    pub version: Version,
    /// The revision that recorded it.
    pub revision: Revision,
    /// Term that the record claims.
    pub term: Option<Term>,
    /// Current term at that revision, if there was one.
    pub standing: Option<Term>,
    /// Newest version at that revision.
    pub newest: Option<Version>,
    /// True if the version was recorded as stable before and that record was not deleted since.
    pub again: bool,
}

/// Term of a leader: the time from the creation of the election key until its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reign {
    /// The term.
    pub term: Term,
    /// Name of the leader, if it is readable.
    pub leader: Option<String>,
    /// Lease of the key.
    pub lease: Option<LeaseId>,
    /// Revision of the key's last put.
    pub modified: Revision,
    /// Revision that ended the term, if it has ended.
    pub ended: Option<Revision>,
}

/// A write under [`Ledger::FENCED`].
#[derive(Clone, Debug)]
pub struct FencedWrite {
    /// Key without the namespace.
    pub key: String,
    /// Unique id of the write, if it has one.
    pub id: Option<String>,
    /// The revision that wrote it.
    pub revision: Revision,
    /// Term that the write claims.
    pub term: Term,
    /// Current term at that revision, if there was one.
    pub standing: Option<Term>,
}

/// Put of a node's record.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Name of the node.
    pub name: NodeName,
    /// Revision of the put.
    pub revision: Revision,
    /// The node that the record describes, or `None` if the record does not count as a node.
    pub member: Option<Member>,
    /// Lease of the record.
    pub lease: Option<LeaseId>,
    /// Lease of the record that it replaced, if it replaced one.
    pub replaced: Option<Option<LeaseId>>,
}

/// Current acknowledgement of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// The version.
    pub version: Version,
    /// True if the node is ready at the version.
    pub ready: bool,
    /// Lease of the acknowledgement.
    pub lease: Option<LeaseId>,
}

/// Meaning of a key in the namespace.
enum Key {
    Node(NodeName),
    Leader,
    Version,
    Ready(NodeName),
    Stable,
    Request,
    /// The last graceful departure, written together with the change that it explains.
    Gone,
    /// A version's entry in the history, written together with the change that it describes.
    History,
    Fenced(String),
    Other(String),
}

impl Era {
    pub(super) fn new(namespace: &str, number: usize) -> Self {
        Era {
            namespace: namespace.to_owned(),
            number,
            revision: Revision::ZERO,
            standing: BTreeMap::new(),
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

    /// Returns all fenced writes in order.
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
        self.standing.get(&format!("view/nodes/{name}")).map(|entry| entry.lease)
    }

    /// Returns a node's acknowledgement, if it has a readable one.
    pub fn acknowledgement(&self, name: &NodeName) -> Option<Acknowledged> {
        let entry = self.standing.get(&format!("ready/{name}"))?;
        let (version, ready) = record::acknowledgement(&entry.value)?;
        Some(Acknowledged { version, ready, lease: entry.lease })
    }

    /// Returns the nodes of the newest version without a valid acknowledgement.
    pub fn missing(&self) -> &BTreeSet<NodeName> {
        &self.missing
    }

    /// Returns all current keys, without the namespace.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.standing.keys().map(String::as_str)
    }

    /// Returns the value of a key, which is given without the namespace.
    pub fn value(&self, key: &str) -> Option<&[u8]> {
        self.standing.get(key).map(|entry| &*entry.value)
    }

    fn nodes(&self) -> impl Iterator<Item = (NodeName, &Entry)> {
        let below = self.standing.range("view/nodes/".to_owned().."view/nodes0".to_owned());
        below
            .filter_map(|(key, entry)| Some((NodeName::parse(key.strip_prefix("view/nodes/")?).ok()?, entry)))
    }

    fn key(&self, key: &str) -> Option<Key> {
        let key = key.strip_prefix(&self.namespace)?.strip_prefix('/')?;
        let name = |prefix: &str| NodeName::parse(key.strip_prefix(prefix)?).ok();
        Some(match key {
            "view/leader" => Key::Leader,
            "view/version" => Key::Version,
            "view/stable" => Key::Stable,
            "view/request" => Key::Request,
            "view/gone" => Key::Gone,
            _ => match (name("view/nodes/"), name("ready/")) {
                (Some(node), _) => Key::Node(node),
                (_, Some(node)) => Key::Ready(node),
                _ if key.starts_with("history/") => Key::History,
                _ if key.starts_with(Ledger::FENCED) => Key::Fenced(key.to_owned()),
                _ => Key::Other(key.to_owned()),
            },
        })
    }

    /// Continues from a snapshot, because changes are missing.
    pub(super) fn skip_to(&mut self, snapshot: &Snapshot) {
        self.gaps.push(snapshot.revision);
        self.revision = self.revision.max(snapshot.revision);
        self.standing.clear();
        if let Some(reign) = self.reigns.last_mut() {
            reign.ended.get_or_insert(snapshot.revision);
        }
        for entry in &snapshot.entries {
            let Some(key) = self.key(&entry.key) else { continue };
            let rest = entry.key[self.namespace.len() + 1..].to_owned();
            self.standing.insert(rest, entry.clone());
            if matches!(key, Key::Leader) {
                match self.reigns.last_mut() {
                    Some(reign) if reign.term.revision() == entry.created => reign.ended = None,
                    _ => self.reigns.push(reign(entry)),
                }
            }
        }
        let version = self.standing.get("view/version");
        let known = version.is_some_and(|entry| {
            self.versions.last().is_some_and(|published| published.revision == entry.modified)
        });
        self.unversioned = !known;
        self.unconfirmed = !self.standing.contains_key("view/stable");
        self.judge_all();
    }

    /// Applies the changes of one revision.
    pub(super) fn apply(&mut self, batch: &Batch) -> Vec<Act> {
        assert!(
            batch.revision > self.revision,
            "the ledger is at revision {}, but the next batch has revision {}",
            self.revision,
            batch.revision
        );
        self.revision = batch.revision;
        let mut changes: Vec<_> =
            batch.changes.iter().filter_map(|change| Some((self.key(change.key())?, change))).collect();
        // A version's view includes all changes of its revision. An election and its version share one revision.
        changes.sort_by_key(|(key, _)| match key {
            Key::Node(_) => 0,
            Key::Leader => 1,
            Key::Version => 2,
            Key::Ready(_) => 3,
            _ => 4,
        });
        if changes.iter().any(|(key, _)| !matches!(key, Key::Fenced(_) | Key::Other(_))) {
            self.commits.push(batch.revision);
        }
        let mut acts = Vec::new();
        // If a reign ends in this revision, the revision's writes were guarded by that reign.
        let before = self.reign().map(|reign| reign.term);
        for (key, change) in changes {
            let rest = change.key()[self.namespace.len() + 1..].to_owned();
            let old = match change {
                Change::Put(entry) => self.standing.insert(rest, entry.clone()),
                Change::Delete(_) => self.standing.remove(&rest),
            };
            let act = match change {
                Change::Put(entry) => self.put(key, entry, old, before),
                Change::Delete(_) => self.deleted(key, batch.revision),
            };
            acts.extend(act);
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
        let revision = entry.modified;
        let standing = self.reign().map(|reign| reign.term).or(before);
        Some(match key {
            Key::Node(name) => {
                let registration = Registration {
                    member: record::member(&name, &entry.value),
                    revision,
                    lease: entry.lease,
                    replaced: old.map(|old| old.lease),
                    name: name.clone(),
                };
                self.registrations.push(registration.clone());
                self.judge(&name);
                Act::Registered(registration)
            }
            Key::Leader => {
                let new = reign(entry);
                match self.reigns.last_mut() {
                    Some(last) if last.term == new.term && last.ended.is_none() => *last = new.clone(),
                    last => {
                        // The old key was deleted in the same revision.
                        last.into_iter().for_each(|last| {
                            last.ended.get_or_insert(revision);
                        });
                        self.reigns.push(new.clone());
                    }
                }
                Act::Led(new)
            }
            Key::Version => match record::version(&entry.value) {
                Some((version, term)) => {
                    self.publish(version, term.unwrap_or(Term::new(revision)), revision, standing);
                    Act::Published(version)
                }
                None => {
                    self.unversioned = true;
                    Act::Unversioned
                }
            },
            Key::Ready(name) => {
                let read = record::acknowledgement(&entry.value);
                self.judge(&name);
                let (version, ready) =
                    (read.map(|(version, _)| version), read.is_some_and(|(_, ready)| ready));
                Act::Acknowledged { name, version, ready }
            }
            Key::Stable => match record::version(&entry.value) {
                Some((version, term)) => {
                    let newest = self.newest().map(|published| published.version);
                    let again = !self.unconfirmed
                        && self.confirmed.iter().any(|confirmed| confirmed.version == version);
                    self.unconfirmed = false;
                    self.confirmed.push(Confirmed { version, revision, term, standing, newest, again });
                    Act::Confirmed(version)
                }
                None => {
                    self.unconfirmed = true;
                    Act::Unconfirmed
                }
            },
            Key::Request => Act::Asked,
            Key::Gone | Key::History => return None,
            Key::Fenced(key) => match record::fenced(&entry.value) {
                Some((id, term)) => {
                    let write = FencedWrite { key, id, revision, term, standing };
                    self.fenced.push(write.clone());
                    Act::Wrote(write)
                }
                None => Act::Other(key),
            },
            Key::Other(key) => Act::Other(key),
        })
    }

    fn deleted(&mut self, key: Key, revision: Revision) -> Option<Act> {
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
            Key::Fenced(key) | Key::Other(key) => Act::Other(key),
        })
    }

    fn publish(&mut self, version: Version, term: Term, revision: Revision, standing: Option<Term>) {
        let mut cut = Vec::new();
        let mut records = BTreeMap::new();
        for (name, entry) in self.nodes() {
            if let Some(member) = record::member(&name, &entry.value) {
                cut.push(member);
                records.insert(name, StoredEntry { modified: entry.modified, lease: entry.lease });
            }
        }
        let anew = std::mem::take(&mut self.unversioned);
        let published = Published { version, revision, term, standing, anew, cut, everyone: None, records };
        self.versions.push(published);
        self.judge_all();
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
        let stands = self
            .standing
            .get(&format!("view/nodes/{name}"))
            .is_some_and(|entry| StoredEntry { modified: entry.modified, lease: entry.lease } == *cut);
        let says = self.acknowledgement(name);
        let wanted = Acknowledged { version: newest.version, ready: true, lease: cut.lease };
        if stands && says == Some(wanted) {
            self.missing.remove(name);
        } else {
            self.missing.insert(name.clone());
        }
    }
}

fn reign(entry: &Entry) -> Reign {
    Reign {
        term: Term::new(entry.created),
        leader: record::leader(&entry.value),
        lease: entry.lease,
        modified: entry.modified,
        ended: None,
    }
}

impl fmt::Display for Reign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} leads, term {}",
            self.leader.as_deref().unwrap_or("a node with an unreadable name"),
            self.term
        )
    }
}

impl fmt::Display for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}", self.name)?;
        match &self.member {
            Some(member) => write!(f, "({})", member.incarnation)?,
            None => f.write_str(" with an unreadable record")?,
        }
        self.lease.map_or(Ok(()), |lease| write!(f, " under lease {lease}"))?;
        f.write_str(if self.replaced.is_some() { ", replacing another record" } else { "" })
    }
}
