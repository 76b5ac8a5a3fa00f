//! Tests of watches that break, hang or miss changes on command.

use clustering_core::store::{Batch, CoordinationStore, Revision, WatchEnd};
use clustering_testkit::faulty::FaultyStore;
use futures_util::StreamExt;
use tokio::task::yield_now;

use crate::{SECOND, put, ready, revision, stores, watch};

fn is_disconnected(item: Option<Option<Result<Batch, WatchEnd>>>) -> bool {
    matches!(item, Some(Some(Err(WatchEnd::Disconnected { .. }))))
}

#[tokio::test(start_paused = true)]
async fn cut_ends_open_watches_for_good() {
    let (store, faulty) = stores();
    let mut with_backlog = watch(&faulty, "").await;
    let mut waiting = watch(&faulty, "elsewhere").await;
    let waiter = tokio::spawn(async move { (waiting.next().await, waiting.next().await) });
    yield_now().await;
    store.commit(put("k")).await.unwrap();
    faulty.cut();
    faulty.heal();
    assert!(is_disconnected(ready(&mut with_backlog)), "even though the store was healed before the poll");
    assert_eq!(ready(&mut with_backlog), Some(None));
    let (end, after) = waiter.await.unwrap();
    assert!(is_disconnected(Some(end)));
    assert_eq!(after, None);
    assert_eq!((store.open_watches(), faulty.open_watches()), (0, 0));
    assert_eq!(revision(ready(&mut watch(&faulty, "").await)), 1, "a new watch works");
}

#[tokio::test(start_paused = true)]
async fn hung_watches_yield_nothing_until_healed() {
    for hang in [FaultyStore::hang, FaultyStore::hang_replies] {
        let (store, faulty) = stores();
        let mut watch = watch(&faulty, "").await;
        hang(&faulty);
        store.commit(put("a")).await.unwrap();
        let waiter = tokio::spawn(async move { watch.next().await });
        tokio::time::sleep(1000 * SECOND).await;
        assert!(!waiter.is_finished());
        faulty.heal();
        assert_eq!(revision(Some(waiter.await.unwrap())), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn broken_watches_end_but_calls_continue() {
    let (store, faulty) = stores();
    let mut broken = watch(&faulty, "").await;
    faulty.commit(put("k")).await.unwrap();
    faulty.break_watches();
    assert!(is_disconnected(ready(&mut broken)));
    assert_eq!(store.open_watches(), 0);
    assert_eq!(revision(ready(&mut watch(&faulty, "").await)), 1);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_watch_ends_at_once() {
    for command in [FaultyStore::cut, FaultyStore::break_watches] {
        let (_, faulty) = stores();
        let mut watch = watch(&faulty, "").await;
        let waiter = tokio::spawn(async move { watch.next().await });
        yield_now().await;
        command(&faulty);
        assert!(is_disconnected(Some(waiter.await.unwrap())));
    }
}

#[tokio::test(start_paused = true)]
async fn compacted_watches_name_the_revision_after_the_last_yielded_one() {
    let (_, faulty) = stores();
    let mut compacted = watch(&faulty, "").await;
    faulty.commit(put("a")).await.unwrap();
    faulty.commit(put("b")).await.unwrap();
    assert_eq!(revision(ready(&mut compacted)), 1);
    faulty.compact_watches();
    faulty.break_watches();
    let end = WatchEnd::Compacted { compacted: Revision::new(2) };
    assert_eq!(ready(&mut compacted), Some(Some(Err(end))), "the first requested end applies");
    assert_eq!(ready(&mut compacted), Some(None));
}

#[tokio::test(start_paused = true)]
async fn watches_of_one_prefix_can_end_or_stall_separately() {
    let (_, faulty) = stores();
    let (mut view, mut acks) = (watch(&faulty, "ns/view/").await, watch(&faulty, "ns/ready/").await);
    let both = put("ns/view/a").put("ns/ready/a", "", None);
    faulty.stall_watches("ns/ready/");
    faulty.commit(both).await.unwrap();
    assert_eq!(revision(ready(&mut view)), 1);
    assert_eq!(ready(&mut acks), None);

    let waiter = tokio::spawn(async move { (acks.next().await, acks) });
    yield_now().await;
    faulty.heal();
    let (item, mut acks) = waiter.await.unwrap();
    assert_eq!(revision(Some(item)), 1);

    faulty.end_watches("ns/view/", WatchEnd::Rewound { revision: Revision::ZERO });
    assert_eq!(ready(&mut view), Some(Some(Err(WatchEnd::Rewound { revision: Revision::ZERO }))));
    assert_eq!(ready(&mut acks), None);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_underlying_watch_is_passed_on() {
    let (store, faulty) = stores();
    let mut ended = watch(&faulty, "").await;
    faulty.commit(put("k")).await.unwrap();
    store.compact(Revision::new(1));
    let end = WatchEnd::Compacted { compacted: Revision::new(1) };
    assert_eq!(ready(&mut ended), Some(Some(Err(end))));
    assert_eq!(ready(&mut ended), Some(None));
    assert_eq!(faulty.open_watches(), 0);
}

#[tokio::test(start_paused = true)]
async fn dropping_a_watch_frees_it_in_both_stores() {
    let (store, faulty) = stores();
    let (polled, fresh) = (watch(&faulty, "").await, watch(&faulty, "").await);
    let mut polled = polled;
    assert_eq!(ready(&mut polled), None);
    assert_eq!((store.open_watches(), faulty.open_watches()), (2, 2));
    drop((polled, fresh));
    assert_eq!((store.open_watches(), faulty.open_watches()), (0, 0));
}
