//! Tests that `FaultyStore` injects exactly the requested faults.

#![allow(clippy::unwrap_used, reason = "helpers panic to fail the test")]

mod by_chance;
mod calls;
mod watches;
mod without_faults;

use std::{fmt::Debug, future::Future, time::Duration};

use clustering_core::store::{
    Batch, CoordinationStore, ErrorKind, LeaseId, Revision, StoreError, Txn, WatchEnd, WatchStream,
};
use clustering_memory::MemoryStore;
use clustering_testkit::faulty::FaultyStore;
use futures_util::{FutureExt, StreamExt};

const SECOND: Duration = Duration::from_secs(1);

/// Returns a store and a faulty store in front of it.
fn stores() -> (MemoryStore, FaultyStore) {
    let store = MemoryStore::new();
    (store.clone(), FaultyStore::new(store))
}

fn put(key: &str) -> Txn {
    Txn::new().put(key, "value", None)
}

async fn kind<T: Debug>(call: impl Future<Output = Result<T, StoreError>>) -> ErrorKind {
    call.await.unwrap_err().kind()
}

/// Makes one call of every kind and returns the errors, in the order of `Call::ALL`.
async fn all_kinds(store: &FaultyStore) -> Vec<Option<ErrorKind>> {
    let lease = LeaseId::new(1);
    vec![
        store.grant_lease(SECOND).await.err().map(|error| error.kind()),
        store.renew_lease(lease).await.err().map(|error| error.kind()),
        store.revoke_lease(lease).await.err().map(|error| error.kind()),
        store.read("").await.err().map(|error| error.kind()),
        store.watch("", Revision::ZERO).await.err().map(|error| error.kind()),
        store.commit(put("all")).await.err().map(|error| error.kind()),
    ]
}

async fn watch(store: &FaultyStore, prefix: &str) -> WatchStream {
    store.watch(prefix, Revision::ZERO).await.unwrap()
}

/// Returns the watch's next item if it is available without waiting.
fn ready(watch: &mut WatchStream) -> Option<Option<Result<Batch, WatchEnd>>> {
    watch.next().now_or_never()
}

fn revision(item: Option<Option<Result<Batch, WatchEnd>>>) -> u64 {
    item.unwrap().unwrap().unwrap().revision.get()
}
