//! A cluster of service instances on etcd 3.4 or later.
//!
//! ```no_run
//! use clustering_etcd::{EtcdStore, Stabilization, Stable};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let store = EtcdStore::from_env().await?; // ETCD_ENDPOINTS and others; localhost:2379 without
//!     let cluster = store
//!         .node()
//!         .namespace("telemetry/ingest")
//!         .name("ingest-1")
//!         .uri("http://10.0.0.7:8080")
//!         .stabilize(|change: Stabilization| async move {
//!             // Load what this node gained, drop what it lost. An error is a no, and is tried again.
//!             println!("{} nodes; mine: {}", change.view().len(), change.view().owns("device-42"));
//!             Ok::<_, std::io::Error>(())
//!         })
//!         .on_stable(|stable: Stable| async move {
//!             println!("all {} nodes are ready at {}", stable.view().len(), stable.version());
//!         })
//!         .start()
//!         .await?;
//!
//!     cluster.wait_stable().await?;
//!     println!("leader: {}, device-42 is mine: {}", cluster.is_leader(), cluster.owns("device-42"));
//!
//!     tokio::signal::ctrl_c().await?;
//!     cluster.stop().await?; // the others know at once
//!     Ok(())
//! }
//! ```
//!
//! Everything of `clustering-core` is here too, so a service needs this crate alone: what a cluster is and how its nodes
//! agree stands there. What this crate adds is [`EtcdStore`], which keeps the whole contract of
//! [`CoordinationStore`](store::CoordinationStore), and its [configuration](EtcdConfig).
//!
//! ```text
//!                                                    ┌─ etcd-1
//!   commit, read, leases ──▶ EtcdStore ── one member ┼─ etcd-2    the next one when it fails
//!   watches ◀───────────────     │                   └─ etcd-3
//!                                └─ every failure sorted: not happened, unknown, unreachable, refused, invalid, busy
//! ```
//!
//! # Configuration
//!
//! From the environment, with [`EtcdStore::from_env`], which lists the variables; or in code:
//!
//! ```no_run
//! use clustering_etcd::{Credentials, EtcdConfig, EtcdStore, Pem, Tls};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut config = EtcdConfig::new(["https://etcd-1:2379", "https://etcd-2:2379", "https://etcd-3:2379"])?;
//! config.tls = Some(
//!     Tls::new()
//!         .ca(Pem::file("/etc/etcd/ca.crt"))
//!         .identity(Pem::file("/etc/etcd/client.crt"), Pem::file("/etc/etcd/client.key")),
//! );
//! config.credentials = Some(Credentials::new("ingest", std::env::var("PASSWORD")?));
//! config.prefix = "staging/".into();
//! let store = EtcdStore::connect(config).await?;
//! # Ok(())
//! # }
//! ```
//!
//! A configuration that cannot work is refused at once, with the name of the field or variable. This includes
//! certificate files that cannot be read, and keys that do not belong to the certificate. Creating a store does not
//! contact etcd: connections are made when they are first needed. A process that starts while etcd is away therefore
//! does not fail, and its nodes wait for etcd. A process that should fail instead calls [`EtcdStore::check`].
//!
//! # As a store
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use clustering_etcd::{
//!     EtcdStore,
//!     store::{CoordinationStore, Guard, Txn},
//! };
//! use futures_util::StreamExt;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let store = EtcdStore::from_env().await?;
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
//! - **Watches** (rule 3) lag by milliseconds, and deliver or end within [`EtcdConfig::watch_lag`], 19 s by default: 9 s
//!   in which a dead connection may go unnoticed, or 4 s from a call that the same member leaves unanswered, and then the
//!   10 s of [`EtcdConfig::watch_resume`]. While nothing changes they cost no request. One that has old changes to catch
//!   up with starts up to 100 ms late.
//! - **Calls** answer within [`EtcdConfig::request_timeout`], 2 s by default; a long read takes that for each [page](EtcdConfig::page) of 500
//!   entries.
//!
//! # TLS
//!
//! TLS and mutual TLS, from PEM files or bytes: [`Tls`]. Files are read again for each new connection, so certificates
//! are renewed without a restart. The server's certificate is always verified; there is no switch against it.
//!
//! | what does not go together | [`Refused`](store::ErrorKind::Refused), in milliseconds, with what to do |
//! |---|---|
//! | the server's certificate | is of an unknown CA; is for another name; has expired, or is not valid yet |
//! | the client's certificate | is wanted and there is none; is not accepted |
//! | TLS itself | the server speaks it and the endpoint is `http://`; or the other way round |
//!
//! Only if *all* members refuse so: if one of them is merely away, the store is
//! [`Unreachable`](store::ErrorKind::Unreachable) and its error tells both.
//!
//! # Users
//!
//! A user with a password ([`Credentials`]), or the common name of the client certificate. Everything a cluster does is
//! covered by read and write on three prefixes of its namespace, `view/`, `ready/` and `history/`; with
//! [`EtcdConfig::prefix`] before them, if it is set. No other cluster has keys there. The commands are in
//! [Running in production](docs::production#rights).
//!
//! - **Tokens** that etcd no longer accepts are replaced without the caller noticing, whether they expired, the member was
//!   restarted, or users and roles were changed. All calls of a store share one token, which every member accepts.
//! - **Logins** cost etcd some 0.1 s of work each, even if the client gives up meanwhile. A store therefore has at most
//!   one login in flight, and lets it finish when the calls that wait for it time out: those calls fail as
//!   [`Busy`](store::ErrorKind::Busy), and later calls use the token. After a failed login the next one waits for 0.1 s,
//!   doubling up to 5 s.
//! - **A wrong password** is refused with the user's name; **a missing right** with the operation, its keys and the
//!   right; neither is tried at other members. After a password was changed the store works again when the old one is back,
//!   or with a new store: give the new password and restart.
//! - **What is open stays open.** Etcd judges the token and the rights of a watch when it begins, and never asks who renews
//!   a lease. So a node whose rights are withdrawn goes on hearing what happens and stays a member, though it can write
//!   nothing; to put it out, evict it or revoke its lease. (Measured with 3.4.23 and 3.5.1.)
//! - Passwords, keys and tokens are in no `Debug`, no error and no log of this crate. What the crates below it log was
//!   looked through at the level `TRACE` with a test: none of them is there either.
//!
//! # Failures
//!
//! The store talks to one member and leaves it for the next when it cannot be reached, is silent, has lost its leader, or
//! when callers give up waiting for it. A call is made again where that is harmless: if it never arrived, if etcd says that
//! nothing happened, or if it is a read or a renewal; at once at another member, after up to 100 ms at one where it has
//! failed. A commit whose reply is lost is [`OutcomeUnknown`](store::ErrorKind::OutcomeUnknown) and never made again by
//! the store. The same applies to a commit or a grant that fails with `database space exceeded`, because etcd applies some
//! of the changes that it fails with this error: those that were under way when its database reached the quota. A connection counts as made when the server has answered on it, so a member that hangs before that has
//! received no call. If the name of an endpoint has several addresses, they are tried in turn, each 0.25 s after the
//! previous one or as soon as that fails, and the first that answers is used. The address of a dead member thus costs a
//! quarter of a second.
//!
//! **Members that are replaced** while a store runs are found through etcd's member list, which is read once a minute
//! ([`EtcdConfig::member_refresh`]). The list is used only while no configured endpoint can be connected to, and calls
//! never wait for an endpoint from it: a background task connects first, verifies that the endpoint belongs to the same
//! cluster before it sends any credentials, and with TLS verifies its certificate. Advertised URLs that do not work,
//! for example behind proxies, therefore do no harm. When a configured endpoint answers again, calls go back to it.
//!
//! **A watch goes on** by itself when its connection breaks, its member fails, or etcd elects a leader or is restarted: at
//! whichever member answers, after the last revision delivered, in whole revisions, each once. It tries for
//! [`EtcdConfig::watch_resume`], with growing pauses and some chance in them, so that watches that were lost together do
//! not come back together. It ends
//!
//! | with | when |
//! |---|---|
//! | [`Compacted`](store::WatchEnd::Compacted) | what came after the last revision delivered is compacted. Etcd tells a watch every 10 minutes how far it is, so one of what seldom changes is not behind by more than that, and it may have missed nothing: only a read tells |
//! | [`Rewound`](store::WatchEnd::Rewound) | etcd stands before the last revision delivered, or is another cluster, or had fewer elections: it was wiped, or restored from a backup |
//! | [`Disconnected`](store::WatchEnd::Disconnected) | no member answers in that time; or etcd refuses, which the next call tells |
//!
//! Dropping a watch frees it at etcd, also while it is about to go on.
//!
//! # Limits
//!
//! - A gRPC proxy of etcd between store and members is not supported.
//! - **A restored etcd that has overtaken the one before it** may go unnoticed. A watch that goes on tells them apart by
//!   their revisions, the term of etcd's own elections and the cluster's number. If the restored one has come as far as
//!   that watch was before the watch tries again, has had as many elections, and has the same number, it is taken for the
//!   one before; and so is each that has come as far by whoever opens a new watch after a revision. Restore with bumped
//!   revisions, so that every watch ends and its user reads anew: `etcdutl snapshot restore --bump-revision 1000000000
//!   --mark-compacted` (etcd 3.6, and the later releases of 3.5 and 3.4); or stop all nodes meanwhile.
//! - Etcd can lose a lease early through faults of its own ([#15247](https://github.com/etcd-io/etcd/issues/15247)):
//!   it is the guards of a commit, not the lease, that keep two leaders from writing.

mod addresses;
mod attempt;
mod backoff;
mod circuit_breaker;
mod connection;
mod connector;
pub mod docs;
mod endpoint;
mod env;
mod failure;
mod follow;
#[cfg(test)]
mod fuzz;
mod handle;
mod key_codec;
mod lease;
mod login;
mod measure;
mod members;
mod operation;
mod retry;
mod secret;
mod settings;
#[cfg(test)]
mod test_servers;
mod tls;
mod watch;

#[doc(no_inline)]
pub use clustering_core::*;

#[cfg(feature = "metrics")]
pub use self::measure::{METRICS, WATCH_RESUMES};
pub use self::{
    endpoint::Endpoint,
    handle::EtcdStore,
    secret::Secret,
    settings::{ConfigError, Credentials, EtcdConfig},
    tls::{Identity, Pem, Tls},
};
