//! Faults in the protocol, at least one per promise. Each is found within minimal bounds.

use clustering_core::{
    Version,
    machine::{Input, Output, Purpose},
    store::{Change, ErrorKind},
    time::Timestamp,
    version::IdGenerator,
};
use clustering_proofs::{
    model::{Bounds, ClusterModel, Limited, Promise, Start},
    sim::{Seat, Tamper},
};
use serde_json::{Value, json};

use crate::{
    breaks, check,
    tampers::{
        AssumesDone, CallsTwice, Flag, KeepsTheAcknowledgement, MomentaryList, NeverAgain,
        NeverReadsAcknowledgements, TellsNobody, commits, unguarded,
    },
};

fn nodes(nodes: u8) -> Bounds {
    Bounds::nodes(nodes)
}

/// Ignores the deletion of node records.
struct Deaf;

impl Tamper for Deaf {
    fn input(&mut self, _: &Seat<'_>, input: Input) -> Vec<Input> {
        let Input::Batch { token, batch } = input else { return vec![input] };
        let gone = |change: &Change| {
            matches!(change, Change::Delete(_)) && change.key().starts_with("c/view/nodes/")
        };
        let heard = batch.filtered(|change| !gone(change));
        heard.map(|batch| Input::Batch { token, batch }).into_iter().collect()
    }
}

#[test]
fn p1_a_watch_that_skips_changes_is_found() {
    breaks(Promise::P1, nodes(3).with(Limited::Expiry, 1), || Deaf);
}

#[test]
fn p1_the_local_node_list_as_the_view_is_found() {
    let bounds = nodes(2).with(Limited::Ask, 1).with(Limited::Refusal, 1).with(Limited::Wake, 1);
    breaks(Promise::P1, bounds.with(Limited::Update, 1), || MomentaryList);
}

/// Generates versions from the wall clock alone, which differs from node to node.
struct ByWallClock;

impl Tamper for ByWallClock {
    fn output(&mut self, seat: &Seat<'_>, output: Output) -> Vec<Output> {
        let wall = 1_700_000_000_000 - seat.node as u64 * 3_600_000;
        let minted: Version = IdGenerator::new(wall, Timestamp::ZERO, 1).version(seat.now, None);
        commits::change(output, Purpose::Elect, |txn| {
            commits::rewrite(txn, |key, value| {
                let mut record: Value = serde_json::from_slice(value).ok()?;
                record["version"] = json!(minted.to_string());
                (key.as_str() == "c/view/version").then(|| record.to_string().into_bytes())
            })
        })
    }
}

#[test]
fn p2_versions_from_the_wall_clock_are_found() {
    breaks(Promise::P2, nodes(2).with(Limited::Resign, 1), || ByWallClock);
}

#[test]
fn p3_a_superseded_stabilize_that_is_not_told_is_found() {
    let told = breaks(Promise::P3, nodes(1).with(Limited::Ask, 2), || TellsNobody);
    // The shortest path is found, and printed step by step.
    assert!(told.contains("  | 1. the user of a requests a version"), "{told}");
    assert!(told.contains("is not told that"), "{told}");
}

/// Starts each stabilize twice.
struct BeginsTwice;

impl Tamper for BeginsTwice {
    fn output(&mut self, _: &Seat<'_>, output: Output) -> Vec<Output> {
        match output {
            Output::Stabilize { .. } => vec![output.clone(), output],
            other => vec![other],
        }
    }
}

#[test]
fn p3_two_stabilizes_at_a_time_are_found() {
    breaks(Promise::P3, nodes(1).with(Limited::Ask, 1), || BeginsTwice);
}

/// Ignores the deletion of acknowledgements with their sessions.
struct CountsOldSessions;

impl Tamper for CountsOldSessions {
    fn input(&mut self, _: &Seat<'_>, input: Input) -> Vec<Input> {
        let Input::Batch { token, batch } = input else { return vec![input] };
        let went =
            |change: &Change| matches!(change, Change::Delete(_)) && change.key().starts_with("c/ready/");
        let heard = batch.filtered(|change| !went(change));
        heard.map(|batch| Input::Batch { token, batch }).into_iter().collect()
    }
}

#[test]
fn p4_p7_counting_an_acknowledgement_of_an_old_session_is_found() {
    breaks(Promise::P4, nodes(2).with(Limited::Ask, 1).with(Limited::Expiry, 1), || CountsOldSessions);
}

#[test]
fn p4_recording_an_older_version_as_stable_is_found() {
    breaks(Promise::P4, nodes(1).with(Limited::Ask, 2), unguarded!(Confirm, "c/view/version"));
}

#[test]
fn p4_recording_stability_twice_after_a_lost_reply_is_found() {
    let bounds = nodes(1).with(Limited::Ask, 1).with(Limited::Loss, 1).with(Limited::Wake, 1);
    breaks(Promise::P4, bounds, unguarded!(Confirm, "c/view/stable"));
}

