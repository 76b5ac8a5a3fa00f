//! Deterministic simulation: many real machines share one store in virtual time while all kinds of faults occur.
//!
//! ```text
//!   seed ──▶ plan of faults ─┐
//!                            ▼
//!   Machine ◀─ Input ── World (clocks, network, callbacks) ── calls ──▶ Store
//!           ── Output ─▶     │                                            │
//!                            └── what nodes saw and did ──▶ Book ◀── every commit
//!                                                            └─▶ promises P1 to P8, P11, P12, after every step
//! ```
//!
//! A [`Simulation`] runs one seed at a time, without real I/O, threads or wall-clock time. The same seed always
//! produces the same history, to the last bit ([`Report::hash`]).
//!
//! ```
//! use std::time::Duration;
//!
//! use clustering_proofs::sim::{Kind, Reached, Simulation};
//!
//! // Five nodes, half a minute of faults, but no clock drift.
//! let simulation = Simulation::new().nodes(5).storm(Duration::from_secs(30)).without([Kind::Drift]);
//! for seed in 1..=3 {
//!     let report = simulation.run(seed).unwrap_or_else(|failure| panic!("{failure}"));
//!     assert!(report.counts.reached(Reached::Stable) > 0);
//! }
//! ```
//!
//! # The world
//!
//! Each node is a process with a real [`Machine`](clustering_core::machine::Machine), a clock that runs at its own
//! rate, and callbacks that take time. In most seeds some or all nodes are exclusive. Their users keep holds for random
//! times, sometimes forever. Calls, replies and watch deliveries have a latency. The store keeps the
//! [contract](clustering_core::store::CoordinationStore#contract), except where a fault says otherwise. A process that
//! ends by itself is restarted after a while.
//!
//! # Faults
//!
//! A seed determines a plan of [`Fault`]s. Each has a [`Kind`], a start time and a duration. Each seed uses only some
//! of the kinds, with different frequencies, and draws its own mix of configurations and delays. A fault can also be
//! triggered by a commit ([`Upon`]), and then begins just after the commit was sent or took effect. The storm of faults
//! is followed by a calm: all faults end, second instances leave, and every node is started. The cluster must become
//! stable within [`Simulation::calm_within`], and must then write nothing more.
//!
//! Restoring the store from a backup breaks all connections. Calls in flight do not reach the restored store, and
//! commits reach it only from nodes whose watch of the log has resumed there or has reported the rewind. (Revisions
//! mean something else in another history, so the guards of other nodes could hold by accident.) Within these limits
//! the promises also hold across a restore.
//!
//! # Checks
//!
//! The checkers of [`promises`](clustering_testkit::promises) judge every commit and everything that nodes see and do.
//! The simulation knows the total order of all events, so it checks more:
//!
//! - P1: the newest view of every node equals the cut in the log and assigns keys in the same way, even if the node
//!   does not stabilize for it.
//! - P2: each label is above the last label that its publisher saw, even across a restore of the store.
//! - P4: an acknowledgement is accepted only while its version is the newest, in the session of its node's record.
//! - P4: an acknowledged view is shown only during its session, and a leader that recorded a version as stable calls
//!   `on_stable` for it.
//! - P5: a node is elected only if it is registered in the log, and ends no leadership but its own.
//! - P5: writes reserved for the leader are accepted only from the process that holds the election key at that moment.
//! - P6: no process claims to lead under a term that ended by itself (its lease expired, or the leader resigned). The
//!   deadline that it reports is no later than its last known successful renewal allows, counted on its own clock from
//!   the sending of that renewal.
//! - P10: each change of the leader is reported, and no node claims a term that has ended according to its own log.
//! - P11: a leader whose health check hangs for too long does not claim to lead, and a node that becomes unhealthy
//!   gives its lease back in the same step.
//! - P12: at no moment do two processes hold a slot, as judged by the knowledge of each process: the slots that its
//!   node holds by its own clock, and the holds that its user has kept and that are not void, even if the node has
//!   ended. Not judged if the store ended the lease too early or was restored.
//! - P12: the token of a slot grows whenever the slot changes hands, and no commit as owner is accepted after another
//!   process has acquired the slot. A node acknowledges a version only after `release` has succeeded for its lost slots
//!   and the holds of these slots were dropped. Joins wait while slots are handed over.
//! - P8: in the calm, each slot is held by its owner, even if users keep holds forever.
//! - P8: the cluster comes to rest within the bound. No machine asks to be woken immediately, or receives inputs
//!   without end while nothing happens.
//!
//! # When a seed fails
//!
//! [`Failure`] has the broken promise, the fewest faults that suffice to break it (the plan is shrunk as long as it
//! still fails), the last part of the log, and the command that reproduces the failure.
//!
//! # Testing the checks
//!
//! A [`Tamper`] sits between a machine and the world and falsifies the inputs and outputs, as if the protocol had a
//! fault. The tests of this crate have at least one for each promise.

mod book;
pub(crate) mod checks;
mod clock;
mod counts;
mod digest;
mod failure;
mod fault;
mod queue;
mod store;
mod swarm;
mod tamper;
mod world;

use std::{fmt, sync::Arc, time::Duration};

use self::world::World;
pub(crate) use self::world::render;
pub use self::{
    counts::{Counts, Reached},
    failure::Failure,
    fault::{Fault, Kind, Upon},
    store::Store,
    tamper::{Seat, Tamper},
};

/// Parameters of a simulation: the number of nodes, the duration and the kinds of faults. See the [module
/// documentation](self).
#[derive(Clone)]
pub struct Simulation {
    nodes: usize,
    storm: Duration,
    ttl: Duration,
    kinds: Vec<Kind>,
    keep: Option<Vec<usize>>,
    planned: Option<Vec<Fault>>,
    tamper: Option<MakeTamper>,
}

