//! Conformance tests of `PostgresStore` with the store contract, on a real server.

#![allow(clippy::unwrap_used, reason = "a panic fails the test, also in helpers")]

mod common;

use std::{
    net::TcpListener,
    sync::{Arc, Mutex},
    time::Duration,
};

use clustering_core::store::{CoordinationStore, Revision};
use clustering_postgres::PostgresStore;
use clustering_testkit::{
    conformance::{Bounds, Clock, Harness, Hook, Line},
    postgres::PostgresServer,
    proxy::Proxy,
};
use tokio::sync::OnceCell;

/// The server of one test, which starts when it is first used.
#[derive(Default)]
struct OnPostgres {
    server: OnceCell<PostgresServer>,
    opened: Mutex<Vec<PostgresStore>>,
}

impl OnPostgres {
    async fn server(&self) -> &PostgresServer {
        self.server.get_or_init(common::start).await
    }
}

impl Harness for OnPostgres {
    fn bounds(&self) -> Bounds {
        let config = common::config_at("127.0.0.1:5432");
        Bounds {
            clock: Clock::Real,
            smallest_ttl: Duration::from_secs(1),
            expiry_slack: PostgresStore::LEASE_SLACK,
            watch_lag: config.watch_lag(),
            call_timeout: config.request_timeout + config.connect_timeout,
        }
    }

    async fn open(&self) -> Arc<dyn CoordinationStore> {
        let store = common::store(self.server().await);
        self.opened.lock().unwrap().push(store.clone());
        Arc::new(store)
    }

    async fn compact(&self, revision: Revision) {
        common::store(self.server().await).compact(revision).await.unwrap();
    }

    async fn unreachable(&self) -> Hook<Arc<dyn CoordinationStore>> {
        // A port on which nothing listens.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let free = listener.local_addr().unwrap();
        drop(listener);
        Hook::Have(Arc::new(PostgresStore::new(common::config_at(&free.to_string())).unwrap()))
    }

    async fn open_watches(&self) -> Hook<usize> {
        Hook::Have(self.opened.lock().unwrap().iter().map(PostgresStore::open_watches).sum())
    }

    async fn line(&self) -> Hook<Line> {
        let proxy = Proxy::to(&self.server().await.address()).await.unwrap();
        let address = proxy.endpoint();
        let store = PostgresStore::new(common::config_at(address.trim_start_matches("http://"))).unwrap();
        Hook::Have(Line { store: Arc::new(store), silence: Box::new(move || proxy.silence()) })
    }
}

clustering_testkit::conformance_tests!(OnPostgres::default());
