use std::{thread, time::Duration};

use clustering_core::store::{CoordinationStore, CoordinationStoreExt, ErrorKind, Guard, Revision, Txn};
use clustering_memory::MemoryStore;
use futures_util::{FutureExt, StreamExt};
use tokio::runtime::{Builder, Runtime};

use crate::{SECOND, all_shown, batch, lease, put, ready, shown, watch, watch_all};

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

#[test]
fn the_store_spawns_no_task() {
    let store = MemoryStore::new();
    let runtime = runtime();
    runtime.block_on(async {
        let lease = lease(&store, SECOND).await;
        put(&store, "k", Some(&lease)).await;
        let mut watch = watch(&store, "", store.revision()).await;
        assert!(watch.next().now_or_never().is_none());
        store.renew_lease(lease.id).await.unwrap();
        store.revoke_lease(lease.id).await.unwrap();
        batch(&mut watch).await;
    });
    assert_eq!(runtime.metrics().num_alive_tasks(), 0);
}

#[test]
fn store_and_watch_outlive_a_runtime() {
    let store = MemoryStore::new();
    let first = runtime();
    let mut watch = first.block_on(async {
        let lease = lease(&store, Duration::from_millis(50)).await;
        put(&store, "k", Some(&lease)).await;
        let mut watch = watch(&store, "", store.revision()).await;
        assert!(watch.next().now_or_never().is_none(), "it now has a timer of the first runtime");
        watch
    });
    drop(first);
    runtime().block_on(async {
        assert_eq!(shown(&batch(&mut watch).await), "2: -k");
        put(&store, "k", None).await;
        assert_eq!(shown(&batch(&mut watch).await), "3: +k");
    });
}

#[test]
fn a_watch_left_behind_by_a_runtime_can_be_dropped_on_another() {
    let store = MemoryStore::new();
    let watch = runtime().block_on(async {
        let lease = lease(&store, SECOND).await;
        put(&store, "k", Some(&lease)).await;
        let mut watch = watch(&store, "", store.revision()).await;
        assert!(watch.next().now_or_never().is_none());
        watch
    });
    runtime().block_on(async { put(&store, "l", None).await });
    drop(watch);
    assert_eq!(store.open_watches(), 0);
}

#[test]
fn calls_and_watches_work_without_a_runtime() {
    let store = MemoryStore::new();
    let mut watch = watch_all(&store).now_or_never().unwrap();
    let lease = lease(&store, Duration::from_nanos(1)).now_or_never().unwrap();
    // The resolution of the clock may be coarser than the TTL, so the put is repeated until the lease has expired.
    while put_under_lease(&store, lease.id) {}
    assert!(watch.next().now_or_never().is_none_or(|item| item.is_some()));
    put(&store, "free", None).now_or_never().unwrap();
    assert_eq!(all_shown(&ready(&mut watch)).last().unwrap(), &format!("{}: +free", store.revision()));
}

/// Puts a key under the lease. Returns false once the lease has expired.
fn put_under_lease(store: &MemoryStore, lease: clustering_core::store::LeaseId) -> bool {
    store.put("leased", "".into(), Some(lease)).now_or_never().unwrap().is_ok()
}

/// Each thread has its own runtime and all share one store, as several nodes in one process do.
#[test]
fn threads_with_a_runtime_each_share_a_store() {
    const THREADS: u64 = 4;
    const EACH: u64 = 100;
    let store = MemoryStore::new();
    let count = |store: MemoryStore| async move {
        for _ in 0..EACH {
            loop {
                let counter = store.get("counter").await.unwrap();
                let (seen, count) = counter.map_or((Revision::ZERO, 0), |entry| {
                    (entry.modified, String::from_utf8_lossy(&entry.value).parse::<u64>().unwrap())
                });
                let next = Txn::new().guard(Guard::modified_at("counter", seen));
                match store.commit(next.put("counter", (count + 1).to_string(), None)).await {
                    Ok(_) => break,
                    Err(error) => assert!(matches!(error.kind(), ErrorKind::GuardFailed { .. })),
                }
            }
        }
    };
    let follow = |store: MemoryStore| async move {
        let mut watch = watch_all(&store).await;
        for expected in 1..=THREADS * EACH {
            assert_eq!(batch(&mut watch).await.revision, Revision::new(expected));
        }
    };
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                runtime().block_on(async { tokio::join!(count(store.clone()), follow(store.clone())) })
            });
        }
    });
    assert_eq!(store.stats().commits_effective, THREADS * EACH);
    assert_eq!(store.open_watches(), 0);
}
