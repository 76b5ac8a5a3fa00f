//! A leader that dies: how long after the end of its lease the next version is there.

use std::time::{Duration, Instant};

use clustering_testkit::etcd::EtcdServer;
use etcd_client::{EventType, WatchOptions, WatchStream};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::{
    arguments::Arguments,
    ours::Ours,
    report::Summary,
    rounds::{LONG, Member, Team},
};

/// The shortest lease that etcd grants.
const TTL: Duration = Duration::from_secs(2);

/// A dead leader costs its lease's end each time.
const ROUNDS: usize = 5;

/// Members beyond the one that is killed do nothing in this: more of them would only renew.
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
        println!("{nodes:4} nodes, leader dies: its keys' end → next version  {}", summary.text());
    }
}

/// A cluster whose leader runs in a runtime of its own, which is shut down under it.
async fn one(etcd: &EtcdServer, nodes: usize, namespace: &str) -> Duration {
    let client = etcd.client().await.unwrap();
    let options = WatchOptions::new().with_prefix();
    let mut watcher = client.watch_client().watch(format!("{namespace}/view/"), Some(options)).await.unwrap();
    let team = || Ours { endpoints: etcd.endpoints(), namespace: namespace.to_owned(), ttl: TTL };
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
    assert!(leader.is_leader(), "the oldest leads");
    doomed.shutdown_background();
    let time = tokio::time::timeout(LONG, past_the_end(&mut watcher, &format!("{namespace}/view/"))).await;
    futures_util::future::join_all(others.into_iter().map(Member::leave)).await;
    time.expect("somebody publishes")
}

/// From the deletion of the election key until the version that follows it, as the watcher sees them.
async fn past_the_end(watcher: &mut WatchStream, prefix: &str) -> Duration {
    let mut gone = None;
    loop {
        let message = watcher.message().await.unwrap().expect("the watch goes on");
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
