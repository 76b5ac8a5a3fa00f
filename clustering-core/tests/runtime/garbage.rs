//! Garbage under the cluster's keys is reported, and never stops a node.

use clustering_core::{
    Event,
    store::{CoordinationStore, CoordinationStoreExt, Txn},
};

use crate::common::{Cluster, Node, followers, leader, name, secs, stable};

/// An object in which no field is valid. It is a valid request nevertheless, since all fields of a request are
/// optional.
const OBJECT: &[u8] = b"{\"uri\": 7, \"incarnation\": [], \"version\": {}, \"node\": null}";

/// Values that are not a valid record of any kind.
const GARBAGE: [&[u8]; 8] = [
    b"",
    b"not json",
    b"\x00\xff\xfe binary",
    b"[1, 2]",
    b"null",
    b"\"text\"",
    OBJECT,
    b"{\"uri\": \"http://h:1\", \"version\": \"01ARZ3NDEKTSV4RRFFQ69G5FAV\"",
];

async fn put(cluster: &Cluster, key: &str, value: &'static [u8]) {
    cluster.store.put(key, value.into(), None).await.unwrap();
}

async fn reported(node: &Node, wanted: &str) {
    node.log
        .next(&format!("{wanted} is reported"), |event| match event {
            Event::Malformed { key, reason } => key.as_str() == wanted && !reason.is_empty(),
            _ => false,
        })
        .await;
}

