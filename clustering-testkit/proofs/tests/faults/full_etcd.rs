//! Etcd has used up its space quota: it still renews and ends leases, but accepts no writes.

use std::{collections::BTreeSet, sync::Arc};

use clustering_core::store::{
    CoordinationStore, CoordinationStoreExt, Effect, ErrorKind, Limits, StoreError,
};
use clustering_etcd::EtcdStore;
use clustering_proofs::node::{Node, NodeSpec};
use clustering_testkit::{etcd::EtcdServer, history::Observation};
use tokio::task::JoinSet;

use crate::scenario::{Alone, LONG, secs, soon, without};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Smallest quota with which etcd starts.
const QUOTA: u64 = 16 * 1024 * 1024;

/// Number of writers that fill etcd at the same time.
const WRITERS: usize = 64;

fn is_full(error: &StoreError) -> bool {
    error.to_string().contains("database space exceeded")
}

async fn says(node: &Node, what: &str, why: &str) {
    let is = |text: &str| text.starts_with(what) && text.contains(why);
    node.next(what, LONG, |it| matches!(it, Observation::Note { text } if is(text))).await;
}

/// Writes until etcd has no space left.
async fn fill(scenario: &Alone) {
    for number in 0.. {
        let value = vec![b'x'; Limits::VALUE].into();
        match scenario.store.put(&format!("filler/{number}"), value, None).await {
            Err(error) if is_full(&error) => return,
            written => drop(written.unwrap()),
        }
    }
}

/// Frees space as described in the operator's guide.
async fn make_room(scenario: &Alone) {
    scenario.etcdctl(&["del", "--prefix", "filler/"]).await;
    scenario.etcd.compact().await.unwrap();
    scenario.etcdctl(&["defrag"]).await;
    scenario.etcdctl(&["alarm", "disarm"]).await;
}

pub(crate) async fn p10_a_full_etcd_is_reported_and_the_cluster_continues_once_there_is_space() {
    let scenario = Alone::on(EtcdServer::builder().quota(QUOTA).start().await.unwrap());
    let mut nodes: Vec<Arc<Node>> = Vec::new();
    for name in NAMES {
        let node = scenario.spawn(NodeSpec { warn_after: secs(2), ..scenario.spec(name) });
        node.next("a join", LONG, |it| matches!(it, Observation::Joined { .. })).await;
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
    assert_eq!(scenario.present().1, Some(term), "the leader has not changed");
    scenario.check(&left).await;
}

/// Writes keys of one writer until a write fails. Returns the key of that write and its error.
async fn write_until_it_fails(store: EtcdStore, writer: usize) -> (String, StoreError) {
    for number in 0.. {
        let key = format!("{writer}/{number}");
        if let Err(error) = store.put(&key, vec![b'x'; Limits::VALUE].into(), None).await {
            return (key, error);
        }
    }
    unreachable!("etcd accepted every write")
}

/// Etcd applies some of the writes that it reports as failed with "database space exceeded": those that were in
/// progress when its database reached the quota.
pub(crate) async fn p5_a_write_that_had_no_effect_is_not_in_a_full_etcd() {
    let etcd = EtcdServer::builder().quota(QUOTA).start().await.unwrap();
    let store = EtcdStore::new(crate::config(&etcd.endpoints()).unwrap()).unwrap();
    let lease = store.grant_lease(LONG).await.unwrap();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write_until_it_fails(store.clone(), writer));
    }
    let failed = soon("a full etcd", writers.join_all()).await;
    let written: BTreeSet<_> = store.read_keys("").await.unwrap().into_iter().collect();

    let is_written = |key: &str| written.iter().any(|written| written.as_str() == key);
    let count = |effect, made| {
        let fits = |(key, error): &&(String, StoreError)| (error.effect(), is_written(key)) == (effect, made);
        failed.iter().filter(fits).count()
    };
    println!(
        "measured: of {WRITERS} failed writes, {} with an unknown effect took effect and {} did not, {} had no effect",
        count(Effect::Unknown, true),
        count(Effect::Unknown, false),
        count(Effect::None, false),
    );
    let wrong: Vec<_> =
        failed.iter().filter(|(key, error)| error.effect() == Effect::None && is_written(key)).collect();
    assert!(
        wrong.is_empty(),
        "{} of {WRITERS} failed writes took effect although their errors report no effect: {wrong:#?}",
        wrong.len()
    );

    let full = failed.iter().find(|(_, error)| is_full(error));
    let (_, error) = full.unwrap_or_else(|| panic!("no write reports that etcd is full: {failed:#?}"));
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    assert!(error.to_string().contains("etcdctl alarm disarm"), "{error}");
    // Renewals and revocations are not subject to the quota.
    store.renew_lease(lease.id).await.unwrap();
    store.revoke_lease(lease.id).await.unwrap();
}
