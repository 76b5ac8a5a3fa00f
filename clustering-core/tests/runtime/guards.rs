//! Nothing that a service holds, or does while holding it, blocks the node.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use clustering_core::{Clustering, Config, Event, Events, StatusWatch};
use clustering_memory::MemoryStore;
use futures_util::FutureExt;

use crate::common::{Cluster, TTL, ms, secs, soon, stable};

/// Runs a test on a thread of its own, so that a test that hangs fails instead of blocking the others.
fn within(limit: Duration, test: impl Future<Output = ()> + Send + 'static) {
    let (done, ended) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(test);
        let _ = done.send(());
    });
    ended.recv_timeout(limit).expect("the node hangs, or the test failed");
}

async fn start(ttl: Duration) -> Clustering {
    let node = Clustering::builder(MemoryStore::new()).name("a").uri("http://host:80").ttl(ttl).start().await;
    let node = node.unwrap();
    node.wait_stable().await.unwrap();
    node
}

#[test]
fn a_node_can_be_stopped_by_a_task_that_holds_its_status() {
    within(secs(20), async {
        let cluster = start(secs(15)).await;
        if let Some(view) = &cluster.status().get().acknowledged {
            assert_eq!(view.len(), 1);
            cluster.stop().await.unwrap();
        }
        assert!(!cluster.is_leader());
    });
}

#[test]
fn p6_threads_that_keep_nest_and_leak_statuses_do_not_block_the_node() {
    within(secs(30), async {
        let ttl = secs(1);
        let cluster = start(ttl).await;
        let mut events = cluster.events();
        let stop = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = (0..6)
            .map(|number| {
                let (cluster, stop) = (cluster.clone(), stop.clone());
                thread::spawn(move || {
                    let mut kept = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let watch = cluster.status();
                        let status = watch.get();
                        // Calls every method while holding the result of another one.
                        let _ = (cluster.is_leader(), cluster.term(), cluster.cluster_version());
                        let _ = (cluster.nodes(), cluster.leader_node(), cluster.discovery().find("key"));
                        assert_eq!(cluster.owns("key"), cluster.view().is_some_and(|view| view.owns("key")));
                        match number {
                            0 => kept.push((watch, status)),
                            1 => std::mem::forget((watch, status)),
                            2 => thread::sleep(Duration::from_millis(100)),
                            _ => drop((status, watch)),
                        }
                        kept.truncate(1_000);
                    }
                })
            })
            .collect();
        // Versions are published at the same time.
        let begun = Instant::now();
        while begun.elapsed() < ttl * 3 {
            cluster.cluster_change().await.unwrap();
            tokio::task::yield_now().await;
        }
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(cluster.is_leader());
        cluster.stop().await.unwrap();
        loop {
            match events.recv().await {
                Ok(event) => assert!(!matches!(&*event, Event::SessionLost { .. }), "{event}"),
                Err(clustering_core::EventsError::Missed(_)) => {}
                Err(clustering_core::EventsError::Ended) => return,
            }
        }
    });
}

/// A waker that calls back into the node, as executors do that poll at once.
struct CallsBack {
    cluster: Clustering,
    woken: AtomicBool,
}

