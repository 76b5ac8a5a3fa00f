//! The fault suite on a real etcd.

use std::{sync::Arc, time::Duration};

use clustering_core::store::{CoordinationStore, Revision};
use clustering_etcd::{EtcdConfig, EtcdStore};
use clustering_testkit::{
    conformance::{Bounds, Clock, Hook},
    etcd::{EtcdServer, Snapshot},
    faults::{Faults, Line},
};
use tokio::sync::Mutex;

struct OnEtcd {
    server: EtcdServer,
    backup: Mutex<Option<Snapshot>>,
}

impl OnEtcd {
    async fn start() -> Self {
        OnEtcd { server: EtcdServer::start().await.expect("etcd starts"), backup: Mutex::default() }
    }
}

impl Faults for OnEtcd {
    fn bounds(&self) -> Bounds {
        let config = EtcdConfig::default();
        Bounds {
            clock: Clock::Real,
            smallest_ttl: Duration::from_secs(2),
            expiry_slack: EtcdStore::LEASE_SLACK,
            watch_lag: config.watch_lag(),
            call_timeout: config.request_timeout,
        }
    }

    fn addresses(&self) -> Vec<String> {
        vec![self.server.endpoint().trim_start_matches("http://").to_owned()]
    }

    async fn open(&self, line: &Line) -> Arc<dyn CoordinationStore> {
        let mut config = EtcdConfig::new(line.addresses()).expect("addresses are endpoints");
        // Otherwise the store would learn the address behind the proxy.
        config.member_refresh = Duration::ZERO;
        Arc::new(EtcdStore::new(config).expect("the configuration is valid"))
    }

    async fn kill(&self) {
        self.server.kill().await.expect("etcd is killed");
    }

    async fn start(&self) {
        self.server.restart().await.expect("etcd starts again");
    }

    async fn pause(&self) {
        self.server.pause().expect("etcd is paused");
    }

    async fn resume(&self) {
        self.server.resume().expect("etcd resumes");
    }

    async fn compact(&self, revision: Revision) -> Hook<()> {
        self.server.compact_to(revision).await.expect("etcd compacts");
        Hook::Have(())
    }

    async fn backup(&self) -> Hook<()> {
        *self.backup.lock().await = Some(self.server.snapshot().await.expect("etcd's data can be copied"));
        Hook::Have(())
    }

    async fn restore(&self) {
        let backup = self.backup.lock().await;
        let backup = backup.as_ref().expect("a backup was made");
        self.server.restore(backup).await.expect("etcd starts with the backup");
    }
}

clustering_testkit::fault_tests!(OnEtcd::start());
