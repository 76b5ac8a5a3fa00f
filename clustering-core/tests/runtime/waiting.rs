//! Waiting for leadership and its end, for versions, and for the end of a node, also inside callbacks; and writes of an
//! earlier term.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use clustering_core::{
    Builder, Ended, Event, InCallback, NotHeld, Release, Stabilization, Stable, StopError, StopReason,
    WaitError, WorkError,
    machine::{Phase, RequestError},
    store::{CoordinationStore, CoordinationStoreExt, ErrorKind, Revision, Txn},
};
use futures_util::{FutureExt, StreamExt};
use tokio::time::Instant;

use crate::common::{
    Cluster, TTL,
    exclusive::{exclusive, key_of, slots},
    secs, soon, stable,
};

fn write(value: &'static str) -> Txn {
    Txn::new().put("app/owner", value, None)
}

#[tokio::test(start_paused = true)]
async fn p6_the_end_of_leadership_is_reported_at_its_deadline_without_the_store() {
    let cluster = Cluster::new();
    let node = cluster.start("a").await;
    let term = soon("the lead", node.wait_leader()).await.unwrap();
    assert_eq!(node.term(), Some(term));

    let left = node.leadership_left();
    let cut = Instant::now();
    node.line.hang();
    soon("the end of the lead", node.wait_deposed(term)).await;
    assert!(!node.is_leader());
    let passed = cut.elapsed();
    assert!(passed >= left && passed < left + TTL / 3, "{passed:?} instead of {left:?}");

    // A renewal before the end of the session: the leadership continues.
    node.line.heal();
    assert_eq!(soon("the lead", node.wait_leader()).await, Ok(term));
}

#[tokio::test(start_paused = true)]
async fn a_resignation_and_the_end_of_the_node_end_the_wait_for_deposition() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.start("a").await, cluster.start("b").await);
    stable([&a, &b]).await;
    let term = a.wait_leader().await.unwrap();
    let (deposed, resigned) = tokio::join!(soon("the end", a.wait_deposed(term)), a.resign());
    assert_eq!((deposed, resigned), ((), Ok(())));

    let term = soon("the next", b.wait_leader()).await.unwrap();
    let (deposed, stopped) = tokio::join!(soon("the end", b.wait_deposed(term)), b.stop());
    assert_eq!((deposed, stopped), ((), Ok(())));
    assert_eq!(b.wait_leader().await.unwrap_err(), WaitError::Ended(Ended(StopReason::Asked)));
}

