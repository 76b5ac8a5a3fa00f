//! Connections between one node and etcd break, while the others work.

use clustering_proofs::{
    network::Network,
    node::{Node, NodeSpec},
};
use clustering_testkit::{
    etcd::EtcdServer,
    history::{Entry, Observation, ledger::Content},
    proxy::Proxy,
};

use crate::scenario::{Alone, LONG, SLACK, TTL, without};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Disables the node's own writes, so that only the library uses the connection.
fn quiet(spec: NodeSpec) -> NodeSpec {
    NodeSpec { write_every: None, ..spec }
}

/// Waits until the node leads, and then starts two other nodes, one as a process and one as a task.
async fn with_others(scenario: &Alone, node: &Node) {
    scenario.stable(&[node.name()]).await;
    scenario.spawn(scenario.spec(NAMES[1]));
    scenario.spawn_task(scenario.spec(NAMES[2]));
    scenario.stable(&NAMES).await;
    assert_eq!(scenario.leader().await.0.name(), node.name());
}

/// Breaks the connection of the leader until the other nodes have continued without it. Then repairs it and waits until
/// all nodes are together again.
async fn broken(what: &str, scenario: &Alone, node: &Node, breaks: impl FnOnce(), mends: impl FnOnce()) {
    let (before, term) = (scenario.stable(&NAMES).await, scenario.leader().await.1);
    node.pass_all();
    let since = scenario.now();
    breaks();
    let suspended = |entry: &Entry| {
        matches!(entry.observation, Observation::LeadershipSuspended { .. }).then_some(entry.at)
    };
    let suspended = node.next_of("the suspension of its lead", LONG, suspended).await;
    assert!(suspended.since(since) < TTL, "the leader was suspended before its lease expired");
    node.next("a lost session", LONG, |it| matches!(it, Observation::SessionLost { .. })).await;
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
    assert!(suspended < elected.unwrap(), "the leader was suspended before another node was elected");
    assert!(node.count(|it| matches!(it, Observation::StoreAway { .. })) >= 1);
    let asked = |entry: &Entry| match entry.observation {
        Observation::AskedLeader { term, .. } => Some(term),
        _ => None,
    };
    // The node is asked continuously, but an unchanged answer is not recorded again.
    let said = node.journal().iter().rev().find_map(asked);
    assert_eq!(said, Some(None), "is_leader() while another leads");

    let since = scenario.now();
    mends();
    scenario.stable_after(without_it, &NAMES).await;
    scenario.measured(&format!("{what}, since the repair"), since);
    assert_eq!(scenario.leader().await.1, later, "the other node still leads");
    scenario.check(&NAMES).await;
}

pub(crate) async fn p6_a_leader_whose_connections_hang_opens_few_new_ones() {
    let what = "connections hang";
    let scenario = Alone::new().await;
    let proxy = Proxy::to(&scenario.etcd.endpoint()).await.unwrap();
    let spec = quiet(scenario.spec(NAMES[0]));
    let node = scenario.spawn(NodeSpec { endpoints: vec![proxy.endpoint()], ..spec });
    with_others(&scenario, &node).await;
    let (since, before) = (scenario.now(), proxy.connections());
    let mends = || {
        let (connections, took) = (proxy.connections() - before, scenario.now().since(since));
        println!("measured: {what}: {connections} connections in {took:?}");
        // One attempt per second at most, and a second connection to find out what kind of server closes connections.
        assert!(connections < 20 + 6 * took.as_secs(), "{connections} connections in {took:?}");
        proxy.heal();
    };
    broken(what, &scenario, &node, || proxy.hang(), mends).await;
    assert!(proxy.connections() - before < 60, "{} connections", proxy.connections() - before);
}

/// Runs a node in its own network, whose connection breaks.
async fn in_a_network(what: &str, breaks: fn(&Network) -> std::io::Result<()>) {
    if let Some(why) = Network::unavailable() {
        println!("NOT TESTED: a node whose network fails ({what}): {why}");
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

pub(crate) async fn p7_a_node_rejoins_after_its_network_dropped_all_packets() {
    in_a_network("a network that drops all packets", Network::cut).await;
}

pub(crate) async fn p7_a_node_rejoins_after_its_network_interface_was_removed() {
    in_a_network("a removed network interface", Network::unplug).await;
}
