use clustering_core::{
    NodeName, View,
    machine::{Input, Leadership, Machine, Output, Purpose},
    store::Txn,
    time::Timestamp,
};
use clustering_testkit::history::Member;

use super::Store;

/// Falsifies the inputs and outputs of a machine, as if the protocol had a fault.
///
/// This shows that the checks of the simulation find such a fault, without any switch in the tested code. By default,
/// each method passes its argument on unchanged.
pub trait Tamper {
    /// Returns the inputs that the machine receives instead of `input`.
    fn input(&mut self, _seat: &Seat<'_>, input: Input) -> Vec<Input> {
        vec![input]
    }

    /// Returns the outputs that the world receives instead of `output`.
    fn output(&mut self, _seat: &Seat<'_>, output: Output) -> Vec<Output> {
        vec![output]
    }

    /// Returns commits that the node makes now, without its machine. They take effect at once, and their results are
    /// discarded.
    fn commits(&mut self, _seat: &Seat<'_>) -> Vec<(Purpose, Txn)> {
        Vec::new()
    }

    /// Returns the node's answer to the question whether it may act as leader, instead of `told`.
    fn leadership(&mut self, _seat: &Seat<'_>, told: Option<Leadership>) -> Option<Leadership> {
        told
    }

    /// Returns the nodes that the stabilize callback receives instead of those of the view.
    fn given(&mut self, _seat: &Seat<'_>, _view: &View) -> Option<Vec<Member>> {
        None
    }

    /// Returns the acknowledged view that the node's status shows instead of the true one, `told`.
    fn acknowledged(&mut self, _seat: &Seat<'_>, told: Option<View>) -> Option<View> {
        told
    }

    /// Returns the name of the node that owns `key` in the view.
    fn owner(&mut self, _seat: &Seat<'_>, view: &View, key: &str) -> Option<NodeName> {
        view.find(key).map(|node| node.name.clone())
    }

    /// True if the node's clock continues while the process is frozen, like a clock that counts suspends.
    fn counts_suspends(&self) -> bool {
        true
    }
}

impl Tamper for Box<dyn Tamper> {
    fn input(&mut self, seat: &Seat<'_>, input: Input) -> Vec<Input> {
        (**self).input(seat, input)
    }

    fn output(&mut self, seat: &Seat<'_>, output: Output) -> Vec<Output> {
        (**self).output(seat, output)
    }

    fn commits(&mut self, seat: &Seat<'_>) -> Vec<(Purpose, Txn)> {
        (**self).commits(seat)
    }

    fn leadership(&mut self, seat: &Seat<'_>, told: Option<Leadership>) -> Option<Leadership> {
        (**self).leadership(seat, told)
    }

    fn given(&mut self, seat: &Seat<'_>, view: &View) -> Option<Vec<Member>> {
        (**self).given(seat, view)
    }

    fn acknowledged(&mut self, seat: &Seat<'_>, told: Option<View>) -> Option<View> {
        (**self).acknowledged(seat, told)
    }

    fn owner(&mut self, seat: &Seat<'_>, view: &View, key: &str) -> Option<NodeName> {
        (**self).owner(seat, view, key)
    }

    fn counts_suspends(&self) -> bool {
        (**self).counts_suspends()
    }
}

/// Place of a [`Tamper`]: a node and its current process.
#[derive(Debug)]
pub struct Seat<'a> {
    /// Number of the node. A second instance under a node's name has its own number.
    pub node: usize,
    /// Number of times that the process was started.
    pub life: u32,
    /// Time on the process's clock.
    pub now: Timestamp,
    /// Wall clock time of the process, in milliseconds since 1970.
    pub wall_ms: u64,
    /// Machine of the process.
    pub machine: &'a Machine,
    /// The store.
    pub store: &'a Store,
}
