//! Cost of taking a hold of a key.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use clustering_core::{Clustering, slots::SlotCount};
use clustering_memory::MemoryStore;
use divan::{Bencher, black_box};
use tokio::runtime::Runtime;

fn main() {
    divan::main();
}

const SLOTS: SlotCount = SlotCount::MAX;

/// A running cluster. The benchmarks take holds from its first node.
struct Cluster {
    nodes: Vec<Clustering>,
    /// Keys that the first node holds.
    held: Vec<String>,
    /// Keys that other nodes hold.
    elsewhere: Vec<String>,
    _runtime: Runtime,
}

static ALONE: LazyLock<Cluster> = LazyLock::new(|| Cluster::start(1));
static LARGE: LazyLock<Cluster> = LazyLock::new(|| Cluster::start(1_000));

impl Cluster {
    fn start(nodes: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let nodes = runtime.block_on(start(nodes));
        let first = &nodes[0];
        let keys = || (0..100_000).map(|number| format!("device-{number}"));
        let held = keys().filter(|key| first.owns(key)).take(64).collect();
        let elsewhere = keys().filter(|key| !first.owns(key)).take(64).collect();
        Cluster { nodes, held, elsewhere, _runtime: runtime }
    }

    fn of(nodes: usize) -> &'static Self {
        if nodes == 1 { &ALONE } else { &LARGE }
    }
}

/// Starts nodes and waits until all slots are held.
async fn start(count: usize) -> Vec<Clustering> {
    let store = MemoryStore::new();
    let node = |number: usize| {
        // A long TTL, so that renewals do not compete with the benchmark for the processor.
        let builder =
            Clustering::builder(store.clone()).name(format!("ingest-{number:05}")).uri("http://host:80");
        let gap = clustering_core::Backoff::new(Duration::from_secs(2), Duration::from_secs(5));
        builder
            .exclusive(SLOTS.get())
            .ttl(Duration::from_secs(3600))
            .configure(move |config| config.publish_gap = gap)
    };
    let starting: Vec<_> = (0..count).map(|number| tokio::spawn(node(number).start())).collect();
    let mut nodes = Vec::new();
    for task in starting {
        nodes.push(task.await.expect("no panic").expect("the node starts"));
    }
    let is_part = |node: &Clustering| node.is_stable() && node.nodes().len() == count;
    while !nodes.iter().all(is_part) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    nodes
}

const NODES: &[usize] = &[1, 1_000];

/// Takes and drops a hold of a key that is held, on one thread and on eight.
#[divan::bench(args = NODES, threads = [1, 8])]
fn hold(bencher: Bencher<'_, '_>, nodes: usize) {
    let cluster = Cluster::of(nodes);
    let next = AtomicUsize::new(0);
    let key = || &cluster.held[next.fetch_add(1, Ordering::Relaxed) % cluster.held.len()];
    bencher.with_inputs(key).bench_values(|key| cluster.nodes[0].hold(black_box(key)).is_ok());
}

/// Takes and drops a hold of the same key each time.
#[divan::bench(args = NODES, threads = [1, 8])]
fn hold_of_one_key(bencher: Bencher<'_, '_>, nodes: usize) {
    let cluster = Cluster::of(nodes);
    bencher.bench(|| cluster.nodes[0].hold(black_box(&cluster.held[0])).is_ok());
}

/// Finds out that another node holds a key.
#[divan::bench(args = [1_000], threads = [1, 8])]
fn elsewhere(bencher: Bencher<'_, '_>, nodes: usize) {
    let cluster = Cluster::of(nodes);
    bencher.bench(|| cluster.nodes[0].hold(black_box(&cluster.elsewhere[0])).is_err());
}

/// Checks whether a hold is valid.
#[divan::bench]
fn is_valid(bencher: Bencher<'_, '_>) {
    let hold = ALONE.nodes[0].hold(&ALONE.held[0]).expect("it is held");
    bencher.bench(|| black_box(&hold).is_valid());
}
