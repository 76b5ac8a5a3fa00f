//! Fault suite for implementations of [`CoordinationStore`](clustering_core::store::CoordinationStore).
//!
//! The [conformance](crate::conformance) suite judges a healthy store. This one judges what becomes of a cluster when its
//! store is killed, paused or restored from a backup, when nodes die or freeze, and when the network between them fails.

mod exclusive;
mod gate;
mod hooks;
mod host;
mod line;
mod network;
mod node;
mod nodes;
mod report;
mod rewound;
mod run;
mod scene;
mod store_away;
mod worker;
mod writer;

pub use self::{
    exclusive::{
        p12_a_node_cut_off_from_the_store_lets_go_in_time,
        p12_a_node_paused_past_the_ttl_holds_nothing_when_it_resumes,
        p12_a_node_that_gets_no_answers_lets_go_in_time,
        p12_all_keys_are_held_again_after_the_store_was_away,
        p12_the_keys_of_a_killed_node_are_held_by_others,
    },
    hooks::Faults,
    line::Line,
    network::{
        p1_a_change_is_seen_by_a_node_that_was_cut_off,
        p1_a_node_that_missed_a_compacted_version_requests_another,
        p5_a_commit_whose_answer_is_lost_takes_effect_at_most_once,
        p6_a_leader_that_gets_no_answers_stops_leading_in_time,
        p6_a_leader_whose_connections_hang_stops_leading_in_time,
        p7_a_follower_whose_connections_hang_rejoins, p7_a_leader_whose_connections_are_closed_rejoins,
        p7_closed_connections_change_nothing,
    },
    nodes::{
        p6_a_resumed_leader_knows_at_once_that_it_no_longer_leads, p7_a_follower_rejoins_after_a_pause,
        p8_a_killed_follower_is_removed_within_its_ttl, p8_a_killed_leader_is_replaced_within_its_ttl,
        p8_the_cluster_recovers_after_all_nodes_were_killed,
    },
    rewound::p7_nodes_rejoin_after_the_store_was_restored_from_an_older_backup,
    run::run,
    store_away::{
        p6_a_pause_of_the_store_within_the_ttl_changes_nothing,
        p6_nodes_rejoin_after_the_store_was_paused_for_longer_than_the_ttl,
        p7_a_restart_of_the_store_within_the_ttl_changes_nothing,
        p7_nodes_rejoin_after_the_store_was_down_for_longer_than_the_ttl,
    },
    writer::{Breach, Writer},
};

/// Generates one test per scenario, named after the scenario, for the store that the given future creates. See
/// [`faults`](crate::faults) for an example.
///
/// The expression is evaluated and awaited separately for each test, on that test's runtime (see
/// [`run`](crate::faults::run) for how often).
#[macro_export]
macro_rules! fault_tests {
    ($faults:expr $(,)?) => {
        $crate::fault_tests! {
            @each $faults;
            p1_a_change_is_seen_by_a_node_that_was_cut_off
            p1_a_node_that_missed_a_compacted_version_requests_another
            p5_a_commit_whose_answer_is_lost_takes_effect_at_most_once
            p6_a_leader_that_gets_no_answers_stops_leading_in_time
            p6_a_leader_whose_connections_hang_stops_leading_in_time
            p6_a_pause_of_the_store_within_the_ttl_changes_nothing
            p6_a_resumed_leader_knows_at_once_that_it_no_longer_leads
            p6_nodes_rejoin_after_the_store_was_paused_for_longer_than_the_ttl
            p7_a_follower_rejoins_after_a_pause
            p7_a_follower_whose_connections_hang_rejoins
            p7_a_leader_whose_connections_are_closed_rejoins
            p7_a_restart_of_the_store_within_the_ttl_changes_nothing
            p7_closed_connections_change_nothing
            p7_nodes_rejoin_after_the_store_was_down_for_longer_than_the_ttl
            p7_nodes_rejoin_after_the_store_was_restored_from_an_older_backup
            p8_a_killed_follower_is_removed_within_its_ttl
            p8_a_killed_leader_is_replaced_within_its_ttl
            p8_the_cluster_recovers_after_all_nodes_were_killed
            p12_a_node_cut_off_from_the_store_lets_go_in_time
            p12_a_node_paused_past_the_ttl_holds_nothing_when_it_resumes
            p12_a_node_that_gets_no_answers_lets_go_in_time
            p12_all_keys_are_held_again_after_the_store_was_away
            p12_the_keys_of_a_killed_node_are_held_by_others
        }
    };
    (@each $faults:expr; $($scenario:ident)*) => {$(
        #[test]
        fn $scenario() {
            $crate::faults::run(stringify!($scenario), || $faults, $crate::faults::$scenario);
        }
    )*};
}
