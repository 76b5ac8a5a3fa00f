use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::Waker,
    time::Duration,
};

use async_trait::async_trait;
use clustering_core::store::{
    CoordinationStore, Lease, LeaseId, Revision, Snapshot, StoreError, Txn, WatchStream,
};
use tokio::{task::coop::consume_budget, time::Instant};

use crate::{
    Backup, LiveLease, MemoryStoreBuilder, Stats,
    state::{Settings, State},
    watch::MemoryWatch,
};

/// The longest TTL that is granted, about 285 years, as in etcd. Beyond it a deadline might not be a point in time.
pub const MAX_TTL: Duration = Duration::from_secs(9_000_000_000);

/// A handle on a store in memory. Clones share the store; it goes with the last handle and the last watch.
///
/// See the [crate's front page](crate) for what it promises. Its calls never wait for anything but a short lock, so
/// none fails with `Unreachable` or `OutcomeUnknown`; one that is dropped before its first poll did nothing, and one
/// that was polled to its end did all. Calls and watches give way to other tasks as tokio's
/// channels do: in one poll of a task only some hundred of them finish, the next is pending for a moment.
#[derive(Clone, Default)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

/// The state and its lock.
#[derive(Default)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// How often the history was replaced or cut short by hand: what watches were handed before no longer counts.
    upsets: AtomicU64,
}

impl Shared {
    pub(crate) fn upsets(&self) -> u64 {
        self.upsets.load(Ordering::Acquire)
    }

    /// Does something to the history.
    fn upset(&self, work: impl FnOnce(&mut State, Instant)) {
        self.with(|state, now| {
            work(state, now);
            // Under the lock, so that no watch is handed anything between the two.
            self.upsets.fetch_add(1, Ordering::Release);
        });
    }

    /// Does something with the state as it stands now, expired leases gone.
    fn with<R>(&self, work: impl FnOnce(&mut State, Instant) -> R) -> R {
        self.locked(|state| {
            let now = state.expire();
            work(state, now)
        })
    }

    /// Does something with the state under its lock, and after that wakes whom it concerns.
    ///
    /// `work` must not wake or drop a waker: that runs foreign code, which may call the store or drop a watch of it.
    pub(crate) fn locked<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        let (result, woken) = {
            // A panic in here would be a bug, and the state is no worse for the next caller than for that one.
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            (work(&mut state), state.watchers.take_woken())
        };
        woken.into_iter().for_each(Waker::wake);
        result
    }
}

impl MemoryStore {
    /// An empty store at revision 0, so that the first commit makes revision 1 and a watch after
    /// [`Revision::ZERO`] yields everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// For one that is not as the default is.
    pub fn builder() -> MemoryStoreBuilder {
        MemoryStoreBuilder::default()
    }

    pub(crate) fn with_settings(settings: Settings) -> Self {
        MemoryStore {
            shared: Arc::new(Shared { state: Mutex::new(State::new(settings)), ..Shared::default() }),
        }
    }

    /// The revision at which it stands.
    pub fn revision(&self) -> Revision {
        self.shared.with(|state, _| state.history.revision())
    }

    /// Forgets the changes up to and with `revision`, or all of them if that lies ahead. Entries stay. Watches that
    /// owe some of these changes end with `Compacted`; so do new ones after an earlier revision.
    pub fn compact(&self, revision: Revision) {
        self.shared.upset(|state, _| state.compact(revision));
    }

    /// How many leases live.
    pub fn lease_count(&self) -> usize {
        self.shared.with(|state, _| state.leases.len())
    }

    /// The leases that live, in the order in which they were granted.
    pub fn leases(&self) -> Vec<LiveLease> {
        self.shared.with(|state, now| state.leases.list(now))
    }

    /// How many watches are open: neither dropped nor ended.
    pub fn open_watches(&self) -> usize {
        self.shared.with(|state, _| state.watchers.len())
    }

    /// What was asked of the store so far, over all handles.
    pub fn stats(&self) -> Stats {
        self.shared.with(|state, _| state.stats)
    }

    /// The present state, to restore later.
    pub fn backup(&self) -> Backup {
        self.shared.with(|state, _| state.backup())
    }

    /// Puts the store back to a backup: entries, history and revision. Revisions that came after it are made again.
    ///
    /// - A watch that has seen, or was opened after, a revision later than the backup ends with `Rewound`. One that
    ///   has not goes on: nothing that it yielded was undone.
    /// - The leases of the backup live again, each with its whole TTL from now, also those that ended since; etcd
    ///   does the same. Leases granted since are gone, and their ids are never granted again.
    /// - A backup of another store works too: then every watch that has seen anything ends.
    pub fn restore(&self, backup: &Backup) {
        self.shared.upset(|state, now| state.restore(backup, now));
    }
}

#[async_trait]
impl CoordinationStore for MemoryStore {
    async fn grant_lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
        consume_budget().await;
        if ttl.is_zero() || ttl > MAX_TTL {
            return Err(StoreError::invalid(format!(
                "a lease has a TTL above zero and of at most {MAX_TTL:?}, {ttl:?} was asked for"
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
        Ok(Box::pin(MemoryWatch::new(self.shared.clone(), opened)))
    }

    async fn commit(&self, txn: Txn) -> Result<Revision, StoreError> {
        consume_budget().await;
        self.shared.with(|state, _| state.commit(&txn))
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without a look at the state: whoever prints a handle should not set off expiries, nor wait for the lock.
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}
