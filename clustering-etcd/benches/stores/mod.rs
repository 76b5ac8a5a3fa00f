//! The stores that benches can run on.

// Each bench uses a different part.
#![allow(dead_code, reason = "each bench uses a different part of this module")]

use std::{error::Error, sync::Arc};

use clustering_core::store::CoordinationStore;
use clustering_etcd::{EtcdConfig, EtcdStore};
use clustering_memory::MemoryStore;
use clustering_postgres::{PostgresConfig, PostgresStore};
use clustering_testkit::{etcd::EtcdServer, postgres::PostgresServer};

/// Number of revisions that the memory store keeps. No run makes this many, so nothing is compacted before slow nodes
/// have read it.
const HISTORY: usize = 10_000_000;

/// Enough for 200 nodes, each with its own store handle, which has two connections.
const CONNECTIONS: &str = "max_connections=500";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    Memory,
    Etcd,
    Postgres,
}

impl Store {
    const ALL: [Store; 3] = [Store::Memory, Store::Etcd, Store::Postgres];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Store::Memory => "memory",
            Store::Etcd => "etcd",
            Store::Postgres => "postgres",
        }
    }

    /// Parses the value of `--store`.
    pub(crate) fn parse(parser: &mut lexopt::Parser) -> Result<Self, Box<dyn Error>> {
        let value = parser.value()?;
        let found = Store::ALL.into_iter().find(|store| value == store.name());
        found.ok_or_else(|| format!("--store {value:?}: expected memory, etcd or postgres").into())
    }
}

/// Creates a store handle with connections of its own, on the runtime of the caller.
pub(crate) type Connect = Arc<dyn Fn() -> Arc<dyn CoordinationStore> + Send + Sync>;

/// A store, and its server if it has one.
pub(crate) struct Server {
    pub(crate) store: Store,
    pub(crate) connect: Connect,
    /// Address of the server.
    pub(crate) endpoint: Option<String>,
    process: Process,
}

enum Process {
    Etcd(Box<EtcdServer>),
    Postgres(Box<PostgresServer>),
    /// The store has no server, or the bench did not start it.
    Unknown,
}

impl Server {
    /// Starts an empty server with its default durability.
    pub(crate) async fn start(store: Store) -> Result<Self, Box<dyn Error>> {
        let (endpoint, process) = match store {
            Store::Memory => {
                let memory = MemoryStore::builder().history(HISTORY).build();
                let connect: Connect = Arc::new(move || Arc::new(memory.clone()));
                return Ok(Server { store, connect, endpoint: None, process: Process::Unknown });
            }
            Store::Etcd => {
                let server = etcd().await?;
                (server.endpoint(), Process::Etcd(Box::new(server)))
            }
            Store::Postgres => {
                let server = PostgresServer::start_with(&[CONNECTIONS]).await?;
                (server.url(), Process::Postgres(Box::new(server)))
            }
        };
        Ok(Server { process, ..Server::at(store, &endpoint).await? })
    }

    /// Uses a running server, and creates the tables that it needs.
    pub(crate) async fn at(store: Store, endpoint: &str) -> Result<Self, Box<dyn Error>> {
        let connect: Connect = match store {
            Store::Memory => return Err("the memory store has no endpoint".into()),
            Store::Etcd => {
                let config = EtcdConfig::new([endpoint])?;
                Arc::new(move || Arc::new(EtcdStore::new(config.clone()).unwrap()))
            }
            Store::Postgres => {
                let config = PostgresConfig::parse(endpoint)?;
                PostgresStore::install(&config).await?;
                Arc::new(move || Arc::new(PostgresStore::new(config.clone()).unwrap()))
            }
        };
        Ok(Server { store, connect, endpoint: Some(endpoint.to_owned()), process: Process::Unknown })
    }

    /// Returns the process id of the server, if the bench has started it.
    pub(crate) fn pid(&self) -> Option<u32> {
        match &self.process {
            Process::Etcd(server) => server.pid(),
            Process::Postgres(server) => server.pid(),
            Process::Unknown => None,
        }
    }

    /// Returns the port of the server, if the bench has started it.
    pub(crate) fn port(&self) -> Option<u16> {
        match &self.process {
            Process::Etcd(server) => Some(server.port()),
            Process::Postgres(server) => Some(server.port()),
            Process::Unknown => None,
        }
    }

    /// Returns the version of the server, if the bench has started it.
    pub(crate) async fn version(&self) -> Result<Option<String>, Box<dyn Error>> {
        Ok(match &self.process {
            Process::Etcd(server) => Some(server.version().to_owned()),
            Process::Postgres(server) => Some(server.sql("SHOW server_version").await?),
            Process::Unknown => None,
        })
    }
}

/// Starts an etcd that uses fsync, unlike the etcd servers of tests, which skip it from version 3.5 on.
async fn etcd() -> Result<EtcdServer, Box<dyn Error>> {
    let etcd = EtcdServer::start().await?;
    let mut version = etcd.version().split('.').map(|number| number.parse().unwrap_or(0));
    if (version.next().unwrap_or(0), version.next().unwrap_or(0)) < (3, 5) {
        return Ok(etcd);
    }
    // If a flag is given twice, the last one wins.
    Ok(EtcdServer::builder().args(["--unsafe-no-fsync=false"]).start().await?)
}
