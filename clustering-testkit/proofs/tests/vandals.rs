//! Arbitrary writes and deletions of the cluster's keys: no node panics or stops, and the cluster recovers once the
//! garbage is deleted. (`clustering-core` fuzzes the machine alone; this tests the whole runtime.)

#![allow(clippy::unwrap_used, reason = "a panic fails the test, also in helpers")]

use std::time::Duration;

use clustering_core::{
    StopReason,
    machine::Phase,
    store::{CoordinationStore, CoordinationStoreExt},
};
use clustering_testkit::cluster::{Failure, TestCluster, seeds};
use rand::{Rng, SeedableRng, rngs::SmallRng};

const KEYS: [&str; 13] = [
    "view/leader",
    "view/version",
    "view/request",
    "view/stable",
    "view/gone",
    "view/nodes/n0",
    "view/nodes/n1",
    "view/nodes/x",
    "view/nodes/x/y",
    "view/",
    "ready/n0",
    "ready/x",
    "ready/x/y",
];

const VALUES: [&[u8]; 11] = [
    b"",
    b"\x00\xff",
    b"[]",
    b"{}",
    b"null",
    b"{\"uri\":\"http://x\",\"incarnation\":\"x\"}",
    b"{\"node\":\"x\",\"incarnation\":\"x\"}",
    b"{\"node\":\"n0\",\"incarnation\":\"x\",\"how\":7}",
    b"{\"version\":\"7ZZZZZZZZZZZZZZZZZZZZZZZZZ\",\"number\":18446744073709551615,\"cause\":[{\"new\":[1]}]}",
    b"{\"version\":\"01ARZ3NDEKTSV4RRFFQ69G5FAV\",\"outcome\":\"ready\"}",
    b"{\"by\":7,\"why\":{},\"leader\":\"n1\"}",
];

async fn vandalize(seed: u64) -> Result<(), Failure> {
    let cluster = TestCluster::builder().seed(seed).start(3, |process| process.builder().start()).await?;
    cluster.wait_stable().await?;
    let (mut random, store) = (SmallRng::seed_from_u64(seed), cluster.store().clone());
    for _ in 0..40 {
        let key = format!("cluster/{}", KEYS[random.random_range(0..KEYS.len())]);
        match random.random_range(0..4) {
            0 => store.delete(&key).await.map(drop),
            _ => store.put(&key, VALUES[random.random_range(0..VALUES.len())].into(), None).await.map(drop),
        }
        .unwrap();
        cluster.advance(Duration::from_millis(random.random_range(0..3_000))).await;
        for name in cluster.running() {
            match &cluster.node(&name).status().get().phase {
                // A node takes any other record under its name for another instance.
                Phase::Stopped(StopReason::TakenOver { .. }) => {}
                Phase::Stopped(reason) => return Err(cluster.failure(format!("{name} has ended: {reason}"))),
                _ => continue,
            }
            cluster.restart(&name);
            // A record under its name without a lease would keep the node waiting forever.
            store.delete(&format!("cluster/view/nodes/{name}")).await.unwrap();
            cluster.wait_started_of(&name).await?;
        }
    }
    for entry in store.read("cluster/").await.unwrap().entries {
        if entry.lease.is_none() {
            store.delete(&entry.key).await.unwrap();
        }
    }
    cluster.wait_stable().await.map(drop)
}

#[test]
fn p8_a_cluster_recovers_once_garbage_is_deleted() {
    seeds(0..30, vandalize);
}
