//! Cost of a cluster for etcd, from etcd's own metrics (P9).

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use clustering_core::{Clustering, Status};
use clustering_etcd::{EtcdConfig, EtcdStore};
use clustering_testkit::etcd::{EtcdServer, Metrics};
use futures_util::future::join_all;

/// Timeout, longer than any operation here takes.
const LONG: Duration = Duration::from_secs(60);

/// TTL of a lease that needs no renewal while a change is counted.
const CALM: Duration = Duration::from_secs(120);

async fn start(etcd: &EtcdServer, name: &str, ttl: Duration) -> Clustering {
    // A connection per node, as if each had its own process.
    let mut config = EtcdConfig::new(etcd.endpoints()).unwrap();
    // No reads of the member list while calls are counted.
    config.member_refresh = LONG * 60;
    let store = EtcdStore::new(config).unwrap();
    let builder =
        Clustering::builder(store).name(name).uri("http://host:80").ttl(ttl).stabilize(|_| async {});
    builder.start().await.unwrap()
}

async fn until(node: &Clustering, what: &str, is: impl FnMut(&Status) -> bool) {
    let mut status = node.status();
    let so = tokio::time::timeout(LONG, status.wait_for(is)).await;
    if so.is_err() {
        panic!("{} did not become {what}: its status is {:?}", node.name(), node.status().get());
    }
}

/// Waits until each of these nodes knows that a version with exactly these nodes is stable.
async fn stable(nodes: &[Clustering]) {
    let known = |status: &Status| {
        status.is_stable() && status.newest.as_ref().is_some_and(|view| view.len() == nodes.len())
    };
    join_all(nodes.iter().map(|node| until(node, "stable with all", known))).await;
}

async fn start_many(etcd: &EtcdServer, count: usize, ttl: Duration) -> Vec<Clustering> {
    let names: Vec<_> = (0..count).map(|number| format!("n{number:02}")).collect();
    let nodes = join_all(names.iter().map(|name| start(etcd, name, ttl))).await;
    stable(&nodes).await;
    nodes
}

/// Returns the number of messages that etcd received since `before`, by method.
async fn received(etcd: &EtcdServer, before: &Metrics) -> BTreeMap<String, u64> {
    let count = |metrics: &Metrics| {
        let mut counts = BTreeMap::<String, u64>::new();
        for (name, labels, value) in metrics.iter() {
            if name == "grpc_server_msg_received_total" {
                *counts.entry(labels["grpc_method"].clone()).or_default() += value as u64;
            }
        }
        counts
    };
    let before = count(before);
    let mut counts = count(&etcd.metrics().await.unwrap());
    counts.iter_mut().for_each(|(method, count)| *count -= before.get(method).copied().unwrap_or(0));
    counts.retain(|_, count| *count > 0);
    counts
}