impl Wake for CallsBack {
    fn wake(self: Arc<Self>) {
        let cluster = &self.cluster;
        drop((cluster.events(), cluster.status().get(), cluster.nodes(), cluster.is_leader()));
        self.woken.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_waker_may_call_back_into_the_node_that_wakes_it() {
    within(secs(20), async {
        let cluster = start(secs(15)).await;
        let waker = Arc::new(CallsBack { cluster: cluster.clone(), woken: AtomicBool::new(false) });
        let (mut events, mut status): (Events, StatusWatch) = (cluster.events(), cluster.status());
        let mut waiting: Vec<std::pin::Pin<Box<dyn Future<Output = ()> + Send>>> = vec![
            Box::pin(async move { while events.recv().await.is_ok() {} }),
            Box::pin(async move { while status.changed().await.is_ok() {} }),
        ];
        for round in ["a version", "the end"] {
            for future in &mut waiting {
                let waker = Waker::from(waker.clone());
                let _: Poll<()> = future.as_mut().poll(&mut Context::from_waker(&waker));
            }
            match round {
                "a version" => drop(cluster.cluster_change().await.unwrap()),
                _ => cluster.stop().await.unwrap(),
            }
            assert!(waker.woken.swap(false, Ordering::SeqCst), "{round}");
        }
    });
}

/// A key and a predicate that call back into the node.
#[test]
fn keys_and_predicates_may_call_back_into_the_node() {
    struct Key(Clustering);
    impl AsRef<[u8]> for Key {
        fn as_ref(&self) -> &[u8] {
            assert!(
                self.0.is_leader() && self.0.status().get().newest.is_some() && self.0.nodes().len() == 1
            );
            b"key"
        }
    }
    within(secs(20), async {
        let cluster = start(secs(1)).await;
        assert!(cluster.owns(Key(cluster.clone())) && cluster.discovery().is_own_node(Key(cluster.clone())));
        let node = cluster.clone();
        // Longer than the session lasts without renewals.
        let slow = move |_: &_| {
            thread::sleep(secs(2));
            node.is_leader()
        };
        cluster.status().wait_for(slow).await.unwrap();
        cluster.stop().await.unwrap();
    });
}

/// Renewals over hours wake no watcher, and an old snapshot does not change.
#[tokio::test(start_paused = true)]
async fn p6_renewals_move_the_deadline_and_wake_no_watcher() {
    let cluster = Cluster::new();
    let node = cluster.start("a").await;
    stable([&node]).await;
    let (mut status, kept) = (node.status(), node.now());
    assert!(tokio::time::timeout(secs(3600), status.changed()).await.is_err(), "{:?}", status.get());
    assert!(node.is_leader() && node.leadership_left() >= TTL / 3 && node.session_left() > TTL / 3);
    assert!(node.now().says(&kept));
    node.line.hang();
    let deposed = soon("the deadline", status.wait_for(|status| status.active_term.is_none())).await.unwrap();
    assert!(deposed.member && kept.active_term.is_some(), "a snapshot does not change");
}

trait Says {
    fn says(&self, other: &Self) -> bool;
}

impl Says for clustering_core::Status {
    /// True if both statuses are equal apart from deadlines.
    fn says(&self, other: &Self) -> bool {
        (self.active_term, self.revision, &self.newest) == (other.active_term, other.revision, &other.newest)
    }
}

/// A watcher sees the deadline pass, then a late reply to a renewal moves it before the node itself noticed. A task
/// that waits for leadership is woken although the node never reported that it was lost.
#[tokio::test(start_paused = true)]
async fn watchers_that_saw_a_deadline_pass_are_woken_when_it_moves() {
    let cluster = Cluster::new();
    let times = |config: &mut Config| {
        (config.renew_every, config.call_timeout) = (Some(secs(7)), Some(secs(4)));
    };
    let node = cluster.start_with("a", |builder| builder.configure(times)).await;
    stable([&node]).await;
    let (term, left) = (node.term().unwrap(), node.leadership_left());
    assert_eq!(left, secs(10));
    // The renewal is sent after 7 s and answered after 10 s.
    node.line.delay(secs(3));
    tokio::time::sleep(left - ms(1)).await;
    // The clock has passed the deadline, and no task has run since.
    let mut passes = Box::pin(tokio::time::advance(ms(2)));
    assert!((&mut passes).now_or_never().is_none() && !node.is_leader());
    let mut waits = Box::pin(node.wait_leader());
    assert!((&mut waits).now_or_never().is_none());
    assert_eq!(soon("the lead", waits).await, Ok(term));
    assert_eq!(node.log.count(|event| matches!(event, Event::LeadershipSuspended { .. })), 0);
}
