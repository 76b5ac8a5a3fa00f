//! Tests of the features specific to `MemoryStore`. The conformance suite in `clustering-testkit` tests that it keeps
//! the store contract.

#![allow(clippy::unwrap_used, reason = "an unexpected result fails the test, also in helper functions")]

mod backup;
mod compaction;
mod determinism;
mod lease;
mod runtimes;
mod stats;
mod watch;

use std::time::Duration;

use clustering_core::store::{
    Batch, Change, CoordinationStore, CoordinationStoreExt, Lease, Revision, WatchEnd, WatchStream,
};
use clustering_memory::MemoryStore;
use futures_util::{FutureExt, StreamExt};
use tokio::time::timeout;

const SECOND: Duration = Duration::from_secs(1);

/// The resolution of tokio's timers.
const TICK: Duration = Duration::from_millis(1);

async fn lease(store: &MemoryStore, ttl: Duration) -> Lease {
    store.grant_lease(ttl).await.unwrap()
}

/// Puts a key, attached to a lease if one is given.
async fn put(store: &MemoryStore, key: &str, lease: Option<&Lease>) -> Revision {
    store.put(key, "value".into(), lease.map(|lease| lease.id)).await.unwrap()
}

async fn watch(store: &MemoryStore, prefix: &str, after: Revision) -> WatchStream {
    store.watch(prefix, after).await.unwrap()
}

async fn watch_all(store: &MemoryStore) -> WatchStream {
    watch(store, "", Revision::ZERO).await
}

/// Waits for the next item. The timeout is longer than any test waits for an item, so that a missing item fails the
/// test instead of hanging it.
async fn item(watch: &mut WatchStream) -> Option<Result<Batch, WatchEnd>> {
    timeout(120 * SECOND, watch.next()).await.expect("an item in time")
}

/// Waits for the next batch.
async fn batch(watch: &mut WatchStream) -> Batch {
    item(watch).await.expect("the stream continues").expect("the next item is a batch")
}

/// Waits for the end of the watch, which must be the next and last item of the stream.
async fn end(watch: &mut WatchStream) -> WatchEnd {
    let end = item(watch).await.expect("the stream continues").expect_err("the next item is the end");
    assert_eq!(item(watch).await, None);
    end
}

/// Returns all batches that the watch yields without waiting.
fn ready(watch: &mut WatchStream) -> Vec<Batch> {
    std::iter::from_fn(|| watch.next().now_or_never().flatten()).map(Result::unwrap).collect()
}

/// Formats a batch in short form: `5: +put -deleted`.
fn shown(batch: &Batch) -> String {
    let changes = batch.changes.iter().map(|change| match change {
        Change::Put(entry) => format!(" +{}", entry.key),
        Change::Delete(key) => format!(" -{key}"),
    });
    format!("{}:{}", batch.revision, changes.collect::<String>())
}

fn all_shown(batches: &[Batch]) -> Vec<String> {
    batches.iter().map(shown).collect()
}
