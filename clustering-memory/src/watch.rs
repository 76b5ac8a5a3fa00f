use std::sync::Arc;

use clustering_core::store::{Log, Page, Revision, WatchEnd, WatchStream, ended, feed};

use crate::{
    cursor::{Cursor, Opened},
    shared::Shared,
};

/// Returns the stream of a watch. The store keeps only its signal. Everything is freed when the stream ends or is
/// dropped.
pub(crate) fn watch(shared: Arc<Shared>, opened: Opened) -> WatchStream {
    match opened {
        Opened::Live(cursor, signal) => {
            let (prefix, seen) = (cursor.prefix.clone(), cursor.seen);
            feed(MemoryLog { shared, cursor }, prefix, seen, signal)
        }
        Opened::Ended(end) => ended(end),
    }
}

/// The store's history, as one watch reads it.
struct MemoryLog {
    shared: Arc<Shared>,
    cursor: Cursor,
}

impl Log for MemoryLog {
    /// Returns a single batch, whatever the limit: a compaction or a restore must end a watch before the batches that
    /// it has not yielded yet.
    ///
    /// The feed reads the log again at the earliest deadline of a lease, because an expiry may change keys without
    /// any call to the store. Each watch does so itself, so that no watch depends on another being polled. A lease
    /// with an earlier deadline that appears meanwhile does no harm: a key under this prefix gets a lease only by a
    /// commit, which raises the signal, and the expiry of a lease without such keys does not concern the watch.
    async fn page(&mut self, _prefix: &str, after: Revision, _limit: usize) -> Result<Page, WatchEnd> {
        let cursor = &mut self.cursor;
        cursor.seen = after;
        self.shared.locked(|state| {
            state.expire();
            Ok(match state.next_batch(cursor)? {
                Some(batch) => {
                    Page { reached: batch.revision, batches: vec![batch], more: true, again: None }
                }
                None => {
                    let again = state.leases.next_deadline();
                    Page { reached: after, batches: Vec::new(), more: false, again }
                }
            })
        })
    }
}

impl Drop for MemoryLog {
    fn drop(&mut self) {
        let signal = self.shared.locked(|state| state.watchers.close(&self.cursor.prefix, self.cursor.id));
        // Dropped only after the store is unlocked: it may hold a waker, whose drop may run foreign code.
        drop(signal);
    }
}
