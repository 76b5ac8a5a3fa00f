//! Tests of calls that fail, hang, are late or lose their replies on command.

use std::time::Duration;

use clustering_core::store::{CoordinationStore, CoordinationStoreExt, ErrorKind, Guard, Revision, Txn};
use clustering_testkit::faulty::{Call, FaultyStore};
use futures_util::FutureExt;
use tokio::{task::yield_now, time::Instant};

use crate::{SECOND, all_kinds, kind, put, ready, revision, stores, watch};

/// Returns a predicate that is true for commits that write a key.
fn writes(key: &'static str) -> impl FnMut(&Txn) -> bool + Send + 'static {
    move |txn| txn.operations().iter().any(|operation| operation.key().as_str() == key)
}

#[tokio::test(start_paused = true)]
async fn cut_fails_every_call_and_the_store_sees_none() {
    let (store, faulty) = stores();
    faulty.cut();
    let before = store.stats();
    assert_eq!(all_kinds(&faulty).await, vec![Some(ErrorKind::Unreachable); 6]);
    assert_eq!(store.stats(), before);
    for call in Call::ALL {
        assert_eq!((faulty.attempted(call), faulty.passed(call)), (1, 0), "{call:?}");
    }
    faulty.heal();
    assert_eq!(all_kinds(&faulty).await, vec![None; 6]);
}

#[tokio::test(start_paused = true)]
async fn calls_to_a_cut_store_fail_after_the_delay() {
    let (_, faulty) = stores();
    faulty.delay(SECOND);
    let start = Instant::now();
    let call = faulty.read("");
    let cut = async {
        tokio::time::sleep(SECOND / 2).await;
        faulty.cut();
    };
    let (result, ()) = tokio::join!(call, cut);
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Unreachable, "cut during the delay");
    assert_eq!(start.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn cutting_one_node_does_not_affect_another() {
    let (store, one) = stores();
    let two = FaultyStore::new(store);
    one.cut();
    assert_eq!(kind(one.read("")).await, ErrorKind::Unreachable);
    two.read("").await.unwrap();
    let same_node = one.clone();
    same_node.heal();
    one.read("").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_hung_call_continues_when_healed() {
    let (store, faulty) = stores();
    faulty.hang();
    let mut call = faulty.commit(put("k"));
    assert!((&mut call).now_or_never().is_none());
    tokio::time::sleep(1000 * SECOND).await;
    assert!((&mut call).now_or_never().is_none());
    assert_eq!(store.revision(), Revision::ZERO);
    faulty.heal();
    assert_eq!(call.await.unwrap(), Revision::new(1));
}

#[tokio::test(start_paused = true)]
async fn a_hung_call_that_is_dropped_never_arrives() {
    let (store, faulty) = stores();
    faulty.hang();
    let dropped = tokio::time::timeout(SECOND, faulty.commit(put("k"))).await;
    assert!(dropped.is_err());
    faulty.heal();
    yield_now().await;
    assert_eq!(store.revision(), Revision::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_hung_call_that_is_cut_has_no_effect() {
    let (store, faulty) = stores();
    faulty.hang();
    let mut call = faulty.commit(put("k"));
    assert!((&mut call).now_or_never().is_none());
    faulty.cut();
    assert_eq!(kind(call).await, ErrorKind::Unreachable);
    assert_eq!(store.revision(), Revision::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_call_with_a_hung_reply_takes_effect() {
    let (store, faulty) = stores();
    faulty.hang_replies();
    let (mut healed, mut cut) = (faulty.commit(put("a")), faulty.commit(put("b")));
    assert!((&mut healed).now_or_never().is_none() && (&mut cut).now_or_never().is_none());
    assert_eq!(store.revision(), Revision::new(2));
    faulty.heal();
    assert_eq!(healed.await.unwrap(), Revision::new(1));
    faulty.cut();
    assert_eq!(kind(cut).await, ErrorKind::OutcomeUnknown);
}

#[tokio::test(start_paused = true)]
async fn a_delay_precedes_the_call_and_does_not_affect_watches() {
    let (store, faulty) = stores();
    let mut watch = watch(&faulty, "").await;
    faulty.delay(SECOND);
    let start = Instant::now();
    let mut call = faulty.commit(put("k"));
    assert!((&mut call).now_or_never().is_none());
    assert_eq!(store.revision(), Revision::ZERO);
    call.await.unwrap();
    assert_eq!(revision(ready(&mut watch)), 1);
    assert_eq!(start.elapsed(), SECOND);
    faulty.delay(Duration::ZERO);
    faulty.read("").await.unwrap();
    assert_eq!(start.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_next_calls_fail_as_requested() {
    let (store, faulty) = stores();
    faulty.fail_next(Call::Read, 2, ErrorKind::Busy);
    faulty.fail_next(Call::Read, 1, ErrorKind::Refused);
    faulty.commit(put("k")).await.unwrap();
    assert_eq!(kind(faulty.read("")).await, ErrorKind::Busy);
    assert_eq!(kind(faulty.read("")).await, ErrorKind::Busy);
    assert_eq!(kind(faulty.read("")).await, ErrorKind::Refused);
    assert_eq!(store.stats().reads, 0);
    faulty.read("").await.unwrap();
    assert_eq!((faulty.attempted(Call::Read), faulty.passed(Call::Read)), (4, 1));
}

#[tokio::test(start_paused = true)]
async fn each_kind_of_call_can_fail() {
    let (store, faulty) = stores();
    let before = store.stats();
    for call in Call::ALL {
        faulty.fail_next(call, 1, ErrorKind::Busy);
    }
    assert_eq!(all_kinds(&faulty).await, vec![Some(ErrorKind::Busy); 6]);
    assert_eq!(store.stats(), before);
    assert_eq!(all_kinds(&faulty).await, vec![None; 6]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_cut_does_not_use_up_a_fault() {
    let (_, faulty) = stores();
    faulty.fail_next(Call::Read, 1, ErrorKind::Busy);
    faulty.cut();
    assert_eq!(kind(faulty.read("")).await, ErrorKind::Unreachable);
    faulty.heal();
    assert_eq!(kind(faulty.read("")).await, ErrorKind::Busy);
}

#[tokio::test(start_paused = true)]
async fn calls_with_lost_replies_take_effect() {
    let (store, faulty) = stores();
    for call in Call::ALL {
        faulty.lose_replies(call, 1);
    }
    assert_eq!(all_kinds(&faulty).await, vec![Some(ErrorKind::OutcomeUnknown); 6]);
    let stats = store.stats();
    assert_eq!((stats.grants, stats.renewals, stats.revokes), (1, 1, 1));
    assert_eq!((stats.reads, stats.watches, stats.commits_effective), (1, 1, 1));
    assert_eq!(store.open_watches(), 0, "a watch that the caller never received is closed");
}

#[tokio::test(start_paused = true)]
async fn the_reply_of_a_refused_commit_is_lost_as_well() {
    let (_, faulty) = stores();
    faulty.commit(put("k")).await.unwrap();
    faulty.lose_replies(Call::Commit, 1);
    let create = put("k").guard(Guard::absent("k"));
    assert_eq!(kind(faulty.commit(create)).await, ErrorKind::OutcomeUnknown);
    let refused = faulty.commits()[1].result.clone().unwrap_err();
    assert_eq!(
        refused.kind(),
        ErrorKind::GuardFailed { revision: Revision::new(1) },
        "the log has the real result"
    );
}

#[tokio::test(start_paused = true)]
async fn a_matching_commit_meets_its_fault_once() {
    let (store, faulty) = stores();
    faulty.lose_reply_of_next_commit_matching(writes("lost"));
    faulty.fail_next_commit_matching(ErrorKind::Busy, writes("busy"));
    faulty.commit(put("other")).await.unwrap();
    assert_eq!(kind(faulty.commit(put("busy"))).await, ErrorKind::Busy);
    assert_eq!(kind(faulty.commit(put("lost"))).await, ErrorKind::OutcomeUnknown);
    assert!(store.get("lost").await.unwrap().is_some());
    assert_eq!(store.get("busy").await.unwrap(), None);
    faulty.commit(put("busy").delete("lost")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_held_commit_arrives_when_it_is_delivered() {
    let (store, faulty) = stores();
    faulty.hold_next_commit_matching(writes("k"));
    faulty.hold_next_commit_matching(writes("l"));
    assert_eq!(kind(faulty.commit(put("k"))).await, ErrorKind::OutcomeUnknown);
    let create = put("l").guard(Guard::absent("l"));
    assert_eq!(kind(faulty.commit(create)).await, ErrorKind::OutcomeUnknown);
    assert_eq!((store.revision(), faulty.passed(Call::Commit)), (Revision::ZERO, 0));
    faulty.commit(put("l")).await.unwrap();

    let delivered = faulty.deliver_held().await;
    assert_eq!(delivered[0].as_ref().unwrap(), &Revision::new(2));
    let refused = ErrorKind::GuardFailed { revision: Revision::new(2) };
    assert_eq!(delivered[1].as_ref().unwrap_err().kind(), refused);
    assert!(faulty.deliver_held().await.is_empty());
    let logged: Vec<_> = faulty.commits().iter().map(|commit| commit.result.is_ok()).collect();
    assert_eq!((logged, faulty.passed(Call::Commit)), (vec![true, true, false], 3));
}

#[tokio::test(start_paused = true)]
async fn the_log_has_all_commits_that_reached_the_store() {
    let (_, faulty) = stores();
    faulty.commit(put("a")).await.unwrap();
    faulty.cut();
    faulty.commit(put("never")).await.unwrap_err();
    faulty.heal();
    faulty.commit(put("b")).await.unwrap();
    let logged: Vec<_> =
        faulty.commits().into_iter().map(|commit| (commit.txn, commit.result.unwrap().get())).collect();
    assert_eq!(logged, [(put("a"), 1), (put("b"), 2)]);
    assert_eq!((faulty.attempted(Call::Commit), faulty.passed(Call::Commit)), (3, 2));
    faulty.clear_log();
    assert_eq!((faulty.attempted(Call::Commit), faulty.passed(Call::Commit)), (0, 0));
    assert!(faulty.commits().is_empty());
}

#[tokio::test(start_paused = true)]
async fn retries_without_a_pause_do_not_block_other_tasks() {
    let (_, faulty) = stores();
    faulty.cut();
    let trying = tokio::spawn({
        let faulty = faulty.clone();
        async move { while faulty.read("").await.is_err() {} }
    });
    yield_now().await;
    faulty.heal();
    trying.await.unwrap();
}
