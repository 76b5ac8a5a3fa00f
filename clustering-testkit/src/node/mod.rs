//! Nodes for fault tests: processes of their own, or tasks of the test, that write down all that they see and do.
//!
//! A test binary runs itself again as a node: its `main` first looks whether it is to be one.
//!
//! ```no_run
//! use clustering_memory::MemoryStore;
//! use clustering_testkit::node::{self, NodeSpec};
//!
//! fn main() {
//!     if let Some(spec) = NodeSpec::from_env() {
//!         // Each process connects to the store that all share.
//!         return node::main(spec, |_endpoints| async { Ok::<_, String>(MemoryStore::new()) });
//!     }
//!     // ... the tests, which start nodes with NodeSpec::spawn.
//! }
//! ```
//!
//! What a node does beside being one: a thread asks it every 20 ms whether it may act as leader; as leader it makes
//! fenced writes, each of which counts one up and adds its id to a list in the store; and when it wakes from a pause it makes
//! the write that it was about to make before, under the term of then, past all checks of its own. If its health is checked, the test says [how it is](Node::set_condition). All of it is in its
//! [journal](crate::history::Journal).

mod condition;
mod handle;
mod looks;
mod run;
mod spec;
mod writes;

pub use self::{
    condition::Condition,
    handle::Node,
    run::{main, run},
    spec::{Breach, Conflict, NodeSpec},
};
