//! An in-process coordination store: [`MemoryStore`].
//!
//! The store keeps the whole contract of [`CoordinationStore`](clustering_core::store::CoordinationStore), including
//! lease expiry, compaction and watches that fall behind. It is meant for tests, demos and services that consist of a
//! single process. Its contents are visible only within the process, and are lost when the last handle and the last
//! watch are dropped.
//!
//! ```text
//!   MemoryStore ──┐                      ┌─ entries   current keys: value, revisions, lease
//!   MemoryStore ──┼── one mutex ── state ┼─ history   the changes of recent revisions
//!   watch       ──┘                      ├─ leases    by ID, and by deadline
//!                                        └─ watchers  open watches, grouped by prefix
//! ```
//!
//! Clones of a handle share one store, and may be used from runtimes on different threads. The store has no background
//! task and no queue per watch: a commit wakes the watches whose prefix it touched, and each watch pulls from the
//! shared history at its own pace.
//!
//! # Use as a store
//!
//! ```
//! use std::time::Duration;
//!
//! use clustering_core::store::{Change, CoordinationStore, CoordinationStoreExt, Guard, Revision, Txn};
//! use clustering_memory::MemoryStore;
//! use futures_util::StreamExt;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = MemoryStore::new();
//!
//! // The first client to create the key is the leader, for as long as its lease lives.
//! let lease = store.grant_lease(Duration::from_secs(15)).await?;
//! let term = store
//!     .commit(Txn::new().guard(Guard::absent("leader")).put("leader", "ingest-1", lease.id))
//!     .await?;
//!
//! // A watch from revision zero yields every change that was ever made under its prefix.
//! let mut watch = store.watch("leader", Revision::ZERO).await?;
//! let elected = watch.next().await.expect("the watch continues")?;
//! assert_eq!(elected.revision, term);
//!
//! // The lease is not renewed, so it expires. The watch sees the expiry without any further call to the store.
//! let expired = watch.next().await.expect("the watch continues")?;
//! assert_eq!(*expired.changes, [Change::Delete("leader".into())]);
//! assert_eq!(store.get("leader").await?, None);
//! # Ok(())
//! # }
//! ```
//!
//! # Testing a service
//!
//! This crate re-exports everything from `clustering-core`, so a test needs no other dependency. Under tokio's paused
//! time, hours pass instantly. With a [seed](Builder::seed) and a current-thread runtime, two runs produce the same
//! events.
//!
//! ```
//! use clustering_memory::{Clustering, MemoryStore};
//!
//! # async fn start(store: &MemoryStore, name: &str) -> Clustering {
//! #     Clustering::builder(store.clone()).name(name).uri("http://127.0.0.1").seed(7).start().await.unwrap()
//! # }
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] // #[tokio::test(start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // `start` starts a node of the service, with its callbacks, on the given store.
//! let store = MemoryStore::new();
//! let (a, b) = (start(&store, "a").await, start(&store, "b").await);
//!
//! // The version that contains both nodes.
//! let both = b.wait_stable().await?;
//! let key = (0..).map(|n| format!("device-{n}")).find(|key| b.owns(key)).unwrap();
//! assert!(!a.owns(&key));
//!
//! // When b has left, a becomes the owner of b's key as soon as it has adapted to the new version.
//! b.stop().await?;
//! a.wait_stable_after(both).await?;
//! assert!(a.owns(&key));
//! # Ok(())
//! # }
//! ```
//!
//! # Time
//!
//! Leases run on tokio's clock: deterministically under `tokio::time::pause`, and in real time otherwise. A lease never
//! expires before its TTL has passed since its last renewal. The store ends an expired lease on the next access, which
//! is any call, or the polling of a watch. A waiting watch wakes by itself when the next lease expires, within the
//! resolution of tokio's timer of one millisecond. The slack of contract rule 4 is therefore one millisecond if there
//! is a waiting watch; without one, a late expiry cannot be observed. Leases that expired between two accesses end in
//! the order of their deadlines, each in a revision of its own.
//!
//! Calls and watches also work outside of a tokio runtime, but then a watch does not wake by itself when a lease
//! expires. A runtime that polls watches needs its time driver (`enable_time`). All runtimes that share a store should
//! run on the same clock: pause all of them or none.
//!
//! # Watch delay and compaction
//!
//! A watch delivers changes as soon as it is polled (contract rule 3) and never ends with `Disconnected`. The store
//! keeps the changes of the last 10,000 revisions; the [builder](MemoryStore::builder) can set a different number. A
//! watch that still needs older changes ends with `Compacted`. A watch whose prefix was merely idle continues.
//!
//! # Testing tools
//!
//! [`MemoryStore::stats`] counts the calls made to the store, [`MemoryStore::compact`] discards history on demand, and
//! [`MemoryStore::restore`] resets the store to an earlier [`Backup`], as an operator would after a disaster.

mod backup;
mod builder;
mod cursor;
mod handle;
mod lease;
mod revisions;
mod shared;
mod state;
mod stats;
mod watch;
mod watchers;

#[doc(no_inline)]
pub use clustering_core::*;

pub use self::{
    backup::Backup,
    builder::MemoryStoreBuilder,
    handle::{MAX_TTL, MemoryStore},
    lease::LiveLease,
    stats::Stats,
};

/// Compiles and runs the example in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
