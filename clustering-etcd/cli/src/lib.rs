//! The command `clustering`: shows and operates clusters, and turns any program into a node.
//!
//! The binary of this crate is the command for etcd; the [operator's guide](docs::operators) describes it. Everything
//! but the connection works on any [`CoordinationStore`](clustering_core::store::CoordinationStore), so the same
//! command for another store takes one type: command-line arguments that implement [`Connect`].
//!
//! ```no_run
//! use std::{process::ExitCode, sync::Arc};
//!
//! use clustering_cli::{Connect, Failure, Purpose};
//! use clustering_core::store::CoordinationStore;
//! use clustering_memory::MemoryStore;
//!
//! /// Connection to the store
//! #[derive(clap::Args, Clone, Debug)]
//! struct Memory {
//!     /// Number of changes that the store keeps for its watches
//!     #[arg(long, global = true, default_value_t = 10_000)]
//!     history: usize,
//! }
//!
//! impl Connect for Memory {
//!     const STORE: &'static str = "the memory store";
//!
//!     async fn connect(&self, _: Purpose) -> Result<Arc<dyn CoordinationStore>, Failure> {
//!         Ok(Arc::new(MemoryStore::builder().history(self.history).build()))
//!     }
//! }
//!
//! fn main() -> ExitCode {
//!     clustering_cli::main::<Memory>()
//! }
//! ```
//!
//! `examples/memory.rs` is a complete one. Its cluster lives in the process of the command:
//!
//! ```text
//! $ cargo run --package clustering-cli --example memory -- status
//! ```

// All output goes through the module `output`, which escapes it.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod command;
mod connect;
mod connections;
mod context;
mod demo;
pub mod docs;
mod failure;
mod find;
mod group;
mod guardian;
mod history;
mod listen;
mod lists;
mod manual;
mod nodes;
mod operate;
mod output;
mod page;
mod placement;
mod purge;
mod run;
mod services;
mod slots;
mod status;
mod times;
mod wait;
mod watch;

pub use self::{
    command::main,
    connect::{Connect, Purpose, Server},
    failure::Failure,
    times::duration,
};

/// Compiles the example in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
