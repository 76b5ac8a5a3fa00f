//! Faults that drop a guard from a commit.

use clustering_proofs::sim::{Kind, Simulation};

use crate::{
    brief, found, found_within,
    tampers::{KeepsTheAcknowledgement, unguarded},
};

// An election with only one of these guards is almost safe, because an elected node also writes the version.
#[test]
fn p2_p5_an_election_without_guards_on_leader_and_version_is_found() {
    found(unguarded!(Elect, "c/view/leader", "c/view/version"), &["P2", "P5"]);
}

#[test]
fn p5_a_version_published_by_a_deposed_leader_is_found() {
    let late = brief(4).only([Kind::SlowCalls, Kind::Resign, Kind::HandDelete]);
    found_within(1_000, late, unguarded!(Publish, "c/view/leader"), &["P5"]);
}

#[test]
fn p5_a_version_recorded_as_stable_by_a_deposed_leader_is_found() {
    // The version is still the newest, because no other node leads yet.
    let late = brief(4).only([
        Kind::SlowCalls,
        Kind::Resign,
        Kind::EarlyExpiry,
        Kind::RequestVersion,
        Kind::HandDelete,
    ]);
    found_within(2_000, late, unguarded!(Confirm, "c/view/leader"), &["P5"]);
}

#[test]
fn p4_recording_an_older_version_as_stable_is_found() {
    let asked = brief(4).only([Kind::SlowCalls, Kind::RequestVersion, Kind::SlowStabilize]);
    found_within(2_000, asked, unguarded!(Confirm, "c/view/version"), &["P4"]);
}

#[test]
fn p4_recording_stability_twice_after_a_lost_reply_is_found() {
    let lost = brief(2).only([Kind::LostReplies, Kind::WatchLag, Kind::RequestVersion]);
    found_within(300, lost, unguarded!(Confirm, "c/view/stable"), &["P4"]);
}

#[test]
fn p4_a_late_acknowledgement_of_an_older_version_is_found() {
    found(unguarded!(Acknowledge, "c/view/version"), &["P4"]);
}

#[test]
fn p4_a_late_acknowledgement_that_replaces_a_newer_one_is_found() {
    found(unguarded!(Acknowledge, "c/"), &["P4"]);
}

#[test]
fn p7_two_instances_that_share_a_name_are_found() {
    let twins = brief(3).only([Kind::Twin, Kind::Crash, Kind::SlowCalls, Kind::WatchLag]);
    found_within(500, twins, unguarded!(Join, "c/view/nodes/"), &["P7"]);
}

#[test]
fn p5_an_eviction_by_a_deposed_leader_is_found() {
    let kinds = [Kind::SlowCalls, Kind::StuckStabilize, Kind::HandDelete, Kind::EarlyExpiry];
    found_within(1500, brief(4).only(kinds), unguarded!(Evict, "c/view/leader"), &["P5"]);
}

#[test]
fn p5_a_deposed_leader_that_ends_another_term_is_found() {
    let late = brief(4).only([Kind::Resign, Kind::SlowCalls, Kind::LostReplies, Kind::Pause]);
    // The deposed leader may also end its own newer term, which it does not know of yet.
    found_within(300, late, unguarded!(Resign, "c/view/leader"), &["P5", "P6"]);
}

#[test]
fn p5_a_leader_commit_under_an_old_term_is_found() {
    found(unguarded!(LeaderCommit, "c/view/leader"), &["P5"]);
}

#[test]
fn p4_an_acknowledgement_that_outlives_its_node_record_is_found() {
    let updates = [Kind::Update, Kind::WatchLag, Kind::SlowStabilize, Kind::RequestVersion, Kind::SlowCalls];
    found_within(1_000, Simulation::new().only(updates), || KeepsTheAcknowledgement, &["P4"]);
}
