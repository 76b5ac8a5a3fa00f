use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Wake, Waker},
};

use clustering_core::store::{CoordinationStore, Revision, Txn, WatchEnd, WatchStream};
use clustering_memory::MemoryStore;

use crate::{all_shown, batch, end, put, ready, shown, watch, watch_all};

/// A waker that counts how often it is woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Wakes {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Polls a watch once. True if the poll was ready.
fn poll(watch: &mut WatchStream, waker: &Waker) -> bool {
    watch.as_mut().poll_next(&mut Context::from_waker(waker)).is_ready()
}

#[tokio::test]
async fn a_watch_from_revision_zero_yields_every_change() {
    let store = MemoryStore::new();
    assert_eq!(store.read("").await.unwrap().revision, Revision::ZERO);
    assert_eq!(put(&store, "a", None).await, Revision::new(1), "larger than the revision of the read");
    store.commit(Txn::new().put("b", "", None).delete("a").delete("never was")).await.unwrap();
    assert_eq!(all_shown(&ready(&mut watch_all(&store).await)), ["1: +a", "2: +b -a"]);
}

#[tokio::test]
async fn a_watch_yields_only_later_changes_under_its_prefix() {
    let store = MemoryStore::new();
    put(&store, "view/a", None).await;
    let mut watch = watch(&store, "view/", store.revision()).await;
    store.commit(Txn::new().put("ready/b", "", None).put("view/b", "", None)).await.unwrap();
    put(&store, "ready/c", None).await;
    put(&store, "view", None).await;
    put(&store, "view/", None).await;
    assert_eq!(all_shown(&ready(&mut watch)), ["2: +view/b", "5: +view/"]);
}

#[tokio::test]
async fn a_commit_wakes_only_the_watches_of_its_prefix() {
    let store = MemoryStore::new();
    let (view, acks) = (Arc::new(Wakes::default()), Arc::new(Wakes::default()));
    let mut watches = Vec::new();
    for _ in 0..500 {
        for (prefix, wakes) in [("view/", &view), ("ready/", &acks)] {
            let mut watch = watch(&store, prefix, Revision::ZERO).await;
            assert!(!poll(&mut watch, &wakes.clone().into()));
            watches.push(watch);
        }
    }
    put(&store, "ready/a", None).await;
    assert_eq!((view.count(), acks.count()), (0, 500));
    put(&store, "ready/b", None).await;
    assert_eq!(
        (view.count(), acks.count()),
        (0, 500),
        "a woken watch is not woken again before it is polled"
    );
    put(&store, "view/a", None).await;
    assert_eq!((view.count(), acks.count()), (500, 500));
    for watch in &mut watches {
        assert!(!ready(watch).is_empty());
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_watch_that_sees_an_expiry_first_wakes_the_others_but_not_itself() {
    let store = MemoryStore::new();
    let lease = crate::lease(&store, crate::SECOND).await;
    put(&store, "k", Some(&lease)).await;
    let (first, second) = (Arc::new(Wakes::default()), Arc::new(Wakes::default()));
    let mut watches = [watch(&store, "", store.revision()).await, watch(&store, "k", store.revision()).await];
    // Without a runtime there is no timer, so that a watch can only be woken by the store.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert!(!poll(&mut watches[0], &first.clone().into()));
            assert!(!poll(&mut watches[1], &second.clone().into()));
        });
    });
    tokio::time::advance(crate::SECOND).await;
    assert!(poll(&mut watches[0], &first.clone().into()));
    assert_eq!((first.count(), second.count()), (0, 1));
    assert!(poll(&mut watches[1], &second.clone().into()));
}

#[tokio::test]
async fn watches_of_the_same_prefix_may_start_at_different_revisions() {
    let store = MemoryStore::new();
    for key in ["a/1", "b/1", "a/2"] {
        put(&store, key, None).await;
    }
    let mut early = watch(&store, "a/", Revision::ZERO).await;
    let mut late = watch(&store, "a/", Revision::new(2)).await;
    let mut latest = watch(&store, "a/", Revision::new(3)).await;
    put(&store, "a/3", None).await;
    assert_eq!(all_shown(&ready(&mut early)), ["1: +a/1", "3: +a/2", "4: +a/3"]);
    assert_eq!(all_shown(&ready(&mut late)), ["3: +a/2", "4: +a/3"]);
    assert_eq!(all_shown(&ready(&mut latest)), ["4: +a/3"]);
}

