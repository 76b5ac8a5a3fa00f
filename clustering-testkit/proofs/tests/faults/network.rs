//! Lines between a node and etcd that break while others hold.

use clustering_proofs::{
    network::Network,
    node::{Node, NodeSpec},
    proxy::Proxy,
};
use clustering_testkit::{
    etcd::EtcdServer,
    history::{Entry, Observation, ledger::Content},
};

use crate::scenario::{Alone, LONG, SLACK, TTL, without};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// What a node says of itself is its own; what goes over the line is the library's alone.
fn quiet(spec: NodeSpec) -> NodeSpec {
    NodeSpec { write_every: None, ..spec }
}

/// Has that node lead, and two others join it: one as a process, one as a task.
async fn with_others(scenario: &Alone, node: &Node) {
    scenario.stable(&[node.name()]).await;
    scenario.spawn(scenario.spec(NAMES[1]));
    scenario.spawn_task(scenario.spec(NAMES[2]));
    scenario.stable(&NAMES).await;
    assert_eq!(scenario.leader().await.0.name(), node.name());
}

/// Breaks the line of the node that leads, until the others went on without it; mends it, until all are together again.
async fn broken(what: &str, scenario: &Alone, node: &Node, breaks: impl FnOnce(), mends: impl FnOnce()) {
    let (before, term) = (scenario.stable(&NAMES).await, scenario.leader().await.1);
    node.pass_all();
    let since = scenario.now();
    breaks();
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
    let asked = |entry: &Entry| match entry.observation {
        Observation::AskedLeader { term, .. } => Some(term),
        _ => None,
    };
    // It is asked all the time. What does not change is not written again.
    let said = node.journal().iter().rev().find_map(asked);
    assert_eq!(said, Some(None), "is_leader() while another leads");

    let since = scenario.now();
    mends();
    scenario.stable_after(without_it, &NAMES).await;
    scenario.measured(&format!("{what}, mended"), since);
    assert_eq!(scenario.leader().await.1, later, "the other leads on");
    scenario.check(&NAMES).await;
}

async fn behind_a_proxy(what: &str, breaks: impl FnOnce(&Proxy)) {
    let scenario = Alone::new().await;
    let proxy = Proxy::to(&scenario.etcd.endpoint()).await.unwrap();
    let spec = quiet(scenario.spec(NAMES[0]));
    let node = scenario.spawn(NodeSpec { endpoints: vec![proxy.endpoint()], ..spec });
    with_others(&scenario, &node).await;
    let (since, before) = (scenario.now(), proxy.connections());
    let mends = || {
        let (connections, took) = (proxy.connections() - before, scenario.now().since(since));
        println!("measured: {what}: {connections} connections in {took:?}");
        // One try a second in the end, and a second connection to see what kind of server hangs up.
        assert!(connections < 20 + 6 * took.as_secs(), "{connections} connections in {took:?}");
        proxy.heal();
    };
    broken(what, &scenario, &node, || breaks(&proxy), mends).await;
    assert!(proxy.connections() - before < 60, "{} connections", proxy.connections() - before);
}

pub(crate) async fn p6_a_leader_whose_connections_hang() {
    behind_a_proxy("connections hang", Proxy::hang).await;
}

pub(crate) async fn p7_a_node_whose_connections_are_closed() {
    behind_a_proxy("connections closed", Proxy::cut).await;
}

/// What it sends arrives: its renewals keep the lease alive for etcd, and it knows of none of them.
pub(crate) async fn p7_a_node_whose_answers_are_lost() {
    behind_a_proxy("answers are lost", Proxy::hang_answers).await;
}

/// A node in a network of its own, whose wire breaks.
async fn in_a_network(what: &str, breaks: fn(&Network) -> std::io::Result<()>) {
    if let Some(why) = Network::unavailable() {
        println!("NOT TESTED: a node that is cut off by its network ({what}): {why}");
        return;
    }
    let network = Network::new().await.unwrap();
    let etcd = EtcdServer::builder().also_at(network.host()).start().await.unwrap();
    let scenario = Alone::on(etcd);
    let endpoints = vec![scenario.etcd.endpoint_at(network.host())];
    let spec = NodeSpec { endpoints, ..quiet(scenario.spec(NAMES[0])) };
    let node = scenario.keep(spec.spawn_in(&network).unwrap());
    with_others(&scenario, &node).await;
    broken(what, &scenario, &node, || breaks(&network).unwrap(), || network.mend().unwrap()).await;
}

pub(crate) async fn p7_a_node_whose_network_loses_everything() {
    in_a_network("a network that loses everything", Network::cut).await;
}

pub(crate) async fn p7_a_node_whose_network_card_is_gone() {
    in_a_network("a network card that is gone", Network::unplug).await;
}
