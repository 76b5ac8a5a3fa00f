//! Manual changes to the store under a running cluster.

use clustering_core::{
    Event,
    event::LostReason,
    store::{CoordinationStore, CoordinationStoreExt, LeaseId},
};
use tokio::time::Instant;

use crate::common::{Cluster, Node, TTL, followers, leader, secs, soon, stable};

/// Returns the lease of a node's record.
async fn lease(cluster: &Cluster, node: &Node) -> LeaseId {
    let key = node.keyspace().node_key(node.name());
    cluster.store.get(&key).await.unwrap().unwrap().lease.unwrap()
}

async fn lost(node: &Node) -> LostReason {
    node.log
        .next_of("lost", |event| match event {
            Event::SessionLost { reason } => Some(reason.clone()),
            _ => None,
        })
        .await
}

async fn back(node: &Node) {
    node.log.next("back", |event| matches!(event, Event::Rejoined { .. })).await;
}

#[tokio::test(start_paused = true)]
async fn p7_a_node_whose_lease_is_revoked_by_hand_loses_its_session_and_rejoins_at_once() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(3).await;
    for node in [leader(&nodes), followers(&nodes)[0]] {
        let begun = Instant::now();
        cluster.store.revoke_lease(lease(&cluster, node).await).await.unwrap();
        lost(node).await;
        assert!(!node.is_leader());
        back(node).await;
        assert!(begun.elapsed() < secs(1), "{:?}", begun.elapsed());
        stable(&nodes).await;
    }
    cluster.audit().await;
}

/// A record that is deleted while its lease is live means that somebody wants to remove the node: it rejoins after a
/// pause, which grows each time until the node was ready.
#[tokio::test(start_paused = true)]
async fn p7_a_node_whose_record_is_deleted_by_hand_rejoins_after_a_pause_that_grows_until_it_is_ready() {
    let cluster = Cluster::new();
    let mut nodes = cluster.start_many(2).await;
    let (node, gate) = cluster.start_gated("z", false).await;
    let mut pauses = Vec::new();
    for _ in 0..3 {
        let begun = Instant::now();
        cluster.store.delete(&node.keyspace().node_key(node.name())).await.unwrap();
        assert_eq!(lost(&node).await, LostReason::Removed);
        back(&node).await;
        pauses.push(begun.elapsed().as_secs());
        tokio::time::sleep(TTL * 2).await;
    }
    gate.send(true).unwrap();
    nodes.push(node);
    stable(&nodes).await;
    let begun = Instant::now();
    cluster.store.delete(&nodes[2].keyspace().node_key(nodes[2].name())).await.unwrap();
    assert_eq!(lost(&nodes[2]).await, LostReason::Removed);
    back(&nodes[2]).await;
    pauses.push(begun.elapsed().as_secs());
    assert_eq!(pauses, [1, 2, 4, 1]);
    stable(&nodes).await;
    cluster.audit().await;
}

#[tokio::test(start_paused = true)]
async fn p5_another_node_leads_after_the_leader_key_is_deleted_by_hand() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(3).await;
    let old = leader(&nodes);
    let term = old.term().unwrap();
    cluster.store.delete(old.keyspace().election_key()).await.unwrap();
    old.until("it does not lead", |status| status.active_term.is_none()).await;
    let changed = old.log.next_of("another", |event| match event {
        Event::LeaderChanged { leader: Some(leader), term, own: false } => Some((leader.clone(), *term)),
        _ => None,
    });
    let (new, new_term) = changed.await;
    assert!(new != *old.name() && new_term > Some(term));
    stable(&nodes).await;
    // The last remaining node leads again after one TTL, since it cannot know that no other node will join.
    for node in nodes.iter().filter(|node| node.name() != old.name()) {
        node.stop().await.unwrap();
    }
    old.leads().await;
    let begun = Instant::now();
    cluster.store.delete(old.keyspace().election_key()).await.unwrap();
    old.until("it does not lead", |status| status.active_term.is_none()).await;
    old.leads().await;
    assert_eq!(begun.elapsed(), TTL);
    stable([old]).await;
    cluster.audit().await;
}

