//! The store under test, and the nodes on it.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use clustering_core::{Backoff, Clustering, Discovery, Stabilization, Status, store::CoordinationStore};
use futures_util::future::join_all;

use crate::{arguments::Arguments, stores::Server, usage::Usage};

/// Timeout, longer than any operation here takes.
pub(crate) const LONG: Duration = Duration::from_secs(600);

/// The store that the nodes of a run share.
pub(crate) struct Place {
    server: Server,
    store: Arc<dyn CoordinationStore>,
}

impl Place {
    pub(crate) async fn open(arguments: &Arguments) -> Result<Self, Box<dyn Error>> {
        let server = match &arguments.endpoint {
            Some(endpoint) => Server::at(arguments.store, endpoint).await?,
            None => Server::start(arguments.store).await?,
        };
        Ok(Place { store: (server.connect)(), server })
    }

    pub(crate) fn endpoint(&self) -> Option<&str> {
        self.server.endpoint.as_deref()
    }

    /// Returns the resource usage of the server, if this bench has started one.
    pub(crate) fn usage(&self) -> Option<Usage> {
        self.server.pid().map(Usage::of_server)
    }

    /// Returns the store. All nodes of a process share it and its connections.
    pub(crate) fn store(&self) -> Arc<dyn CoordinationStore> {
        self.store.clone()
    }

    /// Returns the number of committed changes, including expired and revoked leases.
    pub(crate) async fn commits(&self) -> u64 {
        self.store.read("nothing").await.unwrap().revision.get()
    }

    pub(crate) async fn observe(&self) -> Result<Discovery, Box<dyn Error>> {
        Ok(Discovery::observe(self.store(), NAMESPACE).await?)
    }
}

const NAMESPACE: &str = "scale";

/// A node, and the number of its stabilize runs.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) cluster: Clustering,
    runs: Arc<AtomicU64>,
}

impl Node {
    pub(crate) fn name(number: usize) -> String {
        format!("node-{number:05}")
    }

    pub(crate) async fn start(place: &Place, number: usize, arguments: &Arguments) -> Node {
        let runs = Arc::new(AtomicU64::new(0));
        let (counter, time) = (runs.clone(), arguments.stabilize);
        let builder = Clustering::builder(place.store())
            .namespace(NAMESPACE)
            .name(Node::name(number))
            .uri(format!("http://10.0.{}.{}:8080", number / 250, number % 250))
            .ttl(arguments.ttl())
            .stabilize(move |_: Stabilization| {
                counter.fetch_add(1, Ordering::Relaxed);
                async move { tokio::time::sleep(time).await }
            });
        let builder = match arguments.gap {
            Some((first, max)) => builder.configure(|config| config.publish_gap = Backoff::new(first, max)),
            None => builder,
        };
        let builder = if arguments.is_virtual() { builder.seed(number as u64) } else { builder };
        Node { cluster: builder.start().await.unwrap(), runs }
    }

    pub(crate) fn runs(&self) -> u64 {
        self.runs.load(Ordering::Relaxed)
    }
}

/// Waits until every node sees a stable version of `count` nodes.
pub(crate) async fn stable(nodes: impl IntoIterator<Item = &Node>, count: usize) {
    let so = move |status: &Status| {
        status.is_stable() && status.newest.as_ref().is_some_and(|view| view.len() == count)
    };
    let waits = nodes.into_iter().map(|node| async move {
        let mut status = node.cluster.status();
        let waiting = tokio::time::timeout(LONG, status.wait_for(so)).await;
        waiting.expect("it becomes stable").expect("the node is running");
    });
    join_all(waits).await;
}
