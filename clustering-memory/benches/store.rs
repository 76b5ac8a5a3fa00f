//! Cost of the in-memory store: commits, reads, lease renewals, and delivery of changes to watches.

use std::time::Duration;

use clustering_memory::{
    MemoryStore,
    store::{CoordinationStore, Guard, Revision, Txn, WatchStream},
};
use divan::{Bencher, counter::ItemsCount};
use futures_util::{FutureExt, StreamExt};
use tokio::runtime::Runtime;

fn main() {
    divan::main();
}

/// A typical node record.
const VALUE: &str =
    r#"{"uri":"http://10.0.0.7:8080","incarnation":"01ARZ3NDEKTSV4RRFFQ69G5FAV","metadata":{},"protocol":1}"#;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
}

fn key(number: usize) -> String {
    format!("c/view/nodes/n{number:05}")
}

/// Creates a store with `entries` entries under one prefix.
async fn filled(entries: usize) -> MemoryStore {
    let store = MemoryStore::new();
    for number in 0..entries {
        store.commit(Txn::new().put(key(number), VALUE, None)).await.expect("a commit");
    }
    store
}

/// Commits a guarded put of an existing key.
#[divan::bench(args = [10, 1_000, 100_000])]
fn commit(bencher: Bencher<'_, '_>, entries: usize) {
    let runtime = runtime();
    let store = runtime.block_on(filled(entries));
    let mut at = runtime.block_on(store.commit(Txn::new().put(key(1), VALUE, None))).expect("a commit");
    bencher.bench_local(|| {
        let txn = Txn::new().guard(Guard::modified_at(key(1), at)).put(key(1), VALUE, None);
        at = runtime.block_on(store.commit(txn)).expect("its guard holds");
    });
}

/// Reads all entries.
#[divan::bench(args = [10, 1_000, 100_000])]
fn read(bencher: Bencher<'_, '_>, entries: usize) {
    let runtime = runtime();
    let store = runtime.block_on(filled(entries));
    let all = bencher.counter(ItemsCount::new(entries));
    all.bench_local(|| runtime.block_on(store.read("c/")).expect("a read").entries.len());
}

/// Renews one of many leases.
#[divan::bench(args = [10, 1_000, 100_000])]
fn renew(bencher: Bencher<'_, '_>, leases: usize) {
    let (runtime, store) = (runtime(), MemoryStore::new());
    let grant = || runtime.block_on(store.grant_lease(Duration::from_secs(600))).expect("a lease").id;
    let leases: Vec<_> = (0..leases).map(|_| grant()).collect();
    let mut next = leases.iter().cycle();
    bencher.bench_local(|| {
        let lease = next.next().expect("there are some");
        runtime.block_on(store.renew_lease(*lease)).expect("it lives")
    });
}

/// Commits one change that every watch yields.
#[divan::bench(args = [1, 100, 10_000])]
fn fan_out(bencher: Bencher<'_, '_>, watches: usize) {
    let (runtime, store) = (runtime(), MemoryStore::new());
    let open = || runtime.block_on(store.watch("c/", Revision::ZERO)).expect("a watch");
    let mut watches: Vec<WatchStream> = (0..watches).map(|_| open()).collect();
    let each = bencher.counter(ItemsCount::new(watches.len()));
    each.bench_local(|| {
        runtime.block_on(async {
            store.commit(Txn::new().put(key(1), VALUE, None)).await.expect("a commit");
            for watch in &mut watches {
                watch.next().await.expect("the watch continues").expect("a batch");
                // Leave the watch waiting for the next change, as it is in practice.
                assert!(watch.next().now_or_never().is_none());
            }
        });
    });
}

/// Catches up with a thousand commits on one watch.
#[divan::bench]
fn catch_up(bencher: Bencher<'_, '_>) {
    const COMMITS: usize = 1_000;
    let runtime = runtime();
    let store = runtime.block_on(filled(COMMITS));
    bencher
        .counter(ItemsCount::new(COMMITS))
        .with_inputs(|| runtime.block_on(store.watch("c/", Revision::ZERO)).expect("a watch"))
        .bench_local_refs(|watch| {
            runtime.block_on(async {
                for _ in 0..COMMITS {
                    watch.next().await.expect("the watch continues").expect("a batch");
                }
            });
        });
}
