//! Fault tests on a real etcd, with nodes as processes: each scenario breaks something, waits until the cluster has
//! come to rest, and checks the promises P1 to P8, P11 and P12 with the journals of all nodes and the history that an
//! observer recorded. What every store must survive is in [`clustering_testkit::faults`] instead, which runs on etcd in
//! `clustering-etcd/tests/faults.rs`.
//!
//! This binary also runs as each of the nodes, selected by its environment. Lines that start with `measured:` show how
//! long the cluster took to reach the next stable version. The figures in the chapter "production" come from them:
//!
//! ```sh
//! cargo test -p clustering-proofs --features server-tests --test faults | grep measured
//! cargo test -p clustering-etcd --features server-tests --test faults -- --nocapture | grep measured
//! ```

#![allow(clippy::unwrap_used, reason = "a panic fails the test, also in helpers")]

mod by_hand;
mod crashes;
mod etcd_away;
mod etcd_history;
mod etcd_members;
mod full_etcd;
mod health;
mod laggards;
mod long_outage;
mod names;
mod network;
mod owners;
mod ownership;
mod pauses;
mod scenario;

use std::{future::Future, time::Duration};

use clustering_etcd::{ConfigError, EtcdConfig, EtcdStore};
use clustering_proofs::node::{self, NodeSpec};
use libtest_mimic::{Arguments, Trial};

/// More tests run at once than there are cores, because they mostly wait for leases to expire.
const AT_ONCE: usize = 6;

/// Creates a configuration for exactly these endpoints. Without a refresh of the members, the client cannot bypass
/// proxies.
fn config(endpoints: &[String]) -> Result<EtcdConfig, ConfigError> {
    let mut config = EtcdConfig::new(endpoints)?;
    config.member_refresh = Duration::ZERO;
    Ok(config)
}

fn main() {
    if let Some(spec) = NodeSpec::from_env() {
        return node::main(spec, |endpoints| async move { EtcdStore::new(config(&endpoints)?) });
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    libtest_mimic::run(&arguments, all()).exit();
}

fn trial<F: Future<Output = ()> + 'static>(name: &str, test: fn() -> F) -> Trial {
    // Same format as the names of libtest.
    let name = name.replace(' ', "");
    Trial::test(name.clone(), move || {
        scenario::begin_story(&name);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.expect("the runtime can be built").block_on(test());
        Ok(())
    })
}

macro_rules! trials {
    ($($test:path,)*) => { vec![$(trial(stringify!($test), $test)),*] };
}

fn all() -> Vec<Trial> {
    trials![
        by_hand::p7_a_node_whose_lease_is_revoked_by_hand_rejoins,
        by_hand::p7_a_node_whose_record_is_deleted_by_hand_rejoins,
        by_hand::p5_another_node_leads_after_the_election_key_is_deleted_by_hand,
        by_hand::p8_a_version_and_its_stability_record_deleted_by_hand_are_replaced,
        crashes::p8_a_killed_follower_is_removed_long_before_its_ttl,
        crashes::p8_a_killed_leader_is_replaced_long_before_its_ttl,
        crashes::p12_the_slots_of_a_crashed_process_are_held_by_others_at_once,
        crashes::p8_a_node_that_is_restarted_on_the_same_port_at_once_rejoins_before_the_ttl,
        crashes::p8_eight_of_twenty_processes_that_die_at_once_are_removed_long_before_their_ttl,
        crashes::p8_twenty_of_fifty_processes_that_die_at_once_are_removed_long_before_their_ttl,
        crashes::p8_a_paused_process_is_not_taken_for_crashed,
        crashes::p8_a_port_that_another_program_takes_over_does_not_look_like_a_crash,
        crashes::p8_a_proxy_that_accepts_for_a_dead_process_hides_its_crash,
        crashes::p7_a_live_process_whose_connections_are_refused_rejoins_once_and_stays,
        crashes::p8_a_cable_that_is_pulled_does_not_look_like_a_crash,
        etcd_away::p7_nodes_rejoin_after_etcd_was_down_for_longer_than_the_ttl,
        etcd_away::p6_nodes_rejoin_after_etcd_was_paused_for_longer_than_the_ttl,
        etcd_history::p7_nodes_rejoin_after_etcd_was_wiped,
        etcd_history::p9_a_restart_and_compaction_of_etcd_do_not_change_a_quiet_cluster,
        etcd_members::p8_the_cluster_recovers_after_etcd_lost_its_leader_and_then_its_quorum,
        full_etcd::p5_a_write_that_had_no_effect_is_not_in_a_full_etcd,
        full_etcd::p10_a_full_etcd_is_reported_and_the_cluster_continues_once_there_is_space,
        health::p11_a_leader_whose_check_fails_gives_up_its_lead,
        health::p11_a_leader_whose_check_hangs_gives_up_its_lead,
        laggards::p8_a_laggard_is_reported_and_evicted_until_it_stops,
        laggards::p8_a_leader_that_lags_steps_down_and_is_evicted,
        long_outage::p7_nodes_with_one_endpoint_rejoin_after_a_long_outage,
        long_outage::p7_nodes_with_three_endpoints_rejoin_after_a_long_outage,
        names::p7_a_second_instance_waits_until_the_first_one_leaves,
        names::p7_a_second_instance_takes_over_the_name,
        names::p7_a_second_instance_stops_if_the_name_is_taken,
        network::p6_a_leader_whose_connections_hang_opens_few_new_ones,
        network::p7_a_node_rejoins_after_its_network_dropped_all_packets,
        network::p7_a_node_rejoins_after_its_network_interface_was_removed,
        ownership::p12_the_slots_of_a_killed_node_are_held_by_others_after_the_ttl,
        ownership::p12_a_process_paused_past_the_ttl_holds_nothing_when_it_resumes,
        ownership::p12_a_node_cut_off_from_etcd_lets_go_before_others_acquire,
        ownership::p12_an_evicted_node_finishes_its_work_before_others_acquire,
        ownership::p12_a_second_instance_acquires_after_the_first_has_let_go,
        ownership::p12_a_rolling_restart_hands_every_key_over,
        ownership::p12_the_leader_is_killed_before_slots_are_released,
        ownership::p12_the_leader_is_killed_after_slots_are_released,
        ownership::p12_the_leader_is_killed_before_the_version_is_stable,
        ownership::p12_all_slots_are_held_again_after_etcd_was_away,
        ownership::p12_a_mixed_rollout_gives_no_key_to_two_nodes,
        ownership::p12_a_worker_that_ignores_the_end_of_its_hold_is_found,
        ownership::p12_a_worker_whose_writes_are_not_fenced_is_found,
        pauses::p6_a_resumed_leader_knows_at_once_that_it_no_longer_leads,
    ]
}
