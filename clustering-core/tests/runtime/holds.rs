//! P12 as a service sees it: holds, the work and the commits that they protect, and their loss in time.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use clustering_core::{
    Builder, Event, Hold, LostReason, NotHeld, WorkError,
    machine::RequestError,
    runtime::SimulatedSuspends,
    slots::{Slot, SlotSet},
    store::{ErrorKind, Guard, Revision, Txn},
};
use futures_util::FutureExt;
use tokio::{sync::watch, time::Instant};

use crate::common::{
    Cluster, TTL,
    exclusive::{Judge, SLOTS, exclusive, key_of, knows, slots},
    ms, secs, soon, stable,
};

fn write(value: &str) -> Txn {
    Txn::new().put("app/key", value.to_owned(), None)
}

#[tokio::test(start_paused = true)]
async fn p12_a_renewal_in_time_gives_out_new_holds_but_a_lost_hold_stays_lost() {
    let cluster = Cluster::new();
    let a = cluster.start_with("a", exclusive).await;
    stable([&a]).await;
    let slot = slots().next().unwrap();
    let hold = a.hold_slot(slot).unwrap();
    a.line.cut();
    soon("the loss", hold.lost()).await;
    a.line.heal();
    a.log.next("resumed", |event| *event == Event::HoldsResumed).await;
    let again = soon("the hold", a.wait_hold(key_of(slot))).await.unwrap();
    assert!(hold.is_lost() && !again.is_lost() && again.token() == hold.token());
    assert_eq!(a.commit_as_owner(&hold, write("lost")).await, Err(RequestError::NotHeld));
    a.commit_as_owner(&again, write("held")).await.unwrap();
    assert!(a.log.count(|event| matches!(event, Event::SessionLost { .. })) == 0);
}

