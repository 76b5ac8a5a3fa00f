use std::{pin::Pin, sync::Arc};

use futures_core::Stream;
use thiserror::Error;

use super::{Entry, Key, Revision};

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// The key was written: created or overwritten.
    Put(Entry),
    /// The key was deleted, or vanished with its lease.
    Delete(Key),
}

impl Change {
    /// The key that changed.
    pub fn key(&self) -> &Key {
        match self {
            Change::Put(entry) => &entry.key,
            Change::Delete(key) => key,
        }
    }
}

/// All changes of one revision under the watched prefix (contract rule 3). Never empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Batch {
    /// The revision that made them.
    pub revision: Revision,
    /// The changes, each of another key, in no order that means anything. Shared: a store that hands the same batch to
    /// many watches need not copy it.
    pub changes: Arc<[Change]>,
}

impl Batch {
    /// The changes of that revision.
    pub fn new(revision: Revision, changes: impl Into<Arc<[Change]>>) -> Self {
        Batch { revision, changes: changes.into() }
    }

    /// With those changes alone that `wanted` says yes to; `None` if there are none.
    pub fn filtered(&self, mut wanted: impl FnMut(&Change) -> bool) -> Option<Batch> {
        let changes: Vec<&Change> = self.changes.iter().filter(|change| wanted(change)).collect();
        match changes.len() {
            0 => None,
            all if all == self.changes.len() => Some(self.clone()),
            _ => Some(Batch { revision: self.revision, changes: changes.into_iter().cloned().collect() }),
        }
    }
}

/// Why a watch ended. It is the stream's last item, and never stands for a skipped change: where a watch cannot
/// deliver what it owes, it ends instead.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum WatchEnd {
    /// Changes that the watch owes were compacted away. Read a snapshot and watch from its revision.
    #[error("the changes up to revision {compacted} were compacted: read a snapshot and watch from there")]
    Compacted {
        /// The last revision whose changes can no longer be had.
        compacted: Revision,
    },
    /// The connection is lost, or the store ended the stream. Watch again after the last revision seen.
    #[error("the watch was disconnected ({reason}): watch again after the last revision seen")]
    Disconnected {
        /// What was seen of the cause, for people.
        reason: String,
    },
    /// The revision asked for lies beyond the store's: it was restored from an older state, and what was seen after
    /// that state is not its history. Read a snapshot, and trust nothing kept from before.
    #[error(
        "the store stands at revision {revision}, before the one watched from: it was restored or replaced"
    )]
    Rewound {
        /// The revision at which the store stands.
        revision: Revision,
    },
}

/// The stream of a watch: batches in the order of their revisions, then at most one [`WatchEnd`].
pub type WatchStream = Pin<Box<dyn Stream<Item = Result<Batch, WatchEnd>> + Send>>;
