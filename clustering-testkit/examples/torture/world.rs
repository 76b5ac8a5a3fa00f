use std::{
    collections::BTreeMap,
    error::Error,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use clustering_core::store::{CoordinationStore as _, Revision, Txn};
use clustering_etcd::{EtcdConfig, EtcdStore};
use clustering_testkit::{
    etcd::{EtcdCluster, EtcdServer},
    history::{
        Clock, Entry, Moment, Page,
        ledger::{self, Content, Follower},
    },
    node::{Node, NodeSpec},
    process::Folder,
    proxy::Proxy,
};
use rand::{Rng, SeedableRng, rngs::SmallRng};

use crate::arguments::Settings;

pub(crate) type Failed = Box<dyn Error + Send + Sync>;

/// The namespace of the cluster.
pub(crate) const NAMESPACE: &str = "torture";

/// What stands here was written by hand, and all that the same revision changed.
const HAND: &str = "torture/hand";

/// How long the cluster may take to come to rest, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long a node may take to leave when it is told to.
const LEAVES_WITHIN: Duration = Duration::from_secs(30);

/// The processes, the lines between them, and what was done to them.
pub(crate) struct World {
    pub(crate) settings: Settings,
    // Before etcd, so that nodes end before their store does.
    pub(crate) seats: Vec<tokio::sync::Mutex<Seat>>,
    /// Lines of each node to each member of etcd.
    lines: Vec<Vec<Proxy>>,
    pub(crate) etcd: EtcdCluster,
    /// What is done to etcd is done one thing after the other, so that the majority is only lost on purpose.
    pub(crate) etcd_turn: tokio::sync::Mutex<()>,
    pub(crate) store: EtcdStore,
    pub(crate) follower: Follower,
    pub(crate) clock: Clock,
    pub(crate) began: Moment,
    lives: Mutex<Vec<Arc<Node>>>,
    told: Mutex<Vec<(Moment, String)>>,
    pub(crate) folder: Folder,
}

/// Where a node runs, or will again.
pub(crate) struct Seat {
    pub(crate) node: Arc<Node>,
}

/// How the cluster came to rest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Calm {
    /// How long after the last fault; `None` if it did not.
    pub(crate) after: Option<Duration>,
}

impl World {
    /// Starts all, and returns when the nodes have a stable version.
    pub(crate) async fn start(settings: &Settings) -> Result<Arc<Self>, Failed> {
        let etcd = EtcdServer::builder().start_cluster(settings.members).await?;
        let store = EtcdStore::new(EtcdConfig::new(etcd.endpoints())?)?;
        let (folder, clock) = (Folder::new()?, Clock::boot());
        let follower = ledger::follow(store.clone(), NAMESPACE, clock.clone());
        let mut lines = Vec::new();
        for _ in 0..settings.nodes {
            let mut of_node = Vec::new();
            for endpoint in etcd.endpoints() {
                of_node.push(Proxy::to(&endpoint).await?);
            }
            lines.push(of_node);
        }
        let mut world = World {
            settings: settings.clone(),
            seats: Vec::new(),
            lines,
            etcd,
            etcd_turn: tokio::sync::Mutex::default(),
            store,
            follower,
            began: clock.now(),
            clock,
            lives: Mutex::default(),
            told: Mutex::default(),
            folder,
        };
        for number in 0..settings.nodes {
            let node = world.spawn(world.spec(number))?;
            world.seats.push(tokio::sync::Mutex::new(Seat { node }));
        }
        let world = Arc::new(world);
        if tokio::time::timeout(PATIENCE, world.stable()).await.is_err() {
            return Err(format!("the nodes did not become stable within {PATIENCE:?}").into());
        }
        Ok(world)
    }

    pub(crate) fn name(number: usize) -> String {
        format!("n{number}")
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = (0..self.settings.nodes).map(World::name).collect();
        names.sort();
        names
    }

    /// A node's next life. Some take their time to adapt, and some say no at first.
    pub(crate) fn spec(&self, number: usize) -> NodeSpec {
        let name = World::name(number);
        let lives = self.lives();
        let life = format!("{name}#{}", lives.iter().filter(|node| node.name() == name).count() + 1);
        let mut random = SmallRng::seed_from_u64(self.settings.seed ^ (lives.len() as u64) << 32);
        let journal = self.folder.path().join(format!("{life}.jsonl"));
        let endpoints = self.lines[number].iter().map(Proxy::endpoint).collect();
        NodeSpec {
            ttl: self.settings.ttl,
            stabilize_takes: Duration::from_millis(random.random_range(0..500)),
            stabilize_refuses: if random.random_bool(0.2) { random.random_range(1..=2) } else { 0 },
            on_stable_takes: Duration::from_millis(random.random_range(0..200)),
            write_every: Some(Duration::from_millis(60)),
            warn_after: Duration::from_secs(10),
            record_calls: true,
            breach: self.settings.breach,
            ..NodeSpec::new(name, life, NAMESPACE, endpoints, journal)
        }
    }

    pub(crate) fn spawn(&self, spec: NodeSpec) -> Result<Arc<Node>, Failed> {
        let node = Arc::new(spec.spawn()?);
        lock(&self.lives).push(node.clone());
        Ok(node)
    }

    /// All lives of all nodes so far.
    pub(crate) fn lives(&self) -> Vec<Arc<Node>> {
        lock(&self.lives).clone()
    }

    pub(crate) fn lines(&self, number: usize) -> &[Proxy] {
        &self.lines[number]
    }

