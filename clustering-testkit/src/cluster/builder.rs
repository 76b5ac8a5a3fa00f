use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::Duration,
};

use clustering_memory::MemoryStore;
use tokio::sync::watch;

use super::{
    Failure, Process, TestCluster, looks,
    shared::{Factory, Seats, Shared, Verdicts},
    standstill::{self, Standstill},
};
use crate::history::{Clock, ledger};

/// Configures and starts a [`TestCluster`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `start` is called"]
pub struct TestClusterBuilder {
    namespace: String,
    seed: u64,
    patience: Duration,
    store: Option<MemoryStore>,
    standstill: Duration,
}

impl Default for TestClusterBuilder {
    fn default() -> Self {
        let patience = Duration::from_secs(15 * 60);
        let standstill = standstill::LIMIT;
        TestClusterBuilder { namespace: "cluster".to_owned(), seed: 0, patience, store: None, standstill }
    }
}

impl TestClusterBuilder {
    /// Sets the namespace of the cluster under test: the one in which the service starts its nodes. Default: `cluster`,
    /// as in [`Builder`](clustering_core::Builder::namespace).
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Sets the seed for the nodes' ULIDs and jitter. Default: 0. The same seed gives the same history.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets the virtual time after which waits fail. Default: 15 minutes, which take no real time.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sets the store that all processes share. By default, a new store that keeps its last million revisions.
    pub fn store(mut self, store: MemoryStore) -> Self {
        self.store = Some(store);
        self
    }

    /// Sets the real time after which the test fails because virtual time stands still: some task is always ready.
    /// Default: 30 s. Time during which a task blocks the thread, or waits for a call in real time, does not count. The
    /// busiest process is killed then, so that time moves on. A busy task that belongs to no process cannot be ended: the
    /// test hangs unless it waits in a method of the cluster.
    pub fn standstill(mut self, limit: Duration) -> Self {
        self.standstill = limit;
        self
    }

    /// Starts this many instances of the service and waits until each has started, like [`TestCluster::start`].
    ///
    /// # Errors
    ///
    /// Returns an error if an instance does not start.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime, and if the runtime's clock is not paused.
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
        let shared = Arc::new_cyclic(|shared| Shared {
            follower: ledger::follow(store.clone(), &self.namespace, clock.clone()),
            namespace: self.namespace,
            seed: self.seed,
            store,
            verdicts: Arc::new(Verdicts::new(clock.clone())),
            clock,
            factory,
            seats: Mutex::new(Seats { all: Vec::new(), lives: 0 }),
            changed: Arc::new(watch::Sender::new(0)),
            standstill: Standstill::begin(self.standstill, shared.clone()),
            was_checked: AtomicBool::new(false),
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

/// Panics unless tokio's clock is paused: with a running clock, tests of virtual minutes would take real minutes, and
/// no two runs would be equal.
fn assert_paused() {
    let before = tokio::time::Instant::now();
    // Real time passes here, and with it any clock that is not paused.
    std::thread::sleep(Duration::from_micros(50));
    let paused = before == tokio::time::Instant::now();
    assert!(paused, "TestCluster needs a paused clock: use #[tokio::test(start_paused = true)]");
}
