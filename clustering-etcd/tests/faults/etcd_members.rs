//! An etcd of several members that fail.

use std::sync::Arc;

use clustering_testkit::{
    etcd::EtcdCluster,
    history::Observation,
    node::{Node, NodeSpec},
};

use crate::scenario::{LONG, Scenario, secs};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// An etcd of three members and three nodes in it, with a TTL that leaves room for an election.
async fn start() -> (EtcdCluster, Scenario, Vec<Arc<Node>>) {
    let etcd = EtcdCluster::start().await.unwrap();
    let scenario = Scenario::on(etcd.endpoints());
    let spec = |name| NodeSpec { ttl: secs(9), ..scenario.spec(name) };
    let nodes = NAMES.iter().map(|name| scenario.spawn(spec(name))).collect();
    scenario.stable(&NAMES).await;
    (etcd, scenario, nodes)
}

/// Waits until every node has renewed its lease three times from now on, and has not lost it.
async fn all_go_on(nodes: &[Arc<Node>]) {
    nodes.iter().for_each(|node| node.pass_all());
    for node in nodes {
        for _ in 0..3 {
            node.next("a renewal", LONG, |it| matches!(it, Observation::Renewed { .. })).await;
        }
        assert_eq!(node.count(|it| matches!(it, Observation::SessionLost { .. })), 0, "{}", node.name());
    }
}

/// As for a new release of etcd. Each node uses one of the members, and has to do without it for a while.
pub(crate) async fn p7_etcd_restarted_member_by_member_changes_nothing() {
    let (etcd, scenario, nodes) = start().await;
    let before = scenario.present();
    for member in etcd.members() {
        member.kill().await.unwrap();
        etcd.wait_for_leader().await.unwrap();
        all_go_on(&nodes).await;
        etcd.recover().await.unwrap();
    }
    assert_eq!(scenario.present(), before, "no version, no other term");
    // And it works on.
    nodes[2].stop().await;
    scenario.stable(&NAMES[..2]).await;
    scenario.check(&NAMES[..2]).await;
}

pub(crate) async fn p8_etcd_loses_its_leader_then_its_quorum_and_gets_it_back() {
    let (etcd, scenario, nodes) = start().await;
    let before = scenario.present();

    // The leader: a majority is left, and elects another in time.
    etcd.kill_leader().await.unwrap();
    etcd.wait_for_leader().await.unwrap();
    all_go_on(&nodes).await;
    assert_eq!(scenario.present(), before, "no version, no other term");
    etcd.recover().await.unwrap();

    // The quorum, for longer than the sessions last.
    nodes.iter().for_each(|node| node.pass_all());
    etcd.lose_quorum().await.unwrap();
    for node in &nodes {
        node.next("lost", LONG, |it| matches!(it, Observation::SessionLost { .. })).await;
    }
    etcd.recover().await.unwrap();
    let since = scenario.now();
    scenario.stable_after(before.0.unwrap(), &NAMES).await;
    scenario.measured("etcd without a quorum past the TTL of 9 s, since it is healthy", since);
    scenario.check(&NAMES).await;
}