fn no_session_was_lost(nodes: &[Node]) {
    for node in nodes {
        assert_eq!(node.log.count(|event| matches!(event, Event::SessionLost { .. })), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn garbage_before_the_start_is_reported_and_stops_no_node() {
    for value in GARBAGE {
        let cluster = Cluster::new();
        let keys = ["version", "stable", "request", "nodes/x", "nodes/a/b", "nodes//", "unknown", "nodes"];
        for key in keys {
            put(&cluster, &format!("cluster/view/{key}"), value).await;
        }
        for key in ["x", "a", "a/b", "/"] {
            put(&cluster, &format!("cluster/ready/{key}"), value).await;
        }
        let nodes = [cluster.start("a").await, cluster.start("b").await];
        stable(&nodes).await;
        for key in ["nodes/x", "nodes/a/b", "nodes//", "request", "version", "stable"] {
            if key == "request" && value == OBJECT {
                continue;
            }
            let key = format!("cluster/view/{key}");
            let told = |event: &Event| matches!(event, Event::Malformed { key: this, .. } if **this == *key);
            for node in &nodes {
                // Some of the values may be replaced before the second node reads them.
                let at_least = usize::from(node.name().as_str() == "a" || key.contains("nodes/"));
                assert!(node.log.count(told) >= at_least, "{key}: {:#?}", node.log.all());
            }
        }
        let told_of_unknown = |event: &Event| matches!(event, Event::Malformed { key, .. } if key.ends_with("/unknown") || key.ends_with("view/nodes"));
        assert_eq!(nodes[0].log.count(told_of_unknown), 0, "unknown keys are not reported");
        // A leader considers acknowledgements from its election on, so garbage from before is not reported.
        assert_eq!(nodes[0].view().unwrap().len(), 2);
        assert!(nodes[0].node_versions().await.unwrap().keys().eq([&name("a"), &name("b")]));
        no_session_was_lost(&nodes);
        assert!(cluster.store.get("cluster/view/unknown").await.unwrap().is_some());
    }
}

/// No node campaigns against an unreadable leader key, since its writer is unknown. Deleting the key repairs the
/// cluster.
#[tokio::test(start_paused = true)]
async fn p5_with_an_unreadable_leader_key_no_node_campaigns_until_it_is_deleted() {
    let cluster = Cluster::new();
    put(&cluster, "cluster/view/leader", b"garbage").await;
    let nodes = [cluster.start("a").await, cluster.start("b").await];
    for node in &nodes {
        reported(node, "cluster/view/leader").await;
    }
    tokio::time::sleep(secs(120)).await;
    for node in &nodes {
        let status = node.now();
        assert!(status.newest.is_none() && !node.is_leader() && node.is_member());
        assert!(status.leader.clone().is_some_and(|leader| leader.name.is_none()));
        assert_eq!(node.leader_node(), None);
    }
    assert_eq!(nodes[0].line.commits().len(), 1, "its only commit is its join");
    cluster.store.delete("cluster/view/leader").await.unwrap();
    stable(&nodes).await;
}

#[tokio::test(start_paused = true)]
async fn p5_garbage_over_the_key_of_a_live_leader_ends_its_leadership_and_is_reported() {
    for value in GARBAGE {
        let cluster = Cluster::new();
        let nodes = cluster.start_many(2).await;
        let old = leader(&nodes);
        put(&cluster, "cluster/view/leader", value).await;
        old.until("it does not lead", |status| status.active_term.is_none()).await;
        for node in &nodes {
            reported(node, "cluster/view/leader").await;
            let changed = |event: &Event| {
                matches!(event, Event::LeaderChanged { leader: None, term: Some(_), own: false })
            };
            node.log.next("the change", changed).await;
        }
        tokio::time::sleep(secs(60)).await;
        assert!(nodes.iter().all(|node| !node.is_leader()));
        cluster.store.delete("cluster/view/leader").await.unwrap();
        let healed = nodes[0].log.next_of("a leader", |event| match event {
            Event::LeaderChanged { leader: Some(leader), .. } => Some(leader.clone()),
            _ => None,
        });
        healed.await;
        let version = nodes[1].cluster_change().await.unwrap();
        assert!(stable(&nodes).await >= version);
        no_session_was_lost(&nodes);
    }
}

/// A valid record that is put over the election key without its lease ends the leadership too.
#[tokio::test(start_paused = true)]
async fn p5_a_copy_of_the_leader_record_without_its_lease_ends_the_leadership_and_is_reported() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(2).await;
    let old = leader(&nodes);
    let record = cluster.store.get("cluster/view/leader").await.unwrap().unwrap();
    cluster.store.put("cluster/view/leader", record.value, None).await.unwrap();
    old.until("it does not lead", |status| status.active_term.is_none()).await;
    let changed = |event: &Event| matches!(event, Event::LeaderChanged { own: false, .. });
    old.log.next("the change", changed).await;
    cluster.store.delete("cluster/view/leader").await.unwrap();
    followers(&nodes)[0].until("newer", |status| status.is_stable()).await;
    stable(&nodes).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_rejoins_after_garbage_over_its_record() {
    for value in GARBAGE {
        let cluster = Cluster::new();
        let nodes = cluster.start_many(3).await;
        let node = followers(&nodes)[0];
        let key = node.keyspace().node_key(node.name());
        put(&cluster, &key, value).await;
        for witness in &nodes {
            reported(witness, &key).await;
            witness.log.next("gone", |event| matches!(event, Event::NodeDown { .. })).await;
        }
        node.log.next("lost", |event| matches!(event, Event::SessionLost { .. })).await;
        node.log.next("back", |event| matches!(event, Event::Rejoined { .. })).await;
        stable(&nodes).await;
    }
}

#[tokio::test(start_paused = true)]
async fn garbage_over_the_version_is_replaced_by_a_new_version() {
    for value in GARBAGE {
        let cluster = Cluster::new();
        let nodes = cluster.start_many(3).await;
        let before = stable(&nodes).await;
        put(&cluster, "cluster/view/version", value).await;
        for node in &nodes {
            reported(node, "cluster/view/version").await;
        }
        assert!(stable(&nodes).await > before);
        no_session_was_lost(&nodes);
    }
}

#[tokio::test(start_paused = true)]
async fn p4_garbage_over_the_stable_record_is_replaced_and_not_announced_again() {
    for value in GARBAGE {
        let cluster = Cluster::new();
        let nodes = cluster.start_many(2).await;
        let version = stable(&nodes).await;
        let announced = cluster.seen.announced();
        put(&cluster, "cluster/view/stable", value).await;
        reported(&nodes[1], "cluster/view/stable").await;
        nodes[1].log.next("stable", |event| *event == Event::Stable { version }).await;
        tokio::time::sleep(secs(5)).await;
        assert_eq!(cluster.seen.announced(), announced);
        no_session_was_lost(&nodes);
    }
}

/// An unreadable request counts as a request for a new version, without a reason.
#[tokio::test(start_paused = true)]
async fn garbage_over_the_request_counts_as_a_request() {
    for value in GARBAGE {
        let cluster = Cluster::new();
        let nodes = cluster.start_many(2).await;
        let before = stable(&nodes).await;
        put(&cluster, "cluster/view/request", value).await;
        if value != OBJECT {
            reported(&nodes[1], "cluster/view/request").await;
        }
        nodes[1].until("newer", |status| status.newest.as_ref().unwrap().version() > before).await;
        let version = stable(&nodes).await;
        tokio::time::sleep(secs(30)).await;
        assert_eq!(stable(&nodes).await, version, "one");
    }
}

/// Garbage over a node's acknowledgement, before or after it acknowledges, while the version waits for another node.
#[tokio::test(start_paused = true)]
async fn p8_garbage_over_an_acknowledgement_does_not_block_for_ever() {
    for value in GARBAGE {
        let cluster = Cluster::new();
        let nodes = cluster.start_many(2).await;
        let (gated, gate) = cluster.start_gated("z", false).await;
        for node in &nodes {
            node.until("ready", |status| status.acknowledged.as_ref().is_some_and(|view| view.len() == 3))
                .await;
        }
        for key in ["n000", "n001", "z"] {
            put(&cluster, &format!("cluster/ready/{key}"), value).await;
            reported(leader(&nodes), &format!("cluster/ready/{key}")).await;
        }
        tokio::time::sleep(secs(10)).await;
        gate.send(true).unwrap();
        stable(nodes.iter().chain([&gated])).await;
        no_session_was_lost(&nodes);
    }
}

/// Every record has fields that this release does not know, and there are unknown records beside them.
#[tokio::test(start_paused = true)]
async fn unknown_fields_are_ignored() {
    let cluster = Cluster::new();
    let record = r#"{"uri":"http://by-hand:80","incarnation":"x","metadata":{"deep":{"a":[1]},"zone":"q","n":7},
        "protocol":"seven","state":"draining","more":[{}]}"#;
    let version = r#"{"version":"01HF7YAT00ZZZZZZZZZZZZZZZZ","term":"?","leader":7,"cause":[{"moved":{"x":1}},9],"x":{}}"#;
    let stable_record = r#"{"version":"01HF7YAT00ZZZZZZZZZZZZZZZZ","term":[],"y":1}"#;
    let txn = Txn::new()
        .put("cluster/view/nodes/by-hand", record, None)
        .put("cluster/view/version", version, None)
        .put("cluster/view/stable", stable_record, None)
        .put("cluster/view/request", r#"{"by":{"a":1},"why":[]}"#, None);
    cluster.store.commit(txn).await.unwrap();
    let node = cluster.start("a").await;
    node.leads().await;
    let status = node.until("a version", |status| status.newest.is_some()).await;
    assert_eq!(node.log.count(|event| matches!(event, Event::Malformed { .. })), 0, "{:#?}", node.log.all());
    let view = status.newest.clone().unwrap();
    let by_hand = view.get(&name("by-hand")).unwrap();
    assert_eq!((by_hand.metadata["zone"].as_str(), by_hand.metadata["n"].as_str()), ("q", "7"));
    assert_eq!(by_hand.metadata["deep"], r#"{"a":[1]}"#);
    // No process is behind that record, so the version is blocked by it, and the report says so.
    let blocked = node.log.next("blocked", |event| matches!(event, Event::Blocked(_))).await;
    assert!(blocked.to_string().contains("by-hand has not answered"), "{blocked}");
    cluster.store.delete("cluster/view/nodes/by-hand").await.unwrap();
    stable([&node]).await;
}