#[tokio::test(start_paused = true)]
async fn p5_a_write_decided_under_an_earlier_term_of_the_same_node_is_refused() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.start("a").await, cluster.start("b").await);
    stable([&a, &b]).await;
    let first = a.wait_leader().await.unwrap();
    a.commit_under(first, write("a, first term")).await.unwrap();

    a.resign().await.unwrap();
    let second = soon("the lead of b", b.wait_leader()).await.unwrap();
    assert_eq!(a.commit_under(first, write("a")).await, Err(RequestError::NotLeader));
    b.commit_under(second, write("b")).await.unwrap();
    b.resign().await.unwrap();

    let third = soon("the lead of a", a.wait_leader()).await.unwrap();
    assert!(third > second && second > first);
    let Err(RequestError::Store(error)) = a.commit_under(first, write("a, too late")).await else {
        panic!("a write of the first term was accepted under the third")
    };
    assert!(matches!(error.kind(), ErrorKind::GuardFailed { .. }), "{error}");
    assert_eq!(cluster.store.get("app/owner").await.unwrap().unwrap().value, "b");
    a.commit_under(third, write("a, third term")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn wait_stable_after_waits_for_a_later_version() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.start("a").await, cluster.start("b").await);
    let both = stable([&a, &b]).await;
    let (next, stopped) = tokio::join!(soon("the next version", a.wait_stable_after(both)), b.stop());
    stopped.unwrap();
    let next = next.unwrap();
    assert!(next > both);
    assert_eq!((a.wait_stable().await, a.nodes().len()), (Ok(next), 1));
    let (after, _) = tokio::join!(a.wait_stable_after(next), a.stop());
    assert_eq!(after.unwrap_err(), WaitError::Ended(Ended(StopReason::Asked)));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_has_ended_answers_nothing_and_blocks_no_waiting_task() {
    let cluster = Cluster::new();
    let node = cluster.start("a").await;
    stable([&node]).await;
    let (discovery, mut status) = (node.discovery(), node.status());
    let seen = tokio::spawn(async move {
        let mut phases = Vec::new();
        while let Ok(status) = status.changed().await {
            phases.push(status.phase.clone());
        }
        phases
    });
    node.stop().await.unwrap();
    let phases = soon("the end of the channel", seen).await.unwrap();
    assert_eq!(phases.last(), Some(&Phase::Stopped(StopReason::Asked)));

    assert!(!node.cluster_consistent() && !node.now().is_stable() && !node.now().member && !node.is_member());
    assert_eq!((node.leader_node(), node.view(), node.cluster_version()), (None, None, None));
    assert_eq!((node.nodes(), discovery.find("k"), discovery.is_own_node("k")), (vec![], None, false));
    assert!(soon("an answer", node.status().wait_for(|status| status.active_term.is_some())).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_weak_handle_in_a_callback_does_not_keep_its_node_alive() {
    let cluster = Cluster::new();
    let node = cluster
        .start_with("a", |builder| {
            builder.on_stable(|stable: Stable| async move {
                let Some(node) = stable.cluster().upgrade() else { return Ok(()) };
                node.commit_under(stable.term(), write("stable")).await.map(drop)
            })
        })
        .await;
    let own = node.downgrade();
    let mut written = cluster.store.watch("app/owner", Revision::ZERO).await.unwrap();
    soon("the write", written.next()).await.unwrap().unwrap();
    drop(written);
    let log = node.log.clone();
    drop(node);
    soon("the end", log.ended()).await;
    assert!(own.upgrade().is_none());
    assert_eq!(cluster.store.lease_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_the_own_node_inside_a_callback_fails_instead_of_deadlocking() {
    let cluster = Cluster::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let stops = Arc::new(AtomicBool::new(false));
    let (recorded, stopping) = (seen.clone(), stops.clone());
    let change = move |builder: Builder| {
        exclusive(builder).stabilize(move |change: Stabilization| {
            let (recorded, stopping) = (recorded.clone(), stopping.clone());
            async move {
                let own = change.cluster().upgrade().unwrap();
                let in_callback = WaitError::InCallback(InCallback);
                let key = key_of(slots().next().unwrap());
                let results = [
                    own.wait_stable().await == Err(in_callback.clone()),
                    own.wait_stable_after(change.version()).await == Err(in_callback.clone()),
                    own.wait_leader().await == Err(in_callback),
                    own.ended().await == Err(InCallback),
                    own.wait_hold(&key).await.unwrap_err() == NotHeld::InCallback(InCallback),
                    own.wait_hold_at(&key, change.version()).await.unwrap_err()
                        == NotHeld::InCallback(InCallback),
                    own.while_held(&key, |_| async {}).await
                        == Err(WorkError::NotHeld(NotHeld::InCallback(InCallback))),
                ];
                recorded.lock().unwrap().push(results);
                if stopping.load(Ordering::Relaxed) {
                    assert_eq!(own.stop().await, Err(StopError::InCallback));
                }
            }
        })
    };
    let a = cluster.start_with("a", change).await;
    stable([&a]).await;
    assert_eq!(*seen.lock().unwrap(), [[true; 7]]);
    stops.store(true, Ordering::Relaxed);
    a.request_version("again").await.unwrap();
    assert_eq!(soon("the end", a.ended()).await, Ok(Ended(StopReason::Asked)), "the node has stopped");
}

/// The session of an exclusive node ends only after `release`, which waits for the `stabilize` that loads slots. The next
/// session begins only after that.
#[tokio::test(start_paused = true)]
async fn a_callback_that_unregisters_or_registers_its_node_does_not_wait_for_that() {
    let cluster = Cluster::new();
    let results = Arc::new(Mutex::new(Vec::new()));
    let recorded = results.clone();
    let change = move |builder: Builder| {
        exclusive(builder).release(|_: Release| async {}).stabilize(move |change: Stabilization| {
            let recorded = recorded.clone();
            async move {
                let own = change.cluster().upgrade().unwrap();
                let calls = recorded.lock().unwrap().len();
                let result = if calls == 0 { own.unregister().await } else { own.register().await };
                recorded.lock().unwrap().push(result);
            }
        })
    };
    let a = cluster.start_with("a", change).await;
    let started = Instant::now();
    a.log.next("unregistered", |event| *event == Event::Unregistered).await;
    assert!(started.elapsed() < secs(1), "the callback has delayed the end of the session");
    a.register().await.unwrap();
    stable([&a]).await;
    assert_eq!(*results.lock().unwrap(), vec![Err(RequestError::InCallback); 2]);
}

/// A callback may wait for other nodes. A task that it spawns may also wait for its own node.
#[tokio::test(start_paused = true)]
async fn a_callback_may_wait_for_other_nodes_and_spawn_tasks_that_wait() {
    let cluster = Cluster::new();
    let other = cluster.start("other").await;
    let (sender, mut stable_at) = tokio::sync::mpsc::unbounded_channel();
    let (waiting, waited_for) = (sender.clone(), other.cluster.clone());
    let a = cluster
        .start_with("a", move |builder| {
            builder.stabilize(move |change: Stabilization| {
                let (waiting, own) = (waiting.clone(), change.cluster().upgrade().unwrap());
                let is_free = waited_for.ended().now_or_never().is_none();
                tokio::spawn(async move {
                    let _ = waiting.send(own.wait_stable().await.unwrap());
                });
                std::future::ready(is_free)
            })
        })
        .await;
    let version = stable([&a, &other]).await;
    assert_eq!(soon("the version", stable_at.recv()).await, Some(version));
}
