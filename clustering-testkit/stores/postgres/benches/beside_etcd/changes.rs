//! Changes of two clusters of the same size, by turns.

use std::time::Duration;

use crate::{
    arguments::Arguments,
    cluster::Cluster,
    report::Report,
    servers::{STORES, Servers},
};

/// TTL of leases that need no renewal while a change is measured.
const LONG_TTL: Duration = Duration::from_secs(600);

/// TTL of leases that expire: the shortest that etcd grants.
const TTL: Duration = Duration::from_secs(2);

pub(crate) async fn run(arguments: &Arguments, servers: &Servers, nodes: usize, report: &mut Report) {
    joins_and_leaves(arguments, servers, nodes, report).await;
    failovers(arguments, servers, nodes, report).await;
}

async fn joins_and_leaves(arguments: &Arguments, servers: &Servers, nodes: usize, report: &mut Report) {
    let (mut clusters, mut connections) = (Vec::new(), [0; 2]);
    for (place, store) in STORES.into_iter().enumerate() {
        let before = servers.connections(store);
        let namespace = format!("changes-{nodes}");
        let mut cluster = Cluster::start(servers.connect(store), namespace, LONG_TTL, nodes - 1).await;
        // Warms up.
        cluster.join().await;
        connections[place] = servers.connections(store) - before;
        cluster.leave().await;
        clusters.push(cluster);
    }
    let (mut joins, mut leaves) = (<[Vec<Duration>; 2]>::default(), <[Vec<Duration>; 2]>::default());
    for round in 0..arguments.rounds {
        for turn in 0..STORES.len() {
            let place = (round + turn) % STORES.len();
            joins[place].push(clusters[place].join().await);
        }
        for turn in 0..STORES.len() {
            let place = (round + turn) % STORES.len();
            leaves[place].push(clusters[place].leave().await);
        }
    }
    for cluster in clusters {
        cluster.stop().await;
    }
    report.times("join", nodes, joins);
    report.times("leave", nodes, leaves);
    report.count("connections", nodes, connections);
}

async fn failovers(arguments: &Arguments, servers: &Servers, nodes: usize, report: &mut Report) {
    let mut times = <[Vec<Duration>; 2]>::default();
    for (place, store) in STORES.into_iter().enumerate() {
        let mut cluster =
            Cluster::start(servers.connect(store), format!("failovers-{nodes}"), TTL, nodes).await;
        for _ in 0..arguments.failovers {
            times[place].push(cluster.failover().await);
            cluster.join().await;
        }
        cluster.stop().await;
    }
    report.times("failover", nodes, times);
}
