//! A new cluster waits for its minimum size, and only once.

use clustering_core::{
    Builder, Clustering, Discovery, Event, Route,
    report::{ClusterState, Report},
};

use crate::common::{Cluster, Node, secs, stable};

fn of_three(builder: Builder) -> Builder {
    builder.min_nodes(3)
}

async fn report(cluster: &Cluster, node: &Clustering) -> Report {
    Report::read(&cluster.store, node.namespace()).await.unwrap().expect("a cluster")
}

#[tokio::test(start_paused = true)]
async fn p8_a_new_cluster_waits_for_its_minimum_size() {
    let cluster = Cluster::new();
    let exclusive = |builder: Builder| of_three(builder).exclusive(16);
    let mut nodes = vec![cluster.start_with("a", exclusive).await];
    nodes.push(cluster.start_with("b", exclusive).await);
    tokio::time::sleep(secs(60)).await;
    let status = nodes[0].now();
    assert_eq!((status.stable, status.blocked.unwrap().waits_for_nodes), (None, Some(3)));
    let shown = report(&cluster, &nodes[0]).await;
    assert_eq!(shown.condition, ClusterState::WaitingForNodes { nodes: 2, min_nodes: 3 });
    assert_eq!(shown.version.unwrap().min_nodes, Some(3));
    assert_eq!(shown.slots.unwrap().count, None, "no slots are assigned");
    assert!(nodes[0].hold("key").is_err());
    // An observer that has just started does not know the view of the version.
    let late = Discovery::observe(cluster.store.clone(), "cluster").await.unwrap();
    for discovery in [&nodes[0].discovery(), &late] {
        assert!(discovery.find("key").is_none());
        assert!(matches!(discovery.route("key"), Route::Unowned));
    }

    nodes.push(cluster.start_with("c", exclusive).await);
    for node in &nodes {
        node.until("it owns slots", |status| {
            status.is_stable() && status.holdings.as_ref().is_some_and(|holdings| !holdings.held.is_empty())
        })
        .await;
    }
    let shown = report(&cluster, &nodes[0]).await;
    assert_eq!((shown.version.unwrap().min_nodes, shown.condition), (Some(3), ClusterState::Stable));

    // From now on, fewer nodes are enough.
    let waiting = |node: &Node| node.log.count(|event| matches!(event, Event::WaitingForNodes { .. }));
    let before = waiting(&nodes[0]);
    nodes.remove(2).stop().await.unwrap();
    nodes.remove(1).stop().await.unwrap();
    stable(&nodes).await;
    assert_eq!(waiting(&nodes[0]), before);
    assert_eq!(nodes[0].log.count(|event| matches!(event, Event::TooFewNodes { .. })), 1);
    assert_eq!(report(&cluster, &nodes[0]).await.condition, ClusterState::Stable);
}

#[tokio::test(start_paused = true)]
async fn p8_a_cluster_that_was_stopped_as_a_whole_starts_again_with_fewer_nodes() {
    let cluster = Cluster::new();
    let mut nodes = Vec::new();
    for name in ["a", "b", "c"] {
        nodes.push(cluster.start_with(name, of_three).await);
    }
    stable(&nodes).await;
    for node in nodes {
        node.stop().await.unwrap();
    }
    let alone = cluster.start_with("d", of_three).await;
    stable([&alone]).await;
}
