//! Cost of a change for etcd, from etcd's own metrics (P9).

use std::{collections::BTreeMap, error::Error, time::Duration};

use clustering_testkit::etcd::{EtcdServer, Metrics};
use serde_json::json;

use crate::{
    arguments::Arguments,
    bare::Bare,
    ours::Ours,
    rounds::{Cluster, Team},
    stores::{Server, Store},
};

/// TTL of leases that need no renewal while a change is counted.
const CALM: Duration = Duration::from_secs(600);

/// TTL of the leases of idle nodes.
const TTL: Duration = Duration::from_secs(6);
/// Time for which the calls of idle nodes are counted.
const IDLE: Duration = Duration::from_secs(12);

/// Work done by etcd.
struct Count {
    /// Increase of etcd's revision.
    commits: u64,
    /// Received messages, by method.
    messages: BTreeMap<String, u64>,
    events: u64,
    received: u64,
    sent: u64,
}

/// Counters of a server at a time when it has sent all events.
struct Mark {
    revision: u64,
    metrics: Metrics,
}

impl Mark {
    async fn set(etcd: &EtcdServer) -> Result<Self, Box<dyn Error>> {
        loop {
            let metrics = etcd.metrics().await?;
            if metrics.sum("etcd_debugging_mvcc_pending_events_total", &[]) == 0.0 {
                return Ok(Mark { revision: etcd.revision().await?.get(), metrics });
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn until_now(&self, etcd: &EtcdServer) -> Result<Count, Box<dyn Error>> {
        let now = Mark::set(etcd).await?;
        let more = |name: &str, labels: &[(&str, &str)]| {
            (now.metrics.sum(name, labels) - self.metrics.sum(name, labels)) as u64
        };
        let mut messages = BTreeMap::new();
        for method in ["Txn", "Range", "LeaseGrant", "LeaseRevoke", "LeaseKeepAlive", "Watch"] {
            let count = more("grpc_server_msg_received_total", &[("grpc_method", method)]);
            messages.insert(method.to_owned(), count);
        }
        // Exclude the read of the revision after the metrics of the previous mark.
        if let Some(reads) = messages.get_mut("Range") {
            *reads = reads.saturating_sub(1);
        }
        messages.retain(|_, count| *count > 0);
        Ok(Count {
            commits: now.revision - self.revision,
            messages,
            events: more("etcd_debugging_mvcc_events_total", &[]),
            received: more("etcd_network_client_grpc_received_bytes_total", &[]),
            sent: more("etcd_network_client_grpc_sent_bytes_total", &[]),
        })
    }
}

impl Count {
    fn report(&self, as_json: bool, nodes: usize, team: &str, what: &str) {
        let Count { commits, messages, events, received, sent } = self;
        if as_json {
            let line = json!({
                "nodes": nodes, "team": team, "change": what, "commits": commits, "messages": messages,
                "events": events, "bytes_received": received, "bytes_sent": sent,
            });
            return println!("{line}");
        }
        let messages: Vec<_> = messages.iter().map(|(method, count)| format!("{count} {method}")).collect();
        println!(
            "{nodes:4} nodes, {what:24} {team:10}  {commits} commits; {}; {events} events; {received} bytes in, {sent} out",
            messages.join(", "),
        );
    }
}

pub(crate) async fn run(arguments: &Arguments, nodes: usize) -> Result<(), Box<dyn Error>> {
    // Use a separate etcd, since all its calls are counted.
    let etcd = EtcdServer::start().await?;
    let connect = Server::at(Store::Etcd, &etcd.endpoint()).await?.connect;
    let ours =
        |ttl| Ours { connect: connect.clone(), namespace: format!("counts/{ttl:?}"), ttl, trace: None };
    let bare =
        Bare { endpoints: etcd.endpoints(), namespace: "counts/bare".to_owned(), ttl: CALM, trace: None };
    changes(arguments, &etcd, ours(CALM), nodes).await?;
    changes(arguments, &etcd, bare, nodes).await?;

    let idle = Cluster::start(ours(TTL), nodes).await;
    // Skip the first renewal of each lease, which opens a stream and costs one more message.
    tokio::time::sleep(TTL).await;
    let mark = Mark::set(&etcd).await?;
    tokio::time::sleep(IDLE).await;
    let count = mark.until_now(&etcd).await?;
    let what = format!("idle for {} thirds of TTL", IDLE.as_secs() * 3 / TTL.as_secs());
    count.report(arguments.json, nodes, Ours::NAME, &what);
    idle.stop().await;
    Ok(())
}

async fn changes<T: Team>(
    arguments: &Arguments,
    etcd: &EtcdServer,
    team: T,
    nodes: usize,
) -> Result<(), Box<dyn Error>> {
    let mut cluster = Cluster::start(team, nodes - 1).await;
    let mark = Mark::set(etcd).await?;
    cluster.join().await;
    mark.until_now(etcd).await?.report(arguments.json, nodes, T::NAME, "join");
    for (leader, what) in [(false, "follower stops"), (true, "leader stops")] {
        let mark = Mark::set(etcd).await?;
        cluster.leave(leader).await;
        mark.until_now(etcd).await?.report(arguments.json, nodes - 1, T::NAME, what);
        cluster.join().await;
    }
    cluster.stop().await;
    Ok(())
}
