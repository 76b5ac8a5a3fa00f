//! Stores that break rule 9.

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use clustering_core::store::{
    CoordinationStore, Lease, LeaseId, Revision, Snapshot, StoreError, Txn, WatchStream,
};
use clustering_memory::MemoryStore;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::yield_now,
    time::sleep,
};

use super::{Bend, Item, commits::with_operations};

/// Runs an action when dropped, unless disarmed.
struct OnDrop<F: FnMut()> {
    armed: bool,
    action: F,
}

impl<F: FnMut()> OnDrop<F> {
    fn new(action: F) -> Self {
        OnDrop { armed: true, action }
    }
}

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if self.armed {
            (self.action)();
        }
    }
}

/// Keeps dropped watches open.
#[derive(Clone, Default)]
pub(crate) struct LeaksWatches(Arc<Mutex<Vec<WatchStream>>>);

#[async_trait]
impl Bend for LeaksWatches {
    async fn watch(
        &self,
        store: &MemoryStore,
        prefix: &str,
        after: Revision,
    ) -> Result<WatchStream, StoreError> {
        let (leak, mut stream) = (self.0.clone(), Some(store.watch(prefix, after).await?));
        let inner = Arc::new(Mutex::new(stream.take()));
        let (kept, polled) = (inner.clone(), inner);
        let leaked = OnDrop::new(move || leak.lock().unwrap().extend(kept.lock().unwrap().take()));
        Ok(Box::pin(stream::poll_fn(move |context| {
            let _owned = &leaked;
            match &mut *polled.lock().unwrap() {
                Some(stream) => stream.poll_next_unpin(context),
                None => std::task::Poll::Ready(None),
            }
        })))
    }
}

/// Accepts 150 watches in total, and never subtracts the dropped ones.
#[derive(Clone, Default)]
pub(crate) struct NeverForgetsAWatch(Arc<AtomicUsize>);

#[async_trait]
impl Bend for NeverForgetsAWatch {
    async fn watch(
        &self,
        store: &MemoryStore,
        prefix: &str,
        after: Revision,
    ) -> Result<WatchStream, StoreError> {
        if self.0.fetch_add(1, Ordering::SeqCst) >= 150 {
            return Err(StoreError::busy("too many watches"));
        }
        store.watch(prefix, after).await
    }
}

/// Ends all watches when one is dropped.
#[derive(Clone, Default)]
pub(crate) struct EndsAllWatchesWithOne(Arc<AtomicUsize>);

#[async_trait]
impl Bend for EndsAllWatchesWithOne {
    async fn watch(
        &self,
        store: &MemoryStore,
        prefix: &str,
        after: Revision,
    ) -> Result<WatchStream, StoreError> {
        let (dropped, before) = (self.0.clone(), self.0.load(Ordering::SeqCst));
        let count = dropped.clone();
        let counted = OnDrop::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        let mut stream = store.watch(prefix, after).await?;
        Ok(Box::pin(stream::poll_fn(move |context| {
            let _owned = &counted;
            match dropped.load(Ordering::SeqCst) > before {
                true => std::task::Poll::Ready(None::<Item>),
                false => stream.poll_next_unpin(context),
            }
        })))
    }
}

/// Takes a lock for a commit and releases it only if the commit is awaited to its end.
#[derive(Clone, Default)]
pub(crate) struct KeepsItsLock(Arc<AtomicBool>);

#[async_trait]
impl Bend for KeepsItsLock {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        while self.0.swap(true, Ordering::SeqCst) {
            // Waiting commits are never woken.
            pending::<()>().await;
        }
        yield_now().await;
        let answer = store.commit(txn).await;
        self.0.store(false, Ordering::SeqCst);
        answer
    }
}

/// Applies the first operation of a commit that is dropped midway.
#[derive(Clone, Default)]
pub(crate) struct StopsMidway;

#[async_trait]
impl Bend for StopsMidway {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        let first = with_operations(&txn, txn.operations().iter().take(1));
        let mut dropped = OnDrop::new(|| {
            let _ = store.commit(first.clone()).now_or_never();
        });
        yield_now().await;
        dropped.armed = false;
        store.commit(txn).await
    }
}

/// Applies a commit a second time if it is dropped before its reply.
#[derive(Clone, Default)]
pub(crate) struct AppliesTwice;

#[async_trait]
impl Bend for AppliesTwice {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        let revision = store.commit(txn.clone()).await?;
        let mut dropped = OnDrop::new(|| {
            let _ = store.commit(txn.clone()).now_or_never();
        });
        yield_now().await;
        dropped.armed = false;
        Ok(revision)
    }
}

/// Fails all reads after one was dropped.
#[derive(Clone, Default)]
pub(crate) struct BreaksWithARead(Arc<AtomicBool>);

#[async_trait]
impl Bend for BreaksWithARead {
    async fn read(&self, store: &MemoryStore, prefix: &str) -> Result<Snapshot, StoreError> {
        if self.0.load(Ordering::SeqCst) {
            return Err(StoreError::unreachable("the connection is broken"));
        }
        let mut dropped = OnDrop::new(|| self.0.store(true, Ordering::SeqCst));
        yield_now().await;
        dropped.armed = false;
        store.read(prefix).await
    }
}

