//! Eviction of laggards over a long time: it must neither loop nor shrink the cluster without need.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use clustering_core::{Builder, Event, Laggards};

use crate::common::{Cluster, leader, secs, soon, stable};

/// Configures a node that as leader evicts after that time, and that refuses every version while `sick` is set.
fn evicting(after: u64, sick: &Arc<AtomicBool>) -> impl Fn(Builder) -> Builder + use<> {
    let sick = sick.clone();
    move |builder| {
        let sick = sick.clone();
        builder.laggards(Laggards::Evict { after: secs(after) }).stabilize(move |_| {
            let well = !sick.load(Ordering::SeqCst);
            async move { well }
        })
    }
}

fn evicted(event: &Event) -> bool {
    matches!(event, Event::Evicted { .. })
}

/// The time after which laggards are evicted may be shorter or longer than a TTL.
#[tokio::test(start_paused = true)]
async fn p8_a_node_that_refuses_for_two_hours_disturbs_the_others_less_and_less() {
    for after in [10, 15, 40] {
        let cluster = Cluster::new();
        let sick = Arc::new(AtomicBool::new(true));
        let mut nodes = Vec::new();
        for name in ["a", "b", "c", "d"] {
            nodes.push(cluster.start_with(name, evicting(after, &Arc::default())).await);
        }
        stable(&nodes).await;
        let node = cluster.start_with("sick", evicting(after, &sick)).await;
        tokio::time::sleep(secs(2 * 60 * 60)).await;
        let back = node.log.count(|event| matches!(event, Event::Rejoined { .. }));
        assert!((10..=25).contains(&back), "with a limit of {after} s it rejoined {back} times");
        let versions = nodes[0].log.versions().len();
        assert!(versions <= 4 + 2 * (back + 1), "{versions} versions for {back} returns");
        sick.store(false, Ordering::SeqCst);
        nodes.push(node);
        stable(&nodes).await;
    }
}

#[tokio::test(start_paused = true)]
async fn p8_no_node_is_evicted_while_all_nodes_refuse() {
    let cluster = Cluster::new();
    let sick = Arc::new(AtomicBool::new(false));
    let mut nodes = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        nodes.push(cluster.start_with(name, evicting(10, &sick)).await);
    }
    stable(&nodes).await;
    sick.store(true, Ordering::SeqCst);
    nodes[1].cluster_change().await.unwrap();
    tokio::time::sleep(secs(600)).await;
    let leading = leader(&nodes);
    for node in &nodes {
        assert_eq!(node.log.count(evicted), 0);
        assert_eq!(node.now().newest.as_ref().map(|view| view.len()), Some(5));
        let told = node.log.count(|event| matches!(event, Event::MassFailure(_)));
        assert_eq!(
            told,
            usize::from(node.name() == leading.name()),
            "only the leader reports it, and only once"
        );
    }
    sick.store(false, Ordering::SeqCst);
    soon("stable", stable(&nodes)).await;
    leading.log.next("over", |event| matches!(event, Event::MassFailureOver { .. })).await;
    cluster.audit().await;
}
