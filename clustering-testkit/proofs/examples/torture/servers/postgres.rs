use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use clustering_core::store::{CoordinationStore, Revision, StoreError};
use clustering_postgres::PostgresStore;

use self::common::PostgresServer;
use super::Servers;
use crate::world::Failed;

#[path = "../../../../stores/postgres/tests/common/mod.rs"]
#[allow(clippy::unwrap_used, reason = "the run ends if its server cannot be controlled")]
mod common;

const SCHEME: &str = "postgresql://";

/// Enough for 50 nodes, each of which has two connections, and for those of dead nodes that are not closed yet.
const CONNECTIONS: &str = "max_connections=400";

/// A single server.
pub(super) struct Postgres {
    server: PostgresServer,
    version: String,
    is_killed: AtomicBool,
}

impl Postgres {
    pub(super) async fn start() -> Self {
        let server = PostgresServer::start_with(&[CONNECTIONS]).await;
        let version = server.sql("SHOW server_version").await;
        Postgres { server, version, is_killed: AtomicBool::default() }
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
        Ok(Arc::new(PostgresStore::new(self.server.config())?))
    }

    async fn kill(&self, _: usize) -> Result<(), Failed> {
        self.server.kill().await;
        self.is_killed.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn pause(&self, _: usize) -> Result<(), Failed> {
        self.server.pause();
        Ok(())
    }

    fn resume(&self, _: usize) -> Result<(), Failed> {
        self.server.resume();
        Ok(())
    }

    async fn recover(&self) -> Result<(), Failed> {
        if self.is_killed.swap(false, Ordering::Relaxed) {
            self.server.run().await;
        }
        Ok(())
    }

    async fn compact(&self, _: usize, revision: Revision) -> Result<(), Failed> {
        Ok(self.server.store().compact(revision).await?)
    }

    fn logs(&self) -> Vec<(String, String)> {
        vec![("postgres".to_owned(), self.server.log())]
    }
}

pub(super) fn is_endpoint(endpoint: &str) -> bool {
    endpoint.starts_with(SCHEME)
}

pub(super) fn open(endpoint: &str) -> Result<Arc<dyn CoordinationStore>, StoreError> {
    Ok(Arc::new(PostgresStore::new(common::config_at(endpoint.trim_start_matches(SCHEME)))?))
}
