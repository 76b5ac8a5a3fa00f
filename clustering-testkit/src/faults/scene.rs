use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use clustering_core::{
    Version,
    store::{CoordinationStore, CoordinationStoreExt, Revision},
};
use tokio::time::{sleep, timeout};

use super::{
    Faults, Line,
    node::{Node, Settings},
};
use crate::{
    conformance::Clock as StoreClock,
    history::{
        Clock, Entry, Ledger, Moment, Observation,
        ledger::{self, Content, Follower},
        timeline,
    },
    promises::{Calm, check},
};

/// Names of the nodes of most scenarios.
pub(super) const NAMES: [&str; 3] = ["a", "b", "c"];

/// Time limit for any step, generous enough for a machine that is compiling at the same time.
const LONG: Duration = Duration::from_secs(60);

/// Shortest TTL at which nodes on a busy machine renew their leases in time.
const TTL: Duration = Duration::from_secs(3);

/// Maximum number of lines of the history in the message of a failure.
const LINES: usize = 80;

const NAMESPACE: &str = "faults";

/// A cluster on a store of its own, with its history, its nodes and their journals.
pub(super) struct Scene<F> {
    pub(super) faults: Arc<F>,
    /// Handle to the store that is not affected by network faults.
    pub(super) store: Arc<dyn CoordinationStore>,
    pub(super) follower: Follower,
    clock: Clock,
    nodes: Mutex<Vec<Arc<Node>>>,
}

impl<F: Faults> Scene<F> {
    pub(super) async fn new(faults: Arc<F>) -> Self {
        let store = faults.open(&Line::straight(faults.addresses())).await;
        let clock = match faults.bounds().clock {
            StoreClock::Paused => Clock::tokio(),
            StoreClock::Real => Clock::boot(),
        };
        let follower = ledger::follow(store.clone(), NAMESPACE, clock.clone());
        Scene { faults, store, follower, clock, nodes: Mutex::default() }
    }

    /// Starts these nodes with the usual settings, one after another, and waits until they are stable.
    pub(super) async fn with(faults: Arc<F>, names: &[&str]) -> (Self, Vec<Arc<Node>>) {
        let scene = Scene::new(faults).await;
        let settings = scene.settings();
        let nodes = scene.start(names, settings).await;
        (scene, nodes)
    }

    pub(super) fn settings(&self) -> Settings {
        Settings { ttl: self.ttl(), writes: true, exclusive: false }
    }

    pub(super) fn ttl(&self) -> Duration {
        TTL.max(self.faults.bounds().smallest_ttl)
    }

    /// Returns the longest time until the others notice that a node is gone: its TTL, and the time that the store may
    /// take to end the lease, doubled for busy machines, with a second for everything else.
    pub(super) fn noticed(&self) -> Duration {
        self.ttl() + 2 * self.faults.bounds().expiry_slack + Duration::from_secs(1)
    }

    /// Fails if it took too long until the others were stable without a node.
    pub(super) fn assert_noticed(&self, took: Duration) {
        let limit = self.noticed();
        assert!(took < limit, "the others noticed it too late: {took:?}, not {limit:?}; {}", self.story());
    }

    // ---- nodes -----------------------------------------------------------------------------------------------------

