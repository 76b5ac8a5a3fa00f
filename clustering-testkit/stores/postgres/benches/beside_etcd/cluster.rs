//! A cluster whose nodes have runtimes and stores of their own.

use std::time::{Duration, Instant};

use clustering_core::{Clustering, Status};
use futures_util::future::join_all;
use tokio::runtime::{Builder, Runtime};

use crate::servers::Connect;

/// Timeout, longer than any operation here takes.
const LONG: Duration = Duration::from_secs(60);

/// Pause between changes, so that each counts as a lone change: the library delays the publication of a change that comes
/// within a second of another.
const CALM: Duration = Duration::from_millis(1_050);

struct Node {
    handle: Clustering,
    /// Taken by `drop` only.
    runtime: Option<Runtime>,
}

impl Drop for Node {
    /// Ends the node like a process that dies, if it has not left before.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub(crate) struct Cluster {
    connect: Connect,
    namespace: String,
    ttl: Duration,
    nodes: Vec<Node>,
    joined: usize,
    changed: Instant,
}

impl Cluster {
    /// Starts a cluster and waits until it is stable.
    pub(crate) async fn start(connect: Connect, namespace: String, ttl: Duration, nodes: usize) -> Self {
        let mut cluster =
            Cluster { connect, namespace, ttl, nodes: Vec::new(), joined: 0, changed: Instant::now() };
        for _ in 0..nodes {
            cluster.add().await;
        }
        cluster.stable().await;
        cluster
    }

    async fn add(&mut self) {
        self.joined += 1;
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (connect, ttl) = (self.connect.clone(), self.ttl);
        let (namespace, name) = (self.namespace.clone(), format!("n{:05}", self.joined));
        let starting = runtime.spawn(async move {
            let node = Clustering::builder(connect()).namespace(&namespace).name(&name);
            node.uri("http://10.0.0.7:8080").ttl(ttl).start().await
        });
        let handle = starting.await.unwrap().unwrap();
        self.nodes.push(Node { handle, runtime: Some(runtime) });
    }

    /// Waits until all nodes see a stable version of just these nodes.
    async fn stable(&mut self) {
        let count = self.nodes.len();
        let is_so = move |status: &Status| {
            status.is_stable() && status.newest.as_ref().is_some_and(|view| view.len() == count)
        };
        let waiting = self.nodes.iter().map(|node| {
            let mut status = node.handle.status();
            async move { status.wait_for(is_so).await.map(drop).expect("the node is running") }
        });
        tokio::time::timeout(LONG, join_all(waiting)).await.expect("the cluster becomes stable");
        self.changed = Instant::now();
    }

    async fn calm_down(&self) {
        tokio::time::sleep_until((self.changed + CALM).into()).await;
    }

    /// Measures the join of one more node, with its connections.
    pub(crate) async fn join(&mut self) -> Duration {
        self.calm_down().await;
        let began = Instant::now();
        self.add().await;
        self.stable().await;
        began.elapsed()
    }

    /// Measures the leave of the youngest follower.
    pub(crate) async fn leave(&mut self) -> Duration {
        self.calm_down().await;
        let leaver = self.remove(false);
        let began = Instant::now();
        let left = tokio::spawn(async move { leaver.handle.stop().await });
        self.stable().await;
        let time = began.elapsed();
        left.await.unwrap().unwrap();
        time
    }

    /// Measures the death of the leader.
    pub(crate) async fn failover(&mut self) -> Duration {
        self.calm_down().await;
        let leader = self.remove(true);
        let began = Instant::now();
        drop(leader);
        self.stable().await;
        began.elapsed()
    }

    fn remove(&mut self, leader: bool) -> Node {
        let place = self.nodes.iter().rposition(|node| node.handle.is_leader() == leader).unwrap();
        self.nodes.remove(place)
    }

    pub(crate) async fn stop(self) {
        for stopped in join_all(self.nodes.iter().map(|node| node.handle.stop())).await {
            stopped.unwrap();
        }
    }
}
