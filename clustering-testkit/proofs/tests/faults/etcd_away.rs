//! Etcd does not answer for longer than the sessions last: nodes do not retry without pauses in the meantime, and their
//! return costs etcd few calls. (That they rejoin is also a scenario of the fault suite for every store.)

use std::sync::Arc;

use clustering_proofs::node::Node;
use clustering_testkit::{
    etcd::EtcdServer,
    history::{Entry, Observation},
};

use crate::scenario::{Alone, LONG, secs};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Starts two nodes as processes and one as a task.
async fn with_nodes() -> (Alone, Vec<Arc<Node>>) {
    let scenario = Alone::new().await;
    let nodes = vec![
        scenario.spawn(scenario.spec(NAMES[0])),
        scenario.spawn(scenario.spec(NAMES[1])),
        scenario.spawn_task(scenario.spec(NAMES[2])),
    ];
    scenario.stable(&NAMES).await;
    (scenario, nodes)
}

fn lost(it: &Observation) -> bool {
    matches!(it, Observation::SessionLost { .. })
}

/// Makes etcd unavailable for longer than the sessions last.
async fn away(what: &str, go: impl AsyncFn(&Alone), back: impl AsyncFn(&Alone)) {
    let (scenario, nodes) = with_nodes().await;
    let before = scenario.stable(&NAMES).await;
    nodes.iter().for_each(|node| node.pass_all());
    let (before_calls, pid) = (calls_at(&scenario.etcd).await, scenario.etcd.pid());
    let gone = scenario.now();
    go(&scenario).await;
    for node in &nodes {
        node.next("a report that the store is away", LONG, |it| matches!(it, Observation::StoreAway { .. }))
            .await;
        node.next("a lost session", LONG, lost).await;
    }
    let calls = nodes.iter().map(|node| failed_renewals(node)).collect::<Vec<_>>();
    // Long enough to detect retries without a pause.
    tokio::time::sleep(secs(4)).await;
    for (node, calls) in nodes.iter().zip(calls) {
        let more = failed_renewals(node) - calls;
        assert!(more <= 1, "{} tried {more} renewals without a session", node.name());
    }
    // Nodes keep the last view and report that it is stale.
    for node in &nodes {
        let stale = |entry: &Entry| match &entry.observation {
            Observation::Stale { away, newest, present } if *away > secs(3) => Some((*newest, *present)),
            _ => None,
        };
        assert_eq!(node.next_of("a stale view", LONG, stale).await, (Some(before), 3), "{}", node.name());
    }
    let since = scenario.now();
    println!("{what} for {:?}", since.since(gone));
    back(&scenario).await;
    let answers = scenario.now();
    scenario.stable_after(before, &NAMES).await;
    scenario.measured(&format!("{what} for {:?}, since etcd answers again", since.since(gone)), answers);
    // The cost of the return for etcd: each node reads, watches and registers once or a few times, and the leader
    // writes ten times per second. A restarted etcd counts from zero.
    let calls = calls_at(&scenario.etcd).await;
    let restarted = scenario.etcd.pid() != pid;
    let calls = if restarted { calls } else { calls - before_calls };
    println!("measured: {what}: {calls} calls of 3 nodes and an observer to the next stable version");
    let (most, took) = (40 * (nodes.len() + 1), scenario.now().since(answers));
    assert!(calls < most + 20 * took.as_secs() as usize, "{calls} calls within {took:?}");
    for node in &nodes {
        let back = |it: &Observation| matches!(it, Observation::StoreBack { .. });
        assert!(node.count(back) >= 1, "{}", node.name());
    }
    scenario.check(&NAMES).await;
}

/// Returns the number of calls that etcd has begun to serve since it started.
async fn calls_at(etcd: &EtcdServer) -> usize {
    let metrics = etcd.metrics().await.unwrap();
    let methods = ["Range", "Txn", "Watch", "LeaseGrant", "LeaseRevoke", "LeaseKeepAlive"];
    let begun = |method: &&str| metrics.sum("grpc_server_started_total", &[("grpc_method", method)]);
    methods.iter().map(begun).sum::<f64>() as usize
}

fn failed_renewals(node: &Node) -> usize {
    node.count(|it| matches!(it, Observation::RenewalFailed { .. }))
}

pub(crate) async fn p7_nodes_rejoin_after_etcd_was_down_for_longer_than_the_ttl() {
    let kill = async |scenario: &Alone| scenario.etcd.kill().await.unwrap();
    let restart = async |scenario: &Alone| scenario.etcd.restart().await.unwrap();
    away("etcd down", kill, restart).await;
}

pub(crate) async fn p6_nodes_rejoin_after_etcd_was_paused_for_longer_than_the_ttl() {
    let pause = async |scenario: &Alone| scenario.etcd.pause().unwrap();
    let resume = async |scenario: &Alone| scenario.etcd.resume().unwrap();
    away("etcd paused", pause, resume).await;
}
