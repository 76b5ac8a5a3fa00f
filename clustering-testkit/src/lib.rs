//! Tests for coordination stores, and for what runs on them.
//!
//! - [`conformance`]: does a store keep the contract? Ten rules, a check for each, and random steps against a model.
//!   A store's author gets all of them as tests from one macro.
//! - [`faulty`]: a store that fails on command. What runs on a store, such as a service and its nodes, is tested with it
//!   against outages, lost replies, broken watches and late arrivals.
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

pub mod conformance;
pub mod faulty;