#[tokio::test]
async fn dropping_a_watch_frees_it() {
    let store = MemoryStore::new();
    let waker = Arc::new(Wakes::default());
    let mut waiting = watch_all(&store).await;
    assert!(!poll(&mut waiting, &waker.clone().into()));
    let never_polled = watch_all(&store).await;
    let elsewhere = watch(&store, "elsewhere/", Revision::ZERO).await;
    assert_eq!((store.open_watches(), Arc::strong_count(&waker)), (3, 2));
    drop(waiting);
    assert_eq!((store.open_watches(), Arc::strong_count(&waker)), (2, 1), "the waker is gone too");
    drop((never_polled, elsewhere));
    assert_eq!(store.open_watches(), 0);
}

#[tokio::test]
async fn a_watch_that_has_ended_holds_no_resources() {
    let store = MemoryStore::new();
    let mut ended = watch_all(&store).await;
    put(&store, "k", None).await;
    store.compact(store.revision());
    assert_eq!(store.open_watches(), 1, "the watch ends only when it is polled");
    end(&mut ended).await;
    assert_eq!(store.open_watches(), 0);
    drop(ended);
    assert_eq!(store.open_watches(), 0);
}

#[tokio::test]
async fn a_watch_from_a_future_revision_ends_even_if_the_store_has_reached_it() {
    let store = MemoryStore::new();
    let mut ahead = watch(&store, "", Revision::new(1)).await;
    put(&store, "a", None).await;
    put(&store, "b", None).await;
    assert_eq!(end(&mut ahead).await, WatchEnd::Rewound { revision: Revision::ZERO });
}

/// Wakers run foreign code, which may drop a watch or call the store. Either would deadlock while the store is locked.
#[tokio::test]
async fn wakers_run_while_the_store_is_unlocked() {
    struct Foreign {
        store: MemoryStore,
        seen: AtomicUsize,
        _watch: Mutex<WatchStream>,
    }
    impl Wake for Foreign {
        fn wake(self: Arc<Self>) {
            self.seen.fetch_add(self.store.open_watches(), Ordering::Relaxed);
        }
    }
    let store = MemoryStore::new();
    let mut waiting = watch_all(&store).await;
    let _watch = Mutex::new(watch_all(&store).await);
    let foreign = Arc::new(Foreign { store: store.clone(), seen: AtomicUsize::new(0), _watch });
    assert!(!poll(&mut waiting, &foreign.clone().into()));
    put(&store, "k", None).await;
    assert_eq!(foreign.seen.load(Ordering::Relaxed), 2, "the waker was woken and could call the store");
    assert!(poll(&mut waiting, Waker::noop()));
    assert!(!poll(&mut waiting, &foreign.into()));
    assert!(!poll(&mut waiting, Waker::noop()), "replacing the waker drops a watch");
    assert_eq!(store.open_watches(), 1);
}

#[tokio::test]
async fn calls_and_backlogs_yield_to_other_tasks() {
    let store = MemoryStore::new();
    let turns = Arc::new(AtomicUsize::new(0));
    let other = tokio::spawn({
        let turns = turns.clone();
        async move {
            loop {
                turns.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        }
    });
    for _ in 0..1000 {
        put(&store, "k", None).await;
    }
    let while_writing = turns.swap(0, Ordering::Relaxed);
    let mut watch = watch_all(&store).await;
    for _ in 0..1000 {
        batch(&mut watch).await;
    }
    let while_reading = turns.load(Ordering::Relaxed);
    other.abort();
    assert!(while_writing > 0 && while_reading > 0, "{while_writing}, {while_reading}");
}

#[tokio::test]
async fn a_thousand_watches_see_the_same_changes() {
    let store = MemoryStore::new();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let mut watch = watch(&store, "view/", Revision::ZERO).await;
        tasks.spawn(async move {
            let mut seen = Vec::new();
            while seen.last().is_none_or(|last| last != "40: +view/19") {
                seen.push(shown(&batch(&mut watch).await));
            }
            seen
        });
    }
    for n in 0..20 {
        put(&store, &format!("ready/{n}"), None).await;
        put(&store, &format!("view/{n}"), None).await;
        tokio::task::yield_now().await;
    }
    let expected: Vec<_> = (0..20).map(|n| format!("{}: +view/{n}", 2 * n + 2)).collect();
    while let Some(seen) = tasks.join_next().await {
        assert_eq!(seen.unwrap(), expected);
    }
    assert_eq!((store.open_watches(), store.stats().batches), (0, 20_000));
}

#[tokio::test]
async fn a_watch_outlives_the_last_handle() {
    let store = MemoryStore::new();
    let mut watch = watch_all(&store).await;
    put(&store, "k", None).await;
    drop(store);
    assert_eq!(shown(&batch(&mut watch).await), "1: +k");
    assert!(!poll(&mut watch, Waker::noop()), "the watch is still open although nothing can change any more");
}
