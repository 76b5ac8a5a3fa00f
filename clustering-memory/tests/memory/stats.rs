use clustering_core::store::{CoordinationStore, CoordinationStoreExt, Guard, LeaseId, Revision, Txn};
use clustering_memory::{MemoryStore, Stats};
use tokio::time::advance;

use crate::{SECOND, lease, put, ready, watch_all};

/// Creates a `Stats` with some fields set. The type is non-exhaustive, so it cannot be written as a literal here.
fn stats(set: impl FnOnce(&mut Stats)) -> Stats {
    let mut stats = Stats::default();
    set(&mut stats);
    stats
}

#[tokio::test(start_paused = true)]
async fn each_call_is_counted_once() {
    let store = MemoryStore::new();
    let mut before = Stats::default();
    let mut since_last = |store: &MemoryStore| {
        let now = store.stats();
        now.since(&std::mem::replace(&mut before, now))
    };

    let (first, second) = (lease(&store, SECOND).await, lease(&store, 2 * SECOND).await);
    assert_eq!(since_last(&store), stats(|s| s.grants = 2));

    put(&store, "a", Some(&first)).await;
    put(&store, "b", Some(&second)).await;
    store.delete("never was").await.unwrap();
    store.create("a", "".into(), None).await.unwrap_err();
    store.put("c", "".into(), Some(LeaseId::new(99))).await.unwrap_err();
    store.put("", "".into(), None).await.unwrap_err();
    let commits = stats(|s| {
        (s.commits_effective, s.commits_without_effect, s.commits_refused) = (2, 1, 3);
    });
    assert_eq!(since_last(&store), commits);

    store.read("").await.unwrap();
    let mut watch = watch_all(&store).await;
    drop(store.watch("", Revision::new(99)).await.unwrap());
    assert_eq!(since_last(&store), stats(|s| (s.reads, s.watches) = (1, 2)));

    ready(&mut watch);
    store.commit(Txn::new().put("c", "", None).put("d", "", None)).await.unwrap();
    ready(&mut watch);
    let delivered = stats(|s| (s.commits_effective, s.batches, s.changes) = (1, 3, 4));
    assert_eq!(since_last(&store), delivered);

    store.renew_lease(second.id).await.unwrap();
    store.renew_lease(LeaseId::new(99)).await.unwrap_err();
    store.revoke_lease(second.id).await.unwrap();
    store.revoke_lease(second.id).await.unwrap_err();
    assert_eq!(since_last(&store), stats(|s| (s.renewals, s.revokes, s.leases_not_found) = (1, 1, 2)));

    advance(SECOND).await;
    assert_eq!(since_last(&store), stats(|s| s.expiries = 1));
}

#[tokio::test]
async fn a_refused_commit_writes_nothing() {
    let store = MemoryStore::new();
    let bad_lease = Txn::new().put("a", "", None).put("b", "", LeaseId::new(7));
    store.commit(bad_lease).await.unwrap_err();
    let bad_guard = Txn::new().guard(Guard::absent("x")).guard(Guard::created_at("y", Revision::new(1)));
    store.commit(bad_guard.put("a", "", None)).await.unwrap_err();
    let snapshot = store.read("").await.unwrap();
    assert_eq!((snapshot.entries.len(), snapshot.revision), (0, Revision::ZERO));
}

#[tokio::test]
async fn counters_survive_a_restore() {
    let store = MemoryStore::new();
    let backup = store.backup();
    put(&store, "a", None).await;
    store.restore(&backup);
    assert_eq!(store.stats().commits_effective, 1);
}
