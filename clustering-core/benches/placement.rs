//! Cost of finding the owner of a key.

use clustering_core::{Weight, placement::Placement};
use divan::{Bencher, black_box, counter::ItemsCount};

fn main() {
    divan::main();
}

const NODES: &[usize] = &[10, 100, 1_000];

/// Number of distinct keys that are placed in turn, so that the branch predictor cannot learn the result of one key.
const KEYS: usize = 1_024;

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("device-{number}")).collect()
}

/// Creates a placement on `nodes` nodes, which get the given weights in turn.
fn placement(nodes: usize, weights: &[u32]) -> Placement {
    let names: Vec<String> = (0..nodes).map(|number| format!("ingest-{number:05}")).collect();
    let weights = weights.iter().cycle().map(|weight| Weight::new(*weight));
    Placement::new(names.iter().map(String::as_str).zip(weights))
}

/// Finds the owner of one key among nodes of equal weight.
#[divan::bench(args = NODES)]
fn find(bencher: Bencher<'_, '_>, nodes: usize) {
    let (placement, keys) = (placement(nodes, &[1]), keys(KEYS));
    let mut next = keys.iter().cycle();
    bencher.bench_local(|| next.next().map(|key| placement.find(black_box(key.as_bytes()))));
}

/// Finds the owner of one key among nodes of three different weights.
#[divan::bench(args = NODES)]
fn find_weighted(bencher: Bencher<'_, '_>, nodes: usize) {
    let (placement, keys) = (placement(nodes, &[1, 2, 5]), keys(KEYS));
    let mut next = keys.iter().cycle();
    bencher.bench_local(|| next.next().map(|key| placement.find(black_box(key.as_bytes()))));
}

/// Finds the three best candidates for one key, the owner first.
#[divan::bench(args = NODES)]
fn find_3(bencher: Bencher<'_, '_>, nodes: usize) {
    let (placement, keys) = (placement(nodes, &[1]), keys(KEYS));
    let mut next = keys.iter().cycle();
    bencher.bench_local(|| next.next().map(|key| placement.find_n(black_box(key.as_bytes()), 3)));
}

/// Finds the owners of a million keys, as a node does to determine its share of them.
#[divan::bench(args = NODES, sample_count = 3, sample_size = 1)]
fn a_million_keys(bencher: Bencher<'_, '_>, nodes: usize) {
    let (placement, keys) = (placement(nodes, &[1]), keys(1_000_000));
    let all = bencher.counter(ItemsCount::new(keys.len()));
    all.bench_local(|| {
        keys.iter().filter(|key| placement.find(black_box(key.as_bytes())) == Some(0)).count()
    });
}
