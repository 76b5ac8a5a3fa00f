//! Lines between a node and etcd that break while others hold.

use std::sync::Arc;

use clustering_testkit::{
    history::{Entry, Observation, ledger::Content},
    node::{Node, NodeSpec},
    proxy::Proxy,
};

use crate::scenario::{Alone, LONG, SLACK, TTL, without};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Three nodes, the first behind a proxy and leading.
async fn behind_a_proxy() -> (Alone, Arc<Node>, Proxy) {
    let scenario = Alone::new().await;
    let proxy = Proxy::to(&scenario.etcd.endpoint()).await.unwrap();
    // Without writes: what goes over the line is the library's alone.
    let endpoints = vec![proxy.endpoint()];
    let node = scenario.spawn(NodeSpec { endpoints, write_every: None, ..scenario.spec(NAMES[0]) });
    scenario.stable(&NAMES[..1]).await;
    // One as a process, one as a task.
    scenario.spawn(scenario.spec(NAMES[1]));
    scenario.spawn_task(scenario.spec(NAMES[2]));
    scenario.stable(&NAMES).await;
    assert_eq!(scenario.leader().await.0.name(), NAMES[0]);
    (scenario, node, proxy)
}

/// Breaks the line of the node that leads, until the others went on without it; mends it, until all are together again.
async fn broken(what: &str, breaks: impl Fn(&Proxy)) {
    let (scenario, node, proxy) = behind_a_proxy().await;
    let (before, term) = (scenario.stable(&NAMES).await, scenario.leader().await.1);
    node.pass_all();
    let (since, connections) = (scenario.now(), proxy.connections());
    breaks(&proxy);
    let suspended = |entry: &Entry| {
        matches!(entry.observation, Observation::LeadershipSuspended { .. }).then_some(entry.at)
    };
    let suspended = node.next_of("it suspends its lead", LONG, suspended).await;
    assert!(suspended.since(since) < TTL, "it stops before its lease does");
    node.next("lost", LONG, |it| matches!(it, Observation::SessionLost { .. })).await;
    let rest = without(&NAMES, node.name());
    let without_it = scenario.stable_after(before, &rest).await;
    let took = scenario.measured(&format!("{what} (the leader), TTL {TTL:?}"), since);
    assert!(took < TTL + SLACK, "{took:?}");
    let (other, later) = scenario.leader().await;
    assert!(other.name() != node.name() && later > term);
    let elected = scenario.follower.pages().iter().rev().find_map(|page| match &page.content {
        Content::Batch(batch) if batch.revision.get() == later => page.at,
        _ => None,
    });
    assert!(suspended < elected.unwrap(), "it stopped to act before another could lead");
    assert!(node.count(|it| matches!(it, Observation::StoreAway { .. })) >= 1);

    let (connections, took) = (proxy.connections() - connections, scenario.now().since(since));
    println!("measured: {what}: {connections} connections in {took:?}");
    // One try a second in the end, and a second connection to see what kind of server hangs up.
    assert!(connections < 20 + 6 * took.as_secs(), "{connections} connections in {took:?}");
    let connections = proxy.connections();
    let since = scenario.now();
    proxy.heal();
    scenario.stable_after(without_it, &NAMES).await;
    scenario.measured(&format!("{what}, mended"), since);
    assert!(proxy.connections() - connections < 20, "{} connections", proxy.connections() - connections);
    scenario.check(&NAMES).await;
}

pub(crate) async fn p6_a_leader_whose_connections_hang() {
    broken("connections hang", Proxy::hang).await;
}

pub(crate) async fn p7_a_node_that_is_cut_off() {
    broken("cut off", Proxy::cut).await;
}

/// What it sends arrives: its renewals keep the lease alive for etcd, and it knows of none of them.
pub(crate) async fn p7_a_node_whose_answers_are_lost() {
    broken("answers are lost", Proxy::hang_answers).await;
}