/// Waits until etcd has received this number of renewals since `before`, and returns all received messages.
async fn renewed(etcd: &EtcdServer, before: &Metrics, renewals: u64) -> BTreeMap<String, u64> {
    let began = Instant::now();
    loop {
        let counts = received(etcd, before).await;
        if counts.get("LeaseKeepAlive").is_some_and(|count| *count >= renewals) {
            return counts;
        }
        assert!(began.elapsed() < LONG, "there are too few renewals: {counts:?}");
        // Etcd has no event for that.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn p9_an_idle_node_costs_one_renewal_per_third_of_the_ttl_and_nothing_else() {
    let etcd = EtcdServer::start().await.unwrap();
    let nodes = start_many(&etcd, 3, Duration::from_secs(3)).await;
    // The first renewal of a lease opens its stream, which costs one more message.
    renewed(&etcd, &Metrics::default(), 2 * 3).await;
    let (before, began) = (etcd.metrics().await.unwrap(), Instant::now());
    // Some six renewals of each node take six seconds, in which polling would be noticed.
    let counts = renewed(&etcd, &before, 6 * 3).await;
    let thirds = began.elapsed().as_secs_f64();
    let renewals = counts["LeaseKeepAlive"];
    assert_eq!(counts.len(), 1, "an idle node does more than renew: {counts:?}");
    // At both ends, each node may be just before or just after a renewal.
    assert!(renewals as f64 <= 3.0 * (thirds + 1.0), "{renewals} renewals in {thirds} thirds of the TTL");
    for node in nodes {
        node.stop().await.unwrap();
    }
}

/// Cost of a change.
struct Cost {
    /// Number of effective commits: the increase of etcd's revision.
    commits: u64,
    messages: BTreeMap<String, u64>,
    /// Number of events that etcd sent to watches.
    events: u64,
}

/// Waits until etcd has sent all events, and returns its metrics. A leader learns from the reply to its commit that
/// the version is stable, perhaps before etcd has sent the event. Etcd counts an event as pending before it sends
/// that reply.
async fn all_sent(etcd: &EtcdServer) -> Metrics {
    let began = Instant::now();
    loop {
        let metrics = etcd.metrics().await.unwrap();
        let pending = metrics.sum("etcd_debugging_mvcc_pending_events_total", &[]);
        if pending == 0.0 {
            return metrics;
        }
        assert!(began.elapsed() < LONG, "{pending} events were not sent");
        // Etcd has no event for that.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Measures the cost of a change.
async fn cost(etcd: &EtcdServer, change: impl Future<Output = ()>) -> Cost {
    let before = all_sent(etcd).await;
    let revision = etcd.revision().await.unwrap().get();
    change.await;
    let after = all_sent(etcd).await;
    let messages = received(etcd, &before).await;
    let events = |metrics: &Metrics| metrics.sum("etcd_debugging_mvcc_events_total", &[]) as u64;
    let events = events(&after) - events(&before);
    Cost { commits: etcd.revision().await.unwrap().get() - revision, messages, events }
}

async fn p9_a_change(nodes_after: usize) {
    let n = nodes_after as u64;
    let etcd = EtcdServer::start().await.unwrap();
    let mut nodes = start_many(&etcd, nodes_after - 1, CALM).await;

    // A join costs the record, the version, N acknowledgements, and the stability record.
    let mut joined = None;
    let join = cost(&etcd, async {
        joined = Some(start(&etcd, "z-last", CALM).await);
        nodes.extend(joined.clone());
        stable(&nodes).await;
    });
    let join = join.await;
    assert_eq!(join.commits, n + 3, "a join among {n}: {:?}", join.messages);
    assert_eq!(join.messages["Txn"], n + 3, "a commit had no effect: {:?}", join.messages);
    assert_eq!(join.messages["LeaseGrant"], 1, "{:?}", join.messages);
    // Every node receives the record, the version and the stability record. The leader also receives N
    // acknowledgements.
    assert_eq!(join.events, 3 * n + n, "events of a join among {n}");

    // A follower leaves with a commit that deletes its record and its acknowledgement. Its lease has no keys then, so
    // that revoking it makes no revision.
    nodes.pop();
    let n = n - 1;
    let leave = cost(&etcd, async {
        joined.take().unwrap().stop().await.unwrap();
        stable(&nodes).await;
    });
    let leave = leave.await;
    assert_eq!(leave.commits, n + 3, "a follower leaves {n}: {:?}", leave.messages);
    assert_eq!((leave.messages["Txn"], leave.messages["LeaseRevoke"]), (n + 3, 1), "{:?}", leave.messages);
    for node in nodes {
        node.stop().await.unwrap();
    }
}

#[tokio::test]
async fn p9_a_change_among_2_costs_5_commits() {
    p9_a_change(2).await;
}

#[tokio::test]
async fn p9_a_change_among_5_costs_8_commits() {
    p9_a_change(5).await;
}

#[tokio::test]
async fn p9_a_change_among_20_costs_23_commits() {
    p9_a_change(20).await;
}

#[tokio::test]
async fn p9_a_stopping_leader_is_replaced_at_once_by_a_single_candidate() {
    let etcd = EtcdServer::start().await.unwrap();
    let mut nodes = start_many(&etcd, 10, CALM).await;
    let place = nodes.iter().position(Clustering::is_leader).unwrap();
    let leader = nodes.remove(place);
    let n = nodes.len() as u64;
    let began = Instant::now();
    let change = cost(&etcd, async {
        leader.stop().await.unwrap();
        stable(&nodes).await;
    });
    let change = change.await;
    // Without the leave commit, the other nodes would have to wait for the TTL of two minutes.
    assert!(began.elapsed() < CALM / 6, "{:?}", began.elapsed());
    assert_eq!(change.commits, n + 3, "a leader leaves {n}: {:?}", change.messages);
    // The first candidate campaigns at once, and the next one 50 ms later if there is no leader yet.
    assert!(change.messages["Txn"] <= n + 5, "too many candidates: {:?}", change.messages);
    for node in nodes {
        node.stop().await.unwrap();
    }
}
