use clustering_core::store::{CoordinationStore, Revision, WatchEnd};
use clustering_memory::MemoryStore;

use crate::{all_shown, end, put, ready, watch, watch_all};

fn compacted(revision: u64) -> WatchEnd {
    WatchEnd::Compacted { compacted: Revision::new(revision) }
}

#[tokio::test]
async fn a_watch_that_falls_behind_the_history_ends() {
    let store = MemoryStore::builder().history(3).build();
    let (mut slow, mut quick) = (watch_all(&store).await, watch_all(&store).await);
    for n in 1..=5 {
        put(&store, "k", None).await;
        assert_eq!(ready(&mut quick).len(), 1, "at {n}");
    }
    assert_eq!(end(&mut slow).await, compacted(2));
    assert_eq!(ready(&mut quick), []);
}

#[tokio::test]
async fn compaction_does_not_end_the_watch_of_an_idle_prefix() {
    let store = MemoryStore::builder().history(3).build();
    put(&store, "quiet/1", None).await;
    let mut quiet = watch(&store, "quiet/", store.revision()).await;
    for _ in 0..10 {
        put(&store, "loud", None).await;
    }
    assert_eq!(ready(&mut quiet), []);
    put(&store, "quiet/2", None).await;
    assert_eq!(all_shown(&ready(&mut quiet)), ["12: +quiet/2"]);
}

#[tokio::test]
async fn compaction_ends_only_watches_that_had_not_yielded_all_compacted_changes() {
    let store = MemoryStore::new();
    let (mut none, mut half, mut all) =
        (watch(&store, "a", Revision::ZERO).await, watch_all(&store).await, watch_all(&store).await);
    put(&store, "a1", None).await;
    assert_eq!(ready(&mut half).len(), 1);
    put(&store, "a2", None).await;
    put(&store, "b", None).await;
    assert_eq!(ready(&mut all).len(), 3);
    let mut early = watch(&store, "a", Revision::ZERO).await;
    assert_eq!(ready(&mut early).len(), 2, "the third change is under another prefix");

    store.compact(Revision::new(3));
    put(&store, "a3", None).await;
    assert_eq!(end(&mut none).await, compacted(3));
    assert_eq!(end(&mut half).await, compacted(3));
    assert_eq!(all_shown(&ready(&mut all)), ["4: +a3"]);
    assert_eq!(all_shown(&ready(&mut early)), ["4: +a3"]);
}

#[tokio::test]
async fn a_new_watch_that_starts_before_the_compacted_revision_ends() {
    let store = MemoryStore::new();
    for key in ["a", "b", "c", "d"] {
        put(&store, key, None).await;
    }
    store.compact(Revision::new(2));
    assert_eq!(end(&mut watch(&store, "", Revision::new(1)).await).await, compacted(2));
    assert_eq!(
        end(&mut watch(&store, "elsewhere", Revision::new(1)).await).await,
        compacted(2),
        "the store can no longer tell whether it missed a change"
    );
    assert_eq!(all_shown(&ready(&mut watch(&store, "", Revision::new(2)).await)), ["3: +c", "4: +d"]);
    assert_eq!(store.read("").await.unwrap().entries.len(), 4, "entries are kept");
}

#[tokio::test]
async fn compaction_stops_at_the_current_revision() {
    let store = MemoryStore::new();
    let mut watch = watch_all(&store).await;
    put(&store, "a", None).await;
    assert_eq!(ready(&mut watch).len(), 1);
    store.compact(Revision::new(99));
    assert_eq!(put(&store, "b", None).await, Revision::new(2));
    assert_eq!(all_shown(&ready(&mut watch)), ["2: +b"]);
}

#[tokio::test]
async fn without_history_a_change_ends_every_watch_of_its_prefix() {
    let store = MemoryStore::builder().history(0).build();
    let (mut touched, mut quiet) = (watch_all(&store).await, watch(&store, "q", Revision::ZERO).await);
    assert_eq!(put(&store, "a", None).await, Revision::new(1));
    assert_eq!(end(&mut touched).await, compacted(1));
    assert_eq!(ready(&mut quiet), []);
}
