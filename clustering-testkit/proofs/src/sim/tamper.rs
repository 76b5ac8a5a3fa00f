use clustering_core::{
    NodeName, View,
    machine::{Input, Leadership, Machine, Output, Purpose},
    store::Txn,
    time::Timestamp,
};
use clustering_testkit::history::Member;

use super::Store;

/// Stands between a machine and its world, and falsifies what passes: as if the protocol had a fault.
///
/// That shows that the checks of the simulation find such a fault, without any switch in the code that is tested. Each
/// method hands on what it is given if it is not written otherwise.
pub trait Tamper {
    /// What the machine is given in place of an input.
    fn input(&mut self, _seat: &Seat<'_>, input: Input) -> Vec<Input> {
        vec![input]
    }

    /// What the world is given in place of an output.
    fn output(&mut self, _seat: &Seat<'_>, output: Output) -> Vec<Output> {
        vec![output]
    }

    /// What the node commits of itself now, past the machine. It takes effect at once, and nobody hears of it.
    fn commits(&mut self, _seat: &Seat<'_>) -> Vec<(Purpose, Txn)> {
        Vec::new()
    }

    /// What the node answers in place of that, asked whether it may act as leader.
    fn leadership(&mut self, _seat: &Seat<'_>, told: Option<Leadership>) -> Option<Leadership> {
        told
    }

    /// The nodes that the stabilize callback is given in place of the view's.
    fn given(&mut self, _seat: &Seat<'_>, _view: &View) -> Option<Vec<Member>> {
        None
    }

    /// Returns the view that the node's status shows as acknowledged in its present session.
    fn acknowledged(&mut self, _seat: &Seat<'_>, told: Option<View>) -> Option<View> {
        told
    }

    /// Returns the name of the node that owns `key` in that view.
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

/// Where a [`Tamper`] is at work.
#[derive(Debug)]
pub struct Seat<'a> {
    /// The number of the node. A second instance under a node's name has a number of its own.
    pub node: usize,
    /// How often its process was started.
    pub life: u32,
    /// What its clock shows.
    pub now: Timestamp,
    /// Its wall clock time, in milliseconds since 1970.
    pub wall_ms: u64,
    /// Its machine.
    pub machine: &'a Machine,
    /// The store.
    pub store: &'a Store,
}
