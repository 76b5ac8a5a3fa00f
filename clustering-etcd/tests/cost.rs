//! What a cluster costs etcd, by etcd's own count (P9).

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use clustering_core::{Clustering, Status};
use clustering_etcd::{EtcdConfig, EtcdStore};
use clustering_testkit::etcd::{EtcdServer, Metrics};
use futures_util::future::join_all;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// A lease that needs no renewal while a change is counted.
const CALM: Duration = Duration::from_secs(120);

async fn start(etcd: &EtcdServer, name: &str, ttl: Duration) -> Clustering {
    // A connection for each, as if each were a process of its own.
    let mut config = EtcdConfig::new(etcd.endpoints()).unwrap();
    // Once a minute otherwise, which may be while something else is counted.
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
        panic!("{} was never so: {what}; it is {:?}", node.name(), node.status().get());
    }
}

/// Waits until each of these nodes knows that a version with just so many nodes is stable.
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

/// How many messages etcd received since `before`, by the name of the call.
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

/// Waits until etcd received so many renewals since `before`, and returns what it received.
async fn renewed(etcd: &EtcdServer, before: &Metrics, renewals: u64) -> BTreeMap<String, u64> {
    let began = Instant::now();
    loop {
        let counts = received(etcd, before).await;
        if counts.get("LeaseKeepAlive").is_some_and(|count| *count >= renewals) {
            return counts;
        }
        assert!(began.elapsed() < LONG, "renewals do not come: {counts:?}");
        // Etcd has no event for it.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn p9_an_idle_node_costs_one_renewal_per_third_of_the_ttl_and_nothing_else() {
    let etcd = EtcdServer::start().await.unwrap();
    let nodes = start_many(&etcd, 3, Duration::from_secs(3)).await;
    // The first renewal of a lease opens its stream, which is a message more.
    renewed(&etcd, &Metrics::default(), 2 * 3).await;
    let (before, began) = (etcd.metrics().await.unwrap(), Instant::now());
    // Each six times or so: six seconds, in which a watch or a reader that polls would show.
    let counts = renewed(&etcd, &before, 6 * 3).await;
    let thirds = began.elapsed().as_secs_f64();
    let renewals = counts["LeaseKeepAlive"];
    assert_eq!(counts.len(), 1, "an idle node does more than renew: {counts:?}");
    // Each node may be just before or just behind a renewal at either end.
    assert!(renewals as f64 <= 3.0 * (thirds + 1.0), "{renewals} renewals in {thirds} thirds of the TTL");
    for node in nodes {
        node.stop().await.unwrap();
    }
}

/// What a change cost.
struct Cost {
    /// Effective commits: how far etcd's revision went.
    commits: u64,
    messages: BTreeMap<String, u64>,
    /// Events that etcd sent to watches.
    events: u64,
}

/// Waits until etcd has sent all events, and returns its metrics. A leader knows that its version is stable from the
/// commit's reply, maybe before etcd has sent it the event; etcd counts an event as pending before it sends that reply.
async fn all_sent(etcd: &EtcdServer) -> Metrics {
    let began = Instant::now();
    loop {
        let metrics = etcd.metrics().await.unwrap();
        let pending = metrics.sum("etcd_debugging_mvcc_pending_events_total", &[]);
        if pending == 0.0 {
            return metrics;
        }
        assert!(began.elapsed() < LONG, "{pending} events are never sent");
        // Etcd has no event for it.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Counts what etcd has to do for a change.
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

    // Join: the record, the version, N acknowledgements, stable.
    let mut joined = None;
    let join = cost(&etcd, async {
        joined = Some(start(&etcd, "z-last", CALM).await);
        nodes.extend(joined.clone());
        stable(&nodes).await;
    });
    let join = join.await;
    assert_eq!(join.commits, n + 3, "a join among {n}: {:?}", join.messages);
    assert_eq!(join.messages["Txn"], n + 3, "no commit in vain: {:?}", join.messages);
    assert_eq!(join.messages["LeaseGrant"], 1, "{:?}", join.messages);
    // Everybody: record, version, stable. The leader: an acknowledgement for each node, too.
    assert_eq!(join.events, 3 * n + n, "events of a join among {n}");

    // A follower leaves by a commit that takes the record and the acknowledgement along. Its lease has nothing left then, and
    // the end of it is no revision.
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
async fn p9_a_leader_that_stops_costs_no_ttl_and_no_stampede() {
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
    // Nothing but the end of the lease could tell the others if the leader had not: that would be two minutes.
    assert!(began.elapsed() < CALM / 6, "{:?}", began.elapsed());
    assert_eq!(change.commits, n + 3, "a leader leaves {n}: {:?}", change.messages);
    // The oldest campaigns at once, the next one 50 ms later if nobody leads yet.
    assert!(change.messages["Txn"] <= n + 5, "a stampede: {:?}", change.messages);
    for node in nodes {
        node.stop().await.unwrap();
    }
}
