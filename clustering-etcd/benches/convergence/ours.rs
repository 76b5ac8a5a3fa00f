//! Members that are nodes of this library.

use std::time::{Duration, Instant};

use clustering_core::{Clustering, Status};

use crate::{
    rounds::{LONG, Member, Team},
    stores::Connect,
    trace::{Trace, Traced},
};

/// Nodes with connections of their own, as if each ran in its own process.
pub(crate) struct Ours {
    pub(crate) connect: Connect,
    pub(crate) namespace: String,
    pub(crate) ttl: Duration,
    pub(crate) trace: Option<Trace>,
}

impl Team for Ours {
    type Member = Clustering;
    const NAME: &str = "clustering";

    async fn join(&self, name: &str) -> Clustering {
        let store = (self.connect)();
        let node = match &self.trace {
            None => Clustering::builder(store),
            Some(trace) => {
                Clustering::builder(Traced { store, member: name.to_owned(), trace: trace.clone() })
            }
        };
        let node = node.namespace(&self.namespace).name(name).uri("http://10.0.0.7:8080");
        node.ttl(self.ttl).start().await.unwrap()
    }
}

impl Member for Clustering {
    async fn stable_with(self, nodes: usize) -> Instant {
        let mut status = self.status();
        let so = |status: &Status| {
            status.is_stable() && status.newest.as_ref().is_some_and(|view| view.len() == nodes)
        };
        let waiting = tokio::time::timeout(LONG, status.wait_for(so));
        waiting.await.expect("it becomes stable").expect("the node is running");
        Instant::now()
    }

    fn is_leader(&self) -> bool {
        Clustering::is_leader(self)
    }

    async fn leave(self) {
        self.stop().await.unwrap();
    }
}
