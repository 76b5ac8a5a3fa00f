//! Exclusive clusters whose nodes are started and stopped one at a time.

use std::{
    collections::BTreeMap,
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use clustering_core::{Backoff, Clustering, Incarnation, NodeName, Stabilization, Status};
use clustering_etcd::{EtcdConfig, EtcdStore};
use clustering_testkit::etcd::EtcdServer;
use futures_util::future::{join_all, try_join_all};

/// Timeout of operations, longer than any of them takes.
const LONG: Duration = Duration::from_secs(120);

/// Settings that all nodes of a cluster share.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) namespace: String,
    pub(crate) slots: u16,
    pub(crate) ttl: Duration,
    pub(crate) restart_grace: Duration,
    /// Pause between two publications that follow each other closely; `None` is the library's default.
    pub(crate) publish_gap: Option<Backoff>,
}

pub(crate) struct Cluster<'a> {
    etcd: &'a EtcdServer,
    settings: Settings,
    /// The running nodes, from the oldest to the youngest.
    members: Vec<Clustering>,
    stabilizes: Arc<AtomicU64>,
}

impl<'a> Cluster<'a> {
    /// Starts nodes with these names one after another, so that the first one is the oldest and the leader, and waits
    /// until the cluster is stable.
    pub(crate) async fn start(
        etcd: &'a EtcdServer,
        settings: Settings,
        names: &[NodeName],
    ) -> Result<Self, Box<dyn Error>> {
        let mut cluster = Cluster { etcd, settings, members: Vec::new(), stabilizes: Arc::default() };
        for name in names {
            let member = cluster.connect(name).await?;
            cluster.members.push(member);
        }
        cluster.stable().await?;
        Ok(cluster)
    }

    /// Starts a node with its own connection, as if it ran in its own process.
    async fn connect(&self, name: &NodeName) -> Result<Clustering, Box<dyn Error>> {
        let store = EtcdStore::new(EtcdConfig::new(self.etcd.endpoints())?)?;
        let Settings { namespace, slots, ttl, restart_grace, publish_gap } = self.settings.clone();
        let runs = self.stabilizes.clone();
        let builder = Clustering::builder(store)
            .namespace(namespace)
            .name(name.to_string())
            .uri("http://10.0.0.7:8080")
            .ttl(ttl)
            .exclusive(slots)
            .restart_grace(restart_grace)
            .configure(|config| config.publish_gap = publish_gap.unwrap_or(config.publish_gap))
            .stabilize(move |_: Stabilization| {
                runs.fetch_add(1, Ordering::Relaxed);
                async {}
            });
        Ok(builder.start().await?)
    }

    pub(crate) async fn add(&mut self, name: &NodeName) -> Result<(), Box<dyn Error>> {
        let member = self.connect(name).await?;
        self.members.push(member);
        self.stable().await
    }

    /// Stops a node, which says that it will be back within its restart grace if `returns` is true.
    pub(crate) async fn stop(&mut self, name: &NodeName, returns: bool) -> Result<(), Box<dyn Error>> {
        let place = self.members.iter().position(|member| member.name() == name).ok_or("no such node")?;
        let member = self.members.remove(place);
        match returns {
            true => member.stop_for_restart(self.settings.restart_grace).await?,
            false => member.stop().await?,
        }
        self.stable().await
    }

    /// Waits until all nodes see a stable version that contains all of them.
    async fn stable(&self) -> Result<(), Box<dyn Error>> {
        self.wait(|_, _| true).await
    }

    /// Returns the incarnation of each node.
    pub(crate) fn incarnations(&self) -> BTreeMap<NodeName, Incarnation> {
        let incarnation = |member: &Clustering| {
            let session = member.status().get().session.clone()?;
            Some((member.name().clone(), session.incarnation))
        };
        self.members.iter().filter_map(incarnation).collect()
    }

    /// Waits until all nodes have rejoined under other incarnations than these, and see a stable version that contains
    /// all of them.
    pub(crate) async fn rejoined(
        &self,
        before: &BTreeMap<NodeName, Incarnation>,
    ) -> Result<(), Box<dyn Error>> {
        self.wait(|name, status| {
            status.session.as_ref().is_some_and(|session| before.get(name) != Some(&session.incarnation))
        })
        .await
    }

    async fn wait(&self, and: impl Fn(&NodeName, &Status) -> bool) -> Result<(), Box<dyn Error>> {
        let (nodes, and) = (self.members.len(), &and);
        let waits = self.members.iter().map(|member| async move {
            let is_done = |status: &Status| {
                let is_full = status.newest.as_ref().is_some_and(|view| view.len() == nodes);
                is_full && status.is_stable() && and(member.name(), status)
            };
            let mut status = member.status();
            match tokio::time::timeout(LONG, status.wait_for(is_done)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(ended)) => Err(format!("{} ended: {ended}", member.name())),
                Err(_) => Err(format!("{} did not become stable: {:?}", member.name(), status.get())),
            }
        });
        try_join_all(waits).await?;
        Ok(())
    }

    /// Returns the number of stabilize runs of all nodes so far, including those that have stopped.
    pub(crate) fn stabilizes(&self) -> u64 {
        self.stabilizes.load(Ordering::Relaxed)
    }

    /// Stops all nodes at once.
    pub(crate) async fn end(self) {
        join_all(self.members.iter().map(Clustering::stop)).await;
    }
}
