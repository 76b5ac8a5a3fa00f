//! Conformance tests of `EtcdStore` with the store contract, on a real etcd.

mod common;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use clustering_core::store::{CoordinationStore, Revision};
use clustering_etcd::{EtcdConfig, EtcdStore};
use clustering_testkit::proxy::Proxy;
use clustering_testkit::{
    conformance::{Bounds, Clock, Harness, Hook, Line},
    etcd::Etcd,
};
use tokio::{net::TcpListener, sync::OnceCell};

/// The etcd of one test, which starts when it is first used.
#[derive(Default)]
struct OnEtcd(OnceCell<Box<dyn Etcd>>);

impl OnEtcd {
    async fn etcd(&self) -> &dyn Etcd {
        &**self.0.get_or_init(common::etcd).await
    }
}

impl Harness for OnEtcd {
    fn bounds(&self) -> Bounds {
        let config = EtcdConfig::default();
        Bounds {
            clock: Clock::Real,
            // The shortest TTL that etcd grants with its default election timeout.
            smallest_ttl: Duration::from_secs(2),
            expiry_slack: EtcdStore::LEASE_SLACK,
            watch_lag: config.watch_lag(),
            call_timeout: config.request_timeout + Duration::from_secs(1),
        }
    }

    async fn open(&self) -> Arc<dyn CoordinationStore> {
        let config = common::config(self.etcd().await);
        Arc::new(EtcdStore::connect(config).await.expect("the test server answers"))
    }

    async fn compact(&self, revision: Revision) {
        self.etcd().await.compact_to(revision).await.expect("etcd compacts");
    }

    async fn unreachable(&self) -> Hook<Arc<dyn CoordinationStore>> {
        // A port on which nothing listens.
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port on loopback");
        let free: SocketAddr = listener.local_addr().expect("the listener has an address");
        drop(listener);
        let config = EtcdConfig::new([free.to_string()]).expect("an address is an endpoint");
        Hook::Have(Arc::new(EtcdStore::new(config).expect("creating a store does not connect")))
    }

    async fn line(&self) -> Hook<Line> {
        let mut proxies = Vec::new();
        for endpoint in self.etcd().await.endpoints() {
            proxies.push(Proxy::to(&endpoint).await.expect("a port on loopback"));
        }
        let endpoints = proxies.iter().map(Proxy::endpoint);
        let mut config = EtcdConfig::new(endpoints).expect("the proxies have endpoints");
        // Otherwise the store would learn the addresses behind the proxies.
        config.member_refresh = Duration::ZERO;
        let store = Arc::new(EtcdStore::connect(config).await.expect("the test server answers"));
        Hook::Have(Line { store, silence: Box::new(move || proxies.iter().for_each(Proxy::silence)) })
    }

    async fn open_watches(&self) -> Hook<usize> {
        let etcd = self.etcd().await;
        if etcd.endpoints().len() > 1 {
            return Hook::Absent(
                "the cluster has several members, each of which counts only its own watches",
            );
        }
        let metrics = etcd.metrics().await.expect("etcd serves its metrics");
        let watchers = metrics.get("etcd_debugging_mvcc_watcher_total", &[]);
        Hook::Have(watchers.expect("etcd counts its watches") as usize)
    }
}

clustering_testkit::conformance_tests!(OnEtcd::default());
