//! Tests for coordination stores, and for what runs on them.
//!
//! - [`conformance`]: does a store keep the contract? Ten rules, a check for each, and random steps against a model.
//!   A store's author gets all of them as tests from one macro.
//! - [`faulty`]: a store that fails on command. What runs on a store, such as a service and its nodes, is tested with it
//!   against outages, lost replies, broken watches and late arrivals.
//! - [`linearizability`]: random calls of several callers at once, judged afterwards.
//! - `etcd`, with the feature of that name: etcd servers and clusters for tests, which can be paused, killed, compacted
//!   and taken back to a backup.
//! - `process`, with the feature of that name: processes and folders that end with the test, however it ends.
//! - `node`, `proxy` and `network`, with the feature `nodes`: nodes as processes that write down what they do, lines to
//!   their store that break, and networks that do.
//! - [`history`]: what happened to a cluster, by the journals of its nodes and by the store's own history.
//! - [`promises`]: whether that history keeps the promises P1 to P9, each judged by a checker of its own.
//! - [`sim`]: deterministic simulation of many nodes over one store in virtual time, with every fault there is, in which
//!   the promises are judged after every step.
//! - `model`, with the feature of that name: model checking. All states of a few nodes within bounds, and the promises in
//!   each of them.
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//!
//! use clustering_core::store::{CoordinationStore, Revision};
//! use clustering_memory::MemoryStore;
//! use clustering_testkit::conformance::{self, Bounds, Clock, Harness};
//!
//! struct Memory(MemoryStore);
//!
//! impl Harness for Memory {
//!     fn bounds(&self) -> Bounds {
//!         let (ttl, slack) = (Duration::from_secs(1), Duration::from_millis(1));
//!         Bounds {
//!             clock: Clock::Paused,
//!             smallest_ttl: ttl,
//!             expiry_slack: slack,
//!             watch_lag: slack,
//!             call_timeout: ttl,
//!         }
//!     }
//!     async fn open(&self) -> Arc<dyn CoordinationStore> {
//!         Arc::new(self.0.clone())
//!     }
//!     async fn compact(&self, revision: Revision) {
//!         self.0.compact(revision);
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! // Panics if a lease's keys do not vanish together, in time, once, for good.
//! conformance::rule_04_lease_keys_vanish_together(&Memory(MemoryStore::new())).await;
//! # }
//! ```

pub mod cluster;
pub mod conformance;
#[cfg(feature = "etcd")]
pub mod etcd;
pub mod faulty;
pub mod history;
pub mod linearizability;
#[cfg(feature = "model")]
pub mod model;
#[cfg(feature = "nodes")]
pub mod network;
#[cfg(feature = "nodes")]
pub mod node;
#[cfg(feature = "process")]
pub mod process;
pub mod promises;
#[cfg(feature = "nodes")]
pub mod proxy;
mod random;
pub mod sim;
