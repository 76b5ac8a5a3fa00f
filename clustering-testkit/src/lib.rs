//! Tests for services that use `clustering`, and for coordination stores.
//!
//! ```text
//!            what you have                           how to test it
//!   ┌───────────────────────────────┐
//!   │ a service                     │  cluster: its instances in one test, with crashes, pauses, partitions, storms
//!   │   its node (Builder)          │  promises: P1 to P8, P11, P12, judged by what each node saw and did
//!   ├───────────────────────────────┤
//!   │ CoordinationStore             │  faulty: fails between a node and its store, on command or at random
//!   ├───────────────────────────────┤
//!   │ a store of your own           │  conformance: the ten rules · linearizability: concurrent callers
//!   │                               │  faults: clusters on it, with kills, pauses, broken networks, restores
//!   │                               │  timing: how long joins, leaves and failovers take on it
//!   │ etcd, PostgreSQL              │  etcd: servers, clusters, containers · postgres: servers
//!   └───────────────────────────────┘
//! ```
//!
//! # Which tool to use
//!
//! | question | tool |
//! |---|---|
//! | Does my service survive crashes, pauses and partitions? Does it work on a key only while it holds the key? | [`cluster::TestCluster`], with [`storm`](cluster::TestCluster::storm) and [`cluster::seeds`] |
//! | How does my code behave if the store answers late, wrongly or not at all? | [`faulty::FaultyStore`] |
//! | Can clusters run on my store? | [`conformance`] and [`linearizability`] |
//! | Do they survive its crashes, and all that can happen between them and it? | [`faults`] |
//! | How fast are they on my store, compared with another one? | [`timing`] |
//! | What if the connections to a server hang, close or lose answers? | [`proxy`] |
//! | What does the contract require of a store after these calls? | [`contract::Contract`] |
//! | Does it work with a real etcd? | `etcd` (feature `etcd` or `container`): servers that can be paused, killed, compacted and restored from a backup |
//! | Does it work with a real PostgreSQL? | `postgres` (feature `postgres`): servers that can be paused, killed, and restored from a backup |
//! | Does it work with real processes, `SIGSTOP` and `kill -9`? | [`process`]: processes and folders that are removed when the test ends in any way |
//! | What happened, and were all promises kept? | [`history`] and [`promises`] |
//!
//! # Testing a service
//!
//! The test starts the service with the code that starts it in production, on a store provided by the test. With
//! virtual time, a single thread and a seed, minutes pass in milliseconds and failures are reproducible.
//!
//! ```
//! use std::time::Duration;
//!
//! use clustering_memory::{Clustering, Stabilization, StartError, store::CoordinationStore};
//! use clustering_testkit::cluster::{Failure, Storm, TestCluster};
//!
//! // The service. In production its store is an `EtcdStore`.
//! async fn start(store: impl CoordinationStore, name: &str) -> Result<Clustering, StartError> {
//!     Clustering::builder(store)
//!         .namespace("cluster")
//!         .name(name)
//!         .uri("http://10.0.0.7:8080")
//!         .stabilize(|change: Stabilization| async move { /* load and drop what moved */ })
//!         .start()
//!         .await
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] // #[tokio::test(start_paused = true)]
//! # async fn main() -> Result<(), Failure> {
//! let cluster = TestCluster::start(3, |process| async move {
//!     start(process.store(), process.name()).await
//! })
//! .await?;
//!
//! // A specific fault: the leader is paused until another node leads, and then resumed.
//! let old = cluster.leader().expect("there is a leader");
//! cluster.pause(&old);
//! cluster.wait_until("another node leads", || cluster.leader().filter(|leader| *leader != old)).await?;
//! cluster.resume(&old);
//!
//! // Random faults from a seed: a minute of crashes, pauses, partitions and lost replies.
//! cluster.storm(&Storm::new(7).lasting(Duration::from_secs(60))).await?;
//!
//! // All faults end, the cluster becomes stable, and all promises have held all the time.
//! cluster.settle().await?;
//! # Ok(())
//! # }
//! ```
//!
//! An [exclusive](clustering_core::Builder::exclusive) service also [reports](cluster::Process::working_on) when it
//! works on a key. The test fails if two instances work on one key at the same time, or an instance works without a
//! hold (P12).
//!
//! [`cluster`] has a complete tour. `cargo run -p clustering-testkit --example pulses` tests a correct exclusive
//! service and five incorrect ones, each of which fails with one of the first seeds.
//!
//! # Testing a store
//!
//! A [`Harness`](conformance::Harness) says how to reach the store and how punctual it claims to be. The macro
//! generates one test for each of the ten rules of the contract, and one with random steps.
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//!
//! use clustering_core::store::{CoordinationStore, Revision};
//! use clustering_memory::MemoryStore;
//! use clustering_testkit::conformance::{Bounds, Clock, Harness};
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
//! clustering_testkit::conformance_tests!(Memory(MemoryStore::new()));
//! # let check = clustering_testkit::conformance::rule_04_lease_keys_vanish_together;
//! # clustering_testkit::conformance::run("rule_04", || Memory(MemoryStore::new()), check);
//! ```
//!
//! # A store that fails
//!
//! ```
//! use clustering_core::store::{CoordinationStoreExt, ErrorKind};
//! use clustering_memory::MemoryStore;
//! use clustering_testkit::faulty::{Call, Chances, FaultyStore};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let store = FaultyStore::new(MemoryStore::new());
//!
//! // On command: the write takes effect, but its caller cannot know that.
//! store.lose_replies(Call::Commit, 1);
//! let lost = store.put("key", "value".into(), None).await.unwrap_err();
//! assert_eq!(lost.kind(), ErrorKind::OutcomeUnknown);
//! assert!(store.get("key").await.unwrap().is_some());
//!
//! // At random: like a bad network.
//! store.by_chance(Chances::bad_network(7));
//! for _ in 0..100 {
//!     let _ = store.get("key").await;
//! }
//! assert!(!store.met().is_empty());
//! # }
//! ```
//!
//! # Features
//!
//! - `etcd`: etcd servers and clusters for tests, from a local binary, and the processes and folders that they run in.
//! - `container`: etcd servers in containers.
//! - `postgres`: PostgreSQL servers for tests, from local programs.

// Shows on docs.rs which feature an item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod cluster;
pub mod conformance;
pub mod contract;
#[cfg(feature = "etcd")]
pub mod etcd;
pub mod faults;
pub mod faulty;
pub mod history;
pub mod linearizability;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod process;
pub mod promises;
pub mod proxy;
pub mod random;
pub mod timing;

/// Compiles and runs the example in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
