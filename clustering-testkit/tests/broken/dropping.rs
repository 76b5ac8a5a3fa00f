//! Stores that break rule 9.

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use clustering_core::store::{CoordinationStore, Revision, StoreError, Txn, WatchStream};
use clustering_memory::MemoryStore;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::task::yield_now;

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
    async fn read(
        &self,
        store: &MemoryStore,
        prefix: &str,
    ) -> Result<clustering_core::store::Snapshot, StoreError> {
        if self.0.load(Ordering::SeqCst) {
            return Err(StoreError::unreachable("the connection is broken"));
        }
        let mut dropped = OnDrop::new(|| self.0.store(true, Ordering::SeqCst));
        yield_now().await;
        dropped.armed = false;
        store.read(prefix).await
    }
}
