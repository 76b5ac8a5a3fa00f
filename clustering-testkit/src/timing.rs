//! Measures how long changes of a cluster take on a store: [`TimedCluster`].
//!
//! Each node has its own runtime and its own handle to the store, as if it ran in its own process:
//!
//! ```
//! use std::time::Duration;
//!
//! use clustering_memory::MemoryStore;
//! use clustering_testkit::timing::TimedCluster;
//!
//! # #[tokio::main]
//! # async fn main() {
//! let store = MemoryStore::new();
//! let connect = move || {
//!     let store = store.clone(); // or create a handle with connections of its own
//!     async move { store }
//! };
//! let mut cluster = TimedCluster::start("timing", 3, Duration::from_secs(2), connect).await;
//! println!("a join takes {:?}, a leave {:?}", cluster.join().await, cluster.follower_leaves().await);
//! println!("the leader's leave takes {:?}", cluster.leader_leaves().await);
//! cluster.join().await;
//! let failover = cluster.leader_dies().await;
//! # assert!(failover > Duration::from_millis(500), "{failover:?}");
//! cluster.stop().await;
//! # }
//! ```
//!
//! To compare a store with another one, start a cluster on each and let their changes alternate, because the speed of a
//! machine varies. The bench `beside_etcd` of `clustering-postgres` does so. Etcd is the yardstick: the performance
//! guide of `clustering-etcd` lists its times.
//!
//! Run the server with the same durability as in production, and use a release build (`cargo bench`).

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use clustering_core::{Clustering, Status, store::CoordinationStore};
use futures_util::future::join_all;
use tokio::runtime::{Builder, Runtime};

/// Time limit for a change. It is generous, because a machine that is also compiling is slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// Pause before each change. The leader delays the publication of a change that comes within a second of another.
const CALM: Duration = Duration::from_millis(1_050);

type Connecting = Pin<Box<dyn Future<Output = Arc<dyn CoordinationStore>> + Send>>;

/// A cluster whose changes are timed. See the [module](self) for an example.
///
/// Each time begins with the call and ends when every node sees the next stable version. Each method first waits until
/// the cluster has been calm for a second. This wait is not part of the time. The methods are not cancel safe: if a call is
/// dropped, its change may still be in progress.
///
/// # Panics
///
/// All methods panic if the store fails, or if the cluster is not stable two minutes after a change.
pub struct TimedCluster {
    connect: Arc<dyn Fn() -> Connecting + Send + Sync>,
    namespace: String,
    ttl: Duration,
    nodes: Vec<Node>,
    joined: usize,
    changed: Instant,
}

struct Node {
    handle: Clustering,
    /// Only `drop` takes it.
    runtime: Option<Runtime>,
}

impl Drop for Node {
    /// Ends the node as if its process had died, unless the node has already left.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl TimedCluster {
    /// Starts a cluster of `nodes` nodes in a namespace that is not in use, and waits until it is stable.
    ///
    /// `connect` is called on the runtime of each node and returns the node's handle to the store. `ttl` is the TTL of
    /// the leases. To time failovers, choose the shortest that the store grants. To time everything else without
    /// renewals, choose a long one.
    ///
    /// # Panics
    ///
    /// If the namespace or the TTL is not valid, or a node cannot join.
    pub async fn start<S: CoordinationStore, F: Future<Output = S> + Send + 'static>(
        namespace: &str,
        nodes: usize,
        ttl: Duration,
        connect: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self {
        let mut cluster = TimedCluster {
            connect: Arc::new(move || -> Connecting {
                let connecting = connect();
                Box::pin(async move { Arc::new(connecting.await) as Arc<dyn CoordinationStore> })
            }),
            namespace: namespace.to_owned(),
            ttl,
            nodes: Vec::new(),
            joined: 0,
            changed: Instant::now(),
        };
        for _ in 0..nodes {
            cluster.add().await;
        }
        cluster.stable().await;
        cluster
    }

    /// Returns the number of nodes.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Times the join of one more node, including the time to connect it to the store.
    pub async fn join(&mut self) -> Duration {
        self.calm_down().await;
        let began = Instant::now();
        self.add().await;
        self.stable().await;
        began.elapsed()
    }

    /// Times the leave of the youngest follower.
    ///
    /// # Panics
    ///
    /// If the cluster has fewer than two nodes.
    pub async fn follower_leaves(&mut self) -> Duration {
        self.leaves(false).await
    }

    /// Times the leave of the leader, including the election of the next one.
    ///
    /// # Panics
    ///
    /// If the cluster has fewer than two nodes.
    pub async fn leader_leaves(&mut self) -> Duration {
        self.leaves(true).await
    }

    async fn leaves(&mut self, leader: bool) -> Duration {
        self.calm_down().await;
        let leaver = self.remove(leader);
        let began = Instant::now();
        let left = tokio::spawn(async move { leaver.handle.stop().await });
        self.stable().await;
        let time = began.elapsed();
        left.await.expect("a node stops without a panic").expect("a node can leave");
        time
    }

    /// Times the death of the leader, which closes its connections and leaves its lease behind. Most of this time is the
    /// rest of the lease.
    ///
    /// # Panics
    ///
    /// If the cluster has fewer than two nodes.
    pub async fn leader_dies(&mut self) -> Duration {
        self.calm_down().await;
        let leader = self.remove(true);
        let began = Instant::now();
        drop(leader);
        self.stable().await;
        began.elapsed()
    }

    /// Stops all nodes at once.
    pub async fn stop(self) {
        for stopped in join_all(self.nodes.iter().map(|node| node.handle.stop())).await {
            stopped.expect("a node can leave");
        }
    }

    async fn add(&mut self) {
        self.joined += 1;
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime can be created");
        let (connect, ttl) = (self.connect.clone(), self.ttl);
        let (namespace, name) = (self.namespace.clone(), format!("n{:05}", self.joined));
        let starting = runtime.spawn(async move {
            let node = Clustering::builder(connect().await).namespace(namespace).name(name);
            node.uri("http://10.0.0.7:8080").ttl(ttl).start().await
        });
        let handle = starting.await.expect("a node starts without a panic").expect("a node can join");
        self.nodes.push(Node { handle, runtime: Some(runtime) });
    }

    /// Waits until every node sees a stable version that consists of exactly these nodes.
    async fn stable(&mut self) {
        let count = self.nodes.len();
        let is_so = move |status: &Status| {
            status.is_stable() && status.newest.as_ref().is_some_and(|view| view.len() == count)
        };
        let waiting = self.nodes.iter().map(|node| {
            let mut status = node.handle.status();
            async move { status.wait_for(is_so).await.map(drop).expect("a node does not end by itself") }
        });
        let waiting = tokio::time::timeout(PATIENCE, join_all(waiting)).await;
        assert!(waiting.is_ok(), "the cluster of {count} nodes is not stable {PATIENCE:?} after a change");
        self.changed = Instant::now();
    }

    async fn calm_down(&self) {
        tokio::time::sleep_until((self.changed + CALM).into()).await;
    }

    fn remove(&mut self, leader: bool) -> Node {
        assert!(self.nodes.len() > 1, "a cluster of one node has no other node that could see the change");
        let place = self.nodes.iter().rposition(|node| node.handle.is_leader() == leader);
        self.nodes.remove(place.expect("a stable cluster has one leader"))
    }
}

impl fmt::Debug for TimedCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TimedCluster { namespace, ttl, .. } = self;
        f.debug_struct("TimedCluster")
            .field("namespace", namespace)
            .field("ttl", ttl)
            .field("nodes", &self.nodes())
            .finish_non_exhaustive()
    }
}
