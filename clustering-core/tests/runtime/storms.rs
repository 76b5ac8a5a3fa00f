//! A storm of changes costs a few versions, and ends in a stable version.

use std::time::{Duration, Instant};

use clustering_core::Event;
use futures_util::future::join_all;

use crate::common::{Cluster, Node, ms, secs, stable, start};

/// Starts nodes without recording their events, each with its own round trip to the store.
async fn join_at_once(cluster: &Cluster, prefix: &str, count: usize) -> Vec<Node> {
    let join = |number: usize| async move {
        let (line, builder) = cluster.builder(&format!("{prefix}{number:03}"));
        line.delay(ms(1 + number as u64 % 7));
        Node::quiet(line, builder).await
    };
    join_all((0..count).map(join)).await
}

/// Two hundred nodes join, one every 50 ms for ten seconds: the pause between versions grows.
#[tokio::test(start_paused = true)]
async fn two_hundred_nodes_join_a_running_cluster() {
    let cluster = &Cluster::new();
    let mut nodes = cluster.start_many(3).await;
    let begun = cluster.audit().await.versions().len();
    let join = |number: u64| async move {
        tokio::time::sleep(ms(50 * number)).await;
        let (line, builder) = cluster.builder(&format!("m{number:03}"));
        line.delay(ms(1 + number % 7));
        Node::quiet(line, builder).await
    };
    nodes.extend(join_all((0..200).map(join)).await);
    let joined = tokio::time::Instant::now();
    stable(&nodes).await;
    assert!(joined.elapsed() <= secs(6), "{:?}", joined.elapsed());
    let audit = cluster.audit().await;
    let published = audit.versions().len() - begun;
    println!("{published} versions for 200 joins in 10 s, stable {:?} later", joined.elapsed());
    assert!(published <= 8, "{published} versions for 200 joins");
    assert_eq!(audit.reigns().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn five_hundred_join_at_once() {
    let (cluster, begun) = (Cluster::new(), Instant::now());
    let nodes = join_at_once(&cluster, "n", 500).await;
    let virtually = tokio::time::Instant::now();
    stable(&nodes).await;
    let audit = cluster.audit().await;
    println!(
        "500 joined: {:?} real, stable {:?} later, {} versions, {:?}",
        begun.elapsed(),
        virtually.elapsed(),
        audit.versions().len(),
        cluster.store.stats()
    );
    assert!(audit.versions().len() <= 8, "{} versions for 500 joins", audit.versions().len());
    assert_eq!(audit.reigns().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_hundred_leave_at_once() {
    let cluster = Cluster::new();
    let mut nodes = join_at_once(&cluster, "n", 130).await;
    stable(&nodes).await;
    let begun = cluster.audit().await.versions().len();
    let leavers = nodes.split_off(30);
    join_all(leavers.iter().map(async |node| node.stop().await.unwrap())).await;
    stable(&nodes).await;
    let published = cluster.audit().await.versions().len() - begun;
    assert!(published <= 5, "{published} versions for 100 leaves");
    assert_eq!(cluster.store.lease_count(), 30);
}

/// One node after the other is stopped and restarted under its name, including the leader.
#[tokio::test(start_paused = true)]
async fn a_rolling_restart_of_twenty() {
    let cluster = Cluster::new();
    let mut nodes = cluster.start_many(20).await;
    let witness = cluster.start("witness").await;
    for (seed, node) in (2..).zip(&mut nodes) {
        node.stop().await.unwrap();
        let (line, builder) = cluster.builder(node.name().as_str());
        *node = start(line, builder.seed(seed)).await;
        tokio::time::sleep(secs(2)).await;
    }
    stable(nodes.iter().chain([&witness])).await;
    let audit = cluster.audit().await;
    println!("rolling restart: {} versions, {} elections", audit.versions().len(), audit.reigns().len());
    assert!(audit.versions().len() <= 3 + 2 * 20, "{}", audit.versions().len());
    assert_eq!(witness.log.count(|event| matches!(event, Event::SessionLost { .. })), 0);
}

/// Restarts ten nodes in that order, and returns the number of elections.
async fn elections(order: impl IntoIterator<Item = usize>, pause: Duration) -> usize {
    let cluster = Cluster::new();
    let mut nodes = Vec::new();
    for number in 0..10 {
        nodes.push(cluster.start(&format!("n{number}")).await);
    }
    stable(&nodes).await;
    for (seed, place) in (2..).zip(order) {
        let node: &mut Node = &mut nodes[place];
        node.stop().await.unwrap();
        let (line, builder) = cluster.builder(node.name().as_str());
        *node = start(line, builder.seed(seed)).await;
        if pause.is_zero() {
            stable(&nodes).await;
        } else {
            tokio::time::sleep(pause).await;
        }
    }
    stable(&nodes).await;
    cluster.audit().await.reigns().len() - 1
}

/// The lead goes to the node that was restarted last, which is not restarted again.
#[tokio::test(start_paused = true)]
async fn p9_a_rolling_restart_in_any_order_costs_at_most_two_elections() {
    // Each restart waits until the cluster is stable, or only for a while.
    for pause in [secs(0), ms(700), secs(2)] {
        assert_eq!(elections(0..10, pause).await, 2, "in order of age, {pause:?}");
        assert_eq!(elections((0..10).rev(), pause).await, 1, "in reverse order, {pause:?}");
        for stride in [3, 7] {
            for first in 0..10 {
                let order = (0..10).map(|step| (first + step * stride) % 10);
                let count = elections(order, pause).await;
                assert!(count <= 2, "{count} elections from {first} in steps of {stride}, {pause:?}");
            }
        }
    }
}

/// A Deployment starts a new pod before it stops an old one, and gives it a new name.
#[tokio::test(start_paused = true)]
async fn p9_a_rolling_replacement_costs_at_most_two_elections() {
    let cluster = Cluster::new();
    let mut nodes = cluster.start_many(10).await;
    for number in 0..10 {
        nodes.push(cluster.start(&format!("m{number}")).await);
        stable(&nodes).await;
        nodes.remove(0).stop().await.unwrap();
    }
    stable(&nodes).await;
    let count = cluster.audit().await.reigns().len() - 1;
    assert!(count <= 2, "{count} elections");
}
