use clustering_core::store::{CoordinationStore, CoordinationStoreExt, Revision, WatchEnd};
use clustering_memory::MemoryStore;
use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, advance};

use crate::{SECOND, TICK, all_shown, batch, end, lease, put, ready, shown, watch, watch_all};

fn rewound(revision: u64) -> WatchEnd {
    WatchEnd::Rewound { revision: Revision::new(revision) }
}

#[tokio::test]
async fn a_restore_brings_back_entries_history_and_revision() {
    let store = MemoryStore::new();
    put(&store, "a", None).await;
    put(&store, "b", None).await;
    let before = store.read("").await.unwrap();
    let backup = store.backup();
    store.delete("a").await.unwrap();
    put(&store, "c", None).await;
    store.compact(store.revision());

    store.restore(&backup);
    assert_eq!(store.read("").await.unwrap(), before);
    assert_eq!(backup.revision(), before.revision);
    assert_eq!(put(&store, "d", None).await, Revision::new(3), "revisions after the backup are reused");
    assert_eq!(all_shown(&ready(&mut watch_all(&store).await)), ["1: +a", "2: +b", "3: +d"]);
}

#[tokio::test]
async fn a_restore_ends_only_watches_that_saw_undone_revisions() {
    let store = MemoryStore::new();
    put(&store, "view/a", None).await;
    let backup = store.backup();
    let mut view = watch(&store, "view/", Revision::ZERO).await;
    let mut quiet = watch(&store, "quiet/", Revision::ZERO).await;
    let mut slow = watch(&store, "view/", Revision::ZERO).await;
    put(&store, "view/b", None).await;
    assert_eq!(ready(&mut view).len(), 2);
    let mut later = watch(&store, "quiet/", store.revision()).await;

    store.restore(&backup);
    assert_eq!(end(&mut view).await, rewound(1));
    assert_eq!(end(&mut later).await, rewound(1), "it started after a revision that is undone");
    put(&store, "view/c", None).await;
    put(&store, "quiet/c", None).await;
    assert_eq!(all_shown(&ready(&mut slow)), ["1: +view/a", "2: +view/c"], "the undone change does not show");
    assert_eq!(all_shown(&ready(&mut quiet)), ["3: +quiet/c"]);
    let mut stale = watch(&store, "", Revision::new(9)).await;
    assert_eq!(end(&mut stale).await, rewound(3));
}

#[tokio::test]
async fn a_watch_that_saw_an_undone_revision_ends_even_if_the_store_has_passed_it_again() {
    let store = MemoryStore::new();
    let backup = store.backup();
    let mut watch = watch_all(&store).await;
    put(&store, "undone", None).await;
    assert_eq!(ready(&mut watch).len(), 1);
    store.restore(&backup);
    put(&store, "a", None).await;
    put(&store, "b", None).await;
    assert_eq!(end(&mut watch).await, rewound(2));
}

#[tokio::test]
async fn a_restore_wakes_a_waiting_watch_that_must_end() {
    let store = MemoryStore::new();
    let backup = store.backup();
    put(&store, "undone", None).await;
    let mut watch = watch(&store, "", store.revision()).await;
    let waiting = tokio::spawn(async move { end(&mut watch).await });
    tokio::task::yield_now().await;
    store.restore(&backup);
    assert_eq!(waiting.await.unwrap(), rewound(0));
}

#[tokio::test]
async fn restoring_an_undone_history_ends_watches_that_saw_the_current_one() {
    let store = MemoryStore::new();
    put(&store, "a", None).await;
    let early = store.backup();
    for key in ["b", "c", "d"] {
        put(&store, key, None).await;
    }
    let late = store.backup();
    store.restore(&early);
    let mut common = watch(&store, "a", Revision::ZERO).await;
    let mut present = watch_all(&store).await;
    put(&store, "x", None).await;
    assert_eq!((ready(&mut common).len(), ready(&mut present).len()), (1, 2));

    store.restore(&late);
    assert_eq!(end(&mut present).await, rewound(4), "it saw x, which is undone");
    put(&store, "ab", None).await;
    assert_eq!(all_shown(&ready(&mut common)), ["5: +ab"]);
}

