//! Faults in the protocol, one for each promise and more. Each is found within the bounds that it needs, and no others.

use clustering_core::{
    Version,
    machine::{Input, Output, Purpose},
    store::{Change, ErrorKind},
    time::Timestamp,
    version::Mint,
};
use clustering_testkit::{
    model::{Bounds, ClusterModel, Limited, Promise, Start},
    sim::{Seat, Tamper},
};
use serde_json::{Value, json};

use crate::{
    breaks, check,
    tampers::{
        AssumesDone, CallsTwice, Flag, LeavesItStanding, MomentaryList, NeverAgain,
        NeverReadsAcknowledgements, TellsNobody, commits, unguarded,
    },
};

fn nodes(nodes: u8) -> Bounds {
    Bounds::nodes(nodes)
}

/// Does not hear that a node is gone.
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
fn p1_a_watch_that_skips() {
    breaks(Promise::P1, nodes(3).with(Limited::Expiry, 1), || Deaf);
}

#[test]
fn p1_the_local_list_as_the_view() {
    let bounds = nodes(2).with(Limited::Ask, 1).with(Limited::Refusal, 1).with(Limited::Wake, 1);
    breaks(Promise::P1, bounds.with(Limited::Update, 1), || MomentaryList);
}

/// Mints versions by the wall clock alone, which is another on each node.
struct ByWallClock;

impl Tamper for ByWallClock {
    fn output(&mut self, seat: &Seat<'_>, output: Output) -> Vec<Output> {
        let wall = 1_700_000_000_000 - seat.node as u64 * 3_600_000;
        let minted: Version = Mint::new(wall, Timestamp::ZERO, 1).version(seat.now, None);
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
fn p2_versions_by_the_wall_clock() {
    breaks(Promise::P2, nodes(2).with(Limited::Resign, 1), || ByWallClock);
}

#[test]
fn p3_a_stabilize_that_is_not_told() {
    let told = breaks(Promise::P3, nodes(1).with(Limited::Ask, 2), || TellsNobody);
    // Found by the shortest way, and told step by step.
    assert!(told.contains("  | 1. the user of a asks for a version"), "{told}");
    assert!(told.contains("is not told that"), "{told}");
}

/// Begins each stabilize twice.
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
fn p3_two_stabilizes_at_a_time() {
    breaks(Promise::P3, nodes(1).with(Limited::Ask, 1), || BeginsTwice);
}

/// Does not hear that an acknowledgement went with the session that gave it.
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
fn p4_p7_an_acknowledgement_of_an_old_session_counts() {
    breaks(Promise::P4, nodes(2).with(Limited::Ask, 1).with(Limited::Expiry, 1), || CountsOldSessions);
}

#[test]
fn p4_a_record_of_stability_for_an_older_version() {
    breaks(Promise::P4, nodes(1).with(Limited::Ask, 2), unguarded!(Confirm, "c/view/version"));
}

#[test]
fn p4_stability_is_recorded_twice_after_a_lost_reply() {
    let bounds = nodes(1).with(Limited::Ask, 1).with(Limited::Loss, 1).with(Limited::Wake, 1);
    breaks(Promise::P4, bounds, unguarded!(Confirm, "c/view/stable"));
}

#[test]
fn p4_an_acknowledgement_of_an_older_version_comes_late() {
    breaks(Promise::P4, nodes(1).with(Limited::Ask, 2), unguarded!(Acknowledge, "c/view/version"));
}

#[test]
fn p4_an_acknowledgement_outlives_the_record_that_it_was_given_under() {
    breaks(Promise::P4, nodes(2).with(Limited::Ask, 1).with(Limited::Update, 1), || LeavesItStanding);
}

#[test]
fn p4_on_stable_is_called_twice() {
    breaks(Promise::P4, nodes(1).with(Limited::Ask, 1), || CallsTwice);
}

#[test]
fn p5_a_version_of_a_deposed_leader() {
    let bounds = nodes(2).with(Limited::Ask, 1).with(Limited::Expiry, 1);
    breaks(Promise::P5, bounds, unguarded!(Publish, "c/view/leader"));
}

#[test]
fn p5_a_record_of_stability_by_a_deposed_leader() {
    let bounds = nodes(1).with(Limited::Ask, 1).with(Limited::Expiry, 1);
    breaks(Promise::P5, bounds, unguarded!(Confirm, "c/view/leader"));
}

#[test]
fn p5_a_deposed_leader_ends_the_term_of_another() {
    let bounds = nodes(2).with(Limited::Resign, 1).with(Limited::Expiry, 1);
    breaks(Promise::P5, bounds, unguarded!(Resign, "c/view/leader"));
}

#[test]
fn p5_a_write_of_the_user_of_a_deposed_leader() {
    let bounds = nodes(2).with(Limited::Write, 1).with(Limited::Expiry, 1);
    breaks(Promise::P5, bounds, unguarded!(Fenced, "c/view/leader"));
}

#[test]
fn p5_an_election_that_looks_at_neither_leader_nor_version() {
    let bounds = nodes(3).with(Limited::Expiry, 1).with(Limited::Wake, 1);
    breaks(Promise::P5, bounds, unguarded!(Elect, "c/view/leader", "c/view/version"));
}

#[test]
fn p6_a_flag_that_stays_true() {
    breaks(Promise::P6, nodes(1).with(Limited::Wake, 1), || Flag);
}

/// Takes a renewal whose reply was lost for a good one.
struct TakesItForRenewed;

impl Tamper for TakesItForRenewed {
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
fn p6_a_lost_renewal_is_taken_for_a_good_one() {
    breaks(Promise::P6, nodes(1).with(Limited::Wake, 1).with(Limited::Loss, 1), || TakesItForRenewed);
}

#[test]
fn p7_two_lives_share_a_name() {
    let bounds = nodes(1).from(Start::Empty).with(Limited::Crash, 1);
    breaks(Promise::P7, bounds, unguarded!(Join, "c/view/nodes/"));
}

#[test]
fn p8_a_stabilize_that_said_no_is_never_tried_again() {
    breaks(Promise::P8, nodes(1).with(Limited::Ask, 1).with(Limited::Refusal, 1), || NeverAgain);
}

/// Waits for ever for the reply to a commit that was lost.
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
fn p8_a_reply_that_was_lost_is_waited_for_for_ever() {
    breaks(Promise::P8, nodes(1).with(Limited::Ask, 1).with(Limited::Loss, 1), || WaitsForEver);
}

#[test]
fn p8_a_commit_that_is_wrongly_taken_for_done_is_repeated_in_the_end() {
    let bounds = nodes(1).with(Limited::Ask, 1).with(Limited::Loss, 1);
    let checked = check(&ClusterModel::new(bounds).tampered(|| AssumesDone));
    assert!(checked.exhausted && checked.broken.is_none(), "{checked}");
}

#[test]
fn p8_acknowledgements_that_stand_are_not_read_after_a_gap() {
    let bounds = nodes(2).with(Limited::Ask, 1).with(Limited::Gap, 1);
    breaks(Promise::P8, bounds, || NeverReadsAcknowledgements);
}