    /// Starts a node's next life.
    pub(super) async fn spawn(&self, name: &str, settings: Settings) -> Arc<Node> {
        let life = self.nodes().iter().filter(|node| node.name == name).count() as u64 + 1;
        let node =
            Node::start(self.faults.clone(), self.clock.clone(), NAMESPACE, (name, life), settings).await;
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).push(node.clone());
        node
    }

    /// Starts a node's next life, and waits until it has joined.
    pub(super) async fn join(&self, name: &str, settings: Settings) -> Arc<Node> {
        let node = self.spawn(name, settings).await;
        self.next(&node, "a join", is_joined).await;
        node
    }

    /// Starts nodes, one after another, and waits until exactly these nodes are in a stable version.
    pub(super) async fn start(&self, names: &[&str], settings: Settings) -> Vec<Arc<Node>> {
        let mut nodes = Vec::new();
        for name in names {
            nodes.push(self.join(name, settings).await);
        }
        self.stable(names).await;
        nodes
    }

    pub(super) fn nodes(&self) -> Vec<Arc<Node>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the node records a matching observation, and returns the entry. Starts after the last entry that was
    /// returned.
    pub(super) async fn next(&self, node: &Node, what: &str, is: impl Fn(&Observation) -> bool) -> Entry {
        self.next_of(node, what, |entry| is(&entry.observation).then(|| entry.clone())).await
    }

    pub(super) async fn next_of<T>(&self, node: &Node, what: &str, pick: impl Fn(&Entry) -> Option<T>) -> T {
        self.soon(&format!("{what} of {}", node.name), node.next_of(pick)).await
    }

    /// Waits until each of these nodes has renewed its lease twice.
    pub(super) async fn renewed(&self, nodes: &[Arc<Node>]) {
        for node in nodes {
            node.pass_all();
            for _ in 0..2 {
                self.next(node, "a renewal", |it| matches!(it, Observation::Renewed { .. })).await;
            }
        }
    }

    // ---- the history -----------------------------------------------------------------------------------------------

    pub(super) fn now(&self) -> Moment {
        self.clock.now()
    }

    pub(super) async fn stable(&self, names: &[&str]) -> Version {
        self.stable_if(names, |_| true).await
    }

    /// Waits until a version of exactly these nodes is stable that is later than `before`.
    pub(super) async fn stable_after(&self, before: Version, names: &[&str]) -> Version {
        self.stable_if(names, |version| version > before).await
    }

    async fn stable_if(&self, names: &[&str], is: impl Fn(Version) -> bool) -> Version {
        let stable = |ledger: &Ledger| {
            let era = ledger.present();
            let newest = era.newest().filter(|newest| era.is_stable() && is(newest.version))?;
            let members = newest.cut.iter().map(|node| node.name.as_str());
            members.eq(names.iter().copied()).then_some(newest.version)
        };
        self.until(&format!("a stable version of {names:?}"), stable).await
    }

    /// Waits until `says` returns a value for the ledger.
    pub(super) async fn until<T>(&self, what: &str, says: impl FnMut(&Ledger) -> Option<T>) -> T {
        self.soon(what, self.follower.until(says)).await
    }

    /// Returns the node that leads according to the ledger, and its term.
    pub(super) async fn leader(&self) -> (Arc<Node>, u64) {
        let leads = |ledger: &Ledger| {
            let reign = ledger.present().reign()?;
            Some((reign.leader.clone()?, reign.term.get()))
        };
        let (name, term) = self.until("a leader", leads).await;
        let nodes = self.nodes();
        let leader = nodes.iter().rfind(|node| node.name == name).expect("only nodes of the scene lead");
        (leader.clone(), term)
    }

    /// Returns the leader, or another node.
    pub(super) async fn one(&self, leads: bool) -> Arc<Node> {
        let leader = self.leader().await.0;
        match leads {
            true => leader,
            false => {
                let nodes = self.nodes();
                let other = nodes.iter().rfind(|node| node.name != leader.name);
                other.expect("the leader is not alone").clone()
            }
        }
    }

    /// Returns the newest version and the term of the current leader.
    pub(super) fn present(&self) -> (Option<Version>, Option<u64>) {
        let ledger = self.follower.ledger();
        let era = ledger.present();
        (era.newest().map(|newest| newest.version), era.reign().map(|reign| reign.term.get()))
    }

    /// Prints and returns the time from `since` until the version that is now stable became stable.
    pub(super) fn measured(&self, what: &str, since: Moment) -> Duration {
        let ledger = self.follower.ledger();
        let stable = ledger.present().confirmed().last().map(|confirmed| confirmed.revision);
        let took = stable.and_then(|stable| self.time_of(stable)).unwrap_or_default().since(since);
        println!("measured: {what}: {:.2} s to the next stable version", took.as_secs_f64());
        took
    }

    /// Returns the time at which a revision of the current era was seen.
    pub(super) fn time_of(&self, revision: Revision) -> Option<Moment> {
        self.follower.pages().iter().rev().find_map(|page| match &page.content {
            Content::Batch(batch) if batch.revision == revision => page.at,
            _ => None,
        })
    }

    /// Advances the store's history with writes to a foreign key.
    pub(super) async fn write_elsewhere(&self, times: usize) -> Revision {
        let mut revision = Revision::ZERO;
        for _ in 0..times {
            let put = self.soon("a write", self.store.put("elsewhere", "x".into(), None)).await;
            revision = put.unwrap_or_else(|error| panic!("a healthy store refused a write: {error}"));
        }
        revision
    }

    // ---- the verdict -----------------------------------------------------------------------------------------------

    /// Waits until exactly these nodes are in a stable version, and checks all promises.
    pub(super) async fn check(&self, names: &[&str]) -> Ledger {
        self.stable(names).await;
        self.settle().await;
        // Read the journals before the history settles again: the ledger must have everything that a node has seen.
        let journals = self.journals();
        self.settle().await;
        match check(NAMESPACE, &self.follower.pages(), &journals, Some(&Calm::of(names))) {
            Ok(ledger) => ledger,
            Err(violation) => panic!("{violation}"),
        }
    }

    async fn settle(&self) {
        let settled = async {
            while self.follower.settle().await.is_err() {
                sleep(Duration::from_millis(50)).await;
            }
        };
        self.soon("the end of the history", settled).await;
    }

    fn journals(&self) -> Vec<Vec<Entry>> {
        self.nodes().iter().map(|node| node.journal()).collect()
    }

    /// Fails with the end of the history if the future does not complete in time.
    pub(super) async fn soon<T>(&self, what: &str, future: impl Future<Output = T>) -> T {
        match timeout(LONG, future).await {
            Ok(output) => output,
            Err(_) => panic!("timed out waiting for {what}; {}", self.story()),
        }
    }

    /// Returns the end of the history, without routine entries. If a promise is broken, returns that instead, which
    /// is more informative.
    pub(super) fn story(&self) -> String {
        use Observation::{AskedLeader, Holds, LeaderCommit, Renewed};
        let pages = self.follower.pages();
        let mut journals = self.journals();
        if let Err(violation) = check(NAMESPACE, &pages, &journals, None) {
            return violation.to_string();
        }
        for journal in &mut journals {
            journal.retain(|entry| {
                !matches!(
                    entry.observation,
                    Renewed { .. } | AskedLeader { .. } | LeaderCommit { .. } | Holds { .. }
                )
            });
        }
        let mut lines = timeline(NAMESPACE, &pages, &journals);
        lines.retain(|line| !line.contains(Ledger::LEADER_COMMITS));
        let tail = lines.split_off(lines.len().saturating_sub(LINES));
        format!("last lines of the history:\n{}", tail.join("\n"))
    }
}

/// Returns all names but one.
pub(super) fn without<'a>(names: &[&'a str], one: &str) -> Vec<&'a str> {
    names.iter().copied().filter(|name| *name != one).collect()
}

pub(super) fn is_joined(it: &Observation) -> bool {
    matches!(it, Observation::Joined { .. })
}

pub(super) fn is_rejoined(it: &Observation) -> bool {
    matches!(it, Observation::Rejoined { .. })
}

pub(super) fn is_lost(it: &Observation) -> bool {
    matches!(it, Observation::SessionLost { .. })
}

/// Matches the moment at which a leader stops acting because it could not renew its lease.
pub(super) fn is_suspended(it: &Observation) -> bool {
    matches!(it, Observation::LeadershipSuspended { .. })
}
