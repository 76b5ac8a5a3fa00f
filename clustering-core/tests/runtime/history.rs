//! The history of versions.

use clustering_core::{
    Cause, HistoryEntry,
    machine::RequestError,
    store::{CoordinationStore, CoordinationStoreExt, Txn},
};

use crate::common::{Cluster, leader, name, secs, stable};

fn causes(entry: &HistoryEntry) -> Vec<String> {
    entry.causes.iter().map(ToString::to_string).collect()
}

#[tokio::test(start_paused = true)]
async fn every_entry_has_the_causes_and_the_time_until_the_version_was_stable() {
    let cluster = Cluster::new();
    let mut nodes = cluster.start_many(3).await;
    let calm = || tokio::time::sleep(secs(20));
    calm().await;

    nodes.push(cluster.start("late").await);
    let joined = stable(&nodes).await;
    calm().await;
    nodes[0].request_version("rebalance").await.unwrap();
    stable(&nodes).await;
    calm().await;
    nodes.pop().unwrap().stop().await.unwrap();
    stable(&nodes).await;
    calm().await;
    let old = nodes.remove(nodes.iter().position(|node| node.is_leader()).unwrap());
    let gone = old.name().clone();
    old.crash();
    let newest = stable(&nodes).await;

    let history = nodes[0].history().await.unwrap();
    assert_eq!(history[0].version, newest);
    let new = leader(&nodes);
    let last: Vec<_> = history.iter().take(4).map(causes).collect();
    let elected = format!("{} was elected", new.name());
    assert_eq!(
        last,
        [
            vec![elected, format!("{gone}'s session ended")],
            vec!["late left".to_owned()],
            vec!["n000 asked (rebalance)".to_owned()],
            vec!["late joined".to_owned()],
        ]
    );
    assert_eq!((history[0].leader.as_ref(), Some(history[0].term)), (Some(new.name()), new.term()));
    let join = &history[3];
    assert_eq!((join.version, join.leader.as_ref()), (joined, Some(&gone)));
    assert!(join.causes == [Cause::Joined(name("late"))]);
    let numbers: Vec<_> = history.iter().map(|entry| entry.number).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] == pair[1] + 1), "{numbers:?}");
    let settled = join.stable.clone().unwrap();
    assert_eq!(settled.nodes, 4);
    assert!(settled.last.is_some() && settled.last_after <= settled.after, "{settled:?}");
    cluster.audit().await;
}

#[tokio::test(start_paused = true)]
async fn the_slowest_node_is_named() {
    let cluster = Cluster::new();
    let a = cluster.start("a").await;
    let slow = cluster.start_with("slow", |builder| builder.stabilize(|_| tokio::time::sleep(secs(7)))).await;
    stable([&a, &slow]).await;
    let entry = a.history().await.unwrap().remove(0);
    let settled = entry.stable.clone().unwrap();
    assert_eq!(settled.last, Some(name("slow")));
    assert!(settled.last_after >= secs(7) && settled.last_after < secs(8), "{settled:?}");
    let text = entry.to_string();
    assert!(text.contains("slow joined; 2 nodes stable after 7"), "{text}");
    assert!(text.contains(", slow last after 7"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn the_history_is_bounded_and_unreadable_entries_are_left_out() {
    let cluster = Cluster::new();
    let a = cluster.start("a").await;
    for _ in 0..100 {
        a.cluster_change().await.unwrap();
    }
    stable([&a]).await;
    let history = a.history().await.unwrap();
    assert_eq!(
        history.iter().map(|entry| entry.number).collect::<Vec<_>>(),
        Vec::from_iter((38..=101).rev())
    );
    let keys = a.keyspace();
    cluster.store.put(&keys.history_key(100), "garbage".into(), None).await.unwrap();
    cluster.store.put(&keys.history_key(99), r#"{"number": 99}"#.into(), None).await.unwrap();
    cluster.store.delete(&keys.history_key(98)).await.unwrap();
    let half = r#"{"version": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "cause": 7, "stable": "yes"}"#;
    cluster.store.put(&keys.history_key(97), half.into(), None).await.unwrap();
    let history = a.history().await.unwrap();
    let numbers: Vec<_> = history.iter().map(|entry| entry.number).collect();
    assert_eq!(numbers, [vec![0, 101], Vec::from_iter((38..=96).rev())].concat());
    assert_eq!(history[0].stable, None);
    // Unreadable entries are replaced when their slots are reused.
    for _ in 0..64 {
        a.cluster_change().await.unwrap();
    }
    assert_eq!(a.history().await.unwrap().len(), 64);
    cluster.audit().await;
}

#[tokio::test(start_paused = true)]
async fn no_node_watches_the_history_and_services_cannot_write_it() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(2).await;
    let before = cluster.store.stats();
    cluster.store.put("cluster/history/7", "{}".into(), None).await.unwrap();
    tokio::time::sleep(secs(1)).await;
    assert_eq!(cluster.store.stats().since(&before).batches, 0);
    let write = Txn::new().put(nodes[0].keyspace().history_key(7), "x", None);
    let refused = leader(&nodes).commit_as_leader(write).await.unwrap_err();
    assert!(matches!(refused, RequestError::Reserved { .. }), "{refused}");
    // A single read returns all of it.
    let before = cluster.store.stats();
    nodes[0].history().await.unwrap();
    assert_eq!(cluster.store.stats().since(&before).reads, 1);
    assert!(cluster.store.read("cluster/history/").await.unwrap().entries.len() >= 2);
}