type MakeTamper = Arc<dyn Fn() -> Box<dyn Tamper> + Send + Sync>;

/// Result of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Hash of everything that happened. It is the same for every run of the same seed and simulation.
    pub hash: u64,
    /// Number of occurrences of each fault, state and transition.
    pub counts: Counts,
    /// Time from the last fault until all nodes were members of a stable version.
    pub settled_after: Duration,
}

impl Default for Simulation {
    fn default() -> Self {
        Simulation::new()
    }
}

impl Simulation {
    /// Creates a simulation of seven nodes with leases of 5 s, and a minute of faults of all kinds.
    pub fn new() -> Self {
        Simulation {
            nodes: 7,
            storm: Duration::from_secs(60),
            ttl: Duration::from_secs(5),
            kinds: Kind::ALL.to_vec(),
            keep: None,
            planned: None,
            tamper: None,
        }
    }

    /// Sets the number of nodes.
    ///
    /// # Panics
    ///
    /// Panics if `nodes` is 0.
    #[must_use]
    pub fn nodes(mut self, nodes: usize) -> Self {
        assert!(nodes > 0, "the number of nodes must be positive");
        self.nodes = nodes;
        self
    }

    /// Sets the duration of the storm of faults.
    #[must_use]
    pub fn storm(mut self, storm: Duration) -> Self {
        self.storm = storm;
        self
    }

    /// Sets the TTL of the leases, from 1 s to a minute.
    ///
    /// # Panics
    ///
    /// Panics if `ttl` is outside this range.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        assert!((1..=60).contains(&ttl.as_secs()), "the TTL must be from 1 s to a minute");
        self.ttl = ttl;
        self
    }

    /// Uses only faults of these kinds.
    #[must_use]
    pub fn only(mut self, kinds: impl IntoIterator<Item = Kind>) -> Self {
        self.kinds = kinds.into_iter().collect();
        self
    }

    /// Excludes faults of these kinds.
    #[must_use]
    pub fn without(mut self, kinds: impl IntoIterator<Item = Kind>) -> Self {
        let out: Vec<Kind> = kinds.into_iter().collect();
        self.kinds.retain(|kind| !out.contains(kind));
        self
    }

    /// Uses only these faults of each seed's plan, by their numbers.
    #[must_use]
    pub fn keep(mut self, faults: impl IntoIterator<Item = usize>) -> Self {
        self.keep = Some(faults.into_iter().collect());
        self
    }

    /// Uses exactly these faults for every seed.
    #[must_use]
    pub fn planned(mut self, faults: impl IntoIterator<Item = Fault>) -> Self {
        self.planned = Some(faults.into_iter().collect());
        self
    }

    /// Adds a fault to the protocol. `make` creates the tamper for each run.
    #[must_use]
    pub fn tampered<T: Tamper + 'static>(mut self, make: impl Fn() -> T + Send + Sync + 'static) -> Self {
        self.tamper = Some(Arc::new(move || Box::new(make())));
        self
    }

    fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// Returns the faults planned for the seed, each with its number.
    pub fn plan(&self, seed: u64) -> Vec<(usize, Fault)> {
        let all = self.planned.clone().unwrap_or_else(|| fault::plan(self, seed));
        let all = all.into_iter().enumerate();
        all.filter(|(number, _)| self.keep.as_ref().is_none_or(|keep| keep.contains(number))).collect()
    }

    fn world(&self, seed: u64, tell: bool) -> World<'_> {
        let plan = self.plan(seed).into_iter().map(|(_, fault)| fault).collect();
        let mut world = World::new(self, seed, plan, tell);
        world.run();
        world
    }

    /// Runs the seed.
    ///
    /// # Errors
    ///
    /// Returns the first promise that was broken, with its story. To find the fewest faults that suffice, the seed is
    /// run many times.
    pub fn run(&self, seed: u64) -> Result<Report, Box<Failure>> {
        let mut world = self.world(seed, false);
        match world.book.take_broken() {
            None => Ok(report(seed, &world)),
            Some(broken) => Err(Box::new(Failure::of(self, seed, &broken))),
        }
    }

    /// Runs the seed like [`run`](Self::run), but describes a failure only briefly, without shrinking the plan. This
    /// takes no longer than a run that succeeds.
    ///
    /// # Errors
    ///
    /// Returns a description of the broken promise.
    pub fn check(&self, seed: u64) -> Result<Report, String> {
        let mut world = self.world(seed, false);
        match world.book.take_broken() {
            None => Ok(report(seed, &world)),
            Some(broken) => Err(broken.words()),
        }
    }

    /// Runs the seed and logs everything that happens. The log is long.
    pub fn story(&self, seed: u64) -> (Vec<String>, Result<Report, String>) {
        let mut world = self.world(seed, true);
        let result = match world.book.take_broken() {
            None => Ok(report(seed, &world)),
            Some(broken) => Err(broken.words()),
        };
        (world.book.take_story(), result)
    }
}

fn report(seed: u64, world: &World<'_>) -> Report {
    let (hash, counts) = (world.book.hash(), world.book.counts.clone());
    Report { seed, hash, counts, settled_after: world.settled_after }
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation")
            .field("nodes", &self.nodes)
            .field("storm", &self.storm)
            .field("ttl", &self.ttl)
            .field("kinds", &self.kinds)
            .field("keep", &self.keep)
            .field("tampered", &self.tamper.is_some())
            .finish()
    }
}
