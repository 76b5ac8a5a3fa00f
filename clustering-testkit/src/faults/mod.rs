//! Fault suite for implementations of [`CoordinationStore`](clustering_core::store::CoordinationStore).
//!
//! The [conformance](crate::conformance) suite judges a healthy store. This suite judges a cluster whose store is
//! killed, paused or restored from a backup, when nodes die or freeze, and when the network between them fails. Each
//! scenario starts nodes on a store of its own, breaks something, and waits until the cluster is calm. Then it
//! [checks](crate::promises::check) the promises P1 to P8, P11 and P12 with the journals of all nodes and the store's
//! history.
//!
//! ```text
//!   node (thread) ── handle ── Line (proxies) ──┐
//!   node (thread) ── handle ── Line (proxies) ──┼── server under test ◀── kill, start, pause, resume, restore
//!   node (thread) ── handle ── Line (proxies) ──┘      │
//!        ▲                       ▲                     │ history
//!        └ kill, pause           └ hang, close,        ▼
//!                                  lose answers     promises::check ◀── journals of the nodes
//! ```
//!
//! # Testing a store
//!
//! Implement [`Faults`] and call [`fault_tests!`](crate::fault_tests) in an integration test. A store with a server
//! says at which addresses the server listens, and opens handles at the addresses of a [`Line`], which are proxies.
//! For etcd this takes about forty lines (`clustering-etcd/tests/faults.rs`). A store without a network wraps itself
//! in the line, which then breaks calls instead of connections:
//!
//! ```
//! # use std::{sync::{Arc, Mutex}, time::Duration};
//! use clustering_core::store::{CoordinationStore, Revision};
//! use clustering_memory::{Backup, MemoryStore};
//! use clustering_testkit::{
//!     conformance::{Bounds, Clock, Hook},
//!     faults::{Faults, Line},
//!     faulty::FaultyStore,
//! };
//!
//! struct Memory {
//!     store: MemoryStore,
//!     /// The same store, as it is seen while the "server" is down or frozen.
//!     server: FaultyStore,
//!     backup: Mutex<Option<Backup>>,
//! }
//!
//! impl Memory {
//!     async fn start() -> Self {
//!         let store = MemoryStore::new();
//!         Memory { server: FaultyStore::new(store.clone()), store, backup: Mutex::default() }
//!     }
//! }
//!
//! impl Faults for Memory {
//!     fn bounds(&self) -> Bounds {
//!         Bounds {
//!             clock: Clock::Paused,
//!             smallest_ttl: Duration::from_secs(1),
//!             expiry_slack: Duration::from_millis(1),
//!             watch_lag: Duration::from_millis(1),
//!             call_timeout: Duration::from_secs(1),
//!         }
//!     }
//!     async fn open(&self, line: &Line) -> Arc<dyn CoordinationStore> {
//!         Arc::new(line.wrap(self.server.clone()))
//!     }
//!     async fn kill(&self) {
//!         self.server.cut();
//!     }
//!     async fn start(&self) {
//!         self.server.heal();
//!     }
//!     async fn pause(&self) {
//!         self.server.hang();
//!     }
//!     async fn resume(&self) {
//!         self.server.heal();
//!     }
//!     async fn compact(&self, revision: Revision) -> Hook<()> {
//!         self.store.compact(revision);
//!         Hook::Have(())
//!     }
//!     async fn backup(&self) -> Hook<()> {
//!         *self.backup.lock().unwrap() = Some(self.store.backup());
//!         Hook::Have(())
//!     }
//!     async fn restore(&self) {
//!         self.store.restore(self.backup.lock().unwrap().as_ref().unwrap());
//!     }
//! }
//!
//! clustering_testkit::fault_tests!(Memory::start());
//! # use clustering_testkit::faults;
//! # let scenario = faults::p8_a_killed_leader_is_replaced_within_its_ttl;
//! # faults::run("p8_a_killed_leader_is_replaced_within_its_ttl", Memory::start, scenario);
//! ```
//!
//! Each scenario is also a plain function, which panics if a promise is broken or the cluster does not recover.
//!
//! # Nodes
//!
//! A node runs in a thread with its own runtime and its own handle to the store. To kill it, its runtime is dropped
//! without running anything, so that its connections are closed and nothing else happens. To pause it, its thread is
//! blocked: as after SIGSTOP, its timers fire late and its sockets fill up. Under [`Clock::Paused`] the nodes are tasks
//! of the scenario's runtime, which are not polled while the node is paused.
//!
//! [`Clock::Paused`]: crate::conformance::Clock::Paused
//!
//! Leaders write ten times a second with [`commit_under`](clustering_core::Clustering::commit_under): each write
//! increments a counter and appends to a list, so that lost and doubled writes are found (P5). Exclusive nodes record
//! the times at which their holds are valid (P12). Each node is asked every 20 ms if it leads, also while it is
//! paused (P6).
//!
//! # Scenarios
//!
//! | scenario | broken for |
//! |---|---|
//! | **the store** | |
//! | [`p7_a_restart_of_the_store_within_the_ttl_changes_nothing`] | less than the TTL |
//! | [`p7_nodes_rejoin_after_the_store_was_down_for_longer_than_the_ttl`] | longer |
//! | [`p6_a_pause_of_the_store_within_the_ttl_changes_nothing`] | less than the TTL, longer than the leader may act |
//! | [`p6_nodes_rejoin_after_the_store_was_paused_for_longer_than_the_ttl`] | longer |
//! | [`p7_nodes_rejoin_after_the_store_was_restored_from_an_older_backup`] | (needs [`backup`](Faults::backup)) |
//! | **nodes** | |
//! | [`p8_a_killed_follower_is_removed_within_its_ttl`], [`p8_a_killed_leader_is_replaced_within_its_ttl`] | for good |
//! | [`p8_the_cluster_recovers_after_all_nodes_were_killed`] | all at once |
//! | [`p6_a_resumed_leader_knows_at_once_that_it_no_longer_leads`] | a pause past the TTL |
//! | [`p7_a_follower_rejoins_after_a_pause`] | a pause past the TTL |
//! | **the network of one node** | |
//! | [`p6_a_leader_whose_connections_hang_stops_leading_in_time`], [`p7_a_follower_whose_connections_hang_rejoins`] | longer than the TTL |
//! | [`p6_a_leader_that_gets_no_answers_stops_leading_in_time`] | longer than the TTL |
//! | [`p7_a_leader_whose_connections_are_closed_rejoins`] | longer than the TTL |
//! | [`p7_closed_connections_change_nothing`] | moments, for all nodes |
//! | [`p1_a_change_is_seen_by_a_node_that_was_cut_off`] | less than the TTL |
//! | [`p1_a_node_that_missed_a_compacted_version_requests_another`] | less than the TTL (needs [`compact`](Faults::compact)) |
//! | [`p5_a_commit_whose_answer_is_lost_takes_effect_at_most_once`] | single answers, and moments |
//! | **exclusive nodes** | |
//! | [`p12_the_keys_of_a_killed_node_are_held_by_others`] | a follower, and then the leader |
//! | [`p12_a_node_paused_past_the_ttl_holds_nothing_when_it_resumes`] | a follower, and then the leader |
//! | [`p12_a_node_cut_off_from_the_store_lets_go_in_time`], [`p12_a_node_that_gets_no_answers_lets_go_in_time`] | longer than the TTL |
//! | [`p12_all_keys_are_held_again_after_the_store_was_away`] | less than the TTL, and longer |
//!
//! The TTL is 3 s, or [`smallest_ttl`](crate::conformance::Bounds::smallest_ttl) if that is longer, and three or ten
//! times as long where nothing may expire. A scenario takes up to 20 s on a real clock. It mostly waits for leases,
//! so run more of them at once than there are cores. Lines that start with `measured:` show how long the cluster took
//! to reach the next stable version (`cargo test --test faults -- --nocapture | grep measured`).
//!
//! If a hook is missing, or the connections are encrypted so that the proxy cannot find a commit in them, the scenario
//! reports this in a line that starts with `NOT JUDGED`. It writes the line directly to standard error, so `cargo test`
//! shows it even if the test passes. `cargo nextest run` does with `--success-output final`.
//!
//! The testkit's own tests verify the suite: each scenario must find at least one store with a flaw, such as a store
//! that repeats commits whose answers were lost, or skips changes when it reconnects.
//!
//! # Limitations
//!
//! The suite needs a server that it can kill, so it does not judge managed services. It runs one fault at a time, and
//! no servers that replace each other: failover needs scenarios of the store's own.

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
