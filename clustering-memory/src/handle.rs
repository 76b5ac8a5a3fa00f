use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use clustering_core::store::{
    CoordinationStore, Lease, LeaseId, Revision, Snapshot, StoreError, Txn, WatchStream,
};
use tokio::task::coop::consume_budget;

use crate::{Backup, LiveLease, MemoryStoreBuilder, Stats, shared::Shared, state::Settings, watch::watch};

/// The longest TTL that the store grants: about 285 years, as in etcd. A longer TTL might overflow the deadline.
pub const MAX_TTL: Duration = Duration::from_secs(9_000_000_000);

/// A handle to an in-memory store. Clones share the store, which is freed with the last handle and the last watch.
///
/// The [crate's front page](crate) describes its guarantees. Calls wait for nothing but a briefly held lock, so none
/// fails with `Unreachable` or `OutcomeUnknown`. A call that is dropped before its first poll has no effect; a call
/// that was polled to completion has taken effect. Calls and watches take part in tokio's cooperative scheduling, as
/// its channels do: after about a hundred of them have completed in one poll of a task, the next returns pending once
/// so that other tasks can run.
#[derive(Clone, Default)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

impl MemoryStore {
    /// Creates an empty store at revision 0. The first commit makes revision 1, and a watch after [`Revision::ZERO`]
    /// yields every change.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a builder for a store with settings other than the defaults.
    pub fn builder() -> MemoryStoreBuilder {
        MemoryStoreBuilder::default()
    }

    pub(crate) fn with_settings(settings: Settings) -> Self {
        MemoryStore { shared: Arc::new(Shared::new(settings)) }
    }

    /// Returns the current revision.
    pub fn revision(&self) -> Revision {
        self.shared.with(|state, _| state.history.revision())
    }

    /// Discards the changes up to and including `revision`, or all changes if `revision` lies in the future.
    ///
    /// Entries are kept. Watches that have not yet yielded some of the discarded changes end with `Compacted`, and so
    /// do new watches that start after an earlier revision.
    pub fn compact(&self, revision: Revision) {
        self.shared.with(|state, _| state.compact(revision));
    }

    /// Returns the number of live leases.
    pub fn lease_count(&self) -> usize {
        self.shared.with(|state, _| state.leases.len())
    }

    /// Returns the live leases, in the order in which they were granted.
    pub fn leases(&self) -> Vec<LiveLease> {
        self.shared.with(|state, now| state.leases.list(now))
    }

    /// Returns the number of open watches, that is, those that have neither been dropped nor ended.
    pub fn open_watches(&self) -> usize {
        self.shared.with(|state, _| state.watchers.len())
    }

    /// Returns counters of the calls made to the store so far, over all handles.
    pub fn stats(&self) -> Stats {
        self.shared.with(|state, _| state.stats)
    }

    /// Takes a backup of the current state, to be [restored](Self::restore) later.
    pub fn backup(&self) -> Backup {
        self.shared.with(|state, _| state.backup())
    }

    /// Resets the entries, history and revision to those of a backup. Later commits reuse the revisions after the
    /// backup's.
    ///
    /// - A watch that has seen a revision later than the backup's, or was opened after one, ends with `Rewound`. Other
    ///   watches continue, because nothing that they yielded was undone.
    /// - The leases of the backup are live again, each for its whole TTL from now, even if they have ended since the
    ///   backup; etcd does the same. Leases granted since the backup are gone, and their IDs are never reused.
    /// - The backup may come from another store. In that case every watch that has seen anything ends.
    pub fn restore(&self, backup: &Backup) {
        self.shared.with(|state, now| state.restore(backup, now));
    }
}

#[async_trait]
impl CoordinationStore for MemoryStore {
    async fn grant_lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
        consume_budget().await;
        if ttl.is_zero() || ttl > MAX_TTL {
            return Err(StoreError::invalid(format!(
                "the TTL of a lease must be above zero and at most {MAX_TTL:?}, but {ttl:?} was requested"
            )));
        }
        Ok(self.shared.with(|state, now| state.grant(ttl, now)))
    }

    async fn renew_lease(&self, id: LeaseId) -> Result<Duration, StoreError> {
        consume_budget().await;
        self.shared.with(|state, now| state.renew(id, now))
    }

    async fn revoke_lease(&self, id: LeaseId) -> Result<(), StoreError> {
        consume_budget().await;
        self.shared.with(|state, _| state.revoke(id))
    }

    async fn read(&self, prefix: &str) -> Result<Snapshot, StoreError> {
        consume_budget().await;
        Ok(self.shared.with(|state, _| state.read(prefix)))
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, StoreError> {
        consume_budget().await;
        let opened = self.shared.with(|state, _| state.open_watch(prefix, after));
        Ok(watch(self.shared.clone(), opened))
    }

    async fn commit(&self, txn: Txn) -> Result<Revision, StoreError> {
        consume_budget().await;
        self.shared.with(|state, _| state.commit(&txn))
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The state is not shown: printing a handle should neither wait for the lock nor cause leases to expire.
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}
