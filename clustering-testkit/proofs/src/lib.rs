//! Checks of the protocol itself. They are part of this repository's tests and not published. The tools for testing a
//! service or a store are in [`clustering_testkit`].
//!
//! ```text
//!                  real machines, virtual time            real processes, real time
//!              ┌───────────────────────────────┐      ┌────────────────────────────────┐
//!   faults ──▶ │ sim: random histories         │      │ node: nodes as processes       │ ◀── SIGSTOP, SIGKILL
//!              │ model: all short histories    │      │ network: what lies between     │ ◀── cut, unplug
//!              └──────────────┬────────────────┘      │ nodes and their store          │
//!                             │                       └───────────────┬────────────────┘
//!                             └───── what nodes saw and did ──────────┤
//!                                    what the store committed ────────┴──▶ clustering_testkit::promises
//! ```
//!
//! | question | tool | run |
//! |---|---|---|
//! | Do the promises hold in long random histories, with drifting clocks and any mix of faults? | [`sim`] | `cargo run --release -p clustering-proofs --example simulate` |
//! | Do they hold in *all* short histories? | [`model`] | `cargo run --release -p clustering-proofs --example model` |
//! | Do they hold for processes on a real etcd that are paused, killed and cut off? | [`node`], [`network`] | the test `faults` (feature `server-tests`), and `--example torture`, also on PostgreSQL |
//! | Does one process at a time hold a key (P12), and are no writes lost? | [`work`] | the test `faults` |
//! | Would these checks find a fault in the protocol? | [`sim::Tamper`] | the tests `planted`, `sabotage` and `model`, `--example planted`, and `scripts/planted` |
//!
//! # Example
//!
//! The simulation runs real state machines from a seed. A fault in the protocol, such as a leader that ignores the end of
//! its own lease, is found within a few seeds:
//!
//! ```
//! use std::time::Duration;
//!
//! use clustering_core::{machine::Leadership, time::Timestamp};
//! use clustering_proofs::sim::{Seat, Simulation, Tamper};
//!
//! let simulation = Simulation::new().nodes(5).storm(Duration::from_secs(30));
//! for seed in 1..=3 {
//!     simulation.run(seed).unwrap_or_else(|failure| panic!("{failure}"));
//! }
//!
//! /// Makes leaders ignore the end of their leases.
//! struct LeadsForEver;
//!
//! impl Tamper for LeadsForEver {
//!     fn leadership(&mut self, _: &Seat<'_>, told: Option<Leadership>) -> Option<Leadership> {
//!         told.map(|mut leadership| {
//!             leadership.until = Timestamp::NEVER;
//!             leadership
//!         })
//!     }
//! }
//!
//! let tampered = simulation.tampered(|| LeadsForEver);
//! let broken = (1..=50).find_map(|seed| tampered.check(seed).err()).expect("a seed that finds the fault");
//! assert!(broken.starts_with("P6"), "{broken}");
//! ```
//!
//! # Where things are
//!
//! - `tests/simulation.rs`, `tests/model/`: the promises hold, and every situation of interest is reached.
//! - `tests/planted/`, `tests/sabotage/`, `tests/tampers/`: faults at the boundary of the machine, which the simulation
//!   and the model checker must find. `planted/`: faults inside of the machine, as patches for `scripts/planted`.
//! - `tests/faults/`: scenarios with node processes on etcd.
//! - `tests/vandals.rs`: faults in stores, which
//!   [`TestCluster`](clustering_testkit::cluster::TestCluster) must survive or find.

pub mod model;
mod named;
pub mod network;
pub mod node;
pub mod sim;
pub mod work;

/// Compiles and runs the example in the README of the workspace.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
