//! Dead leaders: time from the end of a leader's lease until the next version.

use std::time::{Duration, Instant};

use clustering_core::store::{Change, WatchStream};
use clustering_testkit::timing::TimedCluster;
use futures_util::StreamExt;
use serde_json::json;

use crate::{arguments::Arguments, stores::Server, summary::Summary};

/// TTL of the leases: the shortest that etcd grants.
const TTL: Duration = Duration::from_secs(2);

/// Maximum number of rounds, since each takes as long as a lease.
const ROUNDS: usize = 5;

/// Largest cluster size: more members would only add renewals.
const MOST: usize = 21;

pub(crate) async fn run(arguments: &Arguments, server: &Server, nodes: usize) {
    if nodes > MOST {
        return;
    }
    let mut times = Vec::new();
    for round in 0..ROUNDS.min(arguments.rounds) {
        times.push(one(server, nodes, &format!("killed/{nodes}-{round}")).await);
    }
    let summary = Summary::of(times.into_iter());
    if arguments.json {
        println!("{}", json!({ "nodes": nodes, "killed_leader_to_next_version": summary.json() }));
    } else {
        println!("{nodes:4} nodes, leader dies: end of its keys → next version  {}", summary.text());
    }
}

async fn one(server: &Server, nodes: usize, namespace: &str) -> Duration {
    let connect = server.connect.clone();
    let mut cluster = TimedCluster::start(namespace, nodes, TTL, move || std::future::ready(connect())).await;
    let (watcher, prefix) = ((server.connect)(), format!("{namespace}/view/"));
    let now = watcher.read(&prefix).await.unwrap().revision;
    let mut changes = watcher.watch(&prefix, now).await.unwrap();
    let (_, time) = tokio::join!(cluster.leader_dies(), past_the_end(&mut changes, &prefix));
    cluster.stop().await;
    time
}

/// Returns the time from the deletion of the election key until the next version, as seen by the watcher.
async fn past_the_end(changes: &mut WatchStream, prefix: &str) -> Duration {
    let mut gone = None;
    loop {
        let batch = changes.next().await.expect("the watch has not ended").unwrap();
        for change in batch.changes.iter() {
            match (change, change.key().as_str().strip_prefix(prefix).unwrap()) {
                (Change::Delete(_), "leader") => gone = Some(Instant::now()),
                (Change::Put(_), "version") => {
                    if let Some(gone) = gone {
                        return gone.elapsed();
                    }
                }
                _ => {}
            }
        }
    }
}
