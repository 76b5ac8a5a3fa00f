//! P6 across a suspend of the machine: the clock jumps, and tokio's timers do not notice.

use clustering_core::{Clustering, Event, event::LostReason, runtime::SimulatedSuspends};
use clustering_memory::MemoryStore;
use clustering_testkit::faulty::FaultyStore;
use tokio::time::Instant;

use crate::common::{Cluster, TTL, secs, soon, stable};

#[tokio::test(start_paused = true)]
async fn p6_a_leader_knows_at_once_after_a_suspend_that_its_leadership_is_over() {
    for slept in [TTL * 2 / 3, TTL, secs(3600)] {
        let (cluster, machine) = (Cluster::new(), SimulatedSuspends::new());
        let node = cluster.start_with("a", |builder| builder.suspends(&machine)).await;
        stable([&node]).await;
        let term = node.term().unwrap();
        let mut status = node.status();
        let deposed = tokio::spawn({
            let node = node.cluster.clone();
            async move { node.wait_deposed(term).await }
        });
        tokio::time::sleep(secs(1)).await;
        // A renewal right after the resume would continue the leadership under the same term.
        node.line.hang();
        let resumed = Instant::now();
        machine.suspend(slept);
        // No task has run since, so only the clock can show it.
        assert!(!node.is_leader(), "suspended for {slept:?}");
        assert_eq!((node.is_member(), node.is_stable()), (slept < TTL - secs(1), slept < TTL - secs(1)));
        soon("the end of the lead", deposed).await.unwrap();
        soon("the status", status.wait_for(|status| status.active_term.is_none())).await.unwrap();
        assert_eq!(resumed.elapsed(), secs(0), "woken late by this much after {slept:?}");
        if slept >= TTL {
            let lost = |event: &Event| *event == Event::SessionLost { reason: LostReason::Expired };
            node.log.next("the session is over", lost).await;
            assert_eq!(resumed.elapsed(), secs(0));
        }
        // It rejoins by itself.
        node.line.heal();
        soon("the lead", node.wait_leader()).await.unwrap();
        stable([&node]).await;
    }
}

/// A short suspend ends nothing, but shortens the time that is left.
#[tokio::test(start_paused = true)]
async fn p6_a_short_suspend_counts_towards_the_deadline() {
    let (cluster, machine) = (Cluster::new(), SimulatedSuspends::new());
    let node = cluster.start_with("a", |builder| builder.suspends(&machine)).await;
    stable([&node]).await;
    let term = node.term().unwrap();
    node.line.hang();
    let left = node.leadership_left();
    machine.suspend(secs(3));
    assert_eq!(node.leadership_left(), left - secs(3));
    let resumed = Instant::now();
    soon("the end of the lead", node.wait_deposed(term)).await;
    assert_eq!(resumed.elapsed(), left - secs(3));
}

/// In real time and on several threads, where the other timers of the process do not notice the suspend.
#[test]
fn p6_a_suspend_is_noticed_in_real_time_too() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    runtime.block_on(async {
        let machine = SimulatedSuspends::new();
        let store = FaultyStore::new(MemoryStore::new());
        let builder = Clustering::builder(store.clone()).uri("http://host:80").suspends(&machine);
        let node = builder.ttl(secs(600)).start().await.unwrap();
        let term = node.wait_leader().await.unwrap();
        node.wait_stable().await.unwrap();
        store.hang();
        machine.suspend(secs(500));
        assert!(!node.is_leader() && node.is_member());
        tokio::time::timeout(secs(60), node.wait_deposed(term))
            .await
            .expect("woken at once, and not 400 s later");
        let mut status = node.status();
        let told = status.wait_for(|status| status.active_term.is_none());
        tokio::time::timeout(secs(60), told).await.expect("not 400 s later").unwrap();
        store.heal();
        node.stop().await.unwrap();
    });
}
