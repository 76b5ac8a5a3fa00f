//! Clusters of service instances on etcd 3.4 or later.
//!
//! This crate contains [`EtcdStore`], an implementation of the [`CoordinationStore`](store::CoordinationStore) contract on
//! etcd, and re-exports everything of `clustering-core`. A service only needs this crate.
//!
//! ```text
//!                                                    ┌─ etcd-1
//!   commit, read, leases ──▶ EtcdStore ── one member ┼─ etcd-2    switches to the next member after a failure
//!   watches ◀───────────────     │                   └─ etcd-3
//!                                └─ classifies every failure: no effect, unknown outcome, unreachable, refused, …
//! ```
//!
#![cfg_attr(feature = "server-tests", doc = "```")]
#![cfg_attr(not(feature = "server-tests"), doc = "```no_run")]
//! use clustering_etcd::{EtcdStore, Stabilization};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let etcd = clustering_testkit::etcd::EtcdServer::start().await?;
//! # let store = EtcdStore::connect(clustering_etcd::EtcdConfig::new(etcd.endpoints())?).await?;
//! # /*
//! let store = EtcdStore::from_env().await?; // ETCD_ENDPOINTS and others; localhost:2379 by default
//! # */
//! let cluster = store
//!     .node()
//!     .namespace("telemetry/ingest")
//!     .name("ingest-1")
//!     .uri("http://10.0.0.7:8080")
//!     .stabilize(|change: Stabilization| async move {
//!         // Load the keys that this node gained, and release those that it lost. An error is retried.
//!         println!("{} nodes; device-42 is mine: {}", change.view().len(), change.view().owns("device-42"));
//!         Ok::<_, std::io::Error>(())
//!     })
//!     .start()
//!     .await?;
//!
//! cluster.wait_stable().await?; // all nodes have adapted to the newest version
//! assert!(cluster.is_leader() && cluster.owns("device-42"));
//!
//! cluster.stop().await?; // the other nodes see the departure at once
//! # Ok(())
//! # }
//! ```
//!
//! `clustering-core` explains what a cluster is and how its nodes agree, and [how they own keys
//! exclusively](clustering_core::docs::ownership). The guides in [`docs`] explain how to run one:
//! [in production](docs::production) and [at scale](docs::performance). The crate `clustering-cli` is the command line.
//!
//! # Configuration
//!
//! [`EtcdStore::from_env`] reads environment variables, which it lists. [`EtcdConfig`] contains the same settings, and
//! more:
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
//! A configuration that cannot work is rejected at once, with the name of the field or variable. This includes
//! certificate files that cannot be read, and keys that do not belong to the certificate. Creating a store does not
//! contact etcd: connections are made when they are first needed. A process that starts while etcd is away therefore
//! does not fail, and its nodes wait for etcd. A process that should fail instead calls [`EtcdStore::check`].
//!
//! # Using the store directly
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
//! // The process that creates the key leads, as long as it renews the lease.
//! let lease = store.grant_lease(Duration::from_secs(15)).await?;
//! let term = store
//!     .commit(Txn::new().guard(Guard::absent("leader")).put("leader", "ingest-1", lease.id))
//!     .await?;
//! store.renew_lease(lease.id).await?;
//!
//! // All later changes of the key, in order, each of them once.
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
//! **The dependency `etcd-client` needs `protoc` when it is built.** If it finds none, the build fails with one of
//!
//! ```text
//! error: clustering-etcd@…: the dependency etcd-client cannot be built without protoc
//! Could not find `protoc`. If `protoc` is installed, try setting the `PROTOC` environment variable to the path of the `protoc` binary.
//! google/protobuf/descriptor.proto: File not found.
//! ```
//!
//! The first one contains the path of a `protoc`, but cargo does not always get that far. Either install `protoc`
//! (`apt-get install protobuf-compiler libprotobuf-dev`, `apk add protobuf-dev`, `brew install protobuf`), or set the
//! environment variable `PROTOC`. On Linux and macOS, cargo has already downloaded a `protoc` with this crate, and maybe
//! those for other platforms, so take one that runs:
//!
//! ```sh
//! for protoc in ~/.cargo/registry/src/*/protoc-bin-vendored-*/bin/protoc; do
//!     "$protoc" --version > /dev/null 2>&1 && export PROTOC="$protoc"
//! done
//! ```
//!
//! To set it once for a workspace, use the section `[env]` of `.cargo/config.toml`.
//!
//! # Time limits
//!
//! The store contract requires that each store states these times:
//!
//! - **Leases** (rule 4): TTLs are rounded up to whole seconds, and etcd raises TTLs below 2 s (with its default election
//!   timeout). An expired lease is deleted within [`EtcdStore::LEASE_SLACK`], 2 s. A newly elected leader of etcd restarts
//!   the TTL of every lease, so that a lease may live for up to one TTL longer.
//! - **Watches** (rule 3) lag by milliseconds, and deliver or end within [`EtcdConfig::watch_lag`], 19 s by default: up to
//!   9 s until a dead connection is detected, or 4 s after a call that the same member leaves unanswered, and then
//!   [`EtcdConfig::watch_resume`], 10 s. A quiet watch costs no request. A watch that starts in the past is delayed by up
//!   to 100 ms.
//! - **Calls** end within [`EtcdConfig::request_timeout`], 2 s by default. Each [page](EtcdConfig::page) of 500 entries of
//!   a long read is a call of its own.
//!
//! # TLS
//!
//! [`Tls`] configures TLS and mutual TLS, from PEM files or bytes. Files are read again for each new connection, so that
//! certificates can be renewed without a restart. The server's certificate is always verified; this cannot be disabled.
//!
//! If the settings of both sides do not match, calls fail with [`Refused`](store::ErrorKind::Refused) within
//! milliseconds, and the message says what to do:
//!
//! | setting | mismatch |
//! |---|---|
//! | the server's certificate | issued by an unknown CA; not valid for the endpoint's host; expired, or not valid yet |
//! | the client's certificate | required but not configured; rejected by the server |
//! | TLS itself | the server uses TLS and the endpoint is `http://`, or the other way round |
//!
//! Calls fail in this way only if the settings match at *no* member. If other members are unreachable, the error is
//! [`Unreachable`](store::ErrorKind::Unreachable) and mentions both.
//!
//! # Users
//!
//! The user is configured with [`Credentials`], or is the common name of the client certificate. A cluster needs to read
//! and write three prefixes of its namespace, `view/`, `ready/` and `history/` (after [`EtcdConfig::prefix`], if that is
//! set), which contain no keys of other clusters. [Running in production](docs::production#permissions) has the commands.
//!
//! - **Tokens** that etcd no longer accepts are replaced without failing the call, whether they have expired, the member
//!   was restarted, or users and roles were changed. All calls of a store share one token, which every member accepts.
//! - **Logins** cost etcd some 0.1 s of work each, even if the client gives up meanwhile. Therefore a store has at most
//!   one login in flight, and lets it finish if the calls that wait for it time out: those calls fail with
//!   [`Busy`](store::ErrorKind::Busy), and later calls use the token. After a failed login, the next one waits for 0.1 s,
//!   doubling up to 5 s.
//! - **A wrong password** is reported with the name of the user, and **a missing permission** with the operation, its
//!   keys and the permission. Neither is retried at other members. After the password of the user was changed, create a
//!   new store with the new password (for example by a restart), or change the password back.
//! - **Open watches and leases outlive a withdrawn permission.** Etcd checks token and permissions of a watch only when it
//!   is opened, and never checks those of a renewal. A node whose permissions were withdrawn therefore still receives
//!   changes and remains a member, although all its writes fail. To remove it, evict it or revoke its lease. (Measured
//!   with 3.4.23 and 3.5.1.)
//! - **Secrets**: no `Debug` output, error or log of this crate contains a password, key or token. A test checks that the
//!   logs of the crates below contain none either, at the level `TRACE`.
//!
//! # Failures
//!
//! The store uses one member, and switches to the next one if the member cannot be reached, does not reply, or has lost its
//! leader, or if callers stop waiting for its reply. A call is retried if that is safe: if it was not sent, if etcd
//! reports that it had no effect, or if it is a read or a renewal. Another member is tried at once, and one where the call
//! has failed before after up to 100 ms.
//!
//! A commit whose reply is lost fails with [`OutcomeUnknown`](store::ErrorKind::OutcomeUnknown), and the store never
//! retries it. The same applies to a commit or a grant that fails with `database space exceeded`, because etcd applies
//! some of these changes: those that were under way when its database reached the quota.
//!
//! A connection counts as made after the server has answered on it, so that a member that hangs before that has received no
//! call. If the host of an endpoint has several addresses, they are tried in turn, each 0.25 s after the previous one, or
//! as soon as the previous one fails. The first address that answers is used. A dead address therefore costs a quarter of
//! a second.
//!
//! **Replaced members** are found in etcd's member list, which a running store reads once per minute
//! ([`EtcdConfig::member_refresh`]). Members from the list are used only while no configured endpoint can be connected to.
//! Calls never wait for them: a background task connects first, verifies that the member belongs to the same cluster
//! before it sends any credentials, and verifies its certificate if TLS is used. Advertised URLs that do not work, for
//! example behind proxies, therefore do no harm. When a configured endpoint answers again, calls return to it.
//!
//! **A watch resumes** by itself if its connection breaks, its member fails, or etcd elects a leader or is restarted. It
//! continues at any member that answers, after the last delivered revision, so that each revision is delivered whole and
//! once. It tries for [`EtcdConfig::watch_resume`], with growing, jittered pauses, so that watches that were lost together
//! do not return together. It ends with
//!
//! | end | cause |
//! |---|---|
//! | [`Compacted`](store::WatchEnd::Compacted) | etcd has compacted changes after the last delivered revision. A quiet watch learns etcd's revision only every 10 minutes, so it may have missed nothing: read to find out |
//! | [`Rewound`](store::WatchEnd::Rewound) | etcd was wiped, or restored from a backup: its revision is before the last delivered one, its Raft term has decreased, or it is another cluster |
//! | [`Disconnected`](store::WatchEnd::Disconnected) | no member answers in time, or etcd rejects the watch. The next call reports the reason |
//!
//! Dropping a watch releases it in etcd, even while it is being resumed.
//!
//! # Limits
//!
//! - A gRPC proxy of etcd between store and members is not supported.
//! - **A restored etcd that has overtaken the previous one** may not be noticed. A watch that resumes detects a restore by
//!   the revision, the Raft term and the cluster ID. If the restored etcd reaches the watch's revision and Raft term before
//!   the watch resumes, and has the same cluster ID, the watch follows it as if it were the previous one. A new watch after
//!   a known revision only compares revisions. To be safe, restore with bumped revisions, so that every watch ends and is
//!   replaced by a read: `etcdutl snapshot restore --bump-revision 1000000000 --mark-compacted` (etcd 3.6, and later
//!   releases of 3.5 and 3.4). Or stop all nodes during the restore.
//! - Etcd can lose a lease early because of its own bugs ([#15247](https://github.com/etcd-io/etcd/issues/15247)).
//!   Therefore two leaders are kept from writing by the guards of their commits, not by the lease.

// Shows on docs.rs which feature an item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]

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

/// Compiles the example in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
