use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use clustering_memory::MemoryStore;
use tokio::sync::watch;

use super::{
    Failure, Process, TestCluster, looks,
    shared::{Factory, Seats, Shared, Verdicts},
};
use crate::history::{Clock, ledger};

/// Describes a [`TestCluster`] that differs from the usual, and starts it.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it starts"]
pub struct TestClusterBuilder {
    namespace: String,
    seed: u64,
    patience: Duration,
    store: Option<MemoryStore>,
}

impl Default for TestClusterBuilder {
    fn default() -> Self {
        let patience = Duration::from_secs(15 * 60);
        TestClusterBuilder { namespace: "cluster".to_owned(), seed: 0, patience, store: None }
    }
}

impl TestClusterBuilder {
    /// The namespace of the cluster that is tested: the one that the service gives its nodes. `cluster` by default, as
    /// everywhere.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// What the nodes' ULIDs and jitter are minted from, 0 by default. The same seed gives the same history.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// How much of the virtual time to wait for what is waited for. 15 minutes by default, which cost no time.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The store that all share. By default a new one that forgets nothing.
    pub fn store(mut self, store: MemoryStore) -> Self {
        self.store = Some(store);
        self
    }

    /// As [`TestCluster::start`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime, and under a clock that is not paused.
    pub async fn start<S, E, F, R>(self, nodes: usize, factory: F) -> Result<TestCluster<S>, Failure>
    where
        S: Send + Sync + 'static,
        E: fmt::Display,
        F: Fn(Process) -> R + Send + Sync + 'static,
        R: Future<Output = Result<S, E>> + Send + 'static,
    {
        assert_paused();
        let factory: Factory<S> = Arc::new(move |process| {
            let service = factory(process);
            Box::pin(async move { service.await.map_err(|error| error.to_string()) })
        });
        let store = self.store.unwrap_or_else(|| MemoryStore::builder().history(1_000_000).build());
        let clock = Clock::tokio();
        let shared = Arc::new(Shared {
            follower: ledger::follow(store.clone(), &self.namespace, clock.clone()),
            namespace: self.namespace,
            seed: self.seed,
            store,
            verdicts: Arc::new(Verdicts { clock: clock.clone(), violations: Mutex::default() }),
            clock,
            factory,
            seats: Mutex::new(Seats { all: Vec::new(), lives: 0 }),
            changed: Arc::new(watch::Sender::new(0)),
        });
        looks::begin(&shared);
        let cluster = TestCluster { shared, patience: self.patience };
        for _ in 0..nodes {
            cluster.add();
        }
        cluster.wait_started().await?;
        Ok(cluster)
    }
}

/// Under a running clock, tests of minutes would take minutes, and no two runs would be the same.
fn assert_paused() {
    let before = tokio::time::Instant::now();
    // Real time goes on meanwhile, and so does a clock that is not paused.
    std::thread::sleep(Duration::from_micros(50));
    let paused = before == tokio::time::Instant::now();
    assert!(paused, "TestCluster runs under paused time: write #[tokio::test(start_paused = true)]");
}
