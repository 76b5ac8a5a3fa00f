use std::{pin::Pin, sync::Arc};

use futures_core::Stream;
use thiserror::Error;

use super::{Entry, Key, Revision};

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// The key was created or overwritten.
    Put(Entry),
    /// The key was deleted, by a commit or because its lease ended.
    Delete(Key),
}

impl Change {
    /// Returns the key that changed.
    pub fn key(&self) -> &Key {
        match self {
            Change::Put(entry) => &entry.key,
            Change::Delete(key) => key,
        }
    }
}

/// All changes of one revision under the watched prefix (contract rule 3). A batch is never empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Batch {
    /// The revision of the commit that made the changes.
    pub revision: Revision,
    /// The changes, at most one per key, in unspecified order. They are reference-counted so that a store can hand the
    /// same batch to many watches without copying it.
    pub changes: Arc<[Change]>,
}

impl Batch {
    /// Creates a batch from the changes of one revision.
    pub fn new(revision: Revision, changes: impl Into<Arc<[Change]>>) -> Self {
        Batch { revision, changes: changes.into() }
    }

    /// Returns a batch with only the changes for which `wanted` returns true, or `None` if there are none.
    pub fn filtered(&self, mut wanted: impl FnMut(&Change) -> bool) -> Option<Batch> {
        let changes: Vec<&Change> = self.changes.iter().filter(|change| wanted(change)).collect();
        match changes.len() {
            0 => None,
            all if all == self.changes.len() => Some(self.clone()),
            _ => Some(Batch { revision: self.revision, changes: changes.into_iter().cloned().collect() }),
        }
    }
}

/// The reason why a watch ended, which is the last item of its stream.
///
/// A watch that cannot deliver a change ends rather than skipping the change.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum WatchEnd {
    /// Changes that the watch had not delivered yet were compacted away. Read a snapshot and watch from its revision.
    #[error(
        "the changes up to revision {compacted} were compacted: read a snapshot and watch from its revision"
    )]
    Compacted {
        /// The last revision whose changes are no longer available.
        compacted: Revision,
    },
    /// The connection was lost, or the store ended the stream. Watch again after the last revision seen.
    #[error("the watch was disconnected ({reason}): watch again after the last revision seen")]
    Disconnected {
        /// Human-readable description of the cause, as far as it is known.
        reason: String,
    },
    /// The requested revision is beyond the store's revision. The store was restored from an older state, so later
    /// revisions seen before the restore are not part of its history. Read a snapshot and discard all cached state.
    #[error(
        "the store is at revision {revision}, before the revision watched from: it was restored or replaced"
    )]
    Rewound {
        /// The store's current revision.
        revision: Revision,
    },
}

/// The stream returned by a watch: batches in revision order, followed by at most one [`WatchEnd`].
pub type WatchStream = Pin<Box<dyn Stream<Item = Result<Batch, WatchEnd>> + Send>>;
