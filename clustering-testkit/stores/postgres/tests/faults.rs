//! The fault suite on a real server.

#![allow(clippy::unwrap_used, reason = "a panic fails the test, also in helpers")]

mod common;

use std::{sync::Arc, time::Duration};

use clustering_core::store::{CoordinationStore, Revision};
use clustering_postgres::PostgresStore;
use clustering_testkit::{
    conformance::{Bounds, Clock, Hook},
    faults::{Faults, Line},
    postgres::{Backup, PostgresServer},
};
use tokio::sync::Mutex;

struct OnPostgres {
    server: PostgresServer,
    backup: Mutex<Option<Backup>>,
}

impl OnPostgres {
    async fn start() -> Self {
        OnPostgres { server: common::start().await, backup: Mutex::default() }
    }
}

impl Faults for OnPostgres {
    fn bounds(&self) -> Bounds {
        let config = common::config(&self.server);
        Bounds {
            clock: Clock::Real,
            smallest_ttl: Duration::from_secs(1),
            expiry_slack: PostgresStore::LEASE_SLACK,
            watch_lag: config.watch_lag(),
            call_timeout: config.request_timeout,
        }
    }

    fn addresses(&self) -> Vec<String> {
        vec![self.server.address()]
    }

    async fn open(&self, line: &Line) -> Arc<dyn CoordinationStore> {
        Arc::new(PostgresStore::new(common::config_at(&line.addresses()[0])).unwrap())
    }

    async fn kill(&self) {
        self.server.kill().await.unwrap();
    }

    async fn start(&self) {
        self.server.restart().await.unwrap();
    }

    async fn pause(&self) {
        self.server.pause().unwrap();
    }

    async fn resume(&self) {
        self.server.resume().unwrap();
    }

    async fn compact(&self, revision: Revision) -> Hook<()> {
        common::store(&self.server).compact(revision).await.unwrap();
        Hook::Have(())
    }

    async fn backup(&self) -> Hook<()> {
        *self.backup.lock().await = Some(self.server.backup().await.unwrap());
        Hook::Have(())
    }

    async fn restore(&self) {
        self.server.restore(self.backup.lock().await.as_ref().unwrap()).await.unwrap();
    }
}

clustering_testkit::fault_tests!(OnPostgres::start());
