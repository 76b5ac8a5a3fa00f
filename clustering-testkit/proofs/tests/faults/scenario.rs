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

/// Longer than anything here takes, on a machine that builds at the same time.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// The TTL of nodes.
pub(crate) const TTL: Duration = Duration::from_secs(3);

/// How long an etcd takes to end a lease whose time is over, and to tell: its own slack, twice that on a busy machine.
pub(crate) const SLACK: Duration = Duration::from_secs(4);

pub(crate) const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

thread_local! {
    /// Where the story of this thread's test goes if it fails.
    static STORY: RefCell<Option<PathBuf>> = const { RefCell::new(None) };
}

/// Takes away the story of the test's last run. Those of tests that fail stay with what was built, until the next run.
pub(crate) fn begin_story(test: &str) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("stories");
    let file = folder.join(format!("{}.txt", test.replace("::", "-")));
    // What cannot be done here shows when a story is written.
    let _ = std::fs::create_dir_all(folder);
    let _ = std::fs::remove_file(&file);
    STORY.set(Some(file));
}

/// Fails with what was waited for if it does not come.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.unwrap_or_else(|_| panic!("{what} did not come"))
}

/// A cluster in an etcd, all that happens to it, and what is done to it.
pub(crate) struct Scenario {
    pub(crate) endpoints: Vec<String>,
    pub(crate) namespace: String,
    pub(crate) follower: Follower,
    pub(crate) store: EtcdStore,
    pub(crate) clock: Clock,
    nodes: Mutex<Vec<Arc<Node>>>,
    folder: Folder,
}

/// One with an etcd of its own.
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

    /// With these nodes, stable.
    pub(crate) async fn with(names: &[&str]) -> (Self, Vec<Arc<Node>>) {
        let alone = Alone::new().await;
        let nodes = alone.start(names).await;
        (alone, nodes)
    }
}

impl Scenario {
    /// In the etcd at those endpoints.
    pub(crate) fn on(endpoints: Vec<String>) -> Self {
        let store = EtcdStore::new(EtcdConfig::new(&endpoints).unwrap()).unwrap();
        let (namespace, clock) = ("faults".to_owned(), Clock::boot());
        let follower = ledger::follow(store.clone(), &namespace, clock.clone());
        let nodes = Mutex::default();
        Scenario { endpoints, namespace, follower, store, clock, nodes, folder: Folder::new().unwrap() }
    }

    /// A node to be, in its next life.
    pub(crate) fn spec(&self, name: &str) -> NodeSpec {
        let life = format!("{name}#{}", self.lives(name).len() + 1);
        let journal = self.folder.path().join(format!("{life}.jsonl"));
        NodeSpec { ttl: TTL, ..NodeSpec::new(name, life, &self.namespace, self.endpoints.clone(), journal) }
    }

    /// All lives of a node so far.
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

    /// Starts nodes as processes, one after the other, and waits until they are all of the cluster, and stable.
    pub(crate) async fn start(&self, names: &[&str]) -> Vec<Arc<Node>> {
        let mut nodes = Vec::new();
        for name in names {
            let node = self.spawn(self.spec(name));
            node.next("joined", LONG, |it| matches!(it, Observation::Joined { .. })).await;
            nodes.push(node);
        }
        self.stable(names).await;
        nodes
    }

    /// Waits until a version of just these nodes is stable.
    pub(crate) async fn stable(&self, names: &[&str]) -> Version {
        self.stable_if(names, |_| true).await
    }

    /// Waits until a version of just these nodes is stable that is later than that one. Labels go on from what was seen,
    /// also in a store that was taken back to a state in which another version was stable.
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
            Err(_) => panic!("no stable version of {names:?}; {}", self.story()),
        }
    }

    /// What the ledger says once it says something.
    pub(crate) async fn until<T>(&self, what: &str, says: impl FnMut(&Ledger) -> Option<T>) -> T {
        match tokio::time::timeout(LONG, self.follower.until(says)).await {
            Ok(said) => said,
            Err(_) => panic!("{what} did not come; {}", self.story()),
        }
    }

    /// The node that leads, by the ledger, and its term.
    pub(crate) async fn leader(&self) -> (Arc<Node>, u64) {
        let leads = |ledger: &Ledger| {
            let reign = ledger.present().reign()?;
            Some((reign.leader.clone()?, reign.term.get()))
        };
        let (name, term) = self.until("a leader", leads).await;
        (self.lives(&name).last().unwrap().clone(), term)
    }

    /// The newest version, and the term of who leads.
    pub(crate) fn present(&self) -> (Option<Version>, Option<u64>) {
        let ledger = self.follower.ledger();
        let era = ledger.present();
        (era.newest().map(|newest| newest.version), era.reign().map(|reign| reign.term.get()))
    }

    pub(crate) fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Tells how long it took to the version that is stable now.
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

    /// Runs etcdctl, and returns what it says.
    pub(crate) async fn etcdctl(&self, arguments: &[&str]) -> String {
        let endpoints = format!("--endpoints={}", self.endpoints.join(","));
        let process = Process::builder("etcdctl").env("ETCDCTL_API", "3").arg(endpoints).args(arguments);
        let process = process.spawn().unwrap();
        let status = soon("the end of etcdctl", process.wait()).await.unwrap();
        let said = std::fs::read_to_string(process.log_path()).unwrap();
        assert!(status.success(), "etcdctl {arguments:?}: {said}");
        said
    }

    /// A key of the cluster.
    pub(crate) fn key(&self, rest: &str) -> String {
        format!("{}/{rest}", self.namespace)
    }

    /// Makes the store's history longer, by a key of somebody else's.
    pub(crate) async fn write_elsewhere(&self, times: usize) -> Revision {
        let mut revision = Revision::ZERO;
        for _ in 0..times {
            revision = self.store.put("elsewhere", "x".into(), None).await.unwrap();
        }
        revision
    }

    /// Waits until all is known that has happened so far.
    pub(crate) async fn settle(&self) {
        soon("the end of the history", self.follower.settle()).await.unwrap();
    }

    fn journals(&self) -> Vec<Vec<Entry>> {
        self.nodes.lock().unwrap().iter().map(|node| node.journal()).collect()
    }

    /// The end of what happened, and a file with all of it.
    fn story(&self) -> String {
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
        let file = STORY.with_borrow(Clone::clone).expect("a test has begun in this thread");
        let kept = match std::fs::write(&file, lines.join("\n")) {
            Ok(()) => format!("the whole story is in {}", file.display()),
            Err(error) => format!("the whole story cannot be written to {}, {error}", file.display()),
        };
        let tail = &lines[lines.len().saturating_sub(60)..];
        format!("{kept}, it ends so:\n{}", tail.join("\n"))
    }

    /// Judges P1 to P8 and P11. Those nodes should be there, and nothing happens any more.
    pub(crate) async fn check(&self, names: &[&str]) -> Ledger {
        self.settle().await;
        // Taken before the journals: whatever a node says that it saw, the store had by then.
        let journals = self.journals();
        self.settle().await;
        let pages = self.follower.pages();
        match check(&self.namespace, &pages, &journals, Some(&Calm::of(names))) {
            Ok(ledger) => ledger,
            Err(violation) => panic!("{violation}\n{}", self.story()),
        }
    }
}

/// The names of some nodes but for one.
pub(crate) fn without<'a>(names: &[&'a str], one: &str) -> Vec<&'a str> {
    names.iter().copied().filter(|name| *name != one).collect()
}
