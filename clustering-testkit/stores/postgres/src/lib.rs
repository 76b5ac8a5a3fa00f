//! A coordination store on PostgreSQL for [`clustering`](clustering_core).
//!
//! Services that already have a PostgreSQL need no etcd to act as one: a leader, versions, the barrier and exclusive slots
//! work the same on any store that keeps the [contract](clustering_core::store). This crate is also the reference for
//! stores on other databases: its [SQL](PostgresStore::install_sql) and its dozen short files show all that a store takes.
//!
//! ```no_run
//! use clustering_postgres::{Clustering, PostgresConfig, PostgresStore};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = PostgresConfig::parse("postgresql://ingest:secret@db-1/services?sslmode=require")?;
//! // Once, by a user who may create a schema.
//! PostgresStore::install(&config).await?;
//! let store = PostgresStore::connect(config).await?;
//! let node = Clustering::builder(store).namespace("ingest").uri("http://10.0.0.8:4000").start().await?;
//! node.wait_stable().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # How it works
//!
//! ```text
//!   commit ──▶ commit(…) in SQL ──▶ locks the counter ──▶ entry, log, revision + 1 ──▶ NOTIFY with the keys
//!                                                                                            │
//!   watch  ◀── a page of the log ◀── signal of the watches of these keys ◀── LISTEN ◀────────┘
//! ```
//!
//! - **Every call is one statement**, hence one transaction. A caller that gives up, or a process that dies, leaves none
//!   open. Revisions become visible in the order of their numbers, because each commit locks the row that counts them.
//! - **Two connections per process**, whatever the number of nodes and watches: one for commits, reads and watches, and one
//!   for renewals and notifications, which must not wait behind them. Statements are pipelined. A connection that does not
//!   answer is replaced. PgBouncer may stand before it only in session mode, since `LISTEN` needs a session.
//! - **Leases** end when a process finds them overdue. Each process looks when the next one may be, and at least every
//!   [`check_interval`](PostgresConfig::check_interval); the first to come ends it. A process ends a lease only if its own
//!   monotonic clock agrees with the server's that the TTL has passed: if the server's clock is set, no lease ends early.
//! - **Changes** are kept for [`keep_changes`](PostgresConfig::keep_changes), and then compacted by whoever comes first.
//!
//! # What it needs
//!
//! PostgreSQL 13 or later, a primary that does not lose commits when it fails over (with replicas:
//! `synchronous_commit = on` and synchronous standbys), and rights: those to create a schema for
//! [`install`](PostgresStore::install); `USAGE` on the schema and `SELECT`, `INSERT`, `UPDATE` and `DELETE` on its tables for
//! services.
//!
//! **After a restore from a backup**, execute `SELECT clustering.after_restore()` before the services connect again. It moves
//! the revision beyond all that were used since the backup. Without it, watches notice the restore only if they resume
//! before the revision has caught up with them.

// Shows on docs.rs which feature an item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod failure;
mod handle;
mod keeper;
mod link;
mod notifications;
mod random;
mod schema;
mod session;
mod settings;
mod shared;
mod statements;
mod tls;
mod watch;

pub use clustering_core::*;

pub use self::{handle::PostgresStore, settings::PostgresConfig};
