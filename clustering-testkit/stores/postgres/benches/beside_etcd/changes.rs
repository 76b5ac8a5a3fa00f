//! Changes of two clusters of the same size, which take turns.

use std::{future::ready, time::Duration};

use clustering_testkit::timing::TimedCluster;

use crate::{arguments::Arguments, report::Report, servers::connections, stores::Server};

/// TTL of leases that need no renewal while a change is measured.
const LONG_TTL: Duration = Duration::from_secs(600);

/// TTL of leases that expire: the shortest that etcd grants.
const TTL: Duration = Duration::from_secs(2);

/// Measured times, one list per store.
type Times = [Vec<Duration>; 2];

pub(crate) async fn run(arguments: &Arguments, servers: &[Server; 2], nodes: usize, report: &mut Report) {
    joins_and_leaves(arguments, servers, nodes, report).await;
    failovers(arguments, servers, nodes, report).await;
}

async fn start(server: &Server, namespace: &str, nodes: usize, ttl: Duration) -> TimedCluster {
    let connect = server.connect.clone();
    TimedCluster::start(namespace, nodes, ttl, move || ready(connect())).await
}

async fn joins_and_leaves(arguments: &Arguments, servers: &[Server; 2], nodes: usize, report: &mut Report) {
    let (mut clusters, mut counts) = (Vec::new(), [0; 2]);
    for (place, server) in servers.iter().enumerate() {
        let before = connections(server);
        let mut cluster = start(server, &format!("changes-{nodes}"), nodes - 1, LONG_TTL).await;
        // Warm up.
        cluster.join().await;
        counts[place] = connections(server) - before;
        cluster.follower_leaves().await;
        clusters.push(cluster);
    }
    let [mut joins, mut follower_leaves, mut leader_leaves] = <[Times; 3]>::default();
    for round in 0..arguments.rounds {
        let places = [round % 2, (round + 1) % 2];
        for place in places {
            joins[place].push(clusters[place].join().await);
        }
        for place in places {
            follower_leaves[place].push(clusters[place].follower_leaves().await);
        }
        for place in places {
            clusters[place].join().await;
            leader_leaves[place].push(clusters[place].leader_leaves().await);
        }
    }
    for cluster in clusters {
        cluster.stop().await;
    }
    report.times("join", nodes, joins);
    report.times("leave of a follower", nodes, follower_leaves);
    report.times("leave of the leader", nodes, leader_leaves);
    report.count("connections", nodes, counts);
}

async fn failovers(arguments: &Arguments, servers: &[Server; 2], nodes: usize, report: &mut Report) {
    let mut times = Times::default();
    for (place, server) in servers.iter().enumerate() {
        let mut cluster = start(server, &format!("failovers-{nodes}"), nodes, TTL).await;
        for _ in 0..arguments.failovers {
            times[place].push(cluster.leader_dies().await);
            cluster.join().await;
        }
        cluster.stop().await;
    }
    report.times("failover", nodes, times);
}
