use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use clustering_core::store::{CoordinationStore, Revision, StoreError};
use clustering_postgres::{PostgresConfig, PostgresStore};
use clustering_testkit::postgres::PostgresServer;

use super::Servers;
use crate::world::Failed;

const SCHEME: &str = "postgresql://";

/// Enough for 50 nodes, each of which has two connections, and for those of dead nodes that are not closed yet.
const CONNECTIONS: &str = "max_connections=400";

/// A single server.
pub(super) struct Postgres {
    server: PostgresServer,
    version: String,
}

impl Postgres {
    pub(super) async fn start() -> Result<Self, Failed> {
        let server = PostgresServer::start_with(&[CONNECTIONS]).await?;
        PostgresStore::install(&config_at(&server.address())?).await?;
        let version = server.sql("SHOW server_version").await?;
        Ok(Postgres { server, version })
    }

    fn store(&self) -> Result<PostgresStore, StoreError> {
        PostgresStore::new(config_at(&self.server.address())?)
    }
}

#[async_trait]
impl Servers for Postgres {
    fn version(&self) -> String {
        format!("PostgreSQL {}", self.version)
    }

    fn addresses(&self) -> Vec<String> {
        vec![self.server.address()]
    }

    fn endpoint(&self, address: SocketAddr) -> String {
        format!("{SCHEME}{address}")
    }

    fn open(&self) -> Result<Arc<dyn CoordinationStore>, StoreError> {
        Ok(Arc::new(self.store()?))
    }

    async fn kill(&self, _: usize) -> Result<(), Failed> {
        Ok(self.server.kill().await?)
    }

    fn pause(&self, _: usize) -> Result<(), Failed> {
        Ok(self.server.pause()?)
    }

    fn resume(&self, _: usize) -> Result<(), Failed> {
        Ok(self.server.resume()?)
    }

    async fn recover(&self) -> Result<(), Failed> {
        match self.server.pid() {
            Some(_) => Ok(()),
            None => Ok(self.server.restart().await?),
        }
    }

    async fn compact(&self, _: usize, revision: Revision) -> Result<(), Failed> {
        Ok(self.store()?.compact(revision).await?)
    }

    fn logs(&self) -> Vec<(String, String)> {
        vec![("postgres".to_owned(), self.server.log())]
    }
}

pub(super) fn is_endpoint(endpoint: &str) -> bool {
    endpoint.starts_with(SCHEME)
}

pub(super) fn open(endpoint: &str) -> Result<Arc<dyn CoordinationStore>, StoreError> {
    Ok(Arc::new(PostgresStore::new(config_at(endpoint.trim_start_matches(SCHEME))?)?))
}

/// Returns a configuration for the server at this address, with short intervals and time limits, because servers fail
/// every few seconds.
fn config_at(address: &str) -> Result<PostgresConfig, StoreError> {
    let mut config = PostgresConfig::parse(&format!("{SCHEME}postgres@{address}/postgres?sslmode=disable"))?;
    config.check_interval = Duration::from_secs(2);
    config.compaction_grace = Duration::from_millis(500);
    Ok(config)
}
