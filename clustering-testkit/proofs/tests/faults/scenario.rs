use std::{
    cell::RefCell,
    future::Future,
    ops::Deref,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use clustering_core::{
    Version,
    store::{CoordinationStoreExt, Revision},
};
use clustering_etcd::{EtcdConfig, EtcdStore};
use clustering_proofs::node::{Node, NodeSpec};
use clustering_testkit::{
    etcd::EtcdServer,
    history::{
        Clock, Entry, Ledger, Moment, Observation,
        ledger::{self, Follower},
    },
    process::{Folder, Process},
    promises::{Calm, check},
};

/// Longer than any step takes, even on a machine that is building at the same time.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// TTL of the nodes' leases.
pub(crate) const TTL: Duration = Duration::from_secs(3);

/// Time that etcd takes to end an expired lease and to deliver the deletion: twice etcd's own slack, for busy machines.
pub(crate) const SLACK: Duration = Duration::from_secs(4);

pub(crate) const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

thread_local! {
    /// File for the log of this thread's test, written if the test fails.
    static STORY: RefCell<Option<PathBuf>> = const { RefCell::new(None) };
}

/// Deletes the log of the test's last run. The logs of failed tests are kept in the target folder until the next run.
pub(crate) fn begin_story(test: &str) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("stories");
    let file = folder.join(format!("{}.txt", test.replace("::", "-")));
    // Errors show when a log is written.
    let _ = std::fs::create_dir_all(folder);
    let _ = std::fs::remove_file(&file);
    STORY.set(Some(file));
}

/// Panics if the future does not complete in time.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.unwrap_or_else(|_| panic!("timed out waiting for {what}"))
}

/// A cluster on etcd, with its history, its nodes, and their journals.
pub(crate) struct Scenario {
    pub(crate) endpoints: Vec<String>,
    pub(crate) namespace: String,
    pub(crate) follower: Follower,
    pub(crate) store: EtcdStore,
    pub(crate) clock: Clock,
    nodes: Mutex<Vec<Arc<Node>>>,
    folder: Folder,
}

/// A scenario with its own etcd.
pub(crate) struct Alone {
    pub(crate) etcd: EtcdServer,
    scenario: Scenario,
}

impl Deref for Alone {
    type Target = Scenario;
    fn deref(&self) -> &Scenario {
        &self.scenario
    }
}

impl Alone {
    pub(crate) async fn new() -> Self {
        Alone::on(EtcdServer::start().await.unwrap())
    }

    pub(crate) fn on(etcd: EtcdServer) -> Self {
        let scenario = Scenario::on(etcd.endpoints());
        Alone { etcd, scenario }
    }

    /// Starts an etcd and these nodes, and waits until the cluster is stable.
    pub(crate) async fn with(names: &[&str]) -> (Self, Vec<Arc<Node>>) {
        let alone = Alone::new().await;
        let nodes = alone.start(names).await;
        (alone, nodes)
    }
}

impl Scenario {
    /// Creates a scenario on the etcd at these endpoints.
    pub(crate) fn on(endpoints: Vec<String>) -> Self {
        let store = EtcdStore::new(EtcdConfig::new(&endpoints).unwrap()).unwrap();
        let (namespace, clock) = ("faults".to_owned(), Clock::boot());
        let follower = ledger::follow(store.clone(), &namespace, clock.clone());
        let nodes = Mutex::default();
        Scenario { endpoints, namespace, follower, store, clock, nodes, folder: Folder::new().unwrap() }
    }

    /// Returns the specification of the node's next life.
    pub(crate) fn spec(&self, name: &str) -> NodeSpec {
        let life = format!("{name}#{}", self.lives(name).len() + 1);
        let journal = self.folder.path().join(format!("{life}.jsonl"));
        NodeSpec { ttl: TTL, ..NodeSpec::new(name, life, &self.namespace, self.endpoints.clone(), journal) }
    }

    /// Returns all lives of a node so far.
    fn lives(&self, name: &str) -> Vec<Arc<Node>> {
        self.nodes.lock().unwrap().iter().filter(|node| node.name() == name).cloned().collect()
    }

    /// Starts a node as a process.
    pub(crate) fn spawn(&self, spec: NodeSpec) -> Arc<Node> {
        self.keep(spec.spawn().unwrap())
    }

    /// Starts a node as a task of the test.
    pub(crate) fn spawn_task(&self, spec: NodeSpec) -> Arc<Node> {
        let store = EtcdStore::new(crate::config(&spec.endpoints).unwrap()).unwrap();
        self.keep(spec.spawn_task(store))
    }

    pub(crate) fn keep(&self, node: Node) -> Arc<Node> {
        let node = Arc::new(node);
        self.nodes.lock().unwrap().push(node.clone());
        node
    }

    /// Starts nodes as processes, one after another, and waits until exactly these nodes are in a stable version.
    pub(crate) async fn start(&self, names: &[&str]) -> Vec<Arc<Node>> {
        let mut nodes = Vec::new();
        for name in names {
            let node = self.spawn(self.spec(name));
            node.next("a join", LONG, |it| matches!(it, Observation::Joined { .. })).await;
            nodes.push(node);
        }
        self.stable(names).await;
        nodes
    }

    /// Waits until a version of exactly these nodes is stable.
    pub(crate) async fn stable(&self, names: &[&str]) -> Version {
        self.stable_if(names, |_| true).await
    }

    /// Waits until a version of exactly these nodes is stable that is later than `before`. Labels increase even across
    /// a restore of the store.
    pub(crate) async fn stable_after(&self, before: Version, names: &[&str]) -> Version {
        self.stable_if(names, |version| version > before).await
    }

