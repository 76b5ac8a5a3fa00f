//! Nodes, observers and reports use the same definition of "stable".

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use clustering_core::{
    Discovery, Event,
    machine::Phase,
    report::{ClusterState, Report},
    store::CoordinationStoreExt,
};
use clustering_testkit::faulty::FaultyStore;
use futures_util::FutureExt;

use crate::common::{Cluster, Node, TTL, leader, ms, secs, soon, stable};

/// A cluster whose nodes, observers and report are compared every millisecond.
struct Compared {
    cluster: Cluster,
    observers: Vec<Discovery>,
    nodes: Vec<Node>,
    stable: usize,
    conditions: Vec<ClusterState>,
}

impl Compared {
    async fn new() -> Self {
        let cluster = Cluster::new();
        let early = Discovery::observe(cluster.store.clone(), "cluster").await.unwrap();
        Compared { cluster, observers: vec![early], nodes: Vec::new(), stable: 0, conditions: Vec::new() }
    }

    /// Compares for the given number of milliseconds, also with an observer that starts now.
    async fn compare(&mut self, what: &str, milliseconds: u64) {
        self.observers.push(Discovery::observe(self.cluster.store.clone(), "cluster").await.unwrap());
        for _ in 0..milliseconds {
            let before = self.cluster.store.revision();
            tokio::time::sleep(ms(1)).await;
            let namespace = self.observers[0].namespace().clone();
            let report = Report::read(&self.cluster.store, &namespace).await.unwrap();
            if self.cluster.store.revision() != before {
                // A recent change, such as a lease that this read ended, may not have reached the other nodes yet.
                continue;
            }
            let is_stable = report.as_ref().is_some_and(|report| report.condition.is_stable());
            for (place, observer) in self.observers.iter().enumerate() {
                let status = observer.status().get();
                assert_eq!(
                    observer.is_stable(),
                    is_stable,
                    "{what}: observer {place}: {report:#?} {status:#?}"
                );
            }
            for node in &self.nodes {
                let takes_part = report.as_ref().is_some_and(|report| report.node(node.name()).is_some());
                let status = node.now();
                let said = (node.is_stable(), node.cluster_consistent(), status.stable_version().is_some());
                let expected = is_stable && takes_part && status.phase == Phase::Member;
                assert_eq!(said, (expected, expected, expected), "{what}: {report:#?} {status:#?}");
                assert!(
                    !node.is_stable() || node.cluster_version() == status.newest.map(|view| view.version())
                );
            }
            self.stable += usize::from(is_stable);
            let condition = report.map_or(ClusterState::Empty, |report| report.condition);
            if self.conditions.last() != Some(&condition) {
                self.conditions.push(condition);
            }
        }
        self.observers.truncate(3);
    }

