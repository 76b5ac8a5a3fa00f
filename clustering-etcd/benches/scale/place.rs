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
use clustering_etcd::{EtcdConfig, EtcdStore};
use clustering_memory::MemoryStore;
use clustering_testkit::etcd::EtcdServer;
use futures_util::future::join_all;

use crate::arguments::Arguments;

/// Timeout, longer than any operation here takes.
pub(crate) const LONG: Duration = Duration::from_secs(600);

/// Number of revisions that the memory store keeps: more than any run makes, so that nothing is compacted before slow
/// nodes have read it.
const HISTORY: usize = 10_000_000;

/// The store that the nodes of a run share.
pub(crate) enum Place {
    Memory(MemoryStore),
    Etcd { server: Option<Box<EtcdServer>>, store: EtcdStore },
}

impl Place {
    pub(crate) async fn open(arguments: &Arguments) -> Result<Self, Box<dyn Error>> {
        if !arguments.etcd {
            return Ok(Place::Memory(MemoryStore::builder().history(HISTORY).build()));
        }
        let (server, endpoints) = match arguments.endpoint.is_empty() {
            true => {
                let server = EtcdServer::start().await?;
                let endpoints = server.endpoints();
                (Some(Box::new(server)), endpoints)
            }
            false => (None, vec![arguments.endpoint.clone()]),
        };
        Ok(Place::Etcd { server, store: EtcdStore::connect(EtcdConfig::new(endpoints)?).await? })
    }

    pub(crate) fn server(&self) -> Option<&EtcdServer> {
        match self {
            Place::Memory(_) => None,
            Place::Etcd { server, .. } => server.as_deref(),
        }
    }

    /// Returns the store. All nodes of a process share it and its connection.
    pub(crate) fn store(&self) -> Arc<dyn CoordinationStore> {
        match self {
            Place::Memory(store) => Arc::new(store.clone()),
            Place::Etcd { store, .. } => Arc::new(store.clone()),
        }
    }

    /// Returns the number of committed changes, including expired and revoked leases.
    pub(crate) async fn commits(&self) -> u64 {
        match self {
            Place::Memory(store) => store.revision().get(),
            Place::Etcd { store, .. } => store.read("nothing").await.unwrap().revision.get(),
        }
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
