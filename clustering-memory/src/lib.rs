//! A coordination store that lives in the process: [`MemoryStore`].
//!
//! It keeps the whole contract of [`CoordinationStore`](clustering_core::store::CoordinationStore), leases that
//! expire, compaction and watches that fall behind included. It is what tests and demos run on, and what a service
//! of a single process can run on; it forgets everything when its last handle goes, and nobody outside the process
//! sees it.
//!
//! ```text
//!   MemoryStore ──┐                      ┌─ entries   what stands: key, value, revisions, lease
//!   MemoryStore ──┼── one mutex ── state ┼─ history   the changes of the last revisions
//!   a watch     ──┘                      ├─ leases    by id, and by deadline
//!                                        └─ watchers  by prefix: who waits for what
//! ```
//!
//! Several handles, made by cloning one, share one store, also from runtimes on different threads. There is no task
//! behind it and no queue per watch: a commit wakes the watches whose prefix it touched, and each of them pulls from
//! the shared history at its own pace.
//!
//! # As a store
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
//! // Whoever creates the key first leads, for as long as the lease lives.
//! let lease = store.grant_lease(Duration::from_secs(15)).await?;
//! let term = store
//!     .commit(Txn::new().guard(Guard::absent("leader")).put("leader", "ingest-1", lease.id))
//!     .await?;
//!
//! // A watch from the beginning yields all that ever happened under its prefix.
//! let mut watch = store.watch("leader", Revision::ZERO).await?;
//! let elected = watch.next().await.expect("a watch goes on")?;
//! assert_eq!(elected.revision, term);
//!
//! // Nobody renews the lease and nobody calls the store: the watch learns of the expiry all the same.
//! let expired = watch.next().await.expect("a watch goes on")?;
//! assert_eq!(*expired.changes, [Change::Delete("leader".into())]);
//! assert_eq!(store.get("leader").await?, None);
//! # Ok(())
//! # }
//! ```
//!
//! # A service under test
//!
//! Everything of `clustering-core` is here too, so a test needs this crate alone. Under tokio's paused time hours pass at
//! once, and with a [seed](Builder::seed) on a current-thread runtime two runs give the same events.
//!
//! ```
//! use clustering_memory::{Clustering, MemoryStore};
//!
//! # async fn start(store: &MemoryStore, name: &str) -> Clustering {
//! #     Clustering::builder(store.clone()).name(name).uri("http://127.0.0.1").seed(7).start().await.unwrap()
//! # }
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] // #[tokio::test(start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // `start` makes a node of the service, with its callbacks, on the store given.
//! let store = MemoryStore::new();
//! let (a, b) = (start(&store, "a").await, start(&store, "b").await);
//!
//! // The version that has both.
//! let both = b.wait_stable().await?;
//! let key = (0..).map(|n| format!("device-{n}")).find(|key| b.owns(key)).unwrap();
//! assert!(!a.owns(&key));
//!
//! // b leaves: its key is a's as soon as a has adapted to that.
//! b.stop().await?;
//! a.wait_stable_after(both).await?;
//! assert!(a.owns(&key));
//! # Ok(())
//! # }
//! ```
//!
//! # Time
//!
//! Leases run on tokio's clock, so under `tokio::time::pause` they are as deterministic as everything else, and
//! otherwise they run in real time. A lease never ends before its TTL has passed since its last renewal. It ends when
//! somebody looks next: any call by anybody, or a watch that is being polled, which wakes by itself within the
//! resolution of tokio's timer, one millisecond. So the slack of contract rule 4 is that millisecond where anything is
//! watched, and nothing that can be observed elsewhere. Leases that ended between two looks end in the order of their
//! deadlines, each in a revision of its own.
//!
//! Outside of a tokio runtime the calls work too, and a watch delivers, but it does not wake by itself for an expiry.
//! A runtime that polls watches needs its time driver (`enable_time`). All runtimes that share a store should run on
//! the same clock: pause them all or none.
//!
//! # Delay and compaction
//!
//! A watch delivers as soon as it is polled (contract rule 3); it never ends with `Disconnected`. The store keeps
//! the changes of the last 10,000 revisions, or as many as the [builder](MemoryStore::builder) was told. A watch that
//! owes changes older than that ends with `Compacted`; one whose prefix was merely quiet goes on.
//!
//! # For tests
//!
//! [`MemoryStore::stats`] counts what was asked of the store, [`MemoryStore::compact`] forgets history on command,
//! and [`MemoryStore::restore`] puts the store back to an earlier [`Backup`], as an operator would after a disaster.

mod backup;
mod builder;
mod handle;
mod lease;
mod revisions;
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