    /// Takes down what is done.
    pub(crate) fn tell(&self, what: impl Into<String>) {
        lock(&self.told).push((self.clock.now(), what.into()));
    }

    pub(crate) fn told(&self) -> Vec<(Moment, String)> {
        lock(&self.told).clone()
    }

    /// Starts the node again if it has ended, for whatever reason.
    pub(crate) fn sit_again(&self, number: usize, seat: &mut Seat) -> Result<(), Failed> {
        if has_ended(&seat.node) {
            seat.node = self.spawn(self.spec(number))?;
            self.tell(format!("{} is started", seat.node.spec().life));
        }
        Ok(())
    }

    /// Tells a node to leave, and waits until it has.
    pub(crate) async fn leave(&self, node: &Node) -> Result<(), Failed> {
        let Some(process) = node.process().filter(|_| !has_ended(node)) else { return Ok(()) };
        self.tell(format!("{} is told to leave", node.spec().life));
        // It may end by itself this moment.
        let _ = process.terminate();
        match tokio::time::timeout(LEAVES_WITHIN, process.wait()).await {
            Ok(_) => Ok(()),
            Err(_) => Err(format!("{} has not left within {LEAVES_WITHIN:?}", node.spec().life).into()),
        }
    }

    /// Which node leads, by the store's history.
    pub(crate) fn leader(&self) -> Option<usize> {
        let ledger = self.follower.ledger();
        let name = ledger.present().reign()?.leader.clone()?;
        name.strip_prefix('n')?.parse().ok().filter(|number| *number < self.settings.nodes)
    }

    /// Writes past the commits of the protocol, and says so in the same commit: also where the reply is lost it will be
    /// known by whom the revision was made.
    pub(crate) async fn by_hand(&self, what: String, txn: Txn) {
        let txn = txn.put(HAND, what.clone(), None);
        let done = self.store.commit(txn).await;
        self.tell(format!(
            "{what}: {}",
            done.map_or_else(|error| error.to_string(), |at| format!("done @{at}"))
        ));
    }

    /// Waits until the newest version has all nodes, and is stable.
    async fn stable(&self) -> Revision {
        let names = self.names();
        let stable = self.follower.until(|ledger| {
            let era = ledger.present();
            let newest = era.newest().filter(|_| era.is_stable())?;
            let cut = newest.cut.iter().map(|node| node.name.as_str());
            cut.eq(names.iter().map(String::as_str)).then_some(newest.revision)
        });
        stable.await
    }

    /// All faults are over: everything is put right, and the cluster comes to rest.
    pub(crate) async fn calm(&self) -> Result<Calm, Failed> {
        let _turn = self.etcd_turn.lock().await;
        self.lines.iter().flatten().for_each(Proxy::heal);
        self.etcd.recover().await?;
        for (number, seat) in self.seats.iter().enumerate() {
            self.sit_again(number, &mut *seat.lock().await)?;
        }
        let since = self.clock.now();
        self.tell("calm");
        // Stable for so long that no session from before can end any more.
        let quiet = self.settings.ttl * 2;
        let rest = async {
            loop {
                let at = self.stable().await;
                let after = self.clock.now().since(since);
                tokio::time::sleep(quiet).await;
                let ended = self.seats.iter().filter_map(|seat| seat.try_lock().ok());
                let ended = ended.filter(|seat| has_ended(&seat.node)).count();
                if self.stable().await == at && ended == 0 {
                    return after;
                }
            }
        };
        let after = tokio::time::timeout(PATIENCE, rest).await.ok();
        self.tell(if after.is_some() { "calm has come" } else { "calm has not come" });
        Ok(Calm { after })
    }

    /// Tells all nodes to leave.
    pub(crate) async fn end(&self) -> Result<(), Failed> {
        for seat in &self.seats {
            let node = seat.lock().await.node.clone();
            self.leave(&node).await?;
        }
        Ok(())
    }

    /// Kills all nodes.
    pub(crate) async fn kill(&self) {
        for seat in &self.seats {
            seat.lock().await.node.kill().await;
        }
    }

    /// The store's history so far, with what was done by hand.
    pub(crate) async fn pages(&self) -> Result<Vec<Page>, Failed> {
        let settled = tokio::time::timeout(PATIENCE, self.follower.settle()).await;
        settled.map_err(|_| "the store's history does not come to its end")??;
        let mut pages = self.follower.pages();
        let hand = |page: &Page| match &page.content {
            Content::Batch(batch) => {
                let by_hand = batch.changes.iter().any(|change| change.key().as_str() == HAND);
                by_hand.then_some(batch.revision)
            }
            _ => None,
        };
        let by_hand: Vec<Revision> = pages.iter().filter_map(hand).collect();
        pages.extend(by_hand.into_iter().map(|at| Page { at: None, content: Content::ByHand(at) }));
        Ok(pages)
    }

    pub(crate) fn journals(&self) -> Vec<Vec<Entry>> {
        self.lives().iter().map(|node| node.journal()).collect()
    }

    /// Which keys others than the nodes write.
    pub(crate) fn is_strangers(key: &str) -> bool {
        key == HAND || key == "torture/observer"
    }

    /// How many lives began.
    pub(crate) fn lives_of_each(&self) -> BTreeMap<String, usize> {
        let mut lives = BTreeMap::new();
        for node in self.lives() {
            *lives.entry(node.name().to_owned()).or_default() += 1;
        }
        lives
    }
}

pub(crate) fn has_ended(node: &Node) -> bool {
    node.process().is_none_or(|process| process.ended().is_some())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
