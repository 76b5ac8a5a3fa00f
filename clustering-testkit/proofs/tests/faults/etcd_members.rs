//! Members of an etcd cluster fail.

use clustering_proofs::node::NodeSpec;
use clustering_testkit::{etcd::EtcdCluster, history::Observation, proxy::Proxy};

use crate::scenario::{LONG, Scenario, secs};

const NAMES: [&str; 3] = ["a", "b", "c"];

pub(crate) async fn p8_the_cluster_recovers_after_etcd_lost_its_leader_and_then_its_quorum() {
    let etcd = EtcdCluster::start().await.unwrap();
    let scenario = Scenario::on(etcd.endpoints());
    // A node chooses its first member at random. Here all nodes start at the leader and must switch to another member.
    let leader = etcd.wait_for_leader().await.unwrap();
    let mut lines = Vec::new();
    for (member, endpoint) in etcd.endpoints().iter().enumerate() {
        let line = Proxy::to(endpoint).await.unwrap();
        if member != leader {
            line.cut();
        }
        lines.push(line);
    }
    let endpoints: Vec<_> = lines.iter().map(Proxy::endpoint).collect();
    let spec = |name| NodeSpec { ttl: secs(9), endpoints: endpoints.clone(), ..scenario.spec(name) };
    let nodes: Vec<_> = NAMES.iter().map(|name| scenario.spawn(spec(name))).collect();
    scenario.stable(&NAMES).await;
    let before = scenario.present();
    lines.iter().for_each(Proxy::heal);

    // Kill the leader. A majority is left and elects another leader in time.
    nodes.iter().for_each(|node| node.pass_all());
    assert_eq!(etcd.kill_leader().await.unwrap(), leader, "the leader has not changed");
    etcd.wait_for_leader().await.unwrap();
    for node in &nodes {
        for _ in 0..3 {
            node.next("a renewal", LONG, |it| matches!(it, Observation::Renewed { .. })).await;
        }
        assert_eq!(node.count(|it| matches!(it, Observation::SessionLost { .. })), 0, "{}", node.name());
    }
    assert_eq!(scenario.present(), before, "there is no new version and no new term");
    etcd.recover().await.unwrap();

    // Lose the quorum for longer than the sessions last.
    nodes.iter().for_each(|node| node.pass_all());
    etcd.lose_quorum().await.unwrap();
    for node in &nodes {
        node.next("a lost session", LONG, |it| matches!(it, Observation::SessionLost { .. })).await;
    }
    etcd.recover().await.unwrap();
    let since = scenario.now();
    scenario.stable_after(before.0.unwrap(), &NAMES).await;
    scenario
        .measured("etcd without a quorum for longer than the TTL of 9 s, since etcd is healthy again", since);
    scenario.check(&NAMES).await;
}
