//! Tests of a whole cluster of your service in one process: [`TestCluster`].
//!
//! A [`TestCluster`] runs several instances of a service on one memory store and tokio's paused clock. Each instance is
//! isolated as if it were a process of its own, as far as one test process allows. Hours of virtual time take
//! milliseconds, and the same seed gives the same history. The test injects faults, and at the end the promises of the
//! cluster and those of the service are checked.
//!
//! ```text
//!   n0: your service ── its node ── FaultyStore ──┐
//!   n1: your service ── its node ── FaultyStore ──┼── MemoryStore ──▶ the store's history ─┐
//!   n2: your service ── its node ── FaultyStore ──┘                                        ├─▶ check
//!        │        └ crash, pause, cut_off, expire, delay, ...                              │
//!        └ Process::working_on, violates, note ── what each node saw and did ──────────────┘
//! ```
//!
//! # A test
//!
//! The factory starts the service as in production, but on the given store. In this example the service is just a node:
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
//! // Like kill -9: the other nodes notice when its lease expires.
//! cluster.crash("n1");
//! assert!(cluster.wait_stable().await? > first);
//!
//! // Too short for its lease to expire.
//! cluster.pause("n2");
//! cluster.advance(Duration::from_secs(5)).await;
//! cluster.resume("n2");
//!
//! // It rejoins, the cluster becomes stable, and no promise was broken on the way.
//! cluster.restart("n1");
//! cluster.settle().await?;
//! # Ok(())
//! # }
//! ```
//!
//! A real service wraps its node in a struct, and the test wants to query it. [`TestCluster::service`] returns the
//! value that the factory returned:
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
//! # Faults
//!
//! | method | simulates | undone by |
//! |---|---|---|
//! | [`crash`](TestCluster::crash) | `kill -9`: no more code of the process runs, not even destructors | [`restart`](TestCluster::restart) |
//! | [`stop`](TestCluster::stop) | `SIGTERM`: the node leaves the cluster gracefully | [`restart`](TestCluster::restart) |
//! | [`pause`](TestCluster::pause) | `SIGSTOP`: no code runs, but time passes and the store keeps working | [`resume`](TestCluster::resume) |
//! | [`cut_off`](TestCluster::cut_off) | refused connections: calls fail at once | [`reconnect`](TestCluster::reconnect) |
//! | [`hang`](TestCluster::hang) | dropped packets: calls are never answered | [`reconnect`](TestCluster::reconnect) |
//! | [`expire`](TestCluster::expire) | the store ends the node's lease early | the node, which rejoins |
//! | [`delay`](TestCluster::delay) | a slow network | `delay` by zero |
//! | [`line`](TestCluster::line) | anything that a [`FaultyStore`] can do: lost replies, broken watches, … | |
//! | [`storm`](TestCluster::storm) | random faults from a seed | its end |
//!
//! # Exclusive services
//!
//! At most one process holds a key at any moment (P12), if the service works on a key only while it has a
//! [hold](Clustering::hold) of it. The test checks both the library and the service:
//!
//! - The library: the test constantly asks each node which slots it holds, even while the node is paused or cut off.
//!   Two nodes that hold one slot at the same time break P12. This needs no code in the service.
//! - The service: it reports its work on each key with [`Process::working_on`]. Two processes that work on one key at
//!   the same time break P12, and so does work without a hold, or after the hold has become void.
//!
//! ```
//! use std::sync::Arc;
//!
//! use clustering_memory::{Clustering, Hold, StartError, store::CoordinationStore};
//! use clustering_testkit::cluster::{Failure, Process, TestCluster};
//!
//! // In production code.
//! async fn start(store: impl CoordinationStore, name: &str) -> Result<Clustering, StartError> {
//!     let builder = Clustering::builder(store).name(name).uri("http://10.0.0.7:8080");
//!     let node = builder.exclusive(16).start().await?;
//!     node.for_each_held_slot(poll_devices);
//!     Ok(node)
//! }
//!
//! async fn poll_devices(hold: Arc<Hold>) {
//!     // In production code, this line is under #[cfg(test)] or a feature; see below.
//!     let _working = Process::current().map(|process| process.working_on_slot(hold.slot()));
//!     // Poll the devices of the slot until it has to be let go of.
//!     hold.lost().await;
//! }
//!
//! // In a test.
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Failure> {
//! let cluster =
//!     TestCluster::start(3, |process| async move { start(process.store(), process.name()).await }).await?;
//! cluster.wait_stable().await?;
//! cluster.stop("n0").await?;
//! cluster.restart("n0");
//! cluster.crash("n1");
//! cluster.settle().await?;
//! # Ok(())
//! # }
//! ```
//!
//! The line with `working_on` must be compiled into the service when its tests run:
//!
//! - Unit tests, in the crate of the service itself: put it under `#[cfg(test)]`.
//! - Tests in `tests/*.rs`: the service's library is built *without* `cfg(test)` for them, so the line would silently
//!   be missing. Put it under a cargo feature instead, with the testkit as an optional dependency:
//!
//!   ```toml
//!   [features]
//!   testkit = ["dep:clustering-testkit"]
//!
//!   [[test]]
//!   name = "cluster"
//!   required-features = ["testkit"]
//!   ```
//!
//! In a task that the service spawns with `tokio::spawn`, `Process::current` returns `None`. Such a task survives the
//! crash of its process, and the work that it does is not seen. Spawn the task with [`Process::spawn`], or capture the
//! [`Process`] before you spawn the task.
//!
//! If a test checks an exclusive cluster, and no process reports any work (with any of the test's [`seeds`]), the test
//! says so in a line that starts with `NOT JUDGED`. It writes the line directly to standard error, so `cargo test`
//! shows it even if the test passes. `cargo nextest run` does with `--success-output final`.
//!
//! The library drops work that is still running long after its slot was lost. The timeline shows this as
//! [`WorkDropped`](clustering_core::Event::WorkDropped).
//!
//! # Many seeds
//!
//! A [`Storm`] injects random faults, and [`seeds`] runs a scenario with one seed after another. The first seed that
//! fails is reported with a command that reproduces it. Reproduction is exact, because nothing depends on real time or
//! on threads.
//!
//! ```
//! use clustering_testkit::cluster::{Storm, TestCluster, seeds};
//!
//! // #[test]
//! fn it_survives_any_storm() {
//!     seeds(0..3, async |seed| {
//!         let cluster = TestCluster::start(3, |process| process.builder().start()).await?;
//!         cluster.storm(&Storm::new(seed)).await?;
//!         cluster.settle().await
//!     });
//! }
//! # it_survives_any_storm();
//! ```
//!
//! # Checks
//!
//! [`check`](TestCluster::check) and [`settle`](TestCluster::settle) check the [promises](crate::promises) P1 to P8,
//! P11 and P12 against everything that every node saw and did and against the store's history. The test needs no code
//! for that. Promises of the service itself are checked by assertions in the test, or reported by the service with
//! [`Process::violates`]. Errors are returned as a [`Failure`] with the state of the nodes and a timeline.
//!
//! # Differences from real processes
//!
//! All processes share the test's memory, clock and thread. A task that the service spawns with `tokio::spawn` does not
//! belong to the process (see [`Process::spawn`]). A callback that blocks its thread blocks all processes. Clocks don't
//! drift. Virtual time moves only while no task is ready: a loop that waits for something that is always ready, such as
//! [`lost`](clustering_core::Hold::lost) of a lost hold, stops it. After 30 s of real time
//! ([`standstill`](TestClusterBuilder::standstill)) the process with that loop is killed, and the next call of the
//! cluster fails. Crash detection is off, because sockets do not follow the paused
//! clock: a crash is noticed when the lease expires. For tests with real processes, start the service with the module
//! [`process`](crate::process) on a server from the module `etcd` (feature `etcd`).

mod builder;
mod claims;
mod failure;
mod gate;
mod looks;
mod process;
mod seeds;
mod shared;
mod standstill;
mod storm;
mod unreported;
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
    claims::Working,
    failure::Failure,
    process::Process,
    seeds::{Seeds, seeds},
    storm::{Storm, Trouble},
};
use self::{
    gate::{Gate, Home, spawn_in},
    shared::{Seat, Shared, Stage},
};
use crate::faulty::FaultyStore;

