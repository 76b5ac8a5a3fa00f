//! What is special to `MemoryStore`. That it keeps the store contract is shown by the conformance suite of
//! `clustering-testkit`.

#![allow(clippy::unwrap_used, reason = "what is not as expected fails the test, in helpers too")]

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

/// Tokio's timers are that coarse.
const TICK: Duration = Duration::from_millis(1);

async fn lease(store: &MemoryStore, ttl: Duration) -> Lease {
    store.grant_lease(ttl).await.unwrap()
}

/// Puts a key, under a lease if one is given.
async fn put(store: &MemoryStore, key: &str, lease: Option<&Lease>) -> Revision {
    store.put(key, "value".into(), lease.map(|lease| lease.id)).await.unwrap()
}

async fn watch(store: &MemoryStore, prefix: &str, after: Revision) -> WatchStream {
    store.watch(prefix, after).await.unwrap()
}

async fn watch_all(store: &MemoryStore) -> WatchStream {
    watch(store, "", Revision::ZERO).await
}

/// The next item. One that does not come fails the test rather than stopping it; no test waits that long for one.
async fn item(watch: &mut WatchStream) -> Option<Result<Batch, WatchEnd>> {
    timeout(120 * SECOND, watch.next()).await.expect("an item in time")
}

/// The next batch, waiting for it.
async fn batch(watch: &mut WatchStream) -> Batch {
    item(watch).await.expect("the watch goes on").expect("the watch goes on")
}

/// The end of the watch, which must be next, and after which there is nothing more.
async fn end(watch: &mut WatchStream) -> WatchEnd {
    let end = item(watch).await.expect("an end is yielded").expect_err("the watch ends");
    assert_eq!(item(watch).await, None);
    end
}

/// All batches that the watch has ready.
fn ready(watch: &mut WatchStream) -> Vec<Batch> {
    std::iter::from_fn(|| watch.next().now_or_never().flatten()).map(Result::unwrap).collect()
}

/// A batch in short: `5: +put -deleted`.
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
