//! Tests of random faults from a seed.

use std::time::Duration;

use clustering_core::store::{CoordinationStore, CoordinationStoreExt, ErrorKind, Revision, Txn, WatchEnd};
use clustering_testkit::faulty::{Call, ChanceRecord, Chances, FaultyStore, Met};
use futures_util::{FutureExt, StreamExt};
use tokio::{task::yield_now, time::Instant};

use crate::{all_kinds, kind, put, ready, revision, stores, watch};

/// Makes many commits and returns their errors.
async fn commits(store: &FaultyStore, many: usize) -> Vec<Option<ErrorKind>> {
    let mut kinds = Vec::new();
    for n in 0..many {
        let txn = Txn::new().put("k", n.to_string(), None);
        kinds.push(store.commit(txn).await.err().map(|error| error.kind()));
    }
    kinds
}

#[tokio::test(start_paused = true)]
async fn a_seed_gives_the_same_faults_regardless_of_other_calls() {
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
    assert_eq!(first, run(1, 3).await, "reads do not affect the faults of commits");
    assert_ne!(first, run(2, 0).await);
    assert!(first.contains(&Some(ErrorKind::Unreachable)));
    assert!(first.contains(&Some(ErrorKind::OutcomeUnknown)));
    assert!(first.iter().filter(|kind| kind.is_none()).count() > 150);
}

#[tokio::test(start_paused = true)]
async fn failed_commits_have_no_effect_and_commits_with_lost_replies_take_effect() {
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
    // Later commits are not late any more, but the one on its way still arrives.
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
        assert!(there >= ms(20) && there <= ms(42) && all >= ms(40) && all <= ms(84), "{there:?} {all:?}");
    }
    faulty.calm();
    let begun = Instant::now();
    faulty.commit(put("k")).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn only_calls_of_the_selected_kinds_meet_faults() {
    let (_, faulty) = stores();
    faulty.by_chance(Chances::new(1).fail(1000).break_watches(1000).only([Call::Renew, Call::Read]));
    let kinds = all_kinds(&faulty).await;
    let unreachable = |kind: &Option<ErrorKind>| *kind == Some(ErrorKind::Unreachable);
    let hit: Vec<_> = Call::ALL.into_iter().zip(&kinds).filter(|(_, kind)| unreachable(kind)).collect();
    assert_eq!(hit.iter().map(|(call, _)| *call).collect::<Vec<_>>(), [Call::Renew, Call::Read]);
    let mut open = watch(&faulty, "").await;
    assert_eq!(revision(ready(&mut open)), 1);
}

/// A watch that is broken and resumed many times neither misses nor repeats a change.
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

/// Requested faults take precedence over random ones.
#[tokio::test(start_paused = true)]
async fn requested_faults_take_precedence_over_random_ones() {
    let (_, faulty) = stores();
    faulty.by_chance(Chances::new(1).lose_replies(1000));
    faulty.fail_next(Call::Commit, 1, ErrorKind::Refused);
    assert_eq!(kind(faulty.commit(put("k"))).await, ErrorKind::Refused);
    assert_eq!(kind(faulty.commit(put("k"))).await, ErrorKind::OutcomeUnknown);
    faulty.cut();
    assert_eq!(kind(faulty.commit(put("k"))).await, ErrorKind::Unreachable);
}
