use std::{
    collections::BTreeMap,
    error::Error,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use clustering_core::{
    NodeName,
    store::{CoordinationStore, Revision, Txn},
};
use clustering_proofs::{
    node::{Node, NodeSpec},
    work::{Judge, Line, Log, WorkSpec},
};
use clustering_testkit::{
    history::{
        Clock, Entry, Moment, Page,
        ledger::{self, Content, Follower},
    },
    process::Folder,
    proxy::Proxy,
};
use rand::{Rng, SeedableRng, rngs::SmallRng};

use crate::{
    arguments::{Breach, Settings},
    gate::Gate,
    plan::Exclusive,
    servers::Servers,
};

pub(crate) type Failed = Box<dyn Error + Send + Sync>;

/// Namespace of the cluster.
pub(crate) const NAMESPACE: &str = "torture";

/// Key that every manual transaction writes, which marks its revision as written by hand.
const HAND: &str = "torture/hand";

/// Time limit for the cluster to come to rest, with an allowance for busy machines.
const PATIENCE: Duration = Duration::from_secs(120);

/// Time limit for a node to leave when it is told to. An exclusive node that cannot reach the store takes 30 s.
const LEAVES_WITHIN: Duration = Duration::from_secs(45);

/// Probability that a life in a mixed rollout is not exclusive. With 7 nodes, all are exclusive about half of the
/// time.
const NOT_EXCLUSIVE: f64 = 0.1;

/// The processes, the connections between them, and the log of injected faults.
pub(crate) struct World {
    pub(crate) settings: Settings,
    // Declared before the servers, so that the nodes are dropped before their store.
    pub(crate) seats: Vec<tokio::sync::Mutex<Seat>>,
    /// Connections of the other nodes to each node, if the nodes detect crashes.
    pub(crate) gates: Vec<Gate>,
    /// Connections of each node to each member of the store.
    lines: Vec<Vec<Proxy>>,
    pub(crate) servers: Box<dyn Servers>,
    /// Held during faults of the servers, so that they don't overlap and the quorum is lost only on purpose.
    pub(crate) servers_turn: tokio::sync::Mutex<()>,
    pub(crate) store: Arc<dyn CoordinationStore>,
    pub(crate) follower: Follower,
    pub(crate) clock: Clock,
    pub(crate) began: Moment,
    lives: Mutex<Vec<Arc<Node>>>,
    told: Mutex<Vec<(Moment, String)>>,
    /// True once all further lives of a mixed rollout are exclusive.
    rolled_out: AtomicBool,
    pub(crate) folder: Folder,
}

/// Place for a node's current process, kept between its lives.
pub(crate) struct Seat {
    pub(crate) node: Arc<Node>,
}

/// Result of waiting for the cluster to come to rest.
#[derive(Clone, Debug)]
pub(crate) struct Calm {
    /// Time since the last fault, or `None` if the cluster did not come to rest.
    pub(crate) after: Option<Duration>,
    /// Slots that their owners do not hold at that time, or keys that no process works on.
    pub(crate) unheld: Option<String>,
}

impl World {
    /// Starts the servers and the nodes, and returns when the nodes have a stable version.
    pub(crate) async fn start(settings: &Settings) -> Result<Arc<Self>, Failed> {
        let servers = settings.store.start(settings.members).await?;
        let store = servers.open()?;
        let (folder, clock) = (Folder::new()?, Clock::boot());
        let follower = ledger::follow(store.clone(), NAMESPACE, clock.clone());
        let mut lines = Vec::new();
        for _ in 0..settings.nodes {
            let mut of_node = Vec::new();
            for address in servers.addresses() {
                of_node.push(Proxy::to(&address).await?);
            }
            lines.push(of_node);
        }
        let mut gates = Vec::new();
        for number in (0..settings.nodes).filter(|_| settings.detects_crashes) {
            gates.push(Gate::of(number).await?);
        }
        let mut world = World {
            settings: settings.clone(),
            seats: Vec::new(),
            gates,
            lines,
            servers,
            servers_turn: tokio::sync::Mutex::default(),
            store,
            follower,
            began: clock.now(),
            clock,
            lives: Mutex::default(),
            told: Mutex::default(),
            rolled_out: AtomicBool::default(),
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

    /// Returns the settings of a node's next life. Some lives adapt slowly, and some refuse at first.
    pub(crate) fn spec(&self, number: usize) -> NodeSpec {
        let name = World::name(number);
        let lives = self.lives();
        let life = format!("{name}#{}", lives.iter().filter(|node| node.name() == name).count() + 1);
        let mut random = SmallRng::seed_from_u64(self.settings.seed ^ (lives.len() as u64) << 32);
        let journal = self.folder.path().join(format!("{life}.jsonl"));
        let endpoints = self.lines[number].iter().map(|line| self.servers.endpoint(line.address())).collect();
        let spec = NodeSpec {
            ttl: self.settings.ttl,
            stabilize_takes: Duration::from_millis(random.random_range(0..500)),
            stabilize_refuses: if random.random_bool(0.2) { random.random_range(1..=2) } else { 0 },
            on_stable_takes: Duration::from_millis(random.random_range(0..200)),
            write_every: Some(Duration::from_millis(60)),
            warn_after: Duration::from_secs(10),
            record_calls: true,
            detects_crashes: self.gates.get(number).map(Gate::detection),
            ..NodeSpec::new(name, life, NAMESPACE, endpoints, journal)
        };
        let breach = match self.settings.breach {
            Some(Breach::Writes(breach)) => Some(breach),
            _ => None,
        };
        NodeSpec { work: self.work(&spec, &mut random), breach, ..spec }
    }

    /// Returns the work of a node's next life if it is exclusive. Some release slowly, and some work on for a while
    /// after their holds are lost.
    fn work(&self, spec: &NodeSpec, random: &mut SmallRng) -> Option<WorkSpec> {
        let is_exclusive = match self.settings.exclusive {
            Exclusive::All => true,
            Exclusive::Mixed => !random.random_bool(NOT_EXCLUSIVE) || self.rolled_out.load(Ordering::Relaxed),
            Exclusive::None => false,
        };
        let mut up_to = |millis| Duration::from_millis(random.random_range(0..millis));
        let (lingers, release_takes) = (up_to(500), up_to(500));
        is_exclusive.then(|| WorkSpec {
            every: Duration::from_millis(200),
            lingers,
            // Half of the nodes have no `release` callback.
            release_takes: Some(release_takes).filter(|takes| takes.as_millis() % 2 == 0),
            breach: match self.settings.breach {
                Some(Breach::Work(breach)) => Some(breach),
                _ => None,
            },
            ..WorkSpec::new(spec.journal.with_extension("work"), self.files())
        })
    }

    /// Returns the folder of the keys' fenced files.
    pub(crate) fn files(&self) -> PathBuf {
        self.folder.path().join("files")
    }

    pub(crate) fn spawn(&self, spec: NodeSpec) -> Result<Arc<Node>, Failed> {
        let node = Arc::new(spec.spawn()?);
        lock(&self.lives).push(node.clone());
        Ok(node)
    }

    /// Returns all lives of all nodes so far.
    pub(crate) fn lives(&self) -> Vec<Arc<Node>> {
        lock(&self.lives).clone()
    }

    pub(crate) fn lines(&self, number: usize) -> &[Proxy] {
        &self.lines[number]
    }

    /// Logs an injected fault.
    pub(crate) fn tell(&self, what: impl Into<String>) {
        lock(&self.told).push((self.clock.now(), what.into()));
    }

    pub(crate) fn told(&self) -> Vec<(Moment, String)> {
        lock(&self.told).clone()
    }

    /// Starts the node again if it has ended for any reason.
    pub(crate) fn sit_again(&self, number: usize, seat: &mut Seat) -> Result<(), Failed> {
        if has_ended(&seat.node) {
            seat.node = self.spawn(self.spec(number))?;
            self.tell(format!("{} is started", seat.node.spec().life));
        }
        Ok(())
    }

    /// Tells a node to leave, and waits until it has ended.
    pub(crate) async fn leave(&self, node: &Node) -> Result<(), Failed> {
        let Some(process) = node.process().filter(|_| !has_ended(node)) else { return Ok(()) };
        self.tell(format!("{} is told to leave", node.spec().life));
        // The process may have just ended by itself.
        let _ = process.terminate();
        match tokio::time::timeout(LEAVES_WITHIN, process.wait()).await {
            Ok(_) => Ok(()),
            Err(_) => Err(format!("{} has not left within {LEAVES_WITHIN:?}", node.spec().life).into()),
        }
    }

    /// Returns the number of the node that leads according to the store's history.
    pub(crate) fn leader(&self) -> Option<usize> {
        let ledger = self.follower.ledger();
        let name = ledger.present().reign()?.leader.clone()?;
        name.strip_prefix('n')?.parse().ok().filter(|number| *number < self.settings.nodes)
    }

    /// Commits a manual transaction that also writes [`HAND`], so that its revision is recognised as manual even if the
    /// reply is lost.
    pub(crate) async fn by_hand(&self, what: String, txn: Txn) {
        let txn = txn.put(HAND, what.clone(), None);
        let done = self.store.commit(txn).await;
        self.tell(format!(
            "{what}: {}",
            done.map_or_else(|error| error.to_string(), |at| format!("done @{at}"))
        ));
    }

    /// Waits until the newest version has all nodes and is stable, and returns its revision.
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

    /// Ends all faults, and waits for the cluster to come to rest.
    pub(crate) async fn calm(&self) -> Result<Calm, Failed> {
        let _turn = self.servers_turn.lock().await;
        self.lines.iter().flatten().for_each(Proxy::heal);
        for gate in &self.gates {
            gate.open().await?;
        }
        self.servers.recover().await?;
        self.rolled_out.store(true, Ordering::Relaxed);
        for (number, seat) in self.seats.iter().enumerate() {
            let mut seat = seat.lock().await;
            if seat.node.spec().work.is_none() && self.settings.exclusive != Exclusive::None {
                self.leave(&seat.node).await?;
            }
            self.sit_again(number, &mut seat)?;
        }
        let since = self.clock.now();
        self.tell("all faults have ended");
        // Wait until no session from before can end any more.
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
        self.tell(if after.is_some() {
            "the cluster is at rest"
        } else {
            "the cluster did not come to rest"
        });
        let unheld = match after {
            Some(_) if self.settings.exclusive != Exclusive::None => self.all_held().await.err(),
            _ => None,
        };
        Ok(Calm { after, unheld })
    }

    /// Waits until all slots are held by their owners, and all keys are worked on.
    async fn all_held(&self) -> Result<(), String> {
        let since = self.clock.now();
        let mut seats = Vec::new();
        for seat in &self.seats {
            seats.push(seat.lock().await.node.clone());
        }
        loop {
            let logs = logs_of(&seats)?;
            let version = self.follower.ledger().present().newest().map(|newest| newest.version);
            let (judge, work) = (judge_of(&logs), WorkSpec::new("", ""));
            let held = judge.check_slots(version, work.slots);
            let held = held.and_then(|()| judge.check_increments(work.keys(), since));
            if held.is_ok() || self.clock.now().since(since) > PATIENCE / 4 {
                return held;
            }
            // Logs are files, so there is no event for a new line.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
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

    /// Returns the store's history so far, with manual revisions marked.
    pub(crate) async fn pages(&self) -> Result<Vec<Page>, Failed> {
        let settled = tokio::time::timeout(PATIENCE, self.follower.settle()).await;
        settled.map_err(|_| "timed out waiting for the end of the store's history")??;
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

    /// Returns the journals of all lives, with the times for which their workers held keys.
    pub(crate) fn journals(&self) -> Result<Vec<Vec<Entry>>, Failed> {
        let mut journals = Vec::new();
        for node in self.lives() {
            let (mut journal, logs) = (node.journal(), logs_of(std::slice::from_ref(&node))?);
            let (name, life) = (NodeName::parse(node.name())?, node.spec().life.as_str());
            let entry = |(at, observation)| Entry { at, node: name.clone(), life: life.into(), observation };
            journal.extend(judge_of(&logs).observations().into_iter().map(entry));
            journals.push(journal);
        }
        Ok(journals)
    }

    /// True for keys that clients other than the nodes write.
    pub(crate) fn is_strangers(key: &str) -> bool {
        key == HAND || key == "torture/observer"
    }

    /// Returns the number of lives started per node.
    pub(crate) fn lives_of_each(&self) -> BTreeMap<String, usize> {
        let mut lives = BTreeMap::new();
        for node in self.lives() {
            *lives.entry(node.name().to_owned()).or_default() += 1;
        }
        lives
    }
}

/// Returns the logs of the lives' workers.
pub(crate) fn logs_of(lives: &[Arc<Node>]) -> Result<Vec<(String, Vec<Line>)>, String> {
    let read = |node: &Arc<Node>| {
        let log = &node.spec().work.as_ref().filter(|work| work.log.exists())?.log;
        let life = node.spec().life.clone();
        Some(
            Log::read(log)
                .map(|log| (life.clone(), log))
                .map_err(|error| format!("the log of {life}: {error}")),
        )
    };
    lives.iter().filter_map(read).collect()
}

pub(crate) fn judge_of(logs: &[(String, Vec<Line>)]) -> Judge<'_> {
    logs.iter().fold(Judge::default(), |judge, (life, log)| judge.with(life, log))
}

pub(crate) fn has_ended(node: &Node) -> bool {
    node.process().is_none_or(|process| process.ended().is_some())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
