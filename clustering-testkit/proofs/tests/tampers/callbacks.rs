//! Faults in the calls of callbacks.

use std::sync::Arc;

use clustering_core::{
    Event, Node, Outcome, View,
    machine::{Input, Output},
    slots::SlotSet,
};
use clustering_proofs::sim::{Seat, Tamper};
use clustering_testkit::history::Member;

/// Passes the currently present nodes to stabilize, instead of those of the version.
pub(crate) struct MomentaryList;

impl Tamper for MomentaryList {
    fn given(&mut self, seat: &Seat<'_>, _: &View) -> Option<Vec<Member>> {
        let member = |node: &Arc<Node>| Member {
            name: node.name.clone(),
            uri: node.uri.to_string(),
            incarnation: node.incarnation.clone(),
            metadata: node.metadata.clone(),
        };
        Some(seat.machine.present().map(member).collect())
    }
}

/// Never tells a stabilize that it is superseded.
pub(crate) struct TellsNobody;

impl Tamper for TellsNobody {
    fn output(&mut self, _: &Seat<'_>, output: Output) -> Vec<Output> {
        match output {
            Output::Supersede { .. } => Vec::new(),
            other => vec![other],
        }
    }
}

/// Never retries a stabilize that refused.
pub(crate) struct NeverAgain;

impl Tamper for NeverAgain {
    fn output(&mut self, _: &Seat<'_>, output: Output) -> Vec<Output> {
        match output {
            Output::Stabilize { attempt: 2.., .. }
            | Output::Event(Event::Stabilizing { attempt: 2.., .. }) => Vec::new(),
            other => vec![other],
        }
    }
}

/// Calls `on_stable` twice, as after a restart of its caller.
pub(crate) struct CallsTwice;

impl Tamper for CallsTwice {
    fn output(&mut self, _: &Seat<'_>, output: Output) -> Vec<Output> {
        match output {
            Output::Announce { .. } => vec![output.clone(), output],
            other => vec![other],
        }
    }
}

/// Counts holds as dropped as soon as they were told to end.
pub(crate) struct ForgetsHolds;

impl Tamper for ForgetsHolds {
    fn input(&mut self, _: &Seat<'_>, input: Input) -> Vec<Input> {
        match input {
            Input::Retracted { token, .. } => vec![Input::Retracted { token, in_use: SlotSet::default() }],
            other => vec![other],
        }
    }
}

/// Counts a refused release as done.
pub(crate) struct ReleasesOnce;

impl Tamper for ReleasesOnce {
    fn input(&mut self, _: &Seat<'_>, input: Input) -> Vec<Input> {
        match input {
            Input::Released { token, .. } => vec![Input::Released { token, outcome: Outcome::Ready }],
            other => vec![other],
        }
    }
}
