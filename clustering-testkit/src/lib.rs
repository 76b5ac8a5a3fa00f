//! Tests for services that run on `clustering`, for coordination stores, and for the protocol itself.
//!
//! ```text
//!            what you have                           what it is tested with
//!   ┌───────────────────────────────┐
//!   │ a service                     │  cluster: its instances in one test, crashed, paused, cut off, in storms
//!   │   its node (Builder)          │  promises: P1 to P8, judged by what each node saw and did
//!   ├───────────────────────────────┤
//!   │ CoordinationStore             │  faulty: between a node and its store, fails on command or by a seed
//!   ├───────────────────────────────┤
//!   │ a store of your own           │  conformance: the ten rules · linearizability: many callers at once
//!   │ etcd                          │  etcd: servers, clusters, containers · node: nodes as processes
//!   └───────────────────────────────┘
//! ```
//!
//! # Which tool for which need
//!
//! | need | tool |
//! |---|---|
//! | Does my service survive crashes, pauses and partitions? | [`cluster::TestCluster`], with [`storm`](cluster::TestCluster::storm) and [`cluster::seeds`] |
//! | What does my code do when the store answers late, wrongly or not at all? | [`faulty::FaultyStore`] |
//! | Is my store one that clusters can run on? | [`conformance`], and [`linearizability`] |
//! | Does it work with a real etcd? | `etcd` (feature `etcd`, or `container`): servers that can be paused, killed, compacted, taken back to a backup |
//! | With real processes, `SIGSTOP` and `kill -9`? | `node`, `proxy` and `network` (feature `nodes`), `process`; all of it at once: the example `torture` |
//! | What happened, and was every promise kept? | [`history`] and [`promises`] |
//! | Does the protocol hold, with drifting clocks and all? | [`sim`]: thousands of seeds in virtual time; `model` (feature `model`): all states within bounds |
//!
//! # Your own service
//!
//! The code that starts it in production starts it here, on the store that the test gives it. Virtual time, one thread, a
//! seed: minutes pass in milliseconds, and a failure comes again.
//!
//! ```
//! use std::time::Duration;
//!
//! use clustering_testkit::cluster::{Failure, Storm, TestCluster};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] // #[tokio::test(start_paused = true)]
//! # async fn main() -> Result<(), Failure> {
//! let cluster = TestCluster::start(3, |process| process.builder().start()).await?;
//!
//! // One of a kind: the leader stands still until another leads, and then goes on.
//! let old = cluster.leader().expect("somebody leads");
//! cluster.pause(&old);
//! cluster.wait_until("another leads", || cluster.leader().filter(|leader| *leader != old)).await?;
//! cluster.resume(&old);
//!
//! // Any, by a seed: a minute of crashes, pauses, partitions, lost replies.
//! cluster.storm(&Storm::new(7).lasting(Duration::from_secs(60))).await?;
//!
//! // Everything heals, becomes stable, and P1 to P8 held all the time.
//! cluster.settle().await?;
//! # Ok(())
//! # }
//! ```
//!
//! [`cluster`] has the whole tour. `cargo run -p clustering-testkit --example pulses` tests a sample service that is right,
//! and three that are not: each is found out by one of the first seeds.
//!
//! # Your own store
//!
//! Ten lines for the whole contract; [`conformance`] has the macro that makes a test of each rule.
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
//! // On command: the write takes effect, and its caller cannot know.
//! store.lose_replies(Call::Commit, 1);
//! let lost = store.put("key", "value".into(), None).await.unwrap_err();
//! assert_eq!(lost.kind(), ErrorKind::OutcomeUnknown);
//! assert!(store.get("key").await.unwrap().is_some());
//!
//! // By a seed: as in a bad network.
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
//! - `process`: processes and folders that end with the test, however it ends.
//! - `nodes`: nodes as processes that write down what they do, lines to their store that break, and networks that do.
//! - `etcd`: etcd servers and clusters for tests, from a local binary. `container`: and in containers.
//! - `model`: model checking of a few nodes.

pub mod cluster;
pub mod conformance;
#[cfg(feature = "etcd")]
pub mod etcd;
pub mod faulty;
pub mod history;
pub mod linearizability;
#[cfg(feature = "model")]
pub mod model;
mod named;
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
