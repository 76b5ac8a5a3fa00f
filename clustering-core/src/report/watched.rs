use std::future::pending;

use futures_util::StreamExt;

use crate::store::{Batch, CoordinationStore, Key, Revision, StoreError, WatchEnd, WatchStream};

/// A prefix that a monitor watches.
pub(super) struct Watched {
    prefix: Key,
    /// The last revision that was taken.
    revision: Revision,
    watch: Option<WatchStream>,
    /// The next item of the watch, kept until it is its turn.
    next: Option<Item>,
    /// Set if the watch cannot be resumed, until the gap has been reported.
    gap: Option<Gap>,
}

/// An item of a watch.
enum Item {
    Batch(Batch),
    End(Option<WatchEnd>),
}

/// The reason why a watch cannot be resumed from the last revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Gap {
    /// The changes were compacted away.
    Compacted,
    /// The store was restored to an older state.
    Rewound,
}

impl Watched {
    pub(super) fn new(prefix: Key) -> Self {
        Watched { prefix, revision: Revision::ZERO, watch: None, next: None, gap: None }
    }

    /// Continues from a snapshot.
    pub(super) fn reset(&mut self, revision: Revision) {
        self.revision = revision;
        self.watch = None;
        self.next = None;
    }

    /// Opens the watch unless it is open.
    pub(super) async fn open(&mut self, store: &dyn CoordinationStore) -> Result<(), StoreError> {
        if self.watch.is_none() {
            self.watch = Some(store.watch(&self.prefix, self.revision).await?);
        }
        Ok(())
    }

    /// True if a snapshot must be read before the watch can be opened again.
    pub(super) fn needs_snapshot(&self) -> bool {
        self.gap.is_some() && self.watch.is_none()
    }

    /// Returns the gap that was not reported yet.
    pub(super) fn gap(&self) -> Option<Gap> {
        self.gap
    }

    pub(super) fn clear_gap(&mut self) {
        self.gap = None;
    }

    /// Waits for the next item of the watch. Cancel safe.
    pub(super) async fn wait(&mut self) {
        if self.next.is_none() {
            self.next = Some(match &mut self.watch {
                Some(watch) => match watch.next().await {
                    Some(Ok(batch)) => Item::Batch(batch),
                    Some(Err(end)) => Item::End(Some(end)),
                    None => Item::End(None),
                },
                None => pending().await,
            });
        }
    }

    /// Returns the next batch, which stays the next item.
    pub(super) fn peek(&self) -> Option<&Batch> {
        match &self.next {
            Some(Item::Batch(batch)) => Some(batch),
            _ => None,
        }
    }

    /// Returns the revision of the next item. The end of the watch is ordered before all batches.
    pub(super) fn next_revision(&self) -> Option<Revision> {
        self.next.as_ref().map(|item| match item {
            Item::Batch(batch) => batch.revision,
            Item::End(_) => Revision::ZERO,
        })
    }

    /// Takes the next item. Returns the batch, or `None` if the watch ended.
    pub(super) fn take(&mut self) -> Option<Batch> {
        match self.next.take()? {
            Item::Batch(batch) => {
                self.revision = batch.revision;
                return Some(batch);
            }
            Item::End(Some(WatchEnd::Compacted { .. })) => self.gap = Some(Gap::Compacted),
            Item::End(Some(WatchEnd::Rewound { .. })) => self.gap = Some(Gap::Rewound),
            Item::End(Some(WatchEnd::Disconnected { .. }) | None) => {}
        }
        self.watch = None;
        None
    }
}
