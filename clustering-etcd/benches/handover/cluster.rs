//! Clusters, exclusive or not, and measured changes of them.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use clustering_core::{
    Clustering, Release, Status,
    store::{Change, CoordinationStore},
};
use clustering_etcd::{EtcdConfig, EtcdStore};
use clustering_testkit::{etcd::EtcdServer, faulty::FaultyStore};
use futures_util::{StreamExt, future::join_all};

use crate::gaps::{Gaps, Moves};

/// Timeout of operations, longer than any of them takes.
const LONG: Duration = Duration::from_secs(120);

/// TTL of leases that need no renewal while a change is measured.
const TTL: Duration = Duration::from_secs(600);

/// TTL of the lease of a node that will crash: the shortest that etcd grants.
const SHORT: Duration = Duration::from_secs(2);

/// Pause between changes of a cluster, so that each counts as a single change: the library delays the publication of a
/// change that follows another one within a second.
const CALM: Duration = Duration::from_millis(1_050);

/// Pause before each change, in which etcd and all nodes are idle. Without it, of two clusters that are changed in
/// turn, only the first would be changed after a pause, with a cold CPU and an idle disk.
const IDLE: Duration = Duration::from_millis(525);

/// Kind of a cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// Number of slots; `None` if the nodes are not exclusive.
    pub(crate) slots: Option<u16>,
    /// True if the nodes have a `release` callback.
    pub(crate) releases: bool,
}

/// Cost of a change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) commits: u64,
    pub(crate) gaps: Gaps,
    /// Time until all nodes saw the next stable version.
    pub(crate) stable: Duration,
}

struct Member {
    node: Clustering,
    line: FaultyStore,
}

pub(crate) struct Cluster<'a> {
    etcd: &'a EtcdServer,
    kind: Kind,
    namespace: String,
    members: Vec<Member>,
    joined: usize,
    changed: Instant,
    moves: Moves,
}

impl<'a> Cluster<'a> {
    /// Starts a cluster of this size, and waits until it is stable.
    pub(crate) async fn start(etcd: &'a EtcdServer, kind: Kind, namespace: String, nodes: usize) -> Self {
        let moves = Moves::default();
        let mut cluster =
            Cluster { etcd, kind, namespace, members: Vec::new(), joined: 0, changed: Instant::now(), moves };
        cluster.add(TTL).await;
        let rest = join_all((1..nodes).map(|number| cluster.connect(number, TTL))).await;
        cluster.members.extend(rest);
        cluster.joined = nodes;
        cluster.stable().await;
        cluster
    }

    async fn connect(&self, number: usize, ttl: Duration) -> Member {
        let store = EtcdStore::new(EtcdConfig::new(self.etcd.endpoints()).unwrap()).unwrap();
        let line = FaultyStore::new(store);
        let builder = Clustering::builder(line.clone()).namespace(&self.namespace).ttl(ttl);
        let mut builder = builder.name(format!("n{number:05}")).uri("http://10.0.0.7:8080");
        if let Some(slots) = self.kind.slots {
            builder = builder.exclusive(slots);
        }
        if self.kind.releases {
            builder = builder.release(|_: Release| async {});
        }
        let node = builder.start().await.unwrap();
        self.moves.follow(number, &node);
        Member { node, line }
    }

    async fn add(&mut self, ttl: Duration) {
        let member = self.connect(self.joined, ttl).await;
        self.joined += 1;
        self.members.push(member);
    }

    /// Waits until all nodes see a stable version that contains all of them, and returns the time at which the last
    /// node saw it.
    async fn stable(&mut self) -> Instant {
        let nodes = self.members.len();
        let is_stable = move |status: &Status| {
            status.is_stable() && status.newest.as_ref().is_some_and(|view| view.len() == nodes)
        };
        let seen = self.members.iter().map(|member| {
            let mut status = member.node.status();
            tokio::spawn(async move {
                let stable = tokio::time::timeout(LONG, status.wait_for(is_stable)).await;
                stable.expect("it becomes stable").expect("the node is running");
                Instant::now()
            })
        });
        let last = join_all(seen.collect::<Vec<_>>()).await.into_iter().map(Result::unwrap).max().unwrap();
        self.changed = Instant::now();
        last
    }

    async fn begin(&mut self) -> Result<(u64, Instant), Box<dyn Error>> {
        tokio::time::sleep_until((self.changed + CALM).max(Instant::now() + IDLE).into()).await;
        self.moves.clear();
        Ok((self.etcd.revision().await?.get(), Instant::now()))
    }

    /// Returns the cost of a completed change: `stable` is the time at which all nodes saw the stable version.
    async fn end(
        &self,
        began: (u64, Instant),
        stable: Instant,
        died: Option<Instant>,
    ) -> Result<Sample, Box<dyn Error>> {
        // The end of a lease is not a commit, but deletes keys.
        let commits = self.etcd.revision().await?.get() - began.0 - u64::from(died.is_some());
        // Let the recording tasks process the last events.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let stable = stable.saturating_duration_since(died.unwrap_or(began.1));
        Ok(Sample { commits, gaps: self.moves.gaps(died), stable })
    }

    /// Measures the join of one more node.
    pub(crate) async fn join(&mut self) -> Result<Sample, Box<dyn Error>> {
        let began = self.begin().await?;
        self.add(TTL).await;
        let stable = self.stable().await;
        self.end(began, stable, None).await
    }

    /// True if no follower holds a slot, so that the stop of a node that holds slots is that of the leader.
    pub(crate) fn must_stop_leader(&self) -> bool {
        !self.members.iter().any(|member| !member.node.is_leader() && self.holds(member))
    }

    /// Measures the stop of the leader, or of a follower that holds slots.
    pub(crate) async fn stop_one(&mut self, leads: bool) -> Result<Sample, Box<dyn Error>> {
        let is_meant = |member: &Member| member.node.is_leader() == leads && (leads || self.holds(member));
        let place = self.members.iter().rposition(is_meant).ok_or("no such node")?;
        let Member { node, .. } = self.members.remove(place);
        let began = self.begin().await?;
        let stopped = tokio::spawn(async move { node.stop().await });
        let stable = self.stable().await;
        stopped.await??;
        self.end(began, stable, None).await
    }

    fn holds(&self, member: &Member) -> bool {
        self.kind.slots.is_none() || !member.node.held_slots().is_empty()
    }

    /// Measures the crash of a node, from the end of its lease.
    pub(crate) async fn crash(&mut self) -> Result<Sample, Box<dyn Error>> {
        tokio::time::sleep_until((self.changed + CALM).into()).await;
        self.add(SHORT).await;
        self.stable().await;
        let Member { node, line } = self.members.pop().expect("a node was added");
        let record = format!("{}/view/nodes/{}", self.namespace, node.name());
        let observer = EtcdStore::new(EtcdConfig::new(self.etcd.endpoints())?)?;
        let mut watch = observer.watch(&record, self.etcd.revision().await?).await?;
        let died = tokio::spawn(async move {
            while let Some(Ok(batch)) = watch.next().await {
                if batch.changes.iter().any(|change| matches!(change, Change::Delete(_))) {
                    return Instant::now();
                }
            }
            panic!("the watch of the record ended");
        });
        let began = self.begin().await?;
        line.cut();
        let died = died.await?;
        let stable = self.stable().await;
        self.end(began, stable, Some(died)).await
    }

    /// Stops all nodes at once.
    pub(crate) async fn stop(self) {
        join_all(self.members.iter().map(|member| member.node.stop())).await;
    }
}
