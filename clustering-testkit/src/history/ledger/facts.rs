//! The facts that the ledger derives from the keys.

use std::{collections::BTreeMap, fmt};

use clustering_core::{
    NodeName, Term, Version,
    store::{Entry, LeaseId, Revision},
};

use super::record;
use crate::history::Member;

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
    pub(super) records: BTreeMap<NodeName, RecordId>,
}

/// Identity of a node's record: a change of either field means a new record or session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordId {
    modified: Revision,
    pub(super) lease: Option<LeaseId>,
}

impl RecordId {
    pub(super) fn of(entry: &Entry) -> Self {
        RecordId { modified: entry.modified, lease: entry.lease }
    }
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

/// A write under [`Ledger::FENCED`](super::Ledger::FENCED).
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

impl Reign {
    /// Returns the reign that an entry of the election key describes.
    pub(super) fn of(entry: &Entry) -> Self {
        Reign {
            term: Term::new(entry.created),
            leader: record::leader(&entry.value),
            lease: entry.lease,
            modified: entry.modified,
            ended: None,
        }
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
