//! What a service with several instances needs to act as one: discovery, one leader, a cluster version on every change,
//! a barrier that tells when every node has adapted to it, and calm behaviour when things break.
//!
//! ```text
//!  nodes join, leave, crash          the leader publishes            every node adapts         everyone is ready
//!  ──────────────────────▶ present ──────────────────▶ version V2 ──────────────────▶ ready ──────────────────▶ stable
//!                                                      {a, b, c}      stabilize(V2)            on_stable(V2)
//! ```
//!
//! This crate is the core: it works over any [`CoordinationStore`](store::CoordinationStore). Depend on
//! `clustering-etcd` in production and on `clustering-memory` in tests; both hand on everything that is here.
//!
//! # A node
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
//!         // Load what this node gained, drop what it lost. An error is a no, and is tried again.
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
//! assert_eq!(cluster.cluster_version(), Some(version));
//! assert!(cluster.is_leader() && cluster.owns("device-1"));
//!
//! cluster.stop().await?;
//! assert!(!cluster.is_leader() && !cluster.owns("device-1"));
//! # Ok(())
//! # }
//! ```
//!
//! # Which question to ask
//!
//! | question | answer |
//! |---|---|
//! | May I act as leader at this moment? | [`Clustering::is_leader`], and [`term`](Clustering::term) to fence what I write |
//! | May I work on this key at this moment? | [`Clustering::owns`] |
//! | Where do I send a request for this key? | [`Discovery::find`] |
//! | Has everybody adapted? | [`Clustering::wait_stable`] on any node, [`on_stable`](Builder::on_stable) on the leader |
//! | Is this process well? | it is asked: [`Builder::health`] |
//! | Why did it change, and who was slow? | [`Clustering::history`] |
//! | What is going on? | [`Clustering::status`], snapshots to read and to wait for; [`Clustering::events`], every transition |
//!
//! # The parts
//!
//! - [`store`]: what a store must do, as a trait and ten rules.
//! - [`machine`]: the protocol as a pure state machine.
//! - [`runtime`]: the loop around it, and [`Clustering`], the handle.
//! - [`discovery`] and [`placement`]: who is there, and who takes which key.
//! - [`report`] and [`operator`]: a cluster seen and handled from outside, for tools and operators.
//! - [`docs`]: the promises and why they hold, the protocol with its keys and commits, how to bring another store.
//!
//! # Features
//!
//! - `metrics`: what nodes measure, through the [`metrics`](https://docs.rs/metrics) facade; [`docs::operating`] has the table.
//! - `probes`: `/livez`, `/readyz`, `/leaderz` and `/stablez` as an [`axum`](https://docs.rs/axum) router.
//! - `mock`: `store::MockCoordinationStore`, a [`mockall`](https://docs.rs/mockall) mock, for tests of error paths.
//! - `test-util`: `runtime::process`, by which test tools pause and kill one node of several in a process. Users have it by
//!   way of `clustering-testkit`.

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
pub mod store;
pub mod time;
pub mod trace;
pub mod version;
pub mod view;

pub use self::{
    config::{Backoff, Config, HealthChecks, InvalidConfig, Laggards, NameConflict},
    discovery::{Changes, Discovery},
    event::{Blocked, Event, Laggard, LostReason, StopReason},
    history::{HistoryEntry, Settled, history},
    keyspace::Keyspace,
    machine::{Health, RequestError},
    name::{Incarnation, InvalidInput, Namespace, NodeName, NodeUri},
    node::{Metadata, Node},
    operator::{Operator, OperatorError},
    outcome::{IntoOutcome, Outcome},
    placement::Weight,
    record::{Cause, Departure},
    report::{ClusterState, Monitor, MonitorEvent, Readiness, Report},
    runtime::{
        Builder, Clustering, Ended, Events, EventsError, Stabilization, Stable, StartError, Status,
        StatusWatch, StopError, UpdateError, WeakClustering,
    },
    version::{Term, Version},
    view::{Diff, View},
};

/// The README's example, so that it compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
