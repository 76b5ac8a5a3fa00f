//! What it costs to ask who owns a key.

use clustering_core::{Weight, placement::Placement};
use divan::{Bencher, black_box, counter::ItemsCount};

fn main() {
    divan::main();
}

const NODES: &[usize] = &[10, 100, 1_000];

/// As many keys as are placed one after the other, so that no branch is learnt by heart.
const KEYS: usize = 1_024;

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("device-{number}")).collect()
}

/// Nodes of these weights in turn.
fn placement(nodes: usize, weights: &[u32]) -> Placement {
    let names: Vec<String> = (0..nodes).map(|number| format!("ingest-{number:05}")).collect();
    let weights = weights.iter().cycle().map(|weight| Weight::new(*weight));
    Placement::new(names.iter().map(String::as_str).zip(weights))
}

/// The owner of one key, all nodes of the same weight.
#[divan::bench(args = NODES)]
fn find(bencher: Bencher<'_, '_>, nodes: usize) {
    let (placement, keys) = (placement(nodes, &[1]), keys(KEYS));
    let mut next = keys.iter().cycle();
    bencher.bench_local(|| next.next().map(|key| placement.find(black_box(key.as_bytes()))));
}

/// The owner of one key, nodes of three weights.
#[divan::bench(args = NODES)]
fn find_weighted(bencher: Bencher<'_, '_>, nodes: usize) {
    let (placement, keys) = (placement(nodes, &[1, 2, 5]), keys(KEYS));
    let mut next = keys.iter().cycle();
    bencher.bench_local(|| next.next().map(|key| placement.find(black_box(key.as_bytes()))));
}

/// The owner of one key and the two next in line.
#[divan::bench(args = NODES)]
fn find_3(bencher: Bencher<'_, '_>, nodes: usize) {
    let (placement, keys) = (placement(nodes, &[1]), keys(KEYS));
    let mut next = keys.iter().cycle();
    bencher.bench_local(|| next.next().map(|key| placement.find_n(black_box(key.as_bytes()), 3)));
}

/// The owners of a million keys: what a node does that looks for its share of them.
#[divan::bench(args = NODES, sample_count = 3, sample_size = 1)]
fn a_million_keys(bencher: Bencher<'_, '_>, nodes: usize) {
    let (placement, keys) = (placement(nodes, &[1]), keys(1_000_000));
    let all = bencher.counter(ItemsCount::new(keys.len()));
    all.bench_local(|| {
        keys.iter().filter(|key| placement.find(black_box(key.as_bytes())) == Some(0)).count()
    });
}
