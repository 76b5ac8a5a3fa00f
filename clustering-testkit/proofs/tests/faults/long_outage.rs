//! An etcd that is away for long: nobody spins meanwhile, and nobody floods it on its return.

use std::sync::Arc;

use clustering_proofs::{
    node::{Node, NodeSpec},
    proxy::Proxy,
};
use clustering_testkit::history::Observation;

use crate::scenario::{Alone, LONG, secs};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// How long it is away: several times the TTL, so that pauses have grown as far as they do.
const AWAY: usize = 20;

/// Three nodes, each with as many ways to etcd of its own.
async fn with_ways(ways: usize) -> (Alone, Vec<Arc<Node>>, Vec<Proxy>) {
    let scenario = Alone::new().await;
    let (mut nodes, mut proxies) = (Vec::new(), Vec::new());
    for name in NAMES {
        let mut endpoints = Vec::new();
        for _ in 0..ways {
            let proxy = Proxy::to(&scenario.etcd.endpoint()).await.unwrap();
            endpoints.push(proxy.endpoint());
            proxies.push(proxy);
        }
        // What goes over the line is the library's alone.
        nodes.push(scenario.spawn(NodeSpec { endpoints, write_every: None, ..scenario.spec(name) }));
    }
    scenario.stable(&NAMES).await;
    (scenario, nodes, proxies)
}

fn connections(proxies: &[Proxy]) -> u64 {
    proxies.iter().map(Proxy::connections).sum()
}

async fn long_outage(ways: usize) {
    let (scenario, nodes, proxies) = with_ways(ways).await;
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
        node.next("lost", LONG, |it| matches!(it, Observation::SessionLost { .. })).await;
    }
    let what = format!("3 nodes cut off for {AWAY} s, each with {ways} endpoints");
    println!("measured: {what}: connections in each second: {rates:?}");
    let since = scenario.now();
    proxies.iter().for_each(Proxy::heal);
    scenario.stable_after(before, &NAMES).await;
    scenario.measured(&format!("{what}, mended"), since);
    let back = connections(&proxies) - known;
    println!("measured: {what}: {back} connections when it was back");
    let most = 3 * ways as u64;
    assert!(rates[..3].iter().sum::<u64>() <= 3 * 12 * most, "{rates:?}");
    assert!(rates[AWAY / 2..].iter().sum::<u64>() <= (AWAY / 2) as u64 * 4 * most, "{rates:?}");
    assert!(back <= 4 * most, "{back} connections");
    scenario.check(&NAMES).await;
}

pub(crate) async fn p7_cut_off_for_long_with_one_way() {
    long_outage(1).await;
}

pub(crate) async fn p7_cut_off_for_long_with_three_ways() {
    long_outage(3).await;
}