    async fn start(&mut self, name: &str) {
        let slow = |_| tokio::time::sleep(ms(20));
        let node = self.cluster.start_with(name, |builder| builder.stabilize(slow)).await;
        self.nodes.push(node);
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_observers_and_the_report_agree_on_stability() {
    let mut all = Compared::new().await;
    all.compare("nothing", 10).await;
    for name in ["a", "b", "c"] {
        all.start(name).await;
        all.compare("a node joins", 300).await;
    }
    let nodes = all.nodes.clone();
    let b = &nodes[1];
    b.set_metadata([("zone".to_owned(), "1".to_owned())].into()).await.unwrap();
    all.compare("a node changes", 300).await;
    drop(b.cluster_change().boxed().now_or_never());
    all.compare("a follower asks", 300).await;
    leader(&nodes).resign().await.unwrap();
    all.compare("the leader resigns", 600).await;
    b.unregister().await.unwrap();
    all.compare("a node is unregistered", 300).await;
    drop(b.register().boxed().now_or_never());
    all.compare("it is registered again", 300).await;
    for key in ["view/nodes/c", "ready/a", "view/stable", "view/request", "view/leader", "view/version"] {
        all.cluster.store.delete(&format!("cluster/{key}")).await.unwrap();
        all.compare(key, 1_500).await;
        all.cluster.store.put(&format!("cluster/{key}"), "garbage".into(), None).await.unwrap();
        all.compare(key, 1_500).await;
        all.cluster.store.delete(&format!("cluster/{key}")).await.unwrap();
        all.compare(key, 1_500).await;
    }
    all.nodes.clear();
    nodes[2].stop().await.unwrap();
    all.compare("a node leaves", 300).await;
    nodes[0].line.cut();
    all.compare("a node crashes", 100).await;
    tokio::time::sleep(TTL - secs(5)).await;
    all.compare("its session ends", 6_000).await;
    b.resign().await.unwrap();
    all.compare("nobody leads", 1_000).await;
    b.line.cut();
    tokio::time::sleep(TTL).await;
    all.compare("the last node crashes", 1_000).await;
    assert!(all.stable > 1_000, "{}", all.stable);
    for expected in ["Adapting", "Due", "Leaderless", "Stable", "Unreadable", "Empty"] {
        let mut seen = all.conditions.iter().map(|condition| format!("{condition:?}"));
        assert!(seen.any(|condition| condition.starts_with(expected)), "{expected}: {:?}", all.conditions);
    }
}

/// The deadline passes while no task runs, so only the clock can show it.
#[tokio::test(start_paused = true)]
async fn p6_a_node_whose_session_is_over_is_not_stable() {
    let cluster = Cluster::new();
    let node = cluster.start("a").await;
    stable([&node]).await;
    assert!(node.is_stable() && node.cluster_consistent());
    let mut passes = Box::pin(tokio::time::advance(TTL));
    assert!((&mut passes).now_or_never().is_none());
    assert!(!node.is_member() && !node.is_stable() && !node.cluster_consistent());
    assert!(Box::pin(node.wait_stable()).now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_not_a_member_is_not_stable() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(2).await;
    let (stays, goes) = (&nodes[0], &nodes[1]);
    goes.unregister().await.unwrap();
    stable([stays]).await;
    let observer = goes.discovery();
    assert!(observer.is_stable() && !goes.is_stable() && !goes.now().is_stable());
    let waits = tokio::time::timeout(secs(60), goes.wait_stable());
    assert!(waits.await.is_err(), "the node is not part of the stable cluster");
    goes.register().await.unwrap();
    assert_eq!(soon("stable", goes.wait_stable()).await.unwrap(), stable(&nodes).await);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_is_not_stable() {
    let cluster = Cluster::new();
    let ends = Arc::new(AtomicBool::new(false));
    let may_end = ends.clone();
    let node = cluster
        .start_with("a", move |builder| {
            builder.on_stable(move |_| {
                let ends = may_end.clone();
                async move {
                    while !ends.load(Ordering::Relaxed) {
                        tokio::time::sleep(ms(10)).await;
                    }
                }
            })
        })
        .await;
    stable([&node]).await;
    let leaving = tokio::spawn({
        let node = node.cluster.clone();
        async move { node.stop().await }
    });
    node.until("it leaves", |status| status.phase == Phase::Leaving).await;
    assert!(!node.is_stable() && !node.now().is_stable());
    ends.store(true, Ordering::Relaxed);
    leaving.await.unwrap().unwrap();
    assert!(!node.is_stable());
}

#[tokio::test(start_paused = true)]
async fn no_node_is_stable_while_the_store_does_not_answer() {
    let cluster = Cluster::new();
    let node = cluster.start("a").await;
    let line = FaultyStore::new(cluster.store.clone());
    let observer = Discovery::observe(line.clone(), "cluster").await.unwrap();
    let version = stable([&node]).await;
    assert!(observer.is_stable());
    node.line.cut();
    line.cut();
    node.log.next("away", |event| matches!(event, Event::StoreAway { .. })).await;
    assert!(node.is_member() && !node.is_stable() && node.stale_for().is_some());
    let mut status = observer.status();
    soon("away", status.wait_for(|status| status.stale_since.is_some())).await.unwrap();
    assert!(!observer.is_stable());
    assert!(Box::pin(node.wait_stable()).now_or_never().is_none());
    node.line.heal();
    line.heal();
    assert_eq!(soon("stable", node.wait_stable()).await, Ok(version));
    soon("stable", status.wait_for(|status| status.consistent)).await.unwrap();
}
