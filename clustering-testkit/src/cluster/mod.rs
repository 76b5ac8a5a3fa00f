//! A cluster of your own service in one test: [`TestCluster`].
//!
//! It runs several instances of a service, each as a process of its own as far as one test can have it, on one memory
//! store, under tokio's paused time: hours pass at once, and the same seed gives the same history. Things go wrong on
//! command, and at the end it is judged whether the promises of the cluster, and those of the service, were kept.
//!
//! ```text
//!   n0: your service ── its node ── FaultyStore ──┐
//!   n1: your service ── its node ── FaultyStore ──┼── MemoryStore ──▶ the store's history ─┐
//!   n2: your service ── its node ── FaultyStore ──┘                                        ├─▶ check
//!        │        └ crash, pause, cut_off, expire, delay, ...                              │
//!        └ Process::violates, Process::note ── what each node saw and did ─────────────────┘
//! ```
//!
//! # A test
//!
//! The factory starts the service as in production, on the store that it is given. Here the service is nothing but a node:
//!
//! ```
//! use std::time::Duration;
//!
//! use clustering_memory::{Outcome, Stabilization};
//! use clustering_testkit::cluster::{Failure, TestCluster};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] // #[tokio::test(start_paused = true)]
//! # async fn main() -> Result<(), Failure> {
//! let cluster = TestCluster::start(3, |process| {
//!     process.builder().stabilize(|change: Stabilization| async move { /* load, drop */ }).start()
//! })
//! .await?;
//! let first = cluster.wait_stable().await?;
//!
//! // As by kill -9: the others find out when its lease runs out.
//! cluster.crash("n1");
//! assert!(cluster.wait_stable().await? > first);
//!
//! // Not for long enough to be missed.
//! cluster.pause("n2");
//! cluster.advance(Duration::from_secs(5)).await;
//! cluster.resume("n2");
//!
//! // It comes back, all become stable, and nothing that is promised was broken on the way.
//! cluster.restart("n1");
//! cluster.settle().await?;
//! # Ok(())
//! # }
//! ```
//!
//! A real service has a struct around its node, and the test wants to ask it things. [`TestCluster::service`] has what the
//! factory gave:
//!
//! ```
//! # use clustering_memory::{Clustering, StartError, store::CoordinationStore};
//! # use clustering_testkit::cluster::{Failure, TestCluster};
//! // In production code.
//! pub struct Ingest {
//!     cluster: Clustering,
//! }
//!
//! impl Ingest {
//!     pub async fn start(store: impl CoordinationStore, name: &str) -> Result<Self, StartError> {
//!         let builder = Clustering::builder(store).namespace("telemetry/ingest").name(name);
//!         let cluster = builder.uri("http://10.0.0.7:8080").start().await?;
//!         Ok(Ingest { cluster })
//!     }
//!
//!     pub fn devices(&self) -> Vec<u32> {
//!         (0..100).filter(|device| self.cluster.owns(device.to_string())).collect()
//!     }
//! }
//!
//! // In a test.
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Failure> {
//! let cluster = TestCluster::builder()
//!     .namespace("telemetry/ingest")
//!     .start(3, |process| async move { Ingest::start(process.store(), process.name()).await })
//!     .await?;
//! cluster.wait_stable().await?;
//! let devices: usize = cluster.running().iter().map(|name| cluster.service(name).devices().len()).sum();
//! assert_eq!(devices, 100, "each device has one owner");
//! # Ok(())
//! # }
//! ```
//!
//! # What can go wrong on command
//!
//! | command | as if | undone by |
//! |---|---|---|
//! | [`crash`](TestCluster::crash) | `kill -9`: no code of the process runs any more, not even what drops things | [`restart`](TestCluster::restart) |
//! | [`stop`](TestCluster::stop) | `SIGTERM`: the node leaves in good order | [`restart`](TestCluster::restart) |
//! | [`pause`](TestCluster::pause) | `SIGSTOP`: no code runs, time and the store go on | [`resume`](TestCluster::resume) |
//! | [`cut_off`](TestCluster::cut_off) | the network refuses: calls fail at once | [`reconnect`](TestCluster::reconnect) |
//! | [`hang`](TestCluster::hang) | the network swallows: calls are never answered | [`reconnect`](TestCluster::reconnect) |
//! | [`expire`](TestCluster::expire) | the store ends the node's lease | by itself |
//! | [`delay`](TestCluster::delay) | a slow network | `delay` by nothing |
//! | [`line`](TestCluster::line) | whatever a [`FaultyStore`] can do: lost replies, broken watches, … | |
//! | [`storm`](TestCluster::storm) | all of this, by chance from a seed | by its end |
//!
//! # Many seeds
//!
//! What one test does on purpose, a [`Storm`] does by chance, and [`seeds`] runs a scenario under one seed after the other. The
//! first that fails is told with the command that does it again, and it does: nothing hangs on real time or on threads.
//!
//! ```
//! use clustering_testkit::cluster::{Storm, TestCluster, seeds};
//!
//! // #[test]
//! fn it_survives_any_storm() {
//!     seeds(0..3, async |seed| {
//!         let cluster = TestCluster::start(3, |process| process.builder().start()).await?;
//!         cluster.storm(&Storm::new(seed)).await?;
//!         cluster.settle().await?;
//!         Ok(())
//!     });
//! }
//! # it_survives_any_storm();
//! ```
//!
//! # What is judged
//!
//! [`check`](TestCluster::check) and [`settle`](TestCluster::settle) judge the [promises](crate::promises) P1 to P8 by what
//! every node saw and did and by the store's history, without a line of the test's own. What the service promises beside
//! that is told by the test: an assertion where it stands, or [`Process::violates`] in the service's own code. What goes
//! wrong is told as a [`Failure`], with how the nodes stand and a timeline.
//!
//! # What is not like a process
//!
//! All processes share the test's memory, its clock and its thread. What the service spawns by itself with `tokio::spawn`
//! is not part of the process (see [`Process::spawn`]). A callback that blocks its thread blocks all. Clocks don't drift:
//! the [simulation](crate::sim) has that, and real processes are in `node`.

mod builder;
mod failure;
mod gate;
mod looks;
mod process;
mod seeds;
mod shared;
mod storm;
mod verdict;
mod waiting;

use std::{any::Any, fmt, future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use clustering_core::{
    Clustering,
    store::{CoordinationStore as _, CoordinationStoreExt as _},
};
use clustering_memory::MemoryStore;
use futures_util::FutureExt;

pub use self::{
    builder::TestClusterBuilder,
    failure::Failure,
    process::Process,
    seeds::{Seeds, seeds},
    storm::{Storm, Trouble},
};
use self::{
    gate::{Gate, spawn_in},
    shared::{Seat, Shared, Stage},
};
use crate::faulty::FaultyStore;

/// Several instances of a service on one memory store, under paused time. See the [module's page](self).
///
/// `S` is what the factory makes: the service. Clones are the same cluster; it ends with the last one.
pub struct TestCluster<S = Clustering> {
    shared: Arc<Shared<S>>,
    patience: Duration,
}

impl<S> Clone for TestCluster<S> {
    fn clone(&self) -> Self {
        TestCluster { shared: self.shared.clone(), patience: self.patience }
    }
}

impl TestCluster<()> {
    /// For one that is not as usual.
    pub fn builder() -> TestClusterBuilder {
        TestClusterBuilder::default()
    }
}

impl<S: Send + Sync + 'static> TestCluster<S> {
    /// Starts so many instances of the service, at once, and waits until each of them has started. (Until all are a
    /// stable cluster: [`wait_stable`](Self::wait_stable).)
    ///
    /// `factory` starts one instance in the process that it is given, with a node on the process's
    /// [store](Process::store), and gives what is to be kept and asked: the service, which holds its node's handle, or that
    /// handle itself. It is also called for each [restart](Self::restart).
    ///
    /// # Errors
    ///
    /// If an instance does not start.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime, and under a clock that is not paused: write `#[tokio::test(start_paused = true)]`.
    pub async fn start<E, F, R>(nodes: usize, factory: F) -> Result<Self, Failure>
    where
        E: fmt::Display,
        F: Fn(Process) -> R + Send + Sync + 'static,
        R: Future<Output = Result<S, E>> + Send + 'static,
    {
        TestCluster::builder().start(nodes, factory).await
    }

    // ---- who is there ----------------------------------------------------------------------------------------------

    /// The names of all processes, whether or not they run, in the order in which they were added.
    pub fn names(&self) -> Vec<String> {
        self.names_of(|_| true)
    }

    /// The names of those that run, paused and cut off ones among them.
    pub fn running(&self) -> Vec<String> {
        self.names_of(Seat::runs)
    }

    /// The names of those that run, are not paused and reach the store.
    pub fn partakers(&self) -> Vec<String> {
        self.names_of(Seat::takes_part)
    }

    /// The process whose node says at this moment that it may act as leader; the first, should there be two.
    pub fn leader(&self) -> Option<String> {
        self.names_of(|seat| seat.node().is_some_and(|node| node.is_leader())).into_iter().next()
    }

    /// The processes that run and don't say that they may act as leader.
    pub fn followers(&self) -> Vec<String> {
        self.names_of(|seat| seat.runs() && !seat.node().is_some_and(|node| node.is_leader()))
    }

    /// What the factory made.
    ///
    /// # Panics
    ///
    /// If the process does not run, or has not started yet.
    #[track_caller]
    pub fn service(&self, name: &str) -> Arc<S> {
        let service = self.with_seat(name, |seat| match &seat.stage {
            Stage::Up(service) => Some(service.clone()),
            _ => None,
        });
        service.unwrap_or_else(|| panic!("{name} has no service now: see TestCluster::running, wait_started"))
    }

    /// The services of all processes that run and have one, by name.
    pub fn services(&self) -> Vec<(String, Arc<S>)> {
        let seats = self.shared.seats();
        let up = |seat: &Seat<S>| match &seat.stage {
            Stage::Up(service) => Some((seat.name.clone(), service.clone())),
            _ => None,
        };
        seats.all.iter().filter_map(up).collect()
    }

    /// The node of that process.
    ///
    /// # Panics
    ///
    /// If the process does not run, or has not started yet.
    #[track_caller]
    pub fn node(&self, name: &str) -> Clustering {
        let node = self.with_seat(name, |seat| seat.node());
        node.unwrap_or_else(|| panic!("{name} has no node now: see TestCluster::running, wait_started"))
    }

    /// The process's line to the store, for whatever a [`FaultyStore`] can do.
    ///
    /// # Panics
    ///
    /// If there is no process of that name.
    #[track_caller]
    pub fn line(&self, name: &str) -> FaultyStore {
        self.with_seat(name, |seat| seat.line.clone())
    }

    /// The store that all share.
    pub fn store(&self) -> &MemoryStore {
        &self.shared.store
    }

    // ---- processes come and go -------------------------------------------------------------------------------------

    /// Adds a process and starts it. Returns its name. It goes on by itself: [`wait_stable`](Self::wait_stable) waits for
    /// it too.
    pub fn add(&self) -> String {
        let name = {
            let mut seats = self.shared.seats();
            let name = format!("n{}", seats.all.len());
            let line = FaultyStore::new(self.shared.store.clone());
            seats.all.push(Seat { name: name.clone(), line, gates: Vec::new(), stage: Stage::Down });
            name
        };
        self.launch(&name);
        name
    }

    /// Kills the process: no code of it runs any more, and nothing that it holds is dropped before the cluster is. The
    /// others find out when its lease has run out. One that does not run is left as it is.
    ///
    /// # Panics
    ///
    /// If there is no process of that name.
    #[track_caller]
    pub fn crash(&self, name: &str) {
        let gate = self.with_seat(name, |seat| {
            let gate = seat.runs().then(|| seat.gate().clone());
            // What failed to start is as if it had never been.
            if gate.is_none() {
                seat.stage = Stage::Down;
            }
            gate
        });
        if let Some(gate) = gate {
            gate.kill();
            let service = self.with_seat(name, |seat| std::mem::replace(&mut seat.stage, Stage::Down));
            // A process that is killed drops nothing: its memory is gone.
            std::mem::forget(service);
            self.shared.tell_change();
        }
    }

    /// Starts the process again, and crashes it before if it runs. It goes on by itself:
    /// [`wait_stable`](Self::wait_stable) waits for it too. Its line to the store is as it was.
    ///
    /// A node that crashed finds its name held by its own ghost, and waits until that lease has run out.
    ///
    /// # Panics
    ///
    /// If there is no process of that name.
    #[track_caller]
    pub fn restart(&self, name: &str) {
        self.crash(name);
        self.launch(name);
    }

    /// Stops the node in good order, and then ends the process.
    ///
    /// # Errors
    ///
    /// If the node could not give its lease back, or does not end within the patience.
    ///
    /// # Panics
    ///
    /// If the process does not run, or has not started yet.
    pub async fn stop(&self, name: &str) -> Result<(), Failure> {
        let (node, gate) = (self.node(name), self.with_seat(name, |seat| seat.gate().clone()));
        let stopped = tokio::time::timeout(self.patience, node.stop()).await;
        // It may have crashed meanwhile, and another life begun.
        let service = self.with_seat(name, |seat| {
            Arc::ptr_eq(seat.gate(), &gate).then(|| std::mem::replace(&mut seat.stage, Stage::Down))
        });
        drop(service);
        gate.kill();
        self.shared.tell_change();
        match stopped {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.told(Failure::new(format!("{name} did not stop in order: {error}")))),
            Err(_) => Err(self.told(Failure::new(format!("{name} does not stop")))),
        }
    }

    /// Stops the process where it stands: nothing of it runs until it is [resumed](Self::resume), while time goes on, and
    /// so does the store. Timers that fire meanwhile are seen late, all at once.
    ///
    /// # Panics
    ///
    /// If there is no process of that name.
    #[track_caller]
    pub fn pause(&self, name: &str) {
        self.with_seat(name, |seat| seat.gate().pause());
        self.shared.tell_change();
    }

    /// Lets a paused process go on.
    ///
    /// # Panics
    ///
    /// If there is no process of that name.
    #[track_caller]
    pub fn resume(&self, name: &str) {
        self.with_seat(name, |seat| seat.gate().clone()).resume();
        self.shared.tell_change();
    }

    // ---- the store, for one of them --------------------------------------------------------------------------------

    /// Cuts the process off from the store: its calls fail at once, its watches break.
    ///
    /// # Panics
    ///
    /// If there is no process of that name.
    #[track_caller]
    pub fn cut_off(&self, name: &str) {
        self.line(name).cut();
        self.shared.tell_change();
    }

    /// The store swallows the process's calls and never answers.
    ///
    /// # Panics
    ///
    /// If there is no process of that name.
    #[track_caller]
    pub fn hang(&self, name: &str) {
        self.line(name).hang();
        self.shared.tell_change();
    }

    /// Ends [`cut_off`](Self::cut_off), [`hang`](Self::hang) and whatever else its line was told.
    ///
    /// # Panics
    ///
    /// If there is no process of that name.
    #[track_caller]
    pub fn reconnect(&self, name: &str) {
        self.line(name).heal();
        self.shared.tell_change();
    }

    /// Calls of the process to the store take that much longer from now on.
    ///
    /// # Panics
    ///
    /// If there is no process of that name.
    #[track_caller]
    pub fn delay(&self, name: &str, delay: Duration) {
        self.line(name).delay(delay);
    }

    /// The store ends the lease of the process's node now, as if its time had run out. Does nothing if the node has none.
    ///
    /// # Panics
    ///
    /// If there is no process of that name.
    pub async fn expire(&self, name: &str) {
        let Some(node) = self.with_seat(name, |seat| seat.gate().node_name()) else { return };
        let key = format!("{}/view/nodes/{node}", self.shared.namespace);
        // The memory store answers always, and a lease that has ended meanwhile is as it should be.
        if let Ok(Some(entry)) = self.shared.store.get(&key).await
            && let Some(lease) = entry.lease
        {
            let _ = self.shared.store.revoke_lease(lease).await;
        }
    }

    /// Lets so much time pass.
    pub async fn advance(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Ends what can be ended of what went wrong: paused processes go on, all lines work, nothing is delayed. Processes
    /// that crashed stay as they are.
    pub fn heal(&self) {
        for name in self.names() {
            let (line, gate) = self.with_seat(&name, |seat| (seat.line.clone(), seat.gate().clone()));
            line.calm();
            line.heal();
            line.delay(Duration::ZERO);
            gate.resume();
        }
        self.shared.tell_change();
    }

    // ---- inside ----------------------------------------------------------------------------------------------------

    fn names_of(&self, is: impl Fn(&Seat<S>) -> bool) -> Vec<String> {
        self.shared.seats().all.iter().filter(|seat| is(seat)).map(|seat| seat.name.clone()).collect()
    }

    #[track_caller]
    fn with_seat<T>(&self, name: &str, work: impl FnOnce(&mut Seat<S>) -> T) -> T {
        let mut seats = self.shared.seats();
        if let Some(seat) = seats.all.iter_mut().find(|seat| seat.name == name) {
            return work(seat);
        }
        drop(seats);
        panic!("there is no process {name:?}: there are {:?}", self.names())
    }

    /// Begins another life of the process.
    fn launch(&self, name: &str) {
        let shared = &self.shared;
        let process = {
            let mut seats = shared.seats();
            seats.lives += 1;
            let life = seats.lives;
            let index = seats.all.iter().position(|seat| seat.name == name).expect("it was looked up");
            let seat = &mut seats.all[index];
            let changed = shared.changed.clone();
            let changed = Arc::new(move || changed.send_modify(|count| *count += 1));
            let seed = shared.seed.wrapping_mul(1_000_003).wrapping_add(life);
            let gate = Gate::new(&shared.namespace, name, life, seed, shared.clock.clone(), changed);
            seat.gates.push(gate.clone());
            seat.stage = Stage::Starting;
            Process {
                name: name.to_owned(),
                index,
                namespace: shared.namespace.clone(),
                line: seat.line.clone(),
                gate,
                verdicts: shared.verdicts.clone(),
            }
        };
        let (gate, factory, name) = (process.gate.clone(), shared.factory.clone(), name.to_owned());
        let shared = Arc::downgrade(shared);
        spawn_in(&gate, async move {
            let starting = AssertUnwindSafe(async move { factory(process).await }).catch_unwind().await;
            let stage = match starting {
                Ok(Ok(service)) => Stage::Up(Arc::new(service)),
                Ok(Err(error)) => Stage::Failed(error),
                Err(panic) => Stage::Failed(format!("it panicked: {}", panic_message(&*panic))),
            };
            let Some(shared) = shared.upgrade() else { return };
            {
                let mut seats = shared.seats();
                let seat = seats.all.iter_mut().find(|seat| seat.name == name);
                if let Some(seat) = seat {
                    seat.stage = stage;
                }
            }
            shared.tell_change();
        });
        self.shared.tell_change();
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

impl<S> fmt::Debug for TestCluster<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seats = self.shared.seats();
        let names: Vec<_> = seats.all.iter().map(|seat| (&seat.name, seat.runs())).collect();
        f.debug_struct("TestCluster").field("processes", &names).finish_non_exhaustive()
    }
}