    async fn stable_if(&self, names: &[&str], is: impl Fn(Version) -> bool) -> Version {
        let stable = self.follower.until(|ledger| {
            let era = ledger.present();
            let newest = era.newest().filter(|newest| era.is_stable() && is(newest.version))?;
            newest
                .cut
                .iter()
                .map(|node| node.name.as_str())
                .eq(names.iter().copied())
                .then_some(newest.version)
        });
        match tokio::time::timeout(LONG, stable).await {
            Ok(version) => version,
            Err(_) => panic!("timed out waiting for a stable version of {names:?}; {}", self.story()),
        }
    }

    /// Waits until `says` returns a value for the ledger.
    pub(crate) async fn until<T>(&self, what: &str, says: impl FnMut(&Ledger) -> Option<T>) -> T {
        match tokio::time::timeout(LONG, self.follower.until(says)).await {
            Ok(said) => said,
            Err(_) => panic!("timed out waiting for {what}; {}", self.story()),
        }
    }

    /// Returns the node that leads according to the ledger, and its term.
    pub(crate) async fn leader(&self) -> (Arc<Node>, u64) {
        let leads = |ledger: &Ledger| {
            let reign = ledger.present().reign()?;
            Some((reign.leader.clone()?, reign.term.get()))
        };
        let (name, term) = self.until("a leader", leads).await;
        (self.lives(&name).last().unwrap().clone(), term)
    }

    /// Returns the newest version and the term of the current leader.
    pub(crate) fn present(&self) -> (Option<Version>, Option<u64>) {
        let ledger = self.follower.ledger();
        let era = ledger.present();
        (era.newest().map(|newest| newest.version), era.reign().map(|reign| reign.term.get()))
    }

    /// Returns all lives of all nodes so far.
    pub(crate) fn nodes(&self) -> Vec<Arc<Node>> {
        self.nodes.lock().unwrap().clone()
    }

    pub(crate) fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Prints and returns the time from `since` until the currently stable version became stable.
    pub(crate) fn measured(&self, what: &str, since: Moment) -> Duration {
        let ledger = self.follower.ledger();
        let stable = ledger.present().confirmed().last().unwrap().revision;
        let at = self.follower.pages().iter().rev().find_map(|page| match &page.content {
            ledger::Content::Batch(batch) if batch.revision == stable => page.at,
            _ => None,
        });
        let took = at.unwrap().since(since);
        println!("measured: {what}: {:.2} s to the next stable version", took.as_secs_f64());
        took
    }

    /// Runs etcdctl and returns its output.
    pub(crate) async fn etcdctl(&self, arguments: &[&str]) -> String {
        let endpoints = format!("--endpoints={}", self.endpoints.join(","));
        let process = Process::builder("etcdctl").env("ETCDCTL_API", "3").arg(endpoints).args(arguments);
        let process = process.spawn().unwrap();
        let status = soon("the end of etcdctl", process.wait()).await.unwrap();
        let said = std::fs::read_to_string(process.log_path()).unwrap();
        assert!(status.success(), "etcdctl {arguments:?}: {said}");
        said
    }

    /// Returns a key of the cluster.
    pub(crate) fn key(&self, rest: &str) -> String {
        format!("{}/{rest}", self.namespace)
    }

    /// Advances the store's history with writes to a foreign key.
    pub(crate) async fn write_elsewhere(&self, times: usize) -> Revision {
        let mut revision = Revision::ZERO;
        for _ in 0..times {
            revision = self.store.put("elsewhere", "x".into(), None).await.unwrap();
        }
        revision
    }

    /// Waits until the observer knows everything that has happened so far.
    pub(crate) async fn settle(&self) {
        soon("the end of the history", self.follower.settle()).await.unwrap();
    }

    fn journals(&self) -> Vec<Vec<Entry>> {
        self.nodes.lock().unwrap().iter().map(|node| node.journal()).collect()
    }

    /// Writes all events to a file, and returns its path and the last events.
    pub(crate) fn story(&self) -> String {
        let mut lines: Vec<(Option<Moment>, String)> = Vec::new();
        let mut ledger = Ledger::new(&self.namespace);
        for page in self.follower.pages() {
            let told = match (&page.content, ledger.turn(&page)) {
                (_, Some(commit)) => commit.to_string(),
                (content, None) => format!("{:>14}  {content:?}", page.at.unwrap_or_default()),
            };
            lines.push((page.at, told));
        }
        lines.extend(self.journals().iter().flatten().map(|entry| (Some(entry.at), entry.to_string())));
        lines.sort_by_key(|(at, _)| *at);
        let lines: Vec<_> = lines.into_iter().map(|(_, line)| line).collect();
        let file = STORY.with_borrow(Clone::clone).expect("begin_story was called in this thread");
        let kept = match std::fs::write(&file, lines.join("\n")) {
            Ok(()) => format!("the whole log is in {}", file.display()),
            Err(error) => format!("the log cannot be written to {}: {error}", file.display()),
        };
        let tail = &lines[lines.len().saturating_sub(60)..];
        format!("{kept}; last lines:\n{}", tail.join("\n"))
    }

    /// Checks P1 to P8 and P11, with exactly these nodes as the members at the end.
    pub(crate) async fn check(&self, names: &[&str]) -> Ledger {
        self.settle().await;
        // Read the journals before the second settling: the observer must know everything that a node has seen.
        let journals = self.journals();
        self.settle().await;
        let pages = self.follower.pages();
        match check(&self.namespace, &pages, &journals, Some(&Calm::of(names))) {
            Ok(ledger) => ledger,
            Err(violation) => panic!("{violation}\n{}", self.story()),
        }
    }
}

/// Returns all names but one.
pub(crate) fn without<'a>(names: &[&'a str], one: &str) -> Vec<&'a str> {
    names.iter().copied().filter(|name| *name != one).collect()
}
