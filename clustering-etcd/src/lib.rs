//! A coordination store on etcd 3.4 or later: [`EtcdStore`].
//!
//! It keeps the whole contract of [`CoordinationStore`](clustering_core::store::CoordinationStore), so a cluster whose
//! nodes share an etcd runs on it. It does nothing else: what a cluster is and how its nodes agree stands in
//! `clustering-core`.
//!
//! ```text
//!                                                    ┌─ etcd-1
//!   commit, read, leases ──▶ EtcdStore ── one member ┼─ etcd-2    the next one when it fails
//!   watches ◀───────────────     │                   └─ etcd-3
//!                                └─ every failure sorted: not happened, unknown, unreachable, refused, invalid, busy
//! ```
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use clustering_core::store::{CoordinationStore, Guard, Txn};
//! use clustering_etcd::{EtcdConfig, EtcdStore};
//! use futures_util::StreamExt;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut config = EtcdConfig::new(["etcd-1:2379", "etcd-2:2379", "etcd-3:2379"])?;
//! config.prefix = "staging/".into();
//! let store = EtcdStore::connect(config).await?; // or EtcdStore::from_env().await?
//!
//! // Whoever creates the key first leads, for as long as the lease is renewed.
//! let lease = store.grant_lease(Duration::from_secs(15)).await?;
//! let term = store
//!     .commit(Txn::new().guard(Guard::absent("leader")).put("leader", "ingest-1", lease.id))
//!     .await?;
//! store.renew_lease(lease.id).await?;
//!
//! // Everything that happens to the key from then on, in order, each change once.
//! let mut watch = store.watch("leader", term).await?;
//! while let Some(batch) = watch.next().await {
//!     println!("{:?}", batch?.changes);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Building
//!
//! The crate `etcd-client` below this one needs `protoc` when it is built. In this repository `.cargo/config.toml` sees to
//! it. **If you depend on `clustering-etcd` from a workspace of your own, install it**
//! (`apt-get install protobuf-compiler`, `brew install protobuf`) or let the environment variable `PROTOC` name one.
//!
//! # Times
//!
//! The contract leaves some times to the store and demands that it says them.
//!
//! - **Leases** (rule 4): TTLs are rounded up to whole seconds, and etcd raises those below 2 s (with its default
//!   election timeout). A lease whose TTL has passed is gone within [`EtcdStore::LEASE_SLACK`], 2 s. When etcd elects a
//!   new leader, that one counts every lease anew, and a lease may stand for up to one TTL longer.
//! - **Watches** (rule 3) lag by milliseconds, and deliver or end within [`EtcdConfig::watch_lag`], 7 s by default: a
//!   watch that was silent for 5 s asks its member for a sign of life, which must come within 2 s. One that has old
//!   changes to catch up with starts up to 100 ms late.
//! - **Calls** answer within [`EtcdConfig::request_timeout`], 2 s by default; a long read takes that for each page of 500
//!   entries.
//!
//! # Failures
//!
//! The store talks to one member and leaves it for the next when it cannot be reached, is silent, has lost its leader, or
//! when callers give up waiting for it. A call is made again at once where that is harmless: if it never arrived, if etcd
//! says that nothing happened, or if it is a read or a renewal. A commit whose reply is lost is
//! [`OutcomeUnknown`](clustering_core::store::ErrorKind::OutcomeUnknown) and never made again by the store.
//!
//! A watch ends with [`Disconnected`](clustering_core::store::WatchEnd::Disconnected) when its member fails; whoever
//! watches again after the last revision seen misses nothing, at whichever member.
//!
//! # Limits
//!
//! - There is no TLS yet: an `https://` endpoint is refused.
//! - Etcd with authentication: user and password, renewed when etcd wants them anew. A token is judged when a watch
//!   begins; what etcd does about rights that are withdrawn later is up to it.
//! - A gRPC proxy of etcd between store and members is not supported.
//! - Etcd can lose a lease early through faults of its own ([#15247](https://github.com/etcd-io/etcd/issues/15247)):
//!   it is the guards of a commit, not the lease, that keep two leaders from writing.

mod config;
mod connection;
mod endpoint;
mod env;
mod failure;
mod lease;
mod secret;
mod store;
mod watch;
mod wire;

pub use self::{
    config::{ConfigError, Credentials, EtcdConfig},
    endpoint::Endpoint,
    secret::Secret,
    store::EtcdStore,
};