/// Several instances of a service on one memory store, with a paused clock. See the [module documentation](self).
///
/// `S` is the service that the factory returns. Clones refer to the same cluster, which ends when the last clone is
/// dropped.
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
    /// Returns a builder for a cluster with settings other than the defaults.
    pub fn builder() -> TestClusterBuilder {
        TestClusterBuilder::default()
    }
}

impl<S: Send + Sync + 'static> TestCluster<S> {
    /// Starts `nodes` instances of the service concurrently and waits until each has started. Use
    /// [`wait_stable`](Self::wait_stable) to wait until they form a stable cluster.
    ///
    /// `factory` starts one instance in the given process, with a node on the process's [store](Process::store). It
    /// returns the service, which holds its node's handle, or just that handle. It is called again for each
    /// [restart](Self::restart).
    ///
    /// # Errors
    ///
    /// Returns an error if an instance does not start.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime, and if the clock is not paused: use `#[tokio::test(start_paused = true)]`.
    pub async fn start<E, F, R>(nodes: usize, factory: F) -> Result<Self, Failure>
    where
        E: fmt::Display,
        F: Fn(Process) -> R + Send + Sync + 'static,
        R: Future<Output = Result<S, E>> + Send + 'static,
    {
        TestCluster::builder().start(nodes, factory).await
    }

    // ---- processes, services and nodes -----------------------------------------------------------------------------

    /// Returns the names of all processes in the order in which they were added, including those that are down.
    pub fn names(&self) -> Vec<String> {
        self.names_of(|_| true)
    }

    /// Returns the names of the running processes, including those that are paused or cut off from the store.
    pub fn running(&self) -> Vec<String> {
        self.names_of(Seat::runs)
    }

    /// Returns the names of the running processes that are neither paused nor cut off from the store.
    pub fn partakers(&self) -> Vec<String> {
        self.names_of(Seat::takes_part)
    }

    /// Returns the process whose node says that it may act as leader, or the first if there are two.
    pub fn leader(&self) -> Option<String> {
        self.names_of(|seat| seat.node().is_some_and(|node| node.is_leader())).into_iter().next()
    }

    /// Returns the running processes whose node does not say that it may act as leader.
    pub fn followers(&self) -> Vec<String> {
        self.names_of(|seat| seat.runs() && !seat.node().is_some_and(|node| node.is_leader()))
    }

    /// Returns the service that the factory returned for the process.
    ///
    /// # Panics
    ///
    /// Panics if the process is down or has not started yet.
    #[track_caller]
    pub fn service(&self, name: &str) -> Arc<S> {
        let service = self.with_seat(name, |seat| match &seat.stage {
            Stage::Up(service) => Some(service.clone()),
            _ => None,
        });
        service.unwrap_or_else(|| {
            panic!("{name} has no service at present; see TestCluster::running and wait_started")
        })
    }

    /// Returns the services of all running processes that have started, with the names of the processes.
    pub fn services(&self) -> Vec<(String, Arc<S>)> {
        let seats = self.shared.seats();
        let up = |seat: &Seat<S>| match &seat.stage {
            Stage::Up(service) => Some((seat.name.clone(), service.clone())),
            _ => None,
        };
        seats.all.iter().filter_map(up).collect()
    }

    /// Returns the process's node.
    ///
    /// # Panics
    ///
    /// Panics if the process is down or has not started yet.
    #[track_caller]
    pub fn node(&self, name: &str) -> Clustering {
        let node = self.with_seat(name, |seat| seat.node());
        node.unwrap_or_else(|| {
            panic!("{name} has no node at present; see TestCluster::running and wait_started")
        })
    }

    /// Returns the process's connection to the store, to inject any fault that a [`FaultyStore`] supports.
    ///
    /// # Panics
    ///
    /// Panics if there is no process with that name.
    #[track_caller]
    pub fn line(&self, name: &str) -> FaultyStore {
        self.with_seat(name, |seat| seat.line.clone())
    }

    /// Returns the store that all processes share.
    pub fn store(&self) -> &MemoryStore {
        &self.shared.store
    }

    // ---- starting and ending processes -----------------------------------------------------------------------------

    /// Adds a process, starts it in the background, and returns its name. [`wait_stable`](Self::wait_stable) waits for
    /// the new process too.
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

    /// Kills the process: none of its code runs any more, and nothing that it holds is dropped before the cluster is.
    /// The other nodes notice when its lease expires. Does nothing if the process is down.
    ///
    /// # Panics
    ///
    /// Panics if there is no process with that name.
    #[track_caller]
    pub fn crash(&self, name: &str) {
        let gate = self.with_seat(name, |seat| {
            let gate = seat.runs().then(|| seat.gate().clone());
            // A process that failed to start is simply down from now on.
            if gate.is_none() {
                seat.stage = Stage::Down;
            }
            gate
        });
        if let Some(gate) = gate {
            gate.kill();
            let service = self.with_seat(name, |seat| std::mem::replace(&mut seat.stage, Stage::Down));
            // A killed process runs no destructors.
            std::mem::forget(service);
            self.shared.tell_change();
        }
    }

    /// Starts the process again in the background, after crashing it if it is running.
    /// [`wait_stable`](Self::wait_stable) waits for it too. Faults of its connection to the store remain in effect.
    ///
    /// After a crash, the node's name is still held by the lease of its previous life, and the node waits until that
    /// lease expires.
    ///
    /// # Panics
    ///
    /// Panics if there is no process with that name.
    #[track_caller]
    pub fn restart(&self, name: &str) {
        self.crash(name);
        self.launch(name);
    }

    /// Stops the node gracefully, and then ends the process.
    ///
    /// # Errors
    ///
    /// Returns an error if the node could not revoke its lease, or does not end in time.
    ///
    /// # Panics
    ///
    /// Panics if the process is down or has not started yet.
    pub async fn stop(&self, name: &str) -> Result<(), Failure> {
        let (node, gate) = (self.node(name), self.with_seat(name, |seat| seat.gate().clone()));
        let stopping = async { Ok(tokio::time::timeout(self.patience, node.stop()).await) };
        let stopped = self.unless_still(stopping).await?;
        // The process may have crashed and been restarted in the meantime.
        let service = self.with_seat(name, |seat| {
            Arc::ptr_eq(seat.gate(), &gate).then(|| std::mem::replace(&mut seat.stage, Stage::Down))
        });
        drop(service);
        gate.kill();
        self.shared.tell_change();
        match stopped {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.told(Failure::new(format!("{name} did not stop cleanly: {error}")))),
            Err(_) => Err(self.told(Failure::new(format!("{name} did not stop within {:?}", self.patience)))),
        }
    }

    /// Freezes the process: none of its code runs until it is [resumed](Self::resume), while time passes and the store
    /// keeps working. Timers that expire in the meantime all fire late, on resumption.
    ///
    /// # Panics
    ///
    /// Panics if there is no process with that name.
    #[track_caller]
    pub fn pause(&self, name: &str) {
        self.with_seat(name, |seat| seat.gate().pause());
        self.shared.tell_change();
    }

    /// Resumes a paused process.
    ///
    /// # Panics
    ///
    /// Panics if there is no process with that name.
    #[track_caller]
    pub fn resume(&self, name: &str) {
        self.with_seat(name, |seat| seat.gate().clone()).resume();
        self.shared.tell_change();
    }

    // ---- faults of one process's connection to the store -----------------------------------------------------------

    /// Cuts the process off from the store: its calls fail at once, and its watches break.
    ///
    /// # Panics
    ///
    /// Panics if there is no process with that name.
    #[track_caller]
    pub fn cut_off(&self, name: &str) {
        self.line(name).cut();
        self.shared.tell_change();
    }

    /// Makes the process's calls to the store hang: they are never answered.
    ///
    /// # Panics
    ///
    /// Panics if there is no process with that name.
    #[track_caller]
    pub fn hang(&self, name: &str) {
        self.line(name).hang();
        self.shared.tell_change();
    }

    /// Reverts [`cut_off`](Self::cut_off), [`hang`](Self::hang) and any other fault of the process's connection.
    ///
    /// # Panics
    ///
    /// Panics if there is no process with that name.
    #[track_caller]
    pub fn reconnect(&self, name: &str) {
        self.line(name).heal();
        self.shared.tell_change();
    }

    /// Delays all later calls of the process to the store by `delay`.
    ///
    /// # Panics
    ///
    /// Panics if there is no process with that name.
    #[track_caller]
    pub fn delay(&self, name: &str, delay: Duration) {
        self.line(name).delay(delay);
    }

    /// Makes the store end the lease of the process's node now, as if it had expired. Does nothing if the node has no
    /// lease.
    ///
    /// A store that keeps its contract never does this, and P12 does not cover it: the node cannot know in time that
    /// others may hold its keys. So the process's holds and its work under this lease are not judged.
    ///
    /// # Panics
    ///
    /// Panics if there is no process with that name.
    pub async fn expire(&self, name: &str) {
        let gate = self.with_seat(name, |seat| seat.gate().clone());
        let Some(node) = gate.node_name() else { return };
        let key = format!("{}/view/nodes/{node}", self.shared.namespace);
        // The memory store always answers, and a lease that has ended in the meantime needs no revocation.
        if let Ok(Some(entry)) = self.shared.store.get(&key).await
            && let Some(lease) = entry.lease
        {
            gate.excuse_lease(lease.get());
            let _ = self.shared.store.revoke_lease(lease).await;
        }
    }

    /// Lets this much virtual time pass.
    ///
    /// # Panics
    ///
    /// Panics if virtual time [stands still](TestClusterBuilder::standstill).
    pub async fn advance(&self, time: Duration) {
        let sleep = async {
            tokio::time::sleep(time).await;
            Ok(())
        };
        if let Err(failure) = self.unless_still(sleep).await {
            panic!("{failure}");
        }
    }

    /// Ends all lasting faults: resumes paused processes, repairs all connections and removes delays. Crashed processes
    /// stay down.
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

    // ---- internals -------------------------------------------------------------------------------------------------

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
        panic!("there is no process {name:?}; the processes are {:?}", self.names())
    }

    /// Starts a new life of the process.
    fn launch(&self, name: &str) {
        let shared = &self.shared;
        let process = {
            let mut seats = shared.seats();
            seats.lives += 1;
            let life = seats.lives;
            let index =
                seats.all.iter().position(|seat| seat.name == name).expect("the caller has looked it up");
            let seat = &mut seats.all[index];
            let changed = shared.changed.clone();
            let changed = Arc::new(move || changed.send_modify(|count| *count += 1));
            let seed = shared.seed.wrapping_mul(1_000_003).wrapping_add(life);
            let home = Home {
                namespace: shared.namespace.clone(),
                name: name.to_owned(),
                index,
                line: seat.line.clone(),
                clock: shared.clock.clone(),
                verdicts: shared.verdicts.clone(),
                changed,
            };
            let gate = Gate::new(home, life, seed);
            seat.gates.push(gate.clone());
            seat.stage = Stage::Starting;
            Process { gate }
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
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

impl<S> fmt::Debug for TestCluster<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seats = self.shared.seats();
        let names: Vec<_> = seats.all.iter().map(|seat| (&seat.name, seat.runs())).collect();
        f.debug_struct("TestCluster").field("processes", &names).finish_non_exhaustive()
    }
}