#[tokio::test]
async fn a_later_restore_does_not_hide_what_an_earlier_one_undid() {
    let store = MemoryStore::new();
    put(&store, "a", None).await;
    let early = store.backup();
    put(&store, "undone", None).await;
    let mut watch = watch_all(&store).await;
    assert_eq!(ready(&mut watch).len(), 2);
    store.restore(&early);
    put(&store, "b", None).await;
    put(&store, "c", None).await;
    store.restore(&store.backup());
    assert_eq!(end(&mut watch).await, rewound(3));
}

#[tokio::test]
async fn a_watch_ends_if_the_backup_lacks_changes_that_it_still_needs() {
    let store = MemoryStore::new();
    let empty = store.backup();
    put(&store, "a", None).await;
    put(&store, "b", None).await;
    store.compact(Revision::new(1));
    let compacted = store.backup();
    store.restore(&empty);
    let mut watch = watch_all(&store).await;
    store.restore(&compacted);
    assert_eq!(end(&mut watch).await, WatchEnd::Compacted { compacted: Revision::new(1) });
}

#[tokio::test]
async fn restoring_the_backup_of_another_store_ends_every_watch_that_saw_anything() {
    let (store, other) = (MemoryStore::new(), MemoryStore::new());
    let lease_there = lease(&other, SECOND).await;
    put(&other, "theirs", None).await;
    put(&store, "ours", None).await;
    let (mut seen, mut fresh) = (watch_all(&store).await, watch_all(&store).await);
    assert_eq!(ready(&mut seen).len(), 1);
    store.restore(&other.backup());
    assert_eq!(end(&mut seen).await, rewound(1));
    assert_eq!(all_shown(&ready(&mut fresh)), ["1: +theirs"]);
    assert!(lease(&store, SECOND).await.id > lease_there.id);
}

#[tokio::test(start_paused = true)]
async fn restored_leases_live_for_their_whole_ttl_again() {
    let store = MemoryStore::new();
    let (kept, revoked) = (lease(&store, 10 * SECOND).await, lease(&store, 20 * SECOND).await);
    put(&store, "kept", Some(&kept)).await;
    put(&store, "revoked", Some(&revoked)).await;
    advance(9 * SECOND).await;
    let backup = store.backup();
    store.revoke_lease(revoked.id).await.unwrap();
    let since = lease(&store, 10 * SECOND).await;

    store.restore(&backup);
    let restored = Instant::now();
    let live: Vec<_> = store.leases().iter().map(|lease| (lease.id, lease.remaining, lease.keys)).collect();
    assert_eq!(live, [(kept.id, 10 * SECOND, 1), (revoked.id, 20 * SECOND, 1)]);
    assert!(store.renew_lease(since.id).await.is_err(), "granted after the backup");
    assert!(lease(&store, SECOND).await.id > since.id, "lease IDs are never reused");

    let mut watch = watch(&store, "", store.revision()).await;
    assert_eq!(shown(&batch(&mut watch).await), "3: -kept");
    assert!(restored.elapsed() >= 10 * SECOND && restored.elapsed() <= 10 * SECOND + TICK);
    assert_eq!(shown(&batch(&mut watch).await), "4: -revoked");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_survives_a_restore_sees_the_restored_leases_expire() {
    let store = MemoryStore::new();
    let short = lease(&store, SECOND).await;
    put(&store, "k", Some(&short)).await;
    let backup = store.backup();
    let mut watch = watch(&store, "", store.revision()).await;
    store.revoke_lease(short.id).await.unwrap();
    let other = store.backup();
    store.restore(&backup);
    store.restore(&other);
    assert_eq!(shown(&batch(&mut watch).await), "2: -k", "the change that it had to yield is still there");
    store.restore(&backup);
    assert_eq!(end(&mut watch).await, rewound(1));

    let mut watch = crate::watch(&store, "", store.revision()).await;
    store.put("k", "".into(), None).await.unwrap();
    store.restore(&backup);
    assert!(watch.next().now_or_never().is_none());
    assert_eq!(shown(&batch(&mut watch).await), "2: -k");
}
