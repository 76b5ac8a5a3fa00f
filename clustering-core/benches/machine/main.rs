//! Throughput of the state machine: events per second, and the cost of a version, a snapshot and a status.

mod driven;

use std::{cell::RefCell, vec::IntoIter};

use clustering_core::{
    machine::Input,
    store::{Batch, Change, Revision},
};
use divan::{AllocProfiler, Bencher, counter::ItemsCount};

use self::driven::{Driven, Role};

/// Counts allocations, because handling an event must not copy the view.
#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

const NODES: &[usize] = &[10, 100, 1_000, 10_000, 100_000];

/// Number of events per measurement, so that the overhead of reading the clock does not matter.
const ROW: usize = 1_000;

/// Another node puts its record again, as it does when its metadata changes.
#[divan::bench(args = NODES)]
fn a_record_is_put_again(bencher: Bencher<'_, '_>, nodes: usize) {
    bench_inputs(bencher, Driven::among(nodes, Role::Follower), |node| node.puts(ROW));
}

/// Other nodes join and leave alternately.
#[divan::bench(args = NODES)]
fn a_node_comes_or_goes(bencher: Bencher<'_, '_>, nodes: usize) {
    bench_inputs(bencher, Driven::among(nodes, Role::Follower), |node| node.joins_and_leaves(ROW));
}

/// The leader receives the acknowledgement of another node.
#[divan::bench(args = NODES)]
fn a_leader_hears_of_an_acknowledgement(bencher: Bencher<'_, '_>, nodes: usize) {
    bench_inputs(bencher, Driven::among(nodes, Role::Leader), |node| node.acknowledgements(ROW));
}

/// A tick while no timer is due.
#[divan::bench(args = NODES)]
fn a_tick(bencher: Bencher<'_, '_>, nodes: usize) {
    let mut node = Driven::among(nodes, Role::Follower);
    bencher.bench_local(|| node.take(Input::Tick));
}

/// Computes the status that the runtime publishes to its subscribers.
#[divan::bench(args = NODES)]
fn a_status(bencher: Bencher<'_, '_>, nodes: usize) {
    let node = Driven::among(nodes, Role::Follower);
    bencher.bench_local(|| node.status());
}

/// A new version arrives: the machine builds its view and starts stabilizing.
#[divan::bench(args = NODES)]
fn a_version(bencher: Bencher<'_, '_>, nodes: usize) {
    let mut node = Driven::among(nodes, Role::Follower);
    bencher.with_inputs(|| node.version()).bench_local_refs(|(machine, inputs)| machine.take_all(inputs));
}

/// Handles a new version with an assignment of 4,096 slots, which must take less than 1 ms among 1,000 nodes. The
/// assignment is largest, about 54 KiB, if each slot has a different owner, which is the case of 4,095 others. Checks
/// that it is smaller than 64 KiB.
#[divan::bench(args = [10, 100, 1_000, 4_095])]
fn a_version_with_an_assignment_of_all_slots(bencher: Bencher<'_, '_>, nodes: usize) {
    let mut node = Driven::among_exclusive(nodes);
    let (mut machine, mut inputs) = node.assignment();
    machine.take_all(&mut inputs);
    assert!(machine.status().newest.is_some_and(|view| view.has_handover()), "the version assigns no slots");
    bencher.with_inputs(|| node.assignment()).bench_local_refs(|(machine, inputs)| machine.take_all(inputs));
}

/// The machine receives a snapshot and decodes every record in it.
#[divan::bench(args = NODES)]
fn a_snapshot(bencher: Bencher<'_, '_>, nodes: usize) {
    bencher
        .counter(ItemsCount::new(nodes))
        .with_inputs(|| Driven::about_to_read(nodes))
        .bench_local_refs(|(machine, inputs)| machine.take_all(inputs));
}

/// Measures how fast one machine handles rows of inputs. All rows go to the same machine, because a clone of the
/// machine for each row would take most of the time.
fn bench_inputs(bencher: Bencher<'_, '_>, node: Driven, row: impl Fn(&mut Driven) -> IntoIter<Input>) {
    let node = RefCell::new(node);
    bencher
        .counter(ItemsCount::new(ROW))
        .with_inputs(|| row(&mut node.borrow_mut()))
        .bench_local_refs(|inputs| node.borrow_mut().take_all(inputs));
}

/// Returns a batch with a single change.
fn batch(revision: u64, change: Change) -> Batch {
    Batch::new(Revision::new(revision), [change])
}
