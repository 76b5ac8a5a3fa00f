//! Nodes of one cluster on one memory store. Each node has a line of its own to the store, and all are observed.

mod audit;
pub(crate) mod exclusive;
mod kind;
mod log;

use std::{
    future::Future,
    ops::Deref,
    sync::{Arc, Mutex},
    time::Duration,
};

use clustering_core::{
    Builder, Clustering, NodeName, Stable, Status, Term, Version,
    store::{Revision, Snapshot, Txn},
};
use clustering_memory::MemoryStore;
use clustering_testkit::{
    faulty::FaultyStore,
    history::{
        Clock, Entry, Journal, Observation, Page,
        ledger::{Content, Era},
    },
    promises::check,
};
use futures_util::future::join_all;
use tokio::sync::watch;

pub(crate) use self::{
    audit::{audit, history},
    kind::{Kind, of},
    log::Log,
};

/// Longer than anything takes in these tests. A wait that exceeds it has failed.
pub(crate) const LONG: Duration = Duration::from_secs(15 * 60);

pub(crate) const TTL: Duration = Duration::from_secs(15);

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Waits for the future, and fails with the description if it takes too long.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.unwrap_or_else(|_| panic!("{what} did not come"))
}

pub(crate) fn name(text: &str) -> NodeName {
    NodeName::parse(text).unwrap()
}

/// A cluster, and the observations of its nodes' callbacks.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) store: MemoryStore,
    pub(crate) seen: Arc<Seen>,
    clock: Clock,
}

/// The announcements of all nodes, and the journal of each node.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The calls of `on_stable` on all nodes.
    announced: Mutex<Vec<(Version, Term, NodeName)>>,
    journals: Mutex<Vec<Arc<Mutex<Vec<Entry>>>>>,
}

impl Seen {
    fn announce(&self, stable: &Stable) {
        let announced = (stable.version(), stable.term(), stable.view().me().unwrap().clone());
        self.announced.lock().unwrap().push(announced);
    }

    /// Returns the calls of `on_stable` so far.
    pub(crate) fn announced(&self) -> Vec<(Version, Term, NodeName)> {
        self.announced.lock().unwrap().clone()
    }

    fn journals(&self) -> Vec<Vec<Entry>> {
        self.journals.lock().unwrap().iter().map(|entries| entries.lock().unwrap().clone()).collect()
    }
}

/// Judges after every test what can be judged without the store's history.
impl Drop for Seen {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let unknown = Content::Gap(Snapshot { revision: Revision::ZERO, entries: Vec::new() });
            check("cluster", &[Page { at: None, content: unknown }], &self.journals(), None).unwrap();
        }
    }
}

impl Cluster {
    pub(crate) fn new() -> Self {
        Cluster::on(MemoryStore::new())
    }

    pub(crate) fn on(store: MemoryStore) -> Self {
        Cluster { store, seen: Arc::default(), clock: Clock::tokio() }
    }

    /// Returns a node's line to the store, and a builder on it. Everything that the node sees and does is recorded,
    /// except the arguments of callbacks that a test sets in place of these.
    pub(crate) fn builder(&self, node: &str) -> (FaultyStore, Builder) {
        self.builder_with(node, |builder| builder)
    }

    /// Like [`builder`](Self::builder), but applies `change` before recording starts, so that its callbacks are
    /// recorded.
    pub(crate) fn builder_with(
        &self,
        node: &str,
        change: impl FnOnce(Builder) -> Builder,
    ) -> (FaultyStore, Builder) {
        let line = FaultyStore::new(self.store.clone());
        let life = format!("{node}#{}", self.seen.journals.lock().unwrap().len());
        let (journal, entries) = Journal::in_memory(name(node), life, self.clock.clone());
        self.seen.journals.lock().unwrap().push(entries);
        let builder =
            Clustering::builder(journal.store(line.clone())).name(node).uri("http://host:80").seed(1);
        let builder = change(builder);
        let seen = self.seen.clone();
        let stabilize = |_| tokio::task::yield_now();
        let builder = journal.attach(builder, stabilize, move |stable| {
            seen.announce(&stable);
            async {}
        });
        // A test may still change the policy: takeovers happen on purpose.
        journal.note(Observation::Started { leadership: None, takes_over: true });
        (line, builder)
    }

    pub(crate) async fn start(&self, name: &str) -> Node {
        self.start_with(name, |builder| builder).await
    }

