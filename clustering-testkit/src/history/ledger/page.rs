use std::fmt;

use clustering_core::{
    NodeName, Version,
    store::{Batch, Revision, Snapshot},
};

use super::{FencedWrite, Registration, Reign};
use crate::history::Moment;

/// Part of the store's history, with the time at which the observer saw it.
#[derive(Clone, Debug)]
pub struct Page {
    /// Time at which the observer saw it. The store's own time is unknown.
    pub at: Option<Moment>,
    /// Content of the page.
    pub content: Content,
}

/// Content of a [`Page`].
#[derive(Clone, Debug)]
pub enum Content {
    /// The changes of one revision.
    Batch(Batch),
    /// The store was restored to an older state or replaced. The pages that follow contain the new history from its
    /// first revision on.
    Era,
    /// Changes are missing because they were compacted. The snapshot has the state after them.
    Gap(Snapshot),
    /// The test harness wrote this revision deliberately outside of the protocol, so that it breaks no promise.
    ByHand(Revision),
}

impl Page {
    /// Creates a page with the changes of one revision.
    pub fn of(at: Option<Moment>, batch: Batch) -> Self {
        Page { at, content: Content::Batch(batch) }
    }
}

/// Changes of one revision, in terms of the cluster.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Time at which the observer saw it.
    pub at: Option<Moment>,
    /// Number of the era, from 0.
    pub era: usize,
    /// The revision.
    pub revision: Revision,
    /// Changes in this order: node records, the election key, a version, acknowledgements, all others.
    pub acts: Vec<Act>,
}

/// Single change of a revision.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Act {
    /// A node's record was put.
    Registered(Registration),
    /// A node's record was deleted.
    Gone(NodeName),
    /// The election key was put. A new term begins if the key was created.
    Led(Reign),
    /// The election key was deleted.
    Vacated(Reign),
    /// A version was published: the last of the era so far.
    Published(Version),
    /// The version key was deleted, or was put with an unreadable value.
    Unversioned,
    /// An acknowledgement was put.
    Acknowledged {
        /// Node that acknowledged.
        name: NodeName,
        /// Version that was acknowledged, if it is readable.
        version: Option<Version>,
        /// True if the node is ready at the version.
        ready: bool,
    },
    /// An acknowledgement was deleted.
    Unacknowledged(NodeName),
    /// A version was recorded as stable: the last such record of the era so far.
    Confirmed(Version),
    /// The record of the stable version was deleted, or was put with an unreadable value.
    Unconfirmed,
    /// A new version was requested.
    Asked,
    /// A leader commit.
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
            Act::Gone(name) => write!(f, "node {name} was removed"),
            Act::Led(reign) => write!(f, "{reign}"),
            Act::Vacated(reign) => write!(f, "term {} ended", reign.term),
            Act::Published(version) => write!(f, "version {version} published"),
            Act::Unversioned => f.write_str("the version was deleted or is unreadable"),
            Act::Acknowledged { name, version, ready } => {
                let says = if *ready { "ready" } else { "not ready" };
                let version =
                    version.map_or_else(|| "an unreadable version".to_owned(), |version| version.to_string());
                write!(f, "{name} is {says} at {version}")
            }
            Act::Unacknowledged(name) => write!(f, "the acknowledgement of {name} was deleted"),
            Act::Confirmed(version) => write!(f, "{version} is stable"),
            Act::Unconfirmed => f.write_str("the stable version was deleted or is unreadable"),
            Act::Asked => f.write_str("a version was requested"),
            Act::Wrote(write) => {
                let id = write.id.as_deref().unwrap_or("without an id");
                write!(f, "write {id} to {} under term {}", write.key, write.term)
            }
            Act::Other(key) => write!(f, "{key} changed"),
        }
    }
}
