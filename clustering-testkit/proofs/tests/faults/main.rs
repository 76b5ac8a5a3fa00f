//! Faults on a real etcd, with nodes as processes of their own: each scenario breaks something, waits until the cluster has
//! come to rest, and has the promises P1 to P8 and P11 judged by the journals of all nodes and the history that an observer
//! collected.
//!
//! This binary runs itself as the nodes: what it is shows in its environment. `measured:` lines tell how long the cluster
//! took to the next stable version; those in the chapter "production" are from here:
//!
//! ```sh
//! cargo test -p clustering-proofs --features server-tests --test faults | grep measured
//! ```

#![allow(clippy::unwrap_used, reason = "what is not as expected fails the test, in helpers too")]

mod by_hand;
mod etcd_away;
mod etcd_history;
mod etcd_members;
mod full_etcd;
mod health;
mod laggards;
mod long_outage;
mod names;
mod network;
mod pauses;
mod scenario;
mod sudden_ends;

use std::{future::Future, time::Duration};

use clustering_etcd::{ConfigError, EtcdConfig, EtcdStore};
use clustering_proofs::node::{self, NodeSpec};
use libtest_mimic::{Arguments, Trial};

/// They wait for leases most of the time, so more of them run at once than there are cores.
const AT_ONCE: usize = 6;

/// A configuration for those endpoints alone: proxies are not to be gone round.
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
    // As a test under libtest is called.
    let name = name.replace(' ', "");
    Trial::test(name.clone(), move || {
        scenario::begin_story(&name);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.expect("a runtime").block_on(test());
        Ok(())
    })
}

macro_rules! trials {
    ($($test:path,)*) => { vec![$(trial(stringify!($test), $test)),*] };
}

fn all() -> Vec<Trial> {
    trials![
        by_hand::p7_a_lease_revoked_by_hand_is_a_session_lost,
        by_hand::p7_a_node_record_deleted_by_hand_comes_back,
        by_hand::p5_a_leader_key_deleted_by_hand_makes_another_lead,
        by_hand::p8_version_stable_and_ready_deleted_by_hand_are_made_again,
        etcd_away::p7_etcd_killed_and_restarted_in_time_changes_nothing,
        etcd_away::p7_etcd_down_for_longer_than_the_ttl,
        etcd_away::p6_etcd_paused_for_less_than_the_ttl_changes_nothing,
        etcd_away::p6_etcd_paused_for_longer_than_the_ttl,
        etcd_history::p7_etcd_wiped,
        etcd_history::p7_etcd_restored_from_an_older_backup,
        etcd_history::p1_a_version_compacted_while_a_watch_was_broken,
        etcd_history::p9_a_quiet_cluster_whose_etcd_restarts_and_compacts_stays_as_it_is,
        etcd_members::p8_etcd_loses_its_leader_then_its_quorum_and_gets_it_back,
        full_etcd::p5_a_write_that_had_no_effect_is_not_in_a_full_etcd,
        full_etcd::p10_a_full_etcd_is_reported_and_the_cluster_goes_on_when_there_is_room,
        health::p11_a_leader_whose_check_fails_gives_up_its_lead,
        health::p11_a_leader_whose_check_hangs_gives_up_its_lead,
        laggards::p8_a_laggard_is_named_and_evicted_until_it_gives_up,
        laggards::p8_a_leader_that_lags_steps_down_and_is_evicted,
        long_outage::p7_cut_off_for_long_with_one_way,
        long_outage::p7_cut_off_for_long_with_three_ways,
        names::p7_a_second_instance_waits,
        names::p7_a_second_instance_takes_over,
        names::p7_a_second_instance_fails,
        network::p6_a_leader_whose_connections_hang,
        network::p7_a_node_whose_connections_are_closed,
        network::p7_a_node_whose_answers_are_lost,
        network::p7_a_node_whose_network_loses_everything,
        network::p7_a_node_whose_network_card_is_gone,
        pauses::p6_a_paused_leader_knows_at_its_first_look,
        pauses::p7_a_paused_follower_comes_back,
        sudden_ends::p9_a_killed_node_costs_n_and_three,
        sudden_ends::p9_a_killed_leader_costs_n_and_three,
        sudden_ends::p8_all_nodes_killed_and_started_again,
    ]
}