#[tokio::test(start_paused = true)]
async fn p12_after_a_pause_past_the_ttl_no_hold_is_given_out_before_any_task_has_run() {
    for slept in [TTL * 2 / 3, TTL, secs(3600)] {
        let (cluster, machine) = (Cluster::new(), SimulatedSuspends::new());
        let a = cluster.start_with("a", |builder| exclusive(builder).suspends(&machine)).await;
        stable([&a]).await;
        let slot = slots().next().unwrap();
        let hold = Arc::new(a.hold_slot(slot).unwrap());
        let waiting = tokio::spawn({
            let hold = hold.clone();
            async move { hold.lost().await }
        });
        tokio::task::yield_now().await;
        a.line.hang();
        let resumed = Instant::now();
        machine.suspend(slept);
        // No task has run since the suspend, so only a look at the clock can reveal the loss.
        assert_eq!(a.hold_slot(slot).unwrap_err(), NotHeld::NoSession, "suspended for {slept:?}");
        assert!(!a.owns(key_of(slot)) && a.held_slots().is_empty());
        assert!(hold.is_lost());
        assert_eq!(hold.is_valid(), slept < TTL);
        soon("the loss", waiting).await.unwrap();
        assert_eq!(resumed.elapsed(), secs(0), "woken late after {slept:?}");
        a.line.heal();
        soon("the hold", async {
            while a.hold_slot(slot).is_err() {
                tokio::time::sleep(ms(100)).await;
            }
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn p12_a_commit_as_owner_applies_only_while_the_slot_is_held() {
    let cluster = Cluster::new();
    let a = cluster.start_with("a", exclusive).await;
    stable([&a]).await;
    let holds: Vec<Hold> = slots().map(|slot| a.hold_slot(slot).unwrap()).collect();
    a.commit_as_owner(&holds[0], write("first")).await.unwrap();
    // A failed guard of the user is distinguished from the loss of the slot.
    let wrong = write("second").guard(Guard::absent("app/key"));
    let error = a.commit_as_owner(&holds[0], wrong).await.unwrap_err();
    assert!(
        matches!(&error, RequestError::Store(error) if matches!(error.kind(), ErrorKind::GuardFailed { .. }))
    );
    let guarded = |guards| {
        (0..guards).fold(write("third"), |txn, number| txn.guard(Guard::absent(format!("app/{number}"))))
    };
    a.commit_as_owner(&holds[0], guarded(15)).await.unwrap();
    let error = a.commit_as_owner(&holds[0], guarded(16)).await.unwrap_err();
    assert!(
        matches!(&error, RequestError::Store(error) if error.kind() == ErrorKind::Invalid),
        "one guard is needed for the fence: {error}"
    );
    let reserved = Txn::new().put("cluster/view/released", "{}", None);
    let error = a.commit_as_owner(&holds[0], reserved).await.unwrap_err();
    assert!(matches!(error, RequestError::Reserved { .. }), "{error}");
    let b = cluster.start_with("b", exclusive).await;
    knows(&a, 2).await;
    let kept = a.held_slots();
    assert_eq!(kept.len(), usize::from(SLOTS / 2));
    for hold in &holds {
        let result = soon("a result", a.commit_as_owner(hold, write("after"))).await;
        match kept.contains(hold.slot()) {
            true => drop(result.unwrap()),
            false => assert_eq!(result, Err(RequestError::NotHeld)),
        }
    }
    drop((holds, b));
}

/// The version changes while the commit is in flight, before the node sees the change.
#[tokio::test(start_paused = true)]
async fn p12_a_late_commit_as_owner_applies_only_if_the_node_still_holds_the_slot() {
    let cluster = Cluster::new();
    let leader = cluster.start_with("leader", exclusive).await;
    let a = cluster.start_with("a", exclusive).await;
    stable([&leader, &a]).await;
    let holds: Vec<Hold> = a.held_slots().iter().map(|slot| a.hold_slot(slot).unwrap()).collect();
    let before = a.newest_version();
    a.line.stall_watches("cluster/view/");
    let b = cluster.start_with("b", exclusive).await;
    knows(&leader, 3).await;
    assert_eq!(a.newest_version(), before);
    let commits: Vec<_> = holds
        .into_iter()
        .map(|hold| {
            let a = a.cluster.clone();
            tokio::spawn(async move {
                let result = a.commit_as_owner(&hold, write("late")).await;
                (hold.slot(), result)
            })
        })
        .collect();
    tokio::time::sleep(ms(20)).await;
    a.line.heal();
    stable([&leader, &a, &b]).await;
    let (mut applied, mut refused) = (0, 0);
    for commit in commits {
        let (slot, result) = soon("the commit", commit).await.unwrap();
        match a.held_slots().contains(slot) {
            true => {
                result.unwrap();
                applied += 1;
            }
            false => {
                assert_eq!(result, Err(RequestError::NotHeld), "slot {slot}");
                refused += 1;
            }
        }
    }
    assert!(applied > 0 && refused > 0, "{applied} and {refused}");
}

#[tokio::test(start_paused = true)]
async fn work_on_a_held_key_returns_its_result_and_then_drops_the_hold() {
    let cluster = Cluster::new();
    let a = cluster.start_with("a", exclusive).await;
    let token = soon("the work", a.while_held("key", |hold| async move { hold.token() })).await.unwrap();
    assert!(token > Revision::ZERO);
    let b = cluster.start_with("b", exclusive).await;
    stable([&a, &b]).await;
    let key = key_of(b.held_slots().iter().next().unwrap());
    let error = soon("the work", a.while_held(&key, |_| async {})).await.unwrap_err();
    assert!(matches!(error, WorkError::NotHeld(NotHeld::Elsewhere { .. })), "{error}");
}

#[tokio::test(start_paused = true)]
async fn p12_work_that_ignores_the_loss_is_dropped_before_the_node_has_to_leave() {
    let cluster = Cluster::new();
    let a = cluster.start_with("a", |builder| exclusive(builder).release_timeout(secs(20))).await;
    stable([&a]).await;
    let all: Vec<_> = slots()
        .map(|slot| {
            let a = a.cluster.clone();
            tokio::spawn(async move { a.while_held(key_of(slot), |_| std::future::pending::<()>()).await })
        })
        .collect();
    tokio::time::sleep(ms(1)).await;
    let joined = Instant::now();
    let b = cluster.start_with("b", exclusive).await;
    stable([&a, &b]).await;
    assert!(joined.elapsed() >= secs(18) && joined.elapsed() < secs(20), "{:?}", joined.elapsed());
    assert_eq!(a.log.count(|event| matches!(event, Event::SessionLost { .. })), 0);
    let ended: Vec<_> = all.iter().filter(|task| task.is_finished()).collect();
    assert_eq!(ended.len(), usize::from(SLOTS / 2));
    let (mut dropped, mut running) = (0, 0);
    for task in all {
        if task.is_finished() {
            assert_eq!(task.await.unwrap(), Err(WorkError::Dropped));
            dropped += 1;
        } else {
            running += 1;
            task.abort();
        }
    }
    assert_eq!((dropped, running), (4, 4));
}

/// This event is the only sign that a service ignores the loss of its slots.
#[tokio::test(start_paused = true)]
async fn each_task_that_is_dropped_because_it_ignores_the_loss_of_its_slot_is_an_event() {
    let cluster = Cluster::new();
    let a = cluster.start_with("a", |builder| exclusive(builder).release_timeout(secs(20))).await;
    a.for_each_held_slot(|_hold| std::future::pending());
    stable([&a]).await;
    let b = cluster.start_with("b", exclusive).await;
    b.for_each_held_slot(|hold| async move { hold.lost().await });
    stable([&a, &b]).await;
    let dropped = |event: &Arc<Event>| match **event {
        Event::WorkDropped { slot, after } => Some((slot, after)),
        _ => None,
    };
    let reported: Vec<_> = a.log.all().iter().filter_map(dropped).collect();
    assert_eq!(reported.iter().map(|(slot, _)| *slot).collect::<SlotSet>(), b.held_slots());
    assert_eq!(reported.len(), 4);
    assert!(reported.iter().all(|(_, after)| (secs(18)..secs(18) + ms(5)).contains(after)), "{reported:?}");
    b.stop().await.unwrap();
    assert!(b.log.all().iter().all(|event| dropped(event).is_none()));
}

#[tokio::test(start_paused = true)]
async fn p12_work_that_ignores_the_end_of_the_session_is_dropped_when_its_hold_is_void() {
    let cluster = Cluster::new();
    let a = cluster.start_with("a", |builder| exclusive(builder).release_timeout(None)).await;
    stable([&a]).await;
    let left = a.session_left();
    let cut = Instant::now();
    let work = tokio::spawn({
        let a = a.cluster.clone();
        async move { a.while_held("key", |_| std::future::pending::<()>()).await }
    });
    a.line.cut();
    assert_eq!(soon("the end of the work", work).await.unwrap(), Err(WorkError::Dropped));
    let passed = cut.elapsed();
    assert!(passed >= left && passed < left + ms(10), "{passed:?} instead of {left:?}");
}

#[tokio::test(start_paused = true)]
async fn p12_each_held_slot_has_one_task_that_ends_with_the_slot() {
    let (cluster, judge) = (Cluster::new(), Judge::default());
    let all: SlotSet = slots().collect();
    let a = cluster.start_with("a", exclusive).await;
    judge.follow(&a, ms(50));
    let busy = async |expected: &BTreeMap<&str, usize>| {
        soon("the tasks", async {
            loop {
                let working = judge.working();
                let of = |name: &str| working.values().flatten().filter(|node| *node == name).count();
                if expected.iter().all(|(name, tasks)| of(name) == *tasks) && judge.slots() == all {
                    return;
                }
                tokio::time::sleep(ms(10)).await;
            }
        })
        .await;
    };
    busy(&[("a", 8)].into()).await;
    let b = cluster.start_with("b", exclusive).await;
    judge.follow(&b, ms(500));
    busy(&[("a", 4), ("b", 4)].into()).await;
    let c = cluster.start_with("c", exclusive).await;
    judge.follow(&c, ms(0));
    stable([&a, &b, &c]).await;
    b.stop().await.unwrap();
    busy(&[("a", 4), ("c", 4)].into()).await;
    a.crash();
    busy(&[("c", 8)].into()).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_returns_or_panics_is_started_again_with_the_next_acquisition() {
    let cluster = Cluster::new();
    let a = cluster.start_with("a", exclusive).await;
    stable([&a]).await;
    let started = Arc::new(Mutex::new(BTreeMap::<Slot, usize>::new()));
    let counted = started.clone();
    let mut tasks = a.for_each_held_slot(move |hold| {
        *counted.lock().unwrap().entry(hold.slot()).or_default() += 1;
        let panics = hold.slot().number().is_multiple_of(2);
        async move { assert!(!panics, "on purpose") }
    });
    let b = cluster.start_with("b", exclusive).await;
    stable([&a, &b]).await;
    let moved = b.held_slots();
    b.stop().await.unwrap();
    stable([&a]).await;
    a.stop().await.unwrap();
    soon("the end of the tasks", tasks.ended()).await;
    soon("the end, again", tasks.ended()).await;
    for (slot, count) in started.lock().unwrap().iter() {
        assert_eq!(*count, if moved.contains(*slot) { 2 } else { 1 }, "slot {slot}");
    }
    assert_eq!(started.lock().unwrap().len(), usize::from(SLOTS));
}

#[tokio::test(start_paused = true)]
async fn all_waiters_get_a_hold_and_a_dropped_wait_leaves_no_hold() {
    let cluster = Cluster::new();
    let (a, gate) = {
        let (gate, passes) = watch::channel(false);
        let stabilize = move |_| {
            let mut passes = passes.clone();
            async move { passes.wait_for(|open| *open).await.is_ok() }
        };
        (cluster.start_with("a", |builder| exclusive(builder).stabilize(stabilize)).await, gate)
    };
    knows(&a, 1).await;
    assert!(a.wait_hold("key").now_or_never().is_none());
    let waiting: Vec<_> = (0..5)
        .map(|_| {
            let a = a.cluster.clone();
            tokio::spawn(async move { a.wait_hold("key").await })
        })
        .collect();
    tokio::time::sleep(secs(5)).await;
    assert_eq!(a.hold("key").unwrap_err(), NotHeld::Moving);
    gate.send(true).unwrap();
    let mut holds = Vec::new();
    for task in waiting {
        holds.push(soon("the hold", task).await.unwrap().unwrap());
    }
    // A wait in progress ends when the node stops.
    drop(holds);
    a.stop().await.unwrap();
    assert_eq!(soon("an answer", a.wait_hold("key")).await.unwrap_err(), NotHeld::Stopping);
}

/// A process that leaks a hold must not keep a cluster from handing slots over, even if it leads.
#[tokio::test(start_paused = true)]
async fn p12_slots_whose_holds_are_never_dropped_are_acquired_by_others_after_the_release_timeout() {
    let cluster = Cluster::new();
    let a = cluster.start_with("a", |builder| exclusive(builder).release_timeout(secs(20))).await;
    stable([&a]).await;
    let leaked: Vec<Hold> = slots().map(|slot| a.hold_slot(slot).unwrap()).collect();
    let joined = Instant::now();
    let b = cluster.start_with("b", exclusive).await;
    let given_up = Event::SessionLost { reason: LostReason::ReleaseTimeout };
    a.log.next("the end of the session", |event| *event == given_up).await;
    soon("a slot of b", b.log.next("acquired", |event| matches!(event, Event::SlotsAcquired { .. }))).await;
    assert!(leaked.iter().all(|hold| !hold.is_valid()), "b acquires slots while holds of a are valid");
    stable([&a, &b]).await;
    assert_eq!((a.held_slots().len(), b.held_slots().len()), (4, 4));
    // The time limit for releasing, the time limit for stopping, the TTL, and a moment to rejoin.
    assert!(joined.elapsed() < secs(20 + 30) + TTL + secs(5), "{:?}", joined.elapsed());
    assert!(leaked.iter().all(|hold| hold.is_lost() && !hold.is_valid()));
}

#[tokio::test(start_paused = true)]
async fn a_hold_does_not_keep_its_node_alive() {
    let cluster = Cluster::new();
    let impatient =
        |builder: Builder| exclusive(builder).configure(|config| config.stop_timeout = Some(secs(1)));
    let a = cluster.start_with("a", impatient).await;
    stable([&a]).await;
    let (hold, log) = (a.hold("key").unwrap(), a.log.clone());
    drop(a);
    soon("the end of the node", log.ended()).await;
    assert!(hold.is_lost() && hold.is_valid(), "the slot is protected until the lease has expired");
    soon("the end of the hold", hold.void()).await;
    assert!(!hold.is_valid());
}

#[tokio::test(start_paused = true)]
async fn a_key_that_no_node_may_own_is_unowned_until_one_may() {
    let cluster = Cluster::new();
    let a = cluster.start_with("a", |builder| exclusive(builder).weight(0)).await;
    let version = stable([&a]).await;
    assert_eq!(a.hold("key").unwrap_err(), NotHeld::Unowned);
    assert_eq!(soon("an answer", a.wait_hold("key")).await.unwrap_err(), NotHeld::Unowned);
    a.set_metadata([("weight".to_owned(), "1".to_owned())].into()).await.unwrap();
    soon("a version", a.wait_stable_after(version)).await.unwrap();
    assert!(a.hold("key").is_ok());
}