#[test]
fn p4_a_late_acknowledgement_of_an_older_version_is_found() {
    breaks(Promise::P4, nodes(1).with(Limited::Ask, 2), unguarded!(Acknowledge, "c/view/version"));
}

#[test]
fn p4_an_acknowledgement_that_outlives_its_node_record_is_found() {
    breaks(Promise::P4, nodes(2).with(Limited::Ask, 1).with(Limited::Update, 1), || KeepsTheAcknowledgement);
}

#[test]
fn p4_calling_on_stable_twice_is_found() {
    breaks(Promise::P4, nodes(1).with(Limited::Ask, 1), || CallsTwice);
}

#[test]
fn p5_a_version_published_by_a_deposed_leader_is_found() {
    let bounds = nodes(2).with(Limited::Ask, 1).with(Limited::Expiry, 1);
    breaks(Promise::P5, bounds, unguarded!(Publish, "c/view/leader"));
}

#[test]
fn p5_a_version_recorded_as_stable_by_a_deposed_leader_is_found() {
    let bounds = nodes(1).with(Limited::Ask, 1).with(Limited::Expiry, 1);
    breaks(Promise::P5, bounds, unguarded!(Confirm, "c/view/leader"));
}

#[test]
fn p5_a_deposed_leader_that_ends_another_term_is_found() {
    let bounds = nodes(2).with(Limited::Resign, 1).with(Limited::Expiry, 1);
    breaks(Promise::P5, bounds, unguarded!(Resign, "c/view/leader"));
}

#[test]
fn p5_a_user_write_of_a_deposed_leader_is_found() {
    let bounds = nodes(2).with(Limited::Write, 1).with(Limited::Expiry, 1);
    breaks(Promise::P5, bounds, unguarded!(LeaderCommit, "c/view/leader"));
}

#[test]
fn p5_an_unguarded_election_is_found() {
    let bounds = nodes(3).with(Limited::Expiry, 1).with(Limited::Wake, 1);
    breaks(Promise::P5, bounds, unguarded!(Elect, "c/view/leader", "c/view/version"));
}

#[test]
fn p6_a_leader_flag_that_stays_set_is_found() {
    breaks(Promise::P6, nodes(1).with(Limited::Wake, 1), || Flag);
}

/// Treats a renewal whose reply was lost as successful.
struct AssumesRenewed;

impl Tamper for AssumesRenewed {
    fn input(&mut self, _: &Seat<'_>, input: Input) -> Vec<Input> {
        match input {
            Input::Renewed { token, result: Err(_) } => {
                vec![Input::Renewed { token, result: Ok(std::time::Duration::from_secs(15)) }]
            }
            other => vec![other],
        }
    }
}

#[test]
fn p6_treating_a_lost_renewal_as_successful_is_found() {
    breaks(Promise::P6, nodes(1).with(Limited::Wake, 1).with(Limited::Loss, 1), || AssumesRenewed);
}

#[test]
fn p7_two_lives_that_share_a_name_are_found() {
    let bounds = nodes(1).from(Start::Empty).with(Limited::Crash, 1);
    breaks(Promise::P7, bounds, unguarded!(Join, "c/view/nodes/"));
}

#[test]
fn p8_never_retrying_a_refused_stabilize_is_found() {
    breaks(Promise::P8, nodes(1).with(Limited::Ask, 1).with(Limited::Refusal, 1), || NeverAgain);
}

/// Never handles the reply to a commit if the reply was lost.
struct WaitsForEver;

impl Tamper for WaitsForEver {
    fn input(&mut self, _: &Seat<'_>, input: Input) -> Vec<Input> {
        match input {
            Input::Committed { result: Err(error), .. } if error.kind() == ErrorKind::OutcomeUnknown => {
                Vec::new()
            }
            other => vec![other],
        }
    }
}

#[test]
fn p8_waiting_for_ever_for_a_lost_reply_is_found() {
    breaks(Promise::P8, nodes(1).with(Limited::Ask, 1).with(Limited::Loss, 1), || WaitsForEver);
}

#[test]
fn p8_a_commit_that_is_wrongly_treated_as_successful_is_eventually_repeated() {
    let bounds = nodes(1).with(Limited::Ask, 1).with(Limited::Loss, 1);
    let checked = check(&ClusterModel::new(bounds).tampered(|| AssumesDone));
    assert!(checked.exhausted && checked.broken.is_none(), "{checked}");
}

#[test]
fn p8_not_rereading_acknowledgements_after_a_gap_is_found() {
    let bounds = nodes(2).with(Limited::Ask, 1).with(Limited::Gap, 1);
    breaks(Promise::P8, bounds, || NeverReadsAcknowledgements);
}

#[test]
fn p12_an_accepted_commit_of_a_former_owner_is_found() {
    let bounds = nodes(2).exclusive(1).with(Limited::Hold, 1).with(Limited::OwnerWrite, 1);
    breaks(Promise::P12, bounds.with(Limited::Evict, 1), unguarded!(OwnerCommit, "c/view/version"));
}
