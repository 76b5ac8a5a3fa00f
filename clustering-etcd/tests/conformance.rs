//! `EtcdStore` keeps the store contract, on a real etcd.

#[allow(dead_code)]
mod common;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use clustering_core::store::{CoordinationStore, Revision};
use clustering_etcd::{EtcdConfig, EtcdStore};
use clustering_testkit::conformance::{Bounds, Clock, Harness, Hook};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

struct Etcd;

impl Harness for Etcd {
    fn bounds(&self) -> Bounds {
        let config = common::config();
        Bounds {
            clock: Clock::Real,
            // The shortest that etcd grants with its default election timeout.
            smallest_ttl: Duration::from_secs(2),
            expiry_slack: EtcdStore::LEASE_SLACK,
            watch_lag: config.watch_lag(),
            call_timeout: config.request_timeout + Duration::from_secs(1),
        }
    }

    async fn open(&self) -> Arc<dyn CoordinationStore> {
        Arc::new(EtcdStore::connect(common::config()).await.expect("the test server answers"))
    }

    async fn compact(&self, revision: Revision) {
        let revision = i64::try_from(revision.get()).expect("a revision of etcd");
        match common::client().await.compact(revision, None).await {
            Ok(_) => {}
            // Another test did, and further.
            Err(error) if error.to_string().contains("has been compacted") => {}
            Err(error) => panic!("compacting up to {revision}: {error}"),
        }
    }

    async fn unreachable(&self) -> Hook<Arc<dyn CoordinationStore>> {
        // A port that was free a moment ago.
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port on loopback");
        let free: SocketAddr = listener.local_addr().expect("the listener has an address");
        drop(listener);
        let config = EtcdConfig::new([free.to_string()]).expect("an address is an endpoint");
        Hook::Have(Arc::new(EtcdStore::new(config).expect("a store connects when it is used")))
    }

    async fn open_watches(&self) -> Hook<usize> {
        // Each member counts its own; the tests have one.
        let [endpoint] = &common::endpoints()[..] else {
            return Hook::Absent("the cluster has several members, and each counts its own watches");
        };
        Hook::Have(watchers(endpoint).await.expect("etcd serves its metrics"))
    }
}

/// The number of watches that etcd says in its metrics.
async fn watchers(endpoint: &str) -> Option<usize> {
    let address = endpoint.trim_start_matches("http://");
    let mut connection = TcpStream::connect(address).await.ok()?;
    connection.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.ok()?;
    let mut reply = String::new();
    connection.read_to_string(&mut reply).await.ok()?;
    reply
        .lines()
        .find_map(|line| line.strip_prefix("etcd_debugging_mvcc_watcher_total ")?.trim().parse().ok())
}

clustering_testkit::conformance_tests!(Etcd);
