//! Stores that break the contract in one way each, to test that the conformance suite notices.
//!
//! Each store is a [`Bend`] of a `MemoryStore`: it overrides the calls that it gets wrong and passes on the others.

pub(crate) mod commits;
pub(crate) mod creation;
pub(crate) mod dropping;
pub(crate) mod errors;
pub(crate) mod leases;
pub(crate) mod live_leases;
pub(crate) mod moves;
pub(crate) mod reads;
pub(crate) mod right;
pub(crate) mod sizes;
pub(crate) mod watches;

use std::{panic, sync::Arc, time::Duration};

use async_trait::async_trait;
use clustering_core::store::{
    CoordinationStore, Entry, Lease, LeaseId, Revision, Snapshot, StoreError, Txn, WatchEnd, WatchStream,
};
use clustering_memory::MemoryStore;
use clustering_testkit::conformance::{self, Bounds, Clock, Harness, Hook, Line};
use futures_util::{FutureExt, StreamExt, stream};
use tokio::task::unconstrained;

/// Timings of a `MemoryStore`.
const BOUNDS: Bounds = Bounds {
    clock: Clock::Paused,
    smallest_ttl: Duration::from_secs(1),
    expiry_slack: Duration::from_millis(1),
    watch_lag: Duration::from_millis(1),
    call_timeout: Duration::from_secs(1),
};

/// One way to break the contract. Every handle gets its own clone, so state shared by all handles is in an `Arc`.
#[async_trait]
pub(crate) trait Bend: Clone + Default + Send + Sync + 'static {
    async fn grant_lease(&self, store: &MemoryStore, ttl: Duration) -> Result<Lease, StoreError> {
        store.grant_lease(ttl).await
    }
    async fn renew_lease(&self, store: &MemoryStore, id: LeaseId) -> Result<Duration, StoreError> {
        store.renew_lease(id).await
    }
    async fn revoke_lease(&self, store: &MemoryStore, id: LeaseId) -> Result<(), StoreError> {
        store.revoke_lease(id).await
    }
    async fn read(&self, store: &MemoryStore, prefix: &str) -> Result<Snapshot, StoreError> {
        store.read(prefix).await
    }
    async fn watch(
        &self,
        store: &MemoryStore,
        prefix: &str,
        after: Revision,
    ) -> Result<WatchStream, StoreError> {
        store.watch(prefix, after).await
    }
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        store.commit(txn).await
    }
    /// Timings that the store documents.
    fn bounds() -> Bounds {
        BOUNDS
    }
    /// Called when the connections that this handle has at the moment go silent.
    fn silenced(&self) {}
    /// Called when the harness compacts the store.
    fn compacted(&self, _revision: Revision) {}
    /// Returns a handle to a store that cannot be reached.
    fn unreachable() -> Arc<dyn CoordinationStore> {
        Arc::new(errors::Nowhere)
    }
}

/// Handle to a store that breaks the contract.
struct Bent<B> {
    store: MemoryStore,
    bend: B,
}

#[async_trait]
impl<B: Bend> CoordinationStore for Bent<B> {
    async fn grant_lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
        self.bend.grant_lease(&self.store, ttl).await
    }
    async fn renew_lease(&self, id: LeaseId) -> Result<Duration, StoreError> {
        self.bend.renew_lease(&self.store, id).await
    }
    async fn revoke_lease(&self, id: LeaseId) -> Result<(), StoreError> {
        self.bend.revoke_lease(&self.store, id).await
    }
    async fn read(&self, prefix: &str) -> Result<Snapshot, StoreError> {
        self.bend.read(&self.store, prefix).await
    }
    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, StoreError> {
        self.bend.watch(&self.store, prefix, after).await
    }
    async fn commit(&self, txn: Txn) -> Result<Revision, StoreError> {
        self.bend.commit(&self.store, txn).await
    }
}

/// Harness for a store that breaks the contract, with all hooks.
#[derive(Default)]
pub(crate) struct BentHarness<B> {
    store: MemoryStore,
    bend: B,
}

impl<B: Bend> Harness for BentHarness<B> {
    fn bounds(&self) -> Bounds {
        B::bounds()
    }

    async fn open(&self) -> Arc<dyn CoordinationStore> {
        Arc::new(Bent { store: self.store.clone(), bend: self.bend.clone() })
    }

    async fn compact(&self, revision: Revision) {
        self.store.compact(revision);
        self.bend.compacted(revision);
    }

    async fn unreachable(&self) -> Hook<Arc<dyn CoordinationStore>> {
        Hook::Have(B::unreachable())
    }

    async fn open_watches(&self) -> Hook<usize> {
        Hook::Have(self.store.open_watches())
    }

    async fn line(&self) -> Hook<Line> {
        let handle = Arc::new(Bent { store: self.store.clone(), bend: self.bend.clone() });
        let silenced = handle.clone();
        Hook::Have(Line { store: handle, silence: Box::new(move || silenced.bend.silenced()) })
    }
}

/// Runs one check on a bent store. An error holds the message of the violation.
pub(crate) fn verdict<B: Bend>(
    name: &'static str,
    check: impl AsyncFnOnce(&BentHarness<B>) + Send + 'static,
) -> Result<(), String> {
    let run = panic::AssertUnwindSafe(|| conformance::run(name, BentHarness::<B>::default, check));
    let Err(panic) = panic::catch_unwind(run) else { return Ok(()) };
    match panic.downcast::<String>() {
        Ok(text) => Err(*text),
        Err(panic) => match panic.downcast::<&str>() {
            Ok(text) => Err(text.to_string()),
            Err(panic) => panic::resume_unwind(panic),
        },
    }
}

/// Returns the number of the rule in the name of a check.
pub(crate) fn number(check: &str) -> usize {
    check["rule_".len()..][..2].parse().expect("the name of a check contains the number of its rule")
}

/// Returns the entry of a key if the key exists.
async fn entry(store: &MemoryStore, key: &str) -> Option<Entry> {
    let snapshot = store.read(key).await.expect("a MemoryStore reads");
    snapshot.entries.into_iter().find(|entry| entry.key.as_str() == key)
}

/// Maps each item of a stream to any number of items.
fn turned<T, F>(stream: WatchStream, turn: F) -> WatchStream
where
    F: FnMut(Item) -> T + Send + 'static,
    T: IntoIterator<Item = Item> + Send + 'static,
    T::IntoIter: Send,
{
    Box::pin(stream.map(turn).flat_map(stream::iter))
}

/// Item of a watch.
type Item = Result<clustering_core::store::Batch, WatchEnd>;

/// Returns the stream's next item if it is available immediately.
fn ready(stream: &mut WatchStream) -> Option<Item> {
    // Tokio's cooperative budget must not make an available item look pending.
    unconstrained(stream.next()).now_or_never().flatten()
}
