//! `FaultyStore`: does it do what it is told, and nothing else?

#![allow(clippy::unwrap_used, reason = "what is not as expected fails the test, in helpers too")]

use std::{future::Future, sync::Arc, time::Duration};

use clustering_core::store::{
    Batch, CoordinationStore, CoordinationStoreExt, ErrorKind, Guard, LeaseId, Revision, StoreError, Txn,
    WatchEnd, WatchStream,
};
use clustering_memory::MemoryStore;
use clustering_testkit::{
    conformance::{Bounds, Clock, Harness, Hook},
    faulty::{Call, FaultyStore},
};
use futures_util::{FutureExt, StreamExt};
use tokio::{task::yield_now, time::Instant};

const SECOND: Duration = Duration::from_secs(1);

/// A store, and a faulty one before it.
fn stores() -> (MemoryStore, FaultyStore) {
    let store = MemoryStore::new();
    (store.clone(), FaultyStore::new(store))
}

fn put(key: &str) -> Txn {
    Txn::new().put(key, "value", None)
}

/// Whether a commit writes that key, for the commands that ask.
fn writes(key: &'static str) -> impl FnMut(&Txn) -> bool + Send + 'static {
    move |txn| txn.operations().iter().any(|operation| operation.key().as_str() == key)
}

async fn kind<T: std::fmt::Debug>(call: impl Future<Output = Result<T, StoreError>>) -> ErrorKind {
    call.await.unwrap_err().kind()
}

/// The kind of error of every call, in the order of `Call::ALL`.
async fn all_kinds(store: &FaultyStore) -> Vec<Option<ErrorKind>> {
    let lease = LeaseId::new(1);
    vec![
        store.grant_lease(SECOND).await.err().map(|error| error.kind()),
        store.renew_lease(lease).await.err().map(|error| error.kind()),
        store.revoke_lease(lease).await.err().map(|error| error.kind()),
        store.read("").await.err().map(|error| error.kind()),
        store.watch("", Revision::ZERO).await.err().map(|error| error.kind()),
        store.commit(put("all")).await.err().map(|error| error.kind()),
    ]
}

async fn watch(store: &FaultyStore, prefix: &str) -> WatchStream {
    store.watch(prefix, Revision::ZERO).await.unwrap()
}

/// What the watch has ready, without waiting.
fn ready(watch: &mut WatchStream) -> Option<Option<Result<Batch, WatchEnd>>> {
    watch.next().now_or_never()
}

fn is_disconnected(item: Option<Option<Result<Batch, WatchEnd>>>) -> bool {
    matches!(item, Some(Some(Err(WatchEnd::Disconnected { .. }))))
}

fn revision(item: Option<Option<Result<Batch, WatchEnd>>>) -> u64 {
    item.unwrap().unwrap().unwrap().revision.get()
}

/// Without faults it is a store like any other; cut, it answers as one that is not there.
mod passes_everything {
    use super::*;

    struct Faulty(MemoryStore);

    impl Harness for Faulty {
        fn bounds(&self) -> Bounds {
            let tick = Duration::from_millis(1);
            Bounds {
                clock: Clock::Paused,
                smallest_ttl: SECOND,
                expiry_slack: tick,
                watch_lag: tick,
                call_timeout: SECOND,
            }
        }
        async fn open(&self) -> Arc<dyn CoordinationStore> {
            Arc::new(FaultyStore::new(self.0.clone()))
        }
        async fn compact(&self, revision: Revision) {
            self.0.compact(revision);
        }
        async fn unreachable(&self) -> Hook<Arc<dyn CoordinationStore>> {
            let store = FaultyStore::new(self.0.clone());
            store.cut();
            Hook::Have(Arc::new(store))
        }
        async fn open_watches(&self) -> Hook<usize> {
            Hook::Have(self.0.open_watches())
        }
    }

    clustering_testkit::conformance_tests!(Faulty(MemoryStore::new()));
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
async fn cut_ends_open_watches_for_good() {
    let (store, faulty) = stores();
    let mut with_backlog = watch(&faulty, "").await;
    let mut waiting = watch(&faulty, "elsewhere").await;
    let waiter = tokio::spawn(async move { (waiting.next().await, waiting.next().await) });
    yield_now().await;
    store.commit(put("k")).await.unwrap();
    faulty.cut();
    faulty.heal();
    assert!(is_disconnected(ready(&mut with_backlog)), "although the store was healed before it was polled");
    assert_eq!(ready(&mut with_backlog), Some(None));
    let (end, after) = waiter.await.unwrap();
    assert!(is_disconnected(Some(end)));
    assert_eq!(after, None);
    assert_eq!((store.open_watches(), faulty.open_watches()), (0, 0));
    assert_eq!(revision(ready(&mut watch(&faulty, "").await)), 1, "a new one works");
}

#[tokio::test(start_paused = true)]
async fn cut_answers_after_the_delay() {
    let (_, faulty) = stores();
    faulty.delay(SECOND);
    let start = Instant::now();
    let call = faulty.read("");
    let cut = async {
        tokio::time::sleep(SECOND / 2).await;
        faulty.cut();
    };
    let (result, ()) = tokio::join!(call, cut);
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Unreachable, "cut while on its way");
    assert_eq!(start.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn one_node_is_cut_and_the_other_is_not() {
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
async fn a_hung_call_goes_on_when_healed() {
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
async fn a_hung_call_that_is_cut_did_not_happen() {
    let (store, faulty) = stores();
    faulty.hang();
    let mut call = faulty.commit(put("k"));
    assert!((&mut call).now_or_never().is_none());
    faulty.cut();
    assert_eq!(kind(call).await, ErrorKind::Unreachable);
    assert_eq!(store.revision(), Revision::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_hung_reply_is_of_a_call_that_took_effect() {
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
async fn delay_is_before_the_call_and_not_for_watches() {
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
async fn the_next_calls_fail_as_told() {
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
async fn a_call_that_is_cut_meets_no_fault() {
    let (_, faulty) = stores();
    faulty.fail_next(Call::Read, 1, ErrorKind::Busy);
    faulty.cut();
    assert_eq!(kind(faulty.read("")).await, ErrorKind::Unreachable);
    faulty.heal();
    assert_eq!(kind(faulty.read("")).await, ErrorKind::Busy);
}

#[tokio::test(start_paused = true)]
async fn lost_replies_are_of_calls_that_took_effect() {
    let (store, faulty) = stores();
    for call in Call::ALL {
        faulty.lose_replies(call, 1);
    }
    assert_eq!(all_kinds(&faulty).await, vec![Some(ErrorKind::OutcomeUnknown); 6]);
    let stats = store.stats();
    assert_eq!((stats.grants, stats.renewals, stats.revokes), (1, 1, 1));
    assert_eq!((stats.reads, stats.watches, stats.commits_effective), (1, 1, 1));
    assert_eq!(store.open_watches(), 0, "of a watch that the caller never got nothing remains");
}

#[tokio::test(start_paused = true)]
async fn the_reply_of_a_refused_commit_is_lost_as_well() {
    let (_, faulty) = stores();
    faulty.commit(put("k")).await.unwrap();
    faulty.lose_replies(Call::Commit, 1);
    let create = put("k").guard(Guard::absent("k"));
    assert_eq!(kind(faulty.commit(create)).await, ErrorKind::OutcomeUnknown);
    let refused = faulty.commits()[1].result.clone().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::GuardFailed { revision: Revision::new(1) }, "the log knows");
}

#[tokio::test(start_paused = true)]
async fn a_chosen_commit_meets_its_fault_once() {
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
async fn broken_watches_end_and_calls_go_on() {
    let (store, faulty) = stores();
    let mut broken = watch(&faulty, "").await;
    faulty.commit(put("k")).await.unwrap();
    faulty.break_watches();
    assert!(is_disconnected(ready(&mut broken)));
    assert_eq!(store.open_watches(), 0);
    assert_eq!(revision(ready(&mut watch(&faulty, "").await)), 1);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_watch_is_told_at_once() {
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
async fn compacted_watches_end_after_what_they_yielded() {
    let (_, faulty) = stores();
    let mut compacted = watch(&faulty, "").await;
    faulty.commit(put("a")).await.unwrap();
    faulty.commit(put("b")).await.unwrap();
    assert_eq!(revision(ready(&mut compacted)), 1);
    faulty.compact_watches();
    faulty.break_watches();
    let end = WatchEnd::Compacted { compacted: Revision::new(2) };
    assert_eq!(ready(&mut compacted), Some(Some(Err(end))), "as it was told first");
    assert_eq!(ready(&mut compacted), Some(None));
}

#[tokio::test(start_paused = true)]
async fn watches_of_one_prefix_end_or_stall_alone() {
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
async fn a_watch_that_the_store_ends_ends_here() {
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
async fn dropping_a_watch_frees_it_here_and_there() {
    let (store, faulty) = stores();
    let (polled, fresh) = (watch(&faulty, "").await, watch(&faulty, "").await);
    let mut polled = polled;
    assert_eq!(ready(&mut polled), None);
    assert_eq!((store.open_watches(), faulty.open_watches()), (2, 2));
    drop((polled, fresh));
    assert_eq!((store.open_watches(), faulty.open_watches()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_log_tells_what_was_committed() {
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
async fn who_tries_again_without_a_pause_lets_others_go_on() {
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

/// Faults that come by chance, from a seed.
mod by_chance {
    use clustering_testkit::faulty::{ChanceRecord, Chances, Met};

    use super::*;

    /// What becomes of so many commits.
    async fn commits(store: &FaultyStore, many: usize) -> Vec<Option<ErrorKind>> {
        let mut kinds = Vec::new();
        for n in 0..many {
            let txn = Txn::new().put("k", n.to_string(), None);
            kinds.push(store.commit(txn).await.err().map(|error| error.kind()));
        }
        kinds
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_seed_gives_the_same_faults_whatever_else_is_called() {
        let chances = |seed| Chances::bad_network(seed);
        let run = async |seed, reads: usize| {
            let (_, faulty) = stores();
            faulty.by_chance(chances(seed));
            let mut kinds = Vec::new();
            for _ in 0..10 {
                kinds.extend(commits(&faulty, 20).await);
                for _ in 0..reads {
                    let _ = faulty.read("").await;
                }
            }
            kinds
        };
        let first = run(1, 0).await;
        assert_eq!(first, run(1, 0).await);
        assert_eq!(first, run(1, 3).await, "reads move nothing of it");
        assert_ne!(first, run(2, 0).await);
        assert!(first.contains(&Some(ErrorKind::Unreachable)));
        assert!(first.contains(&Some(ErrorKind::OutcomeUnknown)));
        assert!(first.iter().filter(|kind| kind.is_none()).count() > 150);
    }

    #[tokio::test(start_paused = true)]
    async fn failed_commits_do_nothing_and_lost_replies_lose_nothing_else() {
        let (store, faulty) = stores();
        faulty.by_chance(Chances::new(3).fail(200));
        let kinds = commits(&faulty, 100).await;
        let failed = kinds.iter().filter(|kind| **kind == Some(ErrorKind::Unreachable)).count();
        assert!((5..50).contains(&failed), "{failed}");
        assert_eq!(store.revision(), Revision::new(100 - failed as u64));
        assert_eq!(faulty.passed(Call::Commit), 100 - failed);

        let (store, faulty) = stores();
        faulty.by_chance(Chances::new(3).lose_replies(200));
        let kinds = commits(&faulty, 100).await;
        let lost = kinds.iter().filter(|kind| **kind == Some(ErrorKind::OutcomeUnknown)).count();
        assert!((5..50).contains(&lost), "{lost}");
        assert_eq!(store.revision(), Revision::new(100));
        let met: Vec<_> = faulty.met().iter().map(|record| (record.call, record.met)).collect();
        assert_eq!(met, vec![(Call::Commit, Met::ReplyLost); lost]);
    }

    #[tokio::test(start_paused = true)]
    async fn late_commits_arrive_after_others_that_were_made_later() {
        let (store, faulty) = stores();
        let ms = Duration::from_millis;
        faulty.by_chance(Chances::new(5).late_commits(1000).delay(0, ms(1)..=ms(500)));
        assert_eq!(kind(faulty.commit(put("late"))).await, ErrorKind::OutcomeUnknown);
        let Met::Late(delay) = faulty.met()[0].met else { panic!("{:?}", faulty.met()) };
        assert!(delay >= ms(1) && delay <= ms(500));
        assert_eq!(store.get("late").await.unwrap(), None);
        // From now on nothing is late, but what is on its way still arrives.
        faulty.calm();
        faulty.commit(put("early")).await.unwrap();
        tokio::time::sleep(delay).await;
        yield_now().await;
        assert_eq!(store.get("late").await.unwrap().unwrap().created, Revision::new(2));
    }

    #[tokio::test(start_paused = true)]
    async fn calls_and_answers_are_delayed_within_the_range() {
        let (store, faulty) = stores();
        let ms = Duration::from_millis;
        faulty.by_chance(Chances::new(1).delay(1000, ms(20)..=ms(40)));
        for n in 1..=20 {
            let (begun, mut reached) = (Instant::now(), None);
            let mut call = Box::pin(faulty.commit(put("k")));
            while (&mut call).now_or_never().is_none() {
                if reached.is_none() && store.revision() == Revision::new(n) {
                    reached = Some(begun.elapsed());
                }
                tokio::time::sleep(ms(1)).await;
            }
            let (there, all) = (reached.unwrap(), begun.elapsed());
            assert!(
                there >= ms(20) && there <= ms(42) && all >= ms(40) && all <= ms(84),
                "{there:?} {all:?}"
            );
        }
        faulty.calm();
        let begun = Instant::now();
        faulty.commit(put("k")).await.unwrap();
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_calls_that_are_meant_meet_faults() {
        let (_, faulty) = stores();
        faulty.by_chance(Chances::new(1).fail(1000).break_watches(1000).only([Call::Renew, Call::Read]));
        let kinds = all_kinds(&faulty).await;
        let unreachable = |kind: &Option<ErrorKind>| *kind == Some(ErrorKind::Unreachable);
        let hit: Vec<_> = Call::ALL.into_iter().zip(&kinds).filter(|(_, kind)| unreachable(kind)).collect();
        assert_eq!(hit.iter().map(|(call, _)| *call).collect::<Vec<_>>(), [Call::Renew, Call::Read]);
        let mut open = watch(&faulty, "").await;
        assert_eq!(revision(ready(&mut open)), 1);
    }

    /// Broken again and again, and resumed after what was seen: nothing is missed, nothing comes twice.
    #[tokio::test(start_paused = true)]
    async fn watches_break_between_batches() {
        let (store, faulty) = stores();
        faulty.by_chance(Chances::new(1).break_watches(200).compact_watches(100));
        let (mut seen, mut ends) = (Revision::ZERO, [0, 0]);
        let mut open = watch(&faulty, "").await;
        for n in 1..=200 {
            store.commit(put("k")).await.unwrap();
            loop {
                match open.next().await.unwrap() {
                    Ok(batch) => {
                        assert_eq!(batch.revision, seen.next());
                        seen = batch.revision;
                        break;
                    }
                    Err(WatchEnd::Disconnected { .. }) => ends[0] += 1,
                    Err(end) => {
                        assert_eq!(end, WatchEnd::Compacted { compacted: seen.next() });
                        ends[1] += 1;
                    }
                }
                assert_eq!(ready(&mut open), Some(None));
                open = faulty.watch("", seen).await.unwrap();
            }
            assert_eq!(seen, Revision::new(n));
        }
        assert!(ends[0] > 20 && ends[1] > 8, "{ends:?}");
        let broken = |record: &&ChanceRecord| record.met == Met::WatchBroken;
        assert_eq!(faulty.met().iter().filter(broken).count(), ends[0]);
        assert_eq!(faulty.open_watches(), 1);
    }

    /// What is commanded goes before what comes by chance.
    #[tokio::test(start_paused = true)]
    async fn commands_count_too() {
        let (_, faulty) = stores();
        faulty.by_chance(Chances::new(1).lose_replies(1000));
        faulty.fail_next(Call::Commit, 1, ErrorKind::Refused);
        assert_eq!(kind(faulty.commit(put("k"))).await, ErrorKind::Refused);
        assert_eq!(kind(faulty.commit(put("k"))).await, ErrorKind::OutcomeUnknown);
        faulty.cut();
        assert_eq!(kind(faulty.commit(put("k"))).await, ErrorKind::Unreachable);
    }
}
