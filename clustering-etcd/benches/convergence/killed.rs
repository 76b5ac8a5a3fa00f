//! Dead leaders: time from the end of a leader's lease until the next version.

use std::time::{Duration, Instant};

use clustering_testkit::etcd::EtcdServer;
use etcd_client::{EventType, WatchOptions, WatchStream};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::{
    arguments::Arguments,
    ours::Ours,
    rounds::{LONG, Member, Team},
    summary::Summary,
};

/// TTL of the leases: the shortest that etcd grants.
const TTL: Duration = Duration::from_secs(2);

/// Maximum number of rounds, since each takes as long as a lease.
const ROUNDS: usize = 5;

/// Largest cluster size: more members would only add renewals.
const MOST: usize = 21;

pub(crate) async fn run(arguments: &Arguments, etcd: &EtcdServer, nodes: usize) {
    if nodes > MOST {
        return;
    }
    let mut times = Vec::new();
    for round in 0..ROUNDS.min(arguments.rounds) {
        times.push(one(etcd, nodes, &format!("killed/{nodes}-{round}")).await);
    }
    let summary = Summary::of(times.into_iter());
    if arguments.json {
        println!("{}", json!({ "nodes": nodes, "killed_leader_to_next_version": summary.json() }));
    } else {
        println!("{nodes:4} nodes, leader dies: end of its keys → next version  {}", summary.text());
    }
}

/// Runs a cluster whose leader has its own runtime, and shuts that runtime down.
async fn one(etcd: &EtcdServer, nodes: usize, namespace: &str) -> Duration {
    let client = etcd.client().await.unwrap();
    let options = WatchOptions::new().with_prefix();
    let mut watcher = client.watch_client().watch(format!("{namespace}/view/"), Some(options)).await.unwrap();
    let team =
        || Ours { endpoints: etcd.endpoints(), namespace: namespace.to_owned(), ttl: TTL, trace: None };
    let doomed = Runtime::new().unwrap();
    let leader = doomed.spawn({
        let team = team();
        async move { team.join("n00000").await }
    });
    let leader = leader.await.unwrap();
    leader.clone().stable_with(1).await;
    let mut others = Vec::new();
    for number in 1..nodes {
        others.push(team().join(&format!("n{number:05}")).await);
    }
    for member in &others {
        member.clone().stable_with(nodes).await;
    }
    assert!(leader.is_leader(), "the node that joined first must lead");
    doomed.shutdown_background();
    let time = tokio::time::timeout(LONG, past_the_end(&mut watcher, &format!("{namespace}/view/"))).await;
    futures_util::future::join_all(others.into_iter().map(Member::leave)).await;
    time.expect("a new leader publishes a version")
}

/// Returns the time from the deletion of the election key until the next version, as seen by the watcher.
async fn past_the_end(watcher: &mut WatchStream, prefix: &str) -> Duration {
    let mut gone = None;
    loop {
        let message = watcher.message().await.unwrap().expect("the watch has not ended");
        for event in message.events() {
            let key = event.kv().unwrap().key_str().unwrap().strip_prefix(prefix).unwrap();
            match (event.event_type(), key) {
                (EventType::Delete, "leader") => gone = Some(Instant::now()),
                (EventType::Put, "version") => {
                    if let Some(gone) = gone {
                        return gone.elapsed();
                    }
                }
                _ => {}
            }
        }
    }
}
