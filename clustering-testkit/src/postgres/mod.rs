//! PostgreSQL servers for tests, on Linux.
//!
//! [`PostgresServer`] runs a local PostgreSQL: the programs in the folder that `CLUSTERING_POSTGRES_BIN` names, or else
//! those of the newest of Debian's packages. It starts in about two seconds, with an empty database:
//!
//! ```no_run
//! use clustering_testkit::postgres::PostgresServer;
//!
//! #[tokio::test]
//! async fn my_service_survives_a_restart_of_postgres() -> Result<(), Box<dyn std::error::Error>> {
//!     let postgres = PostgresServer::start().await?;
//!     // ... install the tables of the store, and start the service on postgres.url() ...
//!
//!     postgres.kill().await?;
//!     // ... there is no leader, and no node crashes ...
//!     postgres.restart().await?;
//!     // ... there is a leader again ...
//!
//!     println!("{}", postgres.sql("SELECT count(*) FROM pg_stat_activity").await?);
//!     Ok(())
//! }
//! ```
//!
//! | method | simulates |
//! |---|---|
//! | [`pause`](PostgresServer::pause), [`resume`](PostgresServer::resume) | a hanging server: connections stay open, but there are no replies |
//! | [`kill`](PostgresServer::kill), [`stop`](PostgresServer::stop), [`restart`](PostgresServer::restart) | a crash, an orderly shutdown, and recovery |
//! | [`backup`](PostgresServer::backup), [`restore`](PostgresServer::restore) | recovery from a backup |
//! | [`sql`](PostgresServer::sql) | manual changes by an operator |
//!
//! No processes or files are left behind, even if a test fails, times out or is killed: see
//! [`process`](crate::process). Each test gets a port that no other test uses.
//!
//! Do not pause tokio's clock in these tests: the server's own clock keeps running.

mod processes;
mod programs;
mod server;

pub use self::{
    programs::PROGRAMS_VARIABLE,
    server::{Backup, PostgresServer},
};
