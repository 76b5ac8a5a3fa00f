//! Coordination for services that run as several instances: discovery of nodes, one leader, a new cluster version for
//! every change, and a barrier that shows when all nodes have adapted to a version.
//!
//! ```text
//!  nodes join, leave, crash          the leader publishes            every node adapts         all nodes are ready
//!  ──────────────────────▶ present ──────────────────▶ version V2 ──────────────────▶ ready ──────────────────▶ stable
//!                                                      {a, b, c}      stabilize(V2)            on_stable(V2)
//! ```
//!
//! This crate is the core, which works with any [`CoordinationStore`](store::CoordinationStore). Depend on
//! `clustering-etcd` in production and on `clustering-memory` in tests; both re-export everything in this crate.
//!
//! # Example
//!
//! ```
//! use clustering_memory::{Clustering, MemoryStore, Stabilization, Stable};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cluster = Clustering::builder(MemoryStore::new())
//!     .namespace("telemetry/ingest")
//!     .name("ingest-1")
//!     .uri("http://10.0.0.7:8080")
//!     .stabilize(|change: Stabilization| async move {
//!         // Load the keys that this node gained, and drop those that it lost. After an error it is called again.
//!         for device in ["device-1", "device-2"] {
//!             if change.view().owns(device) {
//!                 println!("loading {device}");
//!             }
//!         }
//!         Ok::<_, std::io::Error>(())
//!     })
//!     .on_stable(|stable: Stable| async move {
//!         println!("all {} nodes are ready at {}", stable.view().len(), stable.version());
//!     })
//!     .start()
//!     .await?;
//!
//! let version = cluster.wait_stable().await?;
//! assert_eq!(cluster.acknowledged_version(), Some(version));
//! assert!(cluster.is_leader() && cluster.owns("device-1"));
//!
//! cluster.stop().await?;
//! assert!(!cluster.is_leader() && !cluster.owns("device-1"));
//! # Ok(())
//! # }
//! ```
//!
//! # Which method answers which question
//!
//! | question | method |
//! |---|---|
//! | May this node act as leader now? | [`Clustering::is_leader`]; guard writes with [`commit_as_leader`](Clustering::commit_as_leader), or with the [`term`](Clustering::term) in other systems |
//! | May this node work on this key now? | [`Clustering::hold`] in an [exclusive](Builder::exclusive) cluster, which keeps all other nodes from working on the key at the same time; [`Clustering::owns`] in other clusters |
//! | Which node gets a request for this key? | [`Discovery::route`], [`Discovery::find`] |
//! | Have all nodes adapted? | [`Clustering::wait_stable`] on any node, [`on_stable`](Builder::on_stable) on the leader |
//! | Is this process healthy? | set the check [`Builder::health`] |
//! | Why did the cluster change, and which node was slow? | [`Clustering::history`] |
//! | What is happening now? | [`Clustering::status`] for snapshots, [`Clustering::events`] for every transition |
//!
//! # Modules
//!
//! - [`store`]: the contract of a coordination store, as a trait and ten rules.
//! - [`machine`]: the protocol as a pure state machine, without I/O or clocks.
//! - [`runtime`]: the loop that drives the machine, and [`Clustering`], the handle to a node.
//! - [`discovery`] and [`placement`]: the nodes that are present, and the owners of keys.
//! - [`slots`]: the shares of the keys that nodes of an exclusive cluster hold, and their assignment. [`Hold`] is the
//!   right to work on one; [`docs::ownership`] is the guide.
//! - [`report`] and [`operator`]: inspecting and changing a cluster from outside, for tools and operators.
//! - [`docs`]: guides to the promises, exclusive ownership, the protocol with its keys and commits, operation, and
//!   adding a store.
//!
//! # Features
//!
//! - `metrics`: metrics of nodes through the [`metrics`](https://docs.rs/metrics) facade; [`docs::operating`] lists
//!   them.
//! - `probes`: `/livez`, `/readyz`, `/leaderz`, `/stablez` and `/ownz` as an [`axum`](https://docs.rs/axum) router.
//! - `mock`: `store::MockCoordinationStore`, a [`mockall`](https://docs.rs/mockall) mock, for tests of error paths.
//! - `test-util`: `runtime::process`, with which test tools pause and kill single nodes within one process. It is meant
//!   for `clustering-testkit`.

// Shows on docs.rs which feature an item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod config;
pub mod discovery;
pub mod docs;
pub mod event;
mod fold;
#[cfg(test)]
mod fuzz;
pub mod history;
mod json;
pub mod keyspace;
pub mod machine;
#[cfg(feature = "metrics")]
pub mod metrics;
pub mod name;
pub mod node;
pub mod operator;
pub mod outcome;
pub mod placement;
#[cfg(feature = "probes")]
pub mod probes;
mod record;
pub mod report;
pub mod runtime;
pub mod slots;
pub mod store;
pub mod time;
pub mod trace;
pub mod version;
pub mod view;

pub use self::{
    config::{
        Backoff, Config, CrashDetection, HealthChecks, InvalidConfig, Laggards, NameConflict, SharedAssignor,
    },
    discovery::{Changes, Discovery, Route},
    event::{
        Blocked, Event, Evidence, Holder, Laggard, LostReason, MassFailure, MassFailureKind, StopReason,
    },
    history::{HistoryEntry, Settled, history},
    keyspace::Keyspace,
    machine::{Health, RequestError},
    name::{Incarnation, InvalidInput, Namespace, NodeName, NodeUri},
    node::{Endpoint, Metadata, Node, ProcessId},
    operator::{Operator, OperatorError},
    outcome::{IntoOutcome, Outcome},
    placement::Weight,
    record::{Cause, Departure},
    report::{ClusterState, Monitor, MonitorEvent, Readiness, Report},
    runtime::{
        Builder, Clustering, Ended, Events, EventsError, HeldTasks, Hold, InCallback, NotHeld, Release,
        Stabilization, Stable, StartError, Status, StatusWatch, StopError, UpdateError, WaitError,
        WeakClustering, WorkError,
    },
    version::{Term, Version},
    view::{Diff, View},
};

/// Compiles and runs the example in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
