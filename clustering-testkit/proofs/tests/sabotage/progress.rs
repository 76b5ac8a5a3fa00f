//! Faults that let nodes give up forever.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use clustering_core::{
    Event,
    machine::{Input, Output, Purpose, Token},
    store::{Entry, Operation, Snapshot, Txn, WatchEnd},
};
use clustering_proofs::sim::{Fault, Kind, Seat, Simulation, Tamper};
use clustering_testkit::history::Moment;

use crate::{
    brief, found, found_within,
    tampers::{AssumesDone, NeverAgain, NeverReadsAcknowledgements, commits},
};

/// Drops all outputs of a kind from each life that has lost its session.
struct GivesUpAfterALoss {
    lost: BTreeSet<(usize, u32)>,
    what: fn(&Output) -> bool,
}

impl GivesUpAfterALoss {
    fn on(what: fn(&Output) -> bool) -> Self {
        GivesUpAfterALoss { lost: BTreeSet::new(), what }
    }
}

impl Tamper for GivesUpAfterALoss {
    fn output(&mut self, seat: &Seat<'_>, output: Output) -> Vec<Output> {
        if let Output::Event(Event::SessionLost { .. }) = output {
            self.lost.insert((seat.node, seat.life));
        }
        let given_up = self.lost.contains(&(seat.node, seat.life)) && (self.what)(&output);
        if given_up { Vec::new() } else { vec![output] }
    }
}

#[test]
fn p8_never_campaigning_again_after_a_lost_session_is_found() {
    // All nodes must lose their sessions, and none may be restarted.
    let outages = Simulation::new().nodes(3).only([Kind::Outage, Kind::LostRenewals, Kind::Pause]);
    let never =
        || GivesUpAfterALoss::on(|output| matches!(output, Output::Commit { purpose: Purpose::Elect, .. }));
    found_within(200, outages, never, &["P8"]);
}

#[test]
fn p7_never_rejoining_after_a_lost_session_is_found() {
    found(|| GivesUpAfterALoss::on(|output| matches!(output, Output::Grant { .. })), &["P7", "P8"]);
}

#[test]
fn p8_never_retrying_a_refused_stabilize_is_found() {
    found(|| NeverAgain, &["P8"]);
}

/// Resumes a watch forever although its changes were compacted.
struct NeverResyncs;

impl Tamper for NeverResyncs {
    fn input(&mut self, _: &Seat<'_>, input: Input) -> Vec<Input> {
        match input {
            Input::WatchEnded { token, end: WatchEnd::Compacted { .. } } => {
                let end = WatchEnd::Disconnected { reason: "again".to_owned() };
                vec![Input::WatchEnded { token, end }]
            }
            other => vec![other],
        }
    }
}

#[test]
fn p8_never_reading_a_snapshot_after_a_compaction_is_found() {
    found_within(200, Simulation::new(), || NeverResyncs, &["P8"]);
}

#[test]
fn p8_treating_a_commit_with_a_lost_reply_as_successful_is_found() {
    found_within(200, Simulation::new(), || AssumesDone, &["P8", "P5"]);
}

#[test]
fn p8_a_new_leader_that_ignores_existing_acknowledgements_is_found() {
    found_within(200, Simulation::new(), || NeverReadsAcknowledgements, &["P8"]);
}

/// Assumes that its acknowledgement exists once it was sent.
#[derive(Default)]
struct NeverChecksItsAcknowledgement {
    sent: BTreeMap<usize, Txn>,
    looks: BTreeSet<Token>,
    /// Sends acknowledgements without a guard on the current one.
    unguarded: bool,
}

impl Tamper for NeverChecksItsAcknowledgement {
    fn output(&mut self, seat: &Seat<'_>, output: Output) -> Vec<Output> {
        match &output {
            Output::Commit { txn, purpose: Purpose::Acknowledge, .. } => {
                self.sent.insert(seat.node, txn.clone());
            }
            Output::Read { token, prefix, .. } if prefix.starts_with("c/ready/n") => {
                self.looks.insert(*token);
            }
            _ => {}
        }
        let kept = |txn: &_| {
            commits::keep(txn, |guard| !self.unguarded || !guard.key().starts_with("c/ready/"), |_| true)
        };
        commits::change(output, Purpose::Acknowledge, kept)
    }

    fn input(&mut self, seat: &Seat<'_>, input: Input) -> Vec<Input> {
        match input {
            Input::Read { token, result: Ok(snapshot) } if self.looks.remove(&token) => {
                let sent = self.sent.get(&seat.node).into_iter().flat_map(Txn::operations);
                let (created, modified) = (snapshot.revision, snapshot.revision);
                let as_sent = sent.filter_map(|operation| match operation.clone() {
                    Operation::Put { key, value, lease } => {
                        Some(Entry { key, value, created, modified, lease })
                    }
                    Operation::Delete { .. } => None,
                });
                let snapshot = Snapshot { entries: as_sent.collect(), ..snapshot };
                vec![Input::Read { token, result: Ok(snapshot) }]
            }
            other => vec![other],
        }
    }
}

#[test]
fn p8_not_noticing_that_a_restore_lost_the_acknowledgement_is_found() {
    let restored = brief(3).only([Kind::Rewind, Kind::SlowStabilize, Kind::RequestVersion]);
    found_within(500, restored, NeverChecksItsAcknowledgement::default, &["P8"]);
}

// A node that checks for its acknowledgement repairs this.
#[test]
fn p8_a_late_refusal_that_replaces_an_acknowledgement_unnoticed_is_found() {
    // n1 refuses and then accepts a version for which n0 takes long, and the refusal is delayed.
    let fault = |ms: u64, kind, node, lasts| Fault {
        at: Moment::from_nanos(ms * 1_000_000),
        kind,
        node,
        lasts: Duration::from_millis(lasts),
        choice: 0,
        upon: None,
    };
    let late = brief(2).storm(Duration::from_secs(8)).planned([
        fault(4_000, Kind::StuckStabilize, 0, 3_500),
        fault(4_000, Kind::RefusingStabilize, 1, 150),
        fault(4_000, Kind::HeldCommit, 1, 150),
        fault(4_010, Kind::RequestVersion, 0, 0),
    ]);
    found_within(
        500,
        late,
        || NeverChecksItsAcknowledgement { unguarded: true, ..NeverChecksItsAcknowledgement::default() },
        &["P8"],
    );
}