/// Has one connection per handle. A commit that is dropped midway leaves its transaction open, with the lock that every
/// commit needs. The next call on the same connection rolls it back, but nothing else does.
#[derive(Default)]
pub(crate) struct LeavesTransactionsOpen {
    lock: Arc<Lock>,
    /// The transaction that is open on the connection, which only one call uses at a time.
    connection: tokio::sync::Mutex<Option<OwnedSemaphorePermit>>,
}

/// The lock of a store, which has one permit.
struct Lock(Arc<Semaphore>);

impl Default for Lock {
    fn default() -> Self {
        Lock(Arc::new(Semaphore::new(1)))
    }
}

/// Each handle has a connection of its own.
impl Clone for LeavesTransactionsOpen {
    fn clone(&self) -> Self {
        LeavesTransactionsOpen { lock: self.lock.clone(), connection: tokio::sync::Mutex::default() }
    }
}

impl LeavesTransactionsOpen {
    /// Runs a call on the connection, after the rollback of a transaction that was left open.
    async fn on_the_connection<T>(&self, call: impl Future<Output = T>) -> T {
        let mut connection = self.connection.lock().await;
        *connection = None;
        call.await
    }
}

#[async_trait]
impl Bend for LeavesTransactionsOpen {
    async fn grant_lease(&self, store: &MemoryStore, ttl: Duration) -> Result<Lease, StoreError> {
        self.on_the_connection(store.grant_lease(ttl)).await
    }
    async fn renew_lease(&self, store: &MemoryStore, id: LeaseId) -> Result<Duration, StoreError> {
        self.on_the_connection(store.renew_lease(id)).await
    }
    async fn revoke_lease(&self, store: &MemoryStore, id: LeaseId) -> Result<(), StoreError> {
        self.on_the_connection(store.revoke_lease(id)).await
    }
    async fn read(&self, store: &MemoryStore, prefix: &str) -> Result<Snapshot, StoreError> {
        self.on_the_connection(store.read(prefix)).await
    }
    async fn watch(
        &self,
        store: &MemoryStore,
        prefix: &str,
        after: Revision,
    ) -> Result<WatchStream, StoreError> {
        self.on_the_connection(store.watch(prefix, after)).await
    }
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        let mut connection = self.connection.lock().await;
        *connection = None;
        let locked = self.lock.0.clone().acquire_owned().await.expect("the lock is never closed");
        *connection = Some(locked);
        // The other statements of the transaction take a while.
        sleep(Duration::from_millis(1)).await;
        let answer = store.commit(txn).await;
        *connection = None;
        answer
    }
}

/// Has one connection, which it replaces once a call has waited for half a second. If the callers give up earlier, it
/// keeps a connection that went silent forever.
#[derive(Default)]
pub(crate) struct KeepsSilentConnections(AtomicBool);

/// Each handle has a connection of its own.
impl Clone for KeepsSilentConnections {
    fn clone(&self) -> Self {
        KeepsSilentConnections::default()
    }
}

impl KeepsSilentConnections {
    async fn connected(&self) -> Result<(), StoreError> {
        if self.0.load(Ordering::SeqCst) {
            sleep(Duration::from_millis(500)).await;
            self.0.store(false, Ordering::SeqCst);
            return Err(StoreError::outcome_unknown("the connection was lost"));
        }
        Ok(())
    }
}

#[async_trait]
impl Bend for KeepsSilentConnections {
    fn silenced(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
    async fn renew_lease(&self, store: &MemoryStore, id: LeaseId) -> Result<Duration, StoreError> {
        self.connected().await?;
        store.renew_lease(id).await
    }
    async fn read(&self, store: &MemoryStore, prefix: &str) -> Result<Snapshot, StoreError> {
        self.connected().await?;
        store.read(prefix).await
    }
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        self.connected().await?;
        store.commit(txn).await
    }
}

/// Notices that the connection of a call went silent, but not that of a watch, which then waits forever.
#[derive(Clone, Default)]
pub(crate) struct LeavesWatchesSilent(Arc<AtomicBool>);

#[async_trait]
impl Bend for LeavesWatchesSilent {
    fn silenced(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
    async fn watch(
        &self,
        store: &MemoryStore,
        prefix: &str,
        after: Revision,
    ) -> Result<WatchStream, StoreError> {
        let (silent, mut inner) = (self.0.clone(), store.watch(prefix, after).await?);
        Ok(Box::pin(stream::poll_fn(move |context| match silent.load(Ordering::SeqCst) {
            true => std::task::Poll::Pending,
            false => inner.poll_next_unpin(context),
        })))
    }
}

/// Ends a watch when the handle that opened it is dropped.
#[derive(Clone, Default)]
pub(crate) struct EndsWatchesWithTheirHandle(Handle);

/// Each clone is a handle of its own, which the watches opened with it only know weakly.
#[derive(Default)]
struct Handle(Arc<()>);

impl Clone for Handle {
    fn clone(&self) -> Self {
        Handle::default()
    }
}

#[async_trait]
impl Bend for EndsWatchesWithTheirHandle {
    async fn watch(
        &self,
        store: &MemoryStore,
        prefix: &str,
        after: Revision,
    ) -> Result<WatchStream, StoreError> {
        let (handle, mut inner) = (Arc::downgrade(&self.0.0), store.watch(prefix, after).await?);
        Ok(Box::pin(stream::poll_fn(move |context| match handle.strong_count() {
            0 => std::task::Poll::Ready(None::<Item>),
            _ => inner.poll_next_unpin(context),
        })))
    }
}
