//! Changes that an operator with `etcdctl` can make to a running cluster.

use std::sync::Arc;

use clustering_proofs::node::Node;
use clustering_testkit::history::Observation;

use crate::scenario::{Alone, LONG};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Returns the leader and another node.
async fn both(scenario: &Alone, nodes: &[Arc<Node>]) -> [Arc<Node>; 2] {
    let leader = scenario.leader().await.0;
    let follower = nodes.iter().find(|node| node.name() != leader.name()).unwrap();
    [leader, follower.clone()]
}

async fn lost_and_back(node: &Node, why: &str) {
    let lost =
        |it: &Observation| matches!(it, Observation::SessionLost { reason, .. } if reason.contains(why));
    node.next("a lost session", LONG, lost).await;
    node.next("a rejoin", LONG, |it| matches!(it, Observation::Rejoined { .. })).await;
}

pub(crate) async fn p7_a_node_whose_lease_is_revoked_by_hand_rejoins() {
    let (scenario, nodes) = Alone::with(&NAMES).await;
    for node in both(&scenario, &nodes).await {
        let before = scenario.stable(&NAMES).await;
        let name = clustering_core::NodeName::parse(node.name()).unwrap();
        let lease = scenario.follower.ledger().present().lease_of(&name).unwrap().unwrap();
        let since = scenario.now();
        scenario.etcdctl(&["lease", "revoke", &lease.to_string()]).await;
        lost_and_back(&node, "").await;
        scenario.stable_after(before, &NAMES).await;
        scenario.measured("a lease revoked by hand", since);
    }
    scenario.check(&NAMES).await;
}

pub(crate) async fn p7_a_node_whose_record_is_deleted_by_hand_rejoins() {
    let (scenario, nodes) = Alone::with(&NAMES).await;
    for node in both(&scenario, &nodes).await {
        let before = scenario.stable(&NAMES).await;
        let since = scenario.now();
        scenario.etcdctl(&["del", &scenario.key(&format!("view/nodes/{}", node.name()))]).await;
        lost_and_back(&node, "removed").await;
        scenario.stable_after(before, &NAMES).await;
        scenario.measured("a node's record deleted by hand, with a pause of 1 s", since);
    }
    scenario.check(&NAMES).await;
}

pub(crate) async fn p5_another_node_leads_after_the_election_key_is_deleted_by_hand() {
    let (scenario, _) = Alone::with(&NAMES).await;
    let (leader, term) = scenario.leader().await;
    let before = scenario.stable(&NAMES).await;
    let since = scenario.now();
    scenario.etcdctl(&["del", &scenario.key("view/leader")]).await;
    scenario.stable_after(before, &NAMES).await;
    scenario.measured("the leader's key deleted by hand", since);
    let (other, later) = scenario.leader().await;
    assert!(other.name() != leader.name() && later > term);
    assert_eq!(leader.count(|it| matches!(it, Observation::SessionLost { .. })), 0);
    scenario.check(&NAMES).await;
}

pub(crate) async fn p8_a_version_and_its_stability_record_deleted_by_hand_are_replaced() {
    let (scenario, nodes) = Alone::with(&NAMES).await;
    let term = scenario.leader().await.1;
    let before = scenario.stable(&NAMES).await;
    scenario.etcdctl(&["del", &scenario.key("view/version")]).await;
    let version = scenario.stable_after(before, &NAMES).await;
    // The new version has its own label, above the deleted one.
    assert!(version > before);
    // The same version is recorded again.
    let recorded = |ledger: &clustering_testkit::history::Ledger| {
        let era = ledger.present();
        (era.is_stable() && era.confirmed().iter().filter(|it| it.version == version).count() == 2)
            .then_some(())
    };
    scenario.etcdctl(&["del", &scenario.key("view/stable")]).await;
    scenario.until("the version recorded as stable again", recorded).await;
    // A stable version does not need its acknowledgements any more.
    scenario.etcdctl(&["del", &scenario.key("ready/b")]).await;
    for node in &nodes {
        node.pass_all();
        node.next("a renewal", LONG, |it| matches!(it, Observation::Renewed { .. })).await;
    }
    assert_eq!(scenario.present(), (Some(version), Some(term)));
    scenario.check(&NAMES).await;
}