#[tokio::test(start_paused = true)]
async fn p2_a_version_key_deleted_by_hand_is_replaced_by_a_newer_version() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(3).await;
    let before = stable(&nodes).await;
    cluster.store.delete("cluster/view/version").await.unwrap();
    nodes[1]
        .until("a newer one", |status| status.newest.as_ref().is_some_and(|view| view.version() > before))
        .await;
    stable(&nodes).await;
    cluster.audit().await;
}

/// If the record of the stable version is deleted, it is written again, but the version is not announced again.
#[tokio::test(start_paused = true)]
async fn p4_a_stable_key_deleted_by_hand_is_written_again_and_not_announced_again() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(2).await;
    let version = stable(&nodes).await;
    let announced = cluster.seen.announced();
    cluster.store.delete("cluster/view/stable").await.unwrap();
    for _ in 0..2 {
        nodes[1].log.next("stable", |event| *event == Event::Stable { version }).await;
    }
    assert_eq!(stable(&nodes).await, version);
    tokio::time::sleep(secs(5)).await;
    assert_eq!(cluster.seen.announced(), announced);
}

/// An acknowledgement is deleted while the version waits for another node. Its node does not notice, so the leader
/// publishes a newer version.
#[tokio::test(start_paused = true)]
async fn p8_an_acknowledgement_deleted_by_hand_does_not_block_for_ever() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(3).await;
    let (gated, gate) = cluster.start_gated("z", false).await;
    let follower = followers(&nodes)[0];
    let version =
        follower.until("four", |status| status.acknowledged.as_ref().is_some_and(|view| view.len() == 4));
    let version = version.await.cluster_version().unwrap();
    for node in &nodes {
        node.until("ready", |status| status.cluster_version() == Some(version)).await;
    }
    cluster.store.delete(&follower.keyspace().readiness_key(follower.name())).await.unwrap();
    tokio::time::sleep(secs(10)).await;
    gate.send(true).unwrap();
    let all: Vec<_> = nodes.iter().chain([&gated]).collect();
    assert!(soon("stable", stable(all)).await > version);
    cluster.audit().await;
}

/// A request is put by hand, as an operator's tool does it.
#[tokio::test(start_paused = true)]
async fn a_request_put_by_hand_is_granted_with_its_reason() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(2).await;
    let before = stable(&nodes).await;
    let request = r#"{"by":"ops","why":"rebalance after the disk was replaced","extra":[1]}"#;
    cluster.store.put("cluster/view/request", request.into(), None).await.unwrap();
    nodes[1].until("newer", |status| status.newest.as_ref().unwrap().version() > before).await;
    stable(&nodes).await;
    let causes: Vec<_> = nodes[0].view().unwrap().causes().iter().map(ToString::to_string).collect();
    assert_eq!(causes, ["ops asked (rebalance after the disk was replaced)"]);
}

/// The whole namespace is deleted under a running cluster in one commit.
#[tokio::test(start_paused = true)]
async fn p7_the_cluster_recovers_after_all_its_keys_are_deleted_by_hand() {
    use clustering_core::store::Txn;

    let cluster = Cluster::new();
    let nodes = cluster.start_many(3).await;
    let before = stable(&nodes).await;
    let all = cluster.store.read("cluster/").await.unwrap().entries;
    let txn = all.into_iter().fold(Txn::new(), |txn, entry| txn.delete(entry.key));
    cluster.store.commit(txn).await.unwrap();
    for node in &nodes {
        assert_eq!(lost(node).await, LostReason::Removed);
        back(node).await;
    }
    assert!(stable(&nodes).await > before);
    assert_eq!(cluster.store.lease_count(), 3);
    cluster.audit().await;
}

/// Overwrites a key and leaves it attached to its lease, as `etcdctl put --ignore-lease` does.
async fn overwrite(cluster: &Cluster, key: &str, value: &str) {
    let lease = cluster.store.get(key).await.unwrap().unwrap().lease;
    cluster.store.put(key, value.to_owned().into(), lease).await.unwrap();
}

