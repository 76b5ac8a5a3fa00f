//! An etcd whose space quota is used up: it renews and ends leases, and takes no writes.

use std::sync::Arc;

use clustering_core::store::{CoordinationStoreExt, ErrorKind, Limits};
use clustering_testkit::{
    etcd::EtcdServer,
    history::Observation,
    node::{Node, NodeSpec},
};

use crate::scenario::{Alone, LONG, secs, soon, without};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// The smallest quota with which etcd starts.
const QUOTA: u64 = 16 * 1024 * 1024;

async fn says(node: &Node, what: &str, why: &str) {
    let is = |text: &str| text.starts_with(what) && text.contains(why);
    node.next(what, LONG, |it| matches!(it, Observation::Note { text } if is(text))).await;
}

/// Writes until etcd has no space left.
async fn fill(scenario: &Alone) {
    for number in 0.. {
        let value = vec![b'x'; Limits::VALUE].into();
        match scenario.store.put(&format!("filler/{number}"), value, None).await {
            Err(error) if error.kind() == ErrorKind::Busy => return,
            written => drop(written.unwrap()),
        }
    }
}

/// As the operator's guide has it.
async fn make_room(scenario: &Alone) {
    scenario.etcdctl(&["del", "--prefix", "filler/"]).await;
    scenario.etcd.compact().await.unwrap();
    scenario.etcdctl(&["defrag"]).await;
    scenario.etcdctl(&["alarm", "disarm"]).await;
}

pub(crate) async fn p10_a_full_etcd_is_reported_and_the_cluster_goes_on_when_there_is_room() {
    let scenario = Alone::on(EtcdServer::builder().quota(QUOTA).start().await.unwrap());
    let mut nodes: Vec<Arc<Node>> = Vec::new();
    for name in NAMES {
        let node = scenario.spawn(NodeSpec { warn_after: secs(2), ..scenario.spec(name) });
        node.next("joined", LONG, |it| matches!(it, Observation::Joined { .. })).await;
        nodes.push(node);
    }
    scenario.stable(&NAMES).await;
    let (leader, term) = scenario.leader().await;
    soon("a full etcd", fill(&scenario)).await;
    let killed = nodes.iter().find(|node| node.name() != leader.name()).unwrap();
    killed.kill().await;
    says(&leader, "publishing a version has been failing for", "database space exceeded").await;
    make_room(&scenario).await;
    says(&leader, "publishing a version no longer fails", "").await;
    let left = without(&NAMES, killed.name());
    scenario.stable(&left).await;
    assert_eq!(scenario.present().1, Some(term), "the same leader goes on");
    scenario.check(&left).await;
}
