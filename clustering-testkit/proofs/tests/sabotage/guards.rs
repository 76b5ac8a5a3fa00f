//! Commits without one of their guards.

use clustering_proofs::sim::{Kind, Simulation};

use crate::{
    brief, found, found_within,
    tampers::{LeavesItStanding, unguarded},
};

// Each guard of an election alone would do, nearly: whoever is elected writes the version too.
#[test]
fn p2_p5_an_election_that_looks_at_neither_leader_nor_version() {
    found(unguarded!(Elect, "c/view/leader", "c/view/version"), &["P2", "P5"]);
}

#[test]
fn p5_a_version_of_a_deposed_leader() {
    let late = brief(4).only([Kind::SlowCalls, Kind::Resign, Kind::HandDelete]);
    found_within(1_000, late, unguarded!(Publish, "c/view/leader"), &["P5"]);
}

#[test]
fn p5_a_record_of_stability_by_a_deposed_leader() {
    // Its version is still the newest: nobody else leads yet.
    let late = brief(4).only([Kind::SlowCalls, Kind::Resign, Kind::EarlyExpiry, Kind::Ask, Kind::HandDelete]);
    found_within(2_000, late, unguarded!(Confirm, "c/view/leader"), &["P5"]);
}

#[test]
fn p4_a_record_of_stability_for_an_older_version() {
    let asked = brief(4).only([Kind::SlowCalls, Kind::Ask, Kind::SlowStabilize]);
    found_within(2_000, asked, unguarded!(Confirm, "c/view/version"), &["P4"]);
}

#[test]
fn p4_stability_is_recorded_twice_after_a_lost_reply() {
    let lost = brief(2).only([Kind::LostReplies, Kind::WatchLag, Kind::Ask]);
    found_within(300, lost, unguarded!(Confirm, "c/view/stable"), &["P4"]);
}

#[test]
fn p4_an_acknowledgement_of_an_older_version_comes_late() {
    found(unguarded!(Acknowledge, "c/view/version"), &["P4"]);
}

#[test]
fn p4_a_late_acknowledgement_takes_the_place_of_a_newer() {
    found(unguarded!(Acknowledge, "c/"), &["P4"]);
}

#[test]
fn p7_two_instances_share_a_name() {
    let twins = brief(3).only([Kind::Twin, Kind::Crash, Kind::SlowCalls, Kind::WatchLag]);
    found_within(500, twins, unguarded!(Join, "c/view/nodes/"), &["P7"]);
}

#[test]
fn p5_a_deposed_leader_evicts() {
    let kinds = [Kind::SlowCalls, Kind::StuckStabilize, Kind::HandDelete, Kind::EarlyExpiry];
    found_within(1500, brief(4).only(kinds), unguarded!(Evict, "c/view/leader"), &["P5"]);
}

#[test]
fn p5_a_deposed_leader_ends_the_term_of_another() {
    let late = brief(4).only([Kind::Resign, Kind::SlowCalls, Kind::LostReplies, Kind::Pause]);
    // Or its own, of which it knew nothing.
    found_within(300, late, unguarded!(Resign, "c/view/leader"), &["P5", "P6"]);
}

#[test]
fn p5_a_write_of_the_user_of_a_deposed_leader() {
    found(unguarded!(LeaderCommit, "c/view/leader"), &["P5"]);
}

#[test]
fn p4_an_acknowledgement_outlives_the_record_that_it_was_given_under() {
    let updates = [Kind::Update, Kind::WatchLag, Kind::SlowStabilize, Kind::Ask, Kind::SlowCalls];
    found_within(1_000, Simulation::new().only(updates), || LeavesItStanding, &["P4"]);
}