/// Somebody changes the URI, the metadata, or both, of a record under the same incarnation.
#[tokio::test(start_paused = true)]
async fn p1_a_record_overwritten_by_hand_is_corrected_by_its_node() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(3).await;
    for node in [leader(&nodes), followers(&nodes)[0]] {
        let term = node.term();
        let key = node.keyspace().node_key(node.name());
        let record = cluster.store.get(&key).await.unwrap().unwrap();
        let record = String::from_utf8(record.value.to_vec()).unwrap();
        let edited = record.replace("http://host:80", "http://elsewhere:80").replace("{}", r#"{"zone":"x"}"#);
        assert_ne!(edited, record);
        overwrite(&cluster, &key, &edited).await;
        node.log.next("noticed", |event| matches!(event, Event::Overwritten { .. })).await;
        for other in &nodes {
            let right = |status: &clustering_core::Status| {
                let present = status.newest.as_ref().and_then(|view| view.get(node.name()));
                let right = |present: &clustering_core::Node| {
                    present.uri.as_str() == "http://host:80" && present.metadata.is_empty()
                };
                status.is_stable() && present.is_some_and(|present| right(present))
            };
            other.until("right again", right).await;
        }
        stable(&nodes).await;
        assert_eq!(node.log.count(|event| matches!(event, Event::SessionLost { .. })), 0);
        assert_eq!(node.term(), term);
    }
    cluster.audit().await;
}

/// If somebody replaces a record under its lease by anything else, the node rejoins under its own name.
#[tokio::test(start_paused = true)]
async fn p7_a_node_whose_record_is_replaced_by_hand_rejoins() {
    for value in ["garbage", r#"{"uri":"http://x","incarnation":"x"}"#] {
        let cluster = Cluster::new();
        let nodes = cluster.start_many(3).await;
        let node = followers(&nodes)[0];
        overwrite(&cluster, &node.keyspace().node_key(node.name()), value).await;
        assert_eq!(lost(node).await, LostReason::Removed);
        back(node).await;
        stable(&nodes).await;
    }
}

#[tokio::test(start_paused = true)]
async fn p7_a_leader_whose_key_is_overwritten_by_hand_resigns() {
    for value in [r#"{"node":"n001","incarnation":"x"}"#, "garbage"] {
        let cluster = Cluster::new();
        let nodes = cluster.start_many(3).await;
        let old = leader(&nodes);
        assert_ne!(old.name().as_str(), "n001");
        overwrite(&cluster, old.keyspace().election_key(), value).await;
        old.log.next("noticed", |event| matches!(event, Event::Overwritten { .. })).await;
        let named = |status: &clustering_core::Status| {
            let name = status.leader.as_ref().and_then(|leader| leader.name.clone());
            name.is_some_and(|name| nodes.iter().any(|node| node.is_leader() && *node.name() == name))
        };
        for node in &nodes {
            node.until("the leader's name is right", named).await;
        }
        stable(&nodes).await;
    }
}

/// An acknowledgement is overwritten while the version waits for another node.
#[tokio::test(start_paused = true)]
async fn p8_an_acknowledgement_overwritten_by_hand_does_not_block_for_ever() {
    let old = r#"{"version":"01ARZ3NDEKTSV4RRFFQ69G5FAV","outcome":"ready"}"#;
    for value in ["garbage", old, r#"{"version":"NEWEST","outcome":"failed","detail":"x"}"#] {
        let cluster = Cluster::new();
        let nodes = cluster.start_many(2).await;
        let (gated, gate) = cluster.start_gated("z", false).await;
        let node = followers(&nodes)[0];
        let three = |status: &clustering_core::Status| {
            status.acknowledged.as_ref().is_some_and(|view| view.len() == 3)
        };
        let version = node.until("three", three).await.cluster_version().unwrap();
        let value = value.replace("NEWEST", &version.to_string());
        overwrite(&cluster, &node.keyspace().readiness_key(node.name()), &value).await;
        tokio::time::sleep(secs(5)).await;
        gate.send(true).unwrap();
        soon("stable", stable(nodes.iter().chain([&gated]))).await;
    }
}
