//! Nodes for fault tests, as processes or as tasks of the test. They record all that they see and do.
//!
//! A test binary runs itself again as a node, so its `main` must first check if it was started as one:
//!
//! ```no_run
//! use clustering_memory::MemoryStore;
//! use clustering_proofs::node::{self, NodeSpec};
//!
//! fn main() {
//!     if let Some(spec) = NodeSpec::from_env() {
//!         // Each process connects to the shared store.
//!         return node::main(spec, |_endpoints| async { Ok::<_, String>(MemoryStore::new()) });
//!     }
//!     // ... the tests, which start nodes with NodeSpec::spawn.
//! }
//! ```
//!
//! In addition to being a member of the cluster, a node does the following:
//!
//! - A thread asks it every 20 ms if it may act as leader.
//! - As leader it makes leader commits, each of which increments a counter and appends its id to a list in the store.
//! - When it wakes from a pause, it makes the write that it was about to make before, under the term of that time and
//!   without any checks of its own.
//! - An exclusive node [works](crate::work) on keys while it holds them.
//! - If its health is checked, the test sets [the result](Node::set_condition).
//!
//! All of this is recorded in its [journal](clustering_testkit::history::Journal).

mod condition;
mod handle;
mod looks;
mod run;
mod spec;

pub use clustering_testkit::faults::Breach;

pub use self::{
    condition::Condition,
    handle::Node,
    run::{main, run},
    spec::{Conflict, DetectionSpec, NodeSpec},
};
