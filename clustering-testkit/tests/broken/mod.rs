//! Stores that break the contract, each in one way, so that the suite can be shown to notice.
//!
//! Each is a [`Bend`] of a `MemoryStore`: it overrides the call that it gets wrong and leaves the others alone.

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
use clustering_testkit::conformance::{self, Bounds, Clock, Harness, Hook};
use futures_util::{FutureExt, StreamExt, stream};
use tokio::task::unconstrained;

/// What a `MemoryStore` states about its times.
const BOUNDS: Bounds = Bounds {
    clock: Clock::Paused,
    smallest_ttl: Duration::from_secs(1),
    expiry_slack: Duration::from_millis(1),
    watch_lag: Duration::from_millis(1),
    call_timeout: Duration::from_secs(1),
};

/// One way to be wrong. Every handle has its own clone; what handles share stands behind an `Arc`.
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
    /// What the store states about its times.
    fn bounds() -> Bounds {
        BOUNDS
    }
    /// The harness compacted the store.
    fn compacted(&self, _revision: Revision) {}
    /// The handle that leads nowhere.
    fn unreachable() -> Arc<dyn CoordinationStore> {
        Arc::new(errors::Nowhere)
    }
}

/// A handle to a bent store.
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

/// Hands a bent store to the suite, with every hook that there is.
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
}

/// Runs one check on a bent store. The text of the violation, if it finds one.
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

/// The number of the rule that a check's name bears.
pub(crate) fn number(check: &str) -> usize {
    check["rule_".len()..][..2].parse().expect("a rule's check bears its number")
}

/// The entry of a key, if it is there.
async fn entry(store: &MemoryStore, key: &str) -> Option<Entry> {
    let snapshot = store.read(key).await.expect("a MemoryStore reads");
    snapshot.entries.into_iter().find(|entry| entry.key.as_str() == key)
}

/// A stream whose items `turn` makes out of those of another, none, one or several of each.
fn turned<T, F>(stream: WatchStream, turn: F) -> WatchStream
where
    F: FnMut(Item) -> T + Send + 'static,
    T: IntoIterator<Item = Item> + Send + 'static,
    T::IntoIter: Send,
{
    Box::pin(stream.map(turn).flat_map(stream::iter))
}

/// What a watch yields.
type Item = Result<clustering_core::store::Batch, WatchEnd>;

/// The stream's next item if it is there already.
fn ready(stream: &mut WatchStream) -> Option<Item> {
    // Whatever tokio thinks of how much this task has done already.
    unconstrained(stream.next()).now_or_never().flatten()
}
