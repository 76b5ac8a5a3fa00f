//! Store handles and servers for the tests.

// Each integration test uses a different part.
#![allow(dead_code, reason = "each test file uses a different part of this module")]

use std::time::Duration;

use clustering_postgres::{PostgresConfig, PostgresStore};
use clustering_testkit::postgres::PostgresServer;

/// Starts a server and installs the tables of the store.
pub(crate) async fn start() -> PostgresServer {
    start_with(&[]).await
}

/// Starts a server with these settings, such as `max_connections=10`, and installs the tables of the store.
pub(crate) async fn start_with(settings: &[&str]) -> PostgresServer {
    let server = PostgresServer::start_with(settings).await.unwrap();
    PostgresStore::install(&config(&server)).await.unwrap();
    server
}

pub(crate) fn store(server: &PostgresServer) -> PostgresStore {
    PostgresStore::new(config(server)).unwrap()
}

/// Returns a configuration for the server, with short intervals and time limits.
pub(crate) fn config(server: &PostgresServer) -> PostgresConfig {
    config_at(&server.address())
}

/// Returns a configuration for the server at this address, with short intervals and time limits.
pub(crate) fn config_at(address: &str) -> PostgresConfig {
    let mut config =
        PostgresConfig::parse(&format!("postgresql://postgres@{address}/postgres?sslmode=disable")).unwrap();
    config.check_interval = Duration::from_secs(2);
    config.compaction_grace = Duration::from_millis(500);
    config
}
