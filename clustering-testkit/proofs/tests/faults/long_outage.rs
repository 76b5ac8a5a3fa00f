//! Etcd is away for a long time: nodes do not retry without pauses in the meantime, and do not flood etcd when it
//! returns.

use std::sync::Arc;

use clustering_proofs::node::{Node, NodeSpec};
use clustering_testkit::{history::Observation, proxy::Proxy};

use crate::scenario::{Alone, LONG, secs};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Duration of the outage in seconds: several times the TTL, so that the pauses between retries reach their maximum.
const AWAY: usize = 20;

/// Starts three nodes, each with this number of endpoints that are proxies of its own.
async fn with_endpoints(endpoints_each: usize) -> (Alone, Vec<Arc<Node>>, Vec<Proxy>) {
    let scenario = Alone::new().await;
    let (mut nodes, mut proxies) = (Vec::new(), Vec::new());
    for name in NAMES {
        let mut endpoints = Vec::new();
        for _ in 0..endpoints_each {
            let proxy = Proxy::to(&scenario.etcd.endpoint()).await.unwrap();
            endpoints.push(proxy.endpoint());
            proxies.push(proxy);
        }
        // Only the library uses the connections.
        nodes.push(scenario.spawn(NodeSpec { endpoints, write_every: None, ..scenario.spec(name) }));
    }
    scenario.stable(&NAMES).await;
    (scenario, nodes, proxies)
}

fn connections(proxies: &[Proxy]) -> u64 {
    proxies.iter().map(Proxy::connections).sum()
}

async fn long_outage(endpoints_each: usize) {
    let (scenario, nodes, proxies) = with_endpoints(endpoints_each).await;
    let before = scenario.stable(&NAMES).await;
    let mut known = connections(&proxies);
    proxies.iter().for_each(Proxy::cut);
    let mut rates = Vec::new();
    for _ in 0..AWAY {
        tokio::time::sleep(secs(1)).await;
        let now = connections(&proxies);
        rates.push(now - known);
        known = now;
    }
    for node in &nodes {
        node.next("a lost session", LONG, |it| matches!(it, Observation::SessionLost { .. })).await;
    }
    let what = format!("3 nodes cut off for {AWAY} s, each with {endpoints_each} endpoints");
    println!("measured: {what}: connections in each second: {rates:?}");
    let since = scenario.now();
    proxies.iter().for_each(Proxy::heal);
    scenario.stable_after(before, &NAMES).await;
    scenario.measured(&format!("{what}, since the proxies were healed"), since);
    let back = connections(&proxies) - known;
    println!("measured: {what}: {back} connections after the proxies were healed");
    let most = 3 * endpoints_each as u64;
    assert!(rates[..3].iter().sum::<u64>() <= 3 * 12 * most, "{rates:?}");
    assert!(rates[AWAY / 2..].iter().sum::<u64>() <= (AWAY / 2) as u64 * 4 * most, "{rates:?}");
    assert!(back <= 4 * most, "{back} connections");
    scenario.check(&NAMES).await;
}

pub(crate) async fn p7_nodes_with_one_endpoint_rejoin_after_a_long_outage() {
    long_outage(1).await;
}

pub(crate) async fn p7_nodes_with_three_endpoints_rejoin_after_a_long_outage() {
    long_outage(3).await;
}
