//! The fault suite on a `MemoryStore`, which passes, and on stores that fail in one way each, which it must find.

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

mod broken;
mod memory;

use std::panic;

use broken::Flaw;
use clustering_testkit::{conformance::Clock, faults};
use memory::Memory;

mod virtual_time {
    use super::*;
    clustering_testkit::fault_tests!(Memory::start(Clock::Paused, Flaw::None));
}

/// Here each node has a thread of its own, which is blocked while the node is paused.
mod real_time {
    use super::*;

    macro_rules! in_real_time {
        ($($scenario:ident)*) => {$(
            #[test]
            fn $scenario() {
                let make = || Memory::start(Clock::Real, Flaw::None);
                faults::run(stringify!($scenario), make, faults::$scenario);
            }
        )*};
    }

    in_real_time! {
        p6_a_resumed_leader_knows_at_once_that_it_no_longer_leads
        p8_the_cluster_recovers_after_all_nodes_were_killed
        p12_a_node_paused_past_the_ttl_holds_nothing_when_it_resumes
    }
}

/// A store with a flaw, the scenario that finds it, and a part of the message, which shows that the scenario fails for
/// the intended reason.
macro_rules! found {
    ($($test:ident: $flaw:ident by $scenario:ident, $says:literal;)*) => {
        mod a_store_that {
            use super::*;
            $(#[test]
            fn $test() {
                let run = || {
                    let make = || Memory::start(Clock::Paused, Flaw::$flaw);
                    faults::run(stringify!($scenario), make, faults::$scenario);
                };
                let panic = panic::catch_unwind(run).expect_err("the suite finds the flaw");
                let text = panic.downcast::<String>().unwrap();
                assert!(text.contains($says), "{} says nothing of {:?}:\n{text}", stringify!($scenario), $says);
            })*
        }
    };
}

found! {
    skips_changes_after_a_reconnect: SkipsChanges by p1_a_change_is_seen_by_a_node_that_was_cut_off,
        "timed out waiting for a stable version";
    skips_compacted_changes: SkipsCompactedChanges by p1_a_node_that_missed_a_compacted_version_requests_another,
        "timed out waiting for a resync";
    refuses_commits_whose_answers_were_lost: RefusesLostCommits
        by p5_a_commit_whose_answer_is_lost_takes_effect_at_most_once, "it was refused and is not in the log";
    repeats_commits_whose_answers_were_lost: RepeatsLostCommits
        by p5_a_commit_whose_answer_is_lost_takes_effect_at_most_once, "it was refused and is not in the log";
    repeats_commits_without_their_guards: RepeatsUnguarded
        by p5_a_commit_whose_answer_is_lost_takes_effect_at_most_once, "P5";
    renews_leases_without_answers: RenewsBlindly by p6_a_leader_that_gets_no_answers_stops_leading_in_time,
        "timed out waiting for the suspension of its lead";
    renews_leases_while_it_hangs: RenewsBlindly by p6_a_leader_whose_connections_hang_stops_leading_in_time,
        "timed out waiting for the suspension of its lead";
    expires_leases_when_it_resumes: EndsLeasesAtResume by p6_a_pause_of_the_store_within_the_ttl_changes_nothing,
        "timed out waiting for the resumption of its lead";
    takes_late_writes_without_their_guards: TakesLateWrites
        by p6_a_resumed_leader_knows_at_once_that_it_no_longer_leads, "a deposed leader has written";
    is_broken_by_a_call_that_was_given_up_during_a_pause: BreaksOnDroppedCalls
        by p6_nodes_rejoin_after_the_store_was_paused_for_longer_than_the_ttl, "timed out waiting for a stable version";
    does_not_end_the_lease_of_a_paused_follower: EndsNoLease by p7_a_follower_rejoins_after_a_pause,
        "timed out waiting for a stable version";
    is_broken_by_a_call_that_was_given_up: BreaksOnDroppedCalls by p7_a_follower_whose_connections_hang_rejoins,
        "timed out waiting for a rejoin";
    does_not_reconnect_once_it_was_refused: GivesUpForGood by p7_a_leader_whose_connections_are_closed_rejoins,
        "timed out waiting for a rejoin";
    loses_leases_when_it_starts: EndsLeasesAtStart by p7_a_restart_of_the_store_within_the_ttl_changes_nothing,
        "lost its session";
    loses_its_data_when_it_starts: StartsEmpty by p7_a_restart_of_the_store_within_the_ttl_changes_nothing,
        "lost its session";
    keeps_leases_alive_after_a_start: KeepsLeasesAfterStart
        by p7_a_restart_of_the_store_within_the_ttl_changes_nothing, "timed out waiting for a stable version";
    ends_leases_with_their_connections: BindsLeasesToConnections by p7_closed_connections_change_nothing,
        "lost its session";
    leaves_watches_silent_after_a_reconnect: SilentWatches by p7_closed_connections_change_nothing,
        "timed out waiting for a stable version";
    does_not_reconnect: GivesUpForGood by p7_nodes_rejoin_after_the_store_was_down_for_longer_than_the_ttl,
        "timed out waiting for a stable version";
    does_not_report_a_restore: HidesRewinds
        by p7_nodes_rejoin_after_the_store_was_restored_from_an_older_backup,
        "timed out waiting for a lost session of a";
    does_not_end_the_lease_of_a_killed_follower: EndsNoLease by p8_a_killed_follower_is_removed_within_its_ttl,
        "timed out waiting for a stable version";
    ends_leases_late: EndsLeasesLate by p8_a_killed_leader_is_replaced_within_its_ttl,
        "the others noticed it too late";
    does_not_end_the_leases_of_killed_nodes: EndsNoLease by p8_the_cluster_recovers_after_all_nodes_were_killed,
        "timed out waiting for a stable version";
    ends_the_lease_of_a_killed_node_early: EndsLeasesEarly by p8_a_killed_follower_is_removed_within_its_ttl,
        "a lease ended too early";
    ends_leases_early: EndsLeasesEarly by p12_a_node_cut_off_from_the_store_lets_go_in_time,
        "P12 (one holder) is broken";
    does_not_end_the_lease_of_a_paused_owner: EndsNoLease
        by p12_a_node_paused_past_the_ttl_holds_nothing_when_it_resumes, "timed out waiting for a stable version";
    renews_the_lease_of_an_owner_without_answers: RenewsBlindly
        by p12_a_node_that_gets_no_answers_lets_go_in_time, "timed out waiting for a lost session";
    does_not_reconnect_an_owner: GivesUpForGood by p12_all_keys_are_held_again_after_the_store_was_away,
        "timed out waiting for a holder";
    does_not_end_the_lease_of_a_killed_owner: EndsNoLease by p12_the_keys_of_a_killed_node_are_held_by_others,
        "timed out waiting for a stable version";
}