    pub(crate) async fn start_with(&self, name: &str, change: impl FnOnce(Builder) -> Builder) -> Node {
        let (line, builder) = self.builder(name);
        start(line, change(builder)).await
    }

    /// Starts a node whose stabilize waits while its gate is closed, and succeeds when it is open.
    pub(crate) async fn start_gated(&self, name: &str, open: bool) -> (Node, watch::Sender<bool>) {
        let (gate, passes) = watch::channel(open);
        let stabilize = move |_| {
            let mut passes = passes.clone();
            async move { passes.wait_for(|open| *open).await.is_ok() }
        };
        (self.start_with(name, |builder| builder.stabilize(stabilize)).await, gate)
    }

    /// Starts nodes `n000`, `n001` and so on at once, and waits until they are stable.
    pub(crate) async fn start_many(&self, count: usize) -> Vec<Node> {
        let nodes: Vec<Node> = join_all((0..count).map(|number| async move {
            let name = format!("n{number:03}");
            self.start(&name).await
        }))
        .await;
        stable(&nodes).await;
        nodes
    }

    /// Checks P1 to P7 against the store's history, which must not be compacted, and the journals of all nodes.
    pub(crate) async fn audit(&self) -> Era {
        audit(&self.store, &self.seen.journals()).await
    }
}

pub(crate) async fn start(line: FaultyStore, builder: Builder) -> Node {
    let log = Log::of(builder.events());
    let cluster = soon("the start", builder.start()).await.unwrap();
    Node { cluster, line, log }
}

/// A node, its line to the store and its events.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) cluster: Clustering,
    pub(crate) line: FaultyStore,
    pub(crate) log: Log,
}

impl Deref for Node {
    type Target = Clustering;
    fn deref(&self) -> &Clustering {
        &self.cluster
    }
}

impl Node {
    /// Returns a node whose events are not recorded.
    pub(crate) async fn quiet(line: FaultyStore, builder: Builder) -> Self {
        let cluster = soon("the start", builder.start()).await.unwrap();
        Node { cluster, line, log: Log::none() }
    }

    /// Cuts the node off for good, as if its process had been killed.
    pub(crate) fn crash(self) {
        self.line.cut();
    }

    pub(crate) fn now(&self) -> Status {
        Status::clone(&self.cluster.status().get())
    }

    /// Waits until the condition holds for the node's status.
    pub(crate) async fn until(&self, what: &str, is: impl FnMut(&Status) -> bool) -> Status {
        let mut status = self.cluster.status();
        match tokio::time::timeout(LONG, status.wait_for(is)).await {
            Ok(status) => Status::clone(&status.unwrap()),
            Err(_) => {
                panic!("{}: the status never reached: {what}; it is {:?}", self.cluster.name(), self.now())
            }
        }
    }

    pub(crate) async fn leads(&self) -> Status {
        self.until("it leads", |status| status.active_term.is_some()).await
    }

    /// Commits a write of the service as leader.
    pub(crate) async fn write(&self) -> Result<(), clustering_core::machine::RequestError> {
        self.cluster.commit_as_leader(Txn::new().put("app/owner", "value", None)).await.map(drop)
    }
}

/// Waits until the cluster consists of these nodes and is stable.
pub(crate) async fn stable<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Version {
    let nodes: Vec<_> = nodes.into_iter().collect();
    let mut versions = Vec::new();
    loop {
        versions.clear();
        for node in &nodes {
            let status = node
                .until("stable with all", |status| {
                    let newest = status.newest.as_ref();
                    status.is_stable() && newest.is_some_and(|view| view.len() == nodes.len())
                })
                .await;
            versions.push(status.newest.clone().unwrap().version());
        }
        versions.dedup();
        if let [version] = versions[..] {
            return version;
        }
        tokio::task::yield_now().await;
    }
}

/// Returns the leader.
pub(crate) fn leader(nodes: &[Node]) -> &Node {
    let leaders: Vec<_> = nodes.iter().filter(|node| node.is_leader()).collect();
    assert_eq!(leaders.len(), 1, "exactly one node leads: {leaders:?}");
    leaders[0]
}

/// Returns the nodes that do not lead.
pub(crate) fn followers(nodes: &[Node]) -> Vec<&Node> {
    nodes.iter().filter(|node| !node.is_leader()).collect()
}
