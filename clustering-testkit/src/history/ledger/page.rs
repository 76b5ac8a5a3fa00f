use std::fmt;

use clustering_core::{
    NodeName, Version,
    store::{Batch, Revision, Snapshot},
};

use super::{FencedWrite, Registration, Reign};
use crate::history::Moment;

/// One piece of the store's history, and when the observer saw it.
#[derive(Clone, Debug)]
pub struct Page {
    /// When it was seen; the store's own time is not known.
    pub at: Option<Moment>,
    /// What it says.
    pub content: Content,
}

/// What a [`Page`] says.
#[derive(Clone, Debug)]
pub enum Content {
    /// The changes of one revision.
    Batch(Batch),
    /// The store was put back to an older state, or replaced: another history begins, told from its first revision on.
    Era,
    /// Changes are missing: they were compacted away. After them this stood.
    Gap(Snapshot),
    /// Somebody, on purpose, wrote that revision past the commits of the protocol: it breaks no promise.
    ByHand(Revision),
}

impl Page {
    /// One with the changes of one revision.
    pub fn of(at: Option<Moment>, batch: Batch) -> Self {
        Page { at, content: Content::Batch(batch) }
    }
}

/// What one revision did, in the cluster's words.
#[derive(Clone, Debug)]
pub struct Commit {
    /// When an observer saw it.
    pub at: Option<Moment>,
    /// The era, from 0.
    pub era: usize,
    /// The revision.
    pub revision: Revision,
    /// What it did: deletions and records of nodes first, then the election key, a version, acknowledgements, the rest.
    pub acts: Vec<Act>,
}

/// One of the things that a revision did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Act {
    /// A node's record was put.
    Registered(Registration),
    /// A node's record went.
    Gone(NodeName),
    /// The election key was put. It begins a term if it was created by that.
    Led(Reign),
    /// The election key went.
    Vacated(Reign),
    /// A version was published: the era's last.
    Published(Version),
    /// The version key was deleted, or holds no version any more.
    Unversioned,
    /// An acknowledgement was put.
    Acknowledged {
        /// By that node.
        name: NodeName,
        /// Of that version, if it can be read.
        version: Option<Version>,
        /// Whether it says yes.
        ready: bool,
    },
    /// An acknowledgement went.
    Unacknowledged(NodeName),
    /// A version was recorded as stable: the era's last such record.
    Confirmed(Version),
    /// The record of the stable version was deleted, or cannot be read any more.
    Unconfirmed,
    /// Somebody asked for a version.
    Asked,
    /// A fenced write.
    Wrote(FencedWrite),
    /// Another key was put or deleted.
    Other(String),
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at.map(|at| at.to_string()).unwrap_or_default();
        write!(f, "{at:>14}  {:<16}", format!("store @{}", self.revision))?;
        for (place, act) in self.acts.iter().enumerate() {
            write!(f, "{}{act}", if place == 0 { " " } else { "; " })?;
        }
        Ok(())
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Act::Registered(registration) => registration.fmt(f),
            Act::Gone(name) => write!(f, "node {name} is gone"),
            Act::Led(reign) => write!(f, "{reign}"),
            Act::Vacated(reign) => write!(f, "term {} is over", reign.term),
            Act::Published(version) => write!(f, "version {version}"),
            Act::Unversioned => f.write_str("the version is gone"),
            Act::Acknowledged { name, version, ready } => {
                let says = if *ready { "ready" } else { "not ready" };
                let version = version.map_or_else(|| "something".to_owned(), |version| version.to_string());
                write!(f, "{name} is {says} at {version}")
            }
            Act::Unacknowledged(name) => write!(f, "the acknowledgement of {name} is gone"),
            Act::Confirmed(version) => write!(f, "{version} is stable"),
            Act::Unconfirmed => f.write_str("the stable version is gone"),
            Act::Asked => f.write_str("a version is asked for"),
            Act::Wrote(write) => {
                let id = write.id.as_deref().unwrap_or("without an id");
                write!(f, "write {id} to {} under term {}", write.key, write.term)
            }
            Act::Other(key) => write!(f, "{key} changed"),
        }
    }
}
