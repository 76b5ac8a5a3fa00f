//! The two servers.

use std::{error::Error, fs, net::SocketAddr, sync::Arc};

use clustering_core::store::CoordinationStore;
use clustering_etcd::{EtcdConfig, EtcdStore};
use clustering_postgres::{PostgresConfig, PostgresStore};
use clustering_testkit::etcd::EtcdServer;

use crate::common::PostgresServer;

/// First version of etcd that the test kit starts without fsync.
const WITHOUT_FSYNC: (u32, u32) = (3, 5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    Postgres,
    Etcd,
}

pub(crate) const STORES: [Store; 2] = [Store::Postgres, Store::Etcd];

impl Store {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Store::Postgres => "postgres",
            Store::Etcd => "etcd",
        }
    }
}

/// Creates a store handle with connections of its own.
pub(crate) type Connect = Arc<dyn Fn() -> Arc<dyn CoordinationStore> + Send + Sync>;

pub(crate) struct Servers {
    postgres: PostgresServer,
    etcd: EtcdServer,
}

impl Servers {
    /// Starts both servers with their default durability.
    pub(crate) async fn start() -> Result<Self, Box<dyn Error>> {
        let mut etcd = EtcdServer::start().await?;
        if has_no_fsync(etcd.version()) {
            // The last of two equal flags counts.
            etcd = EtcdServer::builder().args(["--unsafe-no-fsync=false"]).start().await?;
        }
        Ok(Servers { postgres: PostgresServer::start().await, etcd })
    }

    pub(crate) async fn versions(&self) -> (String, String) {
        (self.postgres.sql("SHOW server_version").await, self.etcd.version().to_owned())
    }

    pub(crate) fn connect(&self, store: Store) -> Connect {
        match store {
            Store::Postgres => {
                let url =
                    format!("postgresql://postgres@{}/postgres?sslmode=disable", self.postgres.address());
                let config = PostgresConfig::parse(&url).unwrap();
                Arc::new(move || Arc::new(PostgresStore::new(config.clone()).unwrap()))
            }
            Store::Etcd => {
                let config = EtcdConfig::new(self.etcd.endpoints()).unwrap();
                Arc::new(move || Arc::new(EtcdStore::new(config.clone()).unwrap()))
            }
        }
    }

    /// Returns the number of established connections at the server.
    pub(crate) fn connections(&self, store: Store) -> usize {
        let port = match store {
            Store::Postgres => self.postgres.address().parse::<SocketAddr>().unwrap().port(),
            Store::Etcd => self.etcd.port(),
        };
        let (local, established) = (format!(":{port:04X}"), "01");
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let is_one = |line: &&str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields[1].ends_with(&local) && fields[3] == established
        };
        table.lines().filter(is_one).count()
    }
}

fn has_no_fsync(version: &str) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= WITHOUT_FSYNC
}
