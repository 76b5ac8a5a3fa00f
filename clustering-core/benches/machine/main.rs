//! What the machine does with its inputs: how many it takes in a second, and what a version costs.

mod driven;

use std::{cell::RefCell, vec::IntoIter};

use clustering_core::{
    machine::Input,
    store::{Batch, Change, Revision},
};
use divan::{AllocProfiler, Bencher, counter::ItemsCount};

use self::driven::{Driven, Role};

/// Allocations are counted: an event must not copy the view.
#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

const NODES: &[usize] = &[10, 100, 1_000, 10_000, 100_000];

/// How many events are one after the other, so that the clock of the bench does not count.
const ROW: usize = 1_000;

/// Another node puts its record again, as one that changes its metadata does.
#[divan::bench(args = NODES)]
fn a_record_is_put_again(bencher: Bencher<'_, '_>, nodes: usize) {
    take_in(bencher, Driven::among(nodes, Role::Follower), |node| node.puts(ROW));
}

/// Other nodes join and leave in turn.
#[divan::bench(args = NODES)]
fn a_node_comes_or_goes(bencher: Bencher<'_, '_>, nodes: usize) {
    take_in(bencher, Driven::among(nodes, Role::Follower), |node| node.comings_and_goings(ROW));
}

/// The leader hears of an acknowledgement.
#[divan::bench(args = NODES)]
fn a_leader_hears_of_an_acknowledgement(bencher: Bencher<'_, '_>, nodes: usize) {
    take_in(bencher, Driven::among(nodes, Role::Leader), |node| node.acknowledgements(ROW));
}

/// Nothing is due.
#[divan::bench(args = NODES)]
fn a_tick(bencher: Bencher<'_, '_>, nodes: usize) {
    let mut node = Driven::among(nodes, Role::Follower);
    bencher.bench_local(|| node.take(Input::Tick));
}

/// What the runtime makes of the machine for those who watch its status.
#[divan::bench(args = NODES)]
fn a_status(bencher: Bencher<'_, '_>, nodes: usize) {
    let node = Driven::among(nodes, Role::Follower);
    bencher.bench_local(|| node.status());
}

/// A new version: its view is cut, and the stabilize begins.
#[divan::bench(args = NODES)]
fn a_version(bencher: Bencher<'_, '_>, nodes: usize) {
    let mut node = Driven::among(nodes, Role::Follower);
    bencher.with_inputs(|| node.version()).bench_local_refs(|(machine, inputs)| machine.take_all(inputs));
}

/// A snapshot is read: each record is decoded.
#[divan::bench(args = NODES)]
fn a_snapshot(bencher: Bencher<'_, '_>, nodes: usize) {
    bencher
        .counter(ItemsCount::new(nodes))
        .with_inputs(|| Driven::about_to_read(nodes))
        .bench_local_refs(|(machine, inputs)| machine.take_all(inputs));
}

/// One machine takes them in, row by row: copies would share their replica, and copy what they change of it.
fn take_in(bencher: Bencher<'_, '_>, node: Driven, row: impl Fn(&mut Driven) -> IntoIter<Input>) {
    let node = RefCell::new(node);
    bencher
        .counter(ItemsCount::new(ROW))
        .with_inputs(|| row(&mut node.borrow_mut()))
        .bench_local_refs(|inputs| node.borrow_mut().take_all(inputs));
}

/// A batch with one change.
fn batch(revision: u64, change: Change) -> Batch {
    Batch::new(Revision::new(revision), [change])
}
