//! Deterministic simulation: many real machines over one store, in virtual time, with everything going wrong that can.
//!
//! ```text
//!   seed ──▶ plan of faults ─┐
//!                            ▼
//!   Machine ◀─ Input ── World (clocks, network, callbacks) ── calls ──▶ Store
//!           ── Output ─▶     │                                            │
//!                            └── what nodes saw and did ──▶ Book ◀── every commit
//!                                                            └─▶ promises P1 to P8, P11, after every step
//! ```
//!
//! A [`Simulation`] runs one seed at a time, with no real I/O, no threads and no clock: the same seed gives the same
//! history, to the last bit ([`Report::hash`]).
//!
//! ```
//! use std::time::Duration;
//!
//! use clustering_proofs::sim::{Kind, Reached, Simulation};
//!
//! // Five nodes, half a minute of faults, but no clocks that drift.
//! let simulation = Simulation::new().nodes(5).storm(Duration::from_secs(30)).without([Kind::Drift]);
//! for seed in 1..=3 {
//!     let report = simulation.run(seed).unwrap_or_else(|failure| panic!("{failure}"));
//!     assert!(report.counts.reached(Reached::Stable) > 0);
//! }
//! ```
//!
//! # The world
//!
//! Each node is a process with a real [`Machine`](clustering_core::machine::Machine), a clock that runs at a rate of its
//! own, and callbacks that take their time. Calls and replies travel for a moment, and so do the changes that a watch
//! delivers. The store keeps the [contract](clustering_core::store::CoordinationStore#contract), except where a fault says
//! otherwise. A process that ends by itself is started again after a while.
//!
//! # Faults
//!
//! A seed determines a plan of [`Fault`]s. Each has a [`Kind`], a start time and a duration. Each seed uses only some
//! of the kinds, with different frequencies, and draws its own rates of configurations and delays. A fault can also be
//! triggered by a commit ([`Upon`]), and then begins just after the commit was sent or took effect. After the storm
//! comes the calm: all faults end, second instances leave, and every node is started. Within
//! [`Simulation::calm_within`] the cluster must be stable, and after that nothing more may be written.
//!
//! A store that is restored from a backup breaks all connections: calls that were on their way do not reach it, and commits
//! reach it only from nodes whose watch of the log went on there or told them. (Revisions count something else in another
//! history, so guards could hold by accident.) Within that, the promises hold across it.
//!
//! # Checks
//!
//! The checkers of [`promises`](clustering_testkit::promises) judge every commit and everything that nodes see and do. Beyond that,
//! since here one order of all things is known:
//!
//! - P1: the newest view of every node equals the cut in the log, whether or not the node stabilizes for it, and assigns keys
//!   in the same way.
//! - P2: each label is above the last label that its publisher saw, even across a restore of the store.
//! - P4: an acknowledgement is accepted only while its version is the newest, in the session of its node's record.
//! - P4: an acknowledged view is shown only during its session, and a leader that recorded a version as stable calls
//!   `on_stable` for it.
//! - P5: a node is elected only if it is registered in the log, and ends no leadership but its own.
//! - P5: what only leaders write is accepted only from the process that holds the election key at that moment.
//! - P6: no process says that it leads under a term that ended by itself (its lease expired, it resigned), and the deadline
//!   that it gives is, on its own clock, by the sending of the last renewal that it knows to have succeeded.
//! - P10: each change of the leader is reported, and no node claims a term that has ended according to its own log.
//! - P11: a leader whose check hangs for too long does not say that it leads, and who falls ill gives its lease back in the
//!   same step.
//! - P8: calm within the bound; no machine wants to be woken at once, or takes inputs without end while nothing happens.
//!
//! # When a seed fails
//!
//! [`Failure`] tells which promise is broken and how, which faults were enough for it (the plan is shrunk while it still
//! fails), what happened last, and the command that does it again.
//!
//! # Whether the checks would find anything
//!
//! A [`Tamper`] stands between a machine and the world and falsifies what passes, as if the protocol had a fault. The tests
//! of this crate have one for each promise and more.

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

/// What is simulated: how many nodes, for how long, which faults. See the [module's page](self).
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

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// A hash of everything that happened. The same seed and the same simulation give the same one.
    pub hash: u64,
    /// How often what occurred.
    pub counts: Counts,
    /// How long it took until all was well after the last fault.
    pub settled_after: Duration,
}

impl Default for Simulation {
    fn default() -> Self {
        Simulation::new()
    }
}

impl Simulation {
    /// Seven nodes with leases of 5 s, a minute of faults of all kinds.
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

    /// With so many nodes.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    pub fn nodes(mut self, nodes: usize) -> Self {
        assert!(nodes > 0, "a cluster has nodes");
        self.nodes = nodes;
        self
    }

    /// With faults for so long.
    #[must_use]
    pub fn storm(mut self, storm: Duration) -> Self {
        self.storm = storm;
        self
    }

    /// With leases that live so long, from 1 s to a minute.
    ///
    /// # Panics
    ///
    /// If it is another time.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        assert!((1..=60).contains(&ttl.as_secs()), "a TTL from 1 s to a minute");
        self.ttl = ttl;
        self
    }

    /// With these faults alone.
    #[must_use]
    pub fn only(mut self, kinds: impl IntoIterator<Item = Kind>) -> Self {
        self.kinds = kinds.into_iter().collect();
        self
    }

    /// Without these faults.
    #[must_use]
    pub fn without(mut self, kinds: impl IntoIterator<Item = Kind>) -> Self {
        let out: Vec<Kind> = kinds.into_iter().collect();
        self.kinds.retain(|kind| !out.contains(kind));
        self
    }

    /// With these faults of each seed's plan alone, by their numbers.
    #[must_use]
    pub fn keep(mut self, faults: impl IntoIterator<Item = usize>) -> Self {
        self.keep = Some(faults.into_iter().collect());
        self
    }

    /// Uses exactly these faults, independently of the seed.
    #[must_use]
    pub fn planned(mut self, faults: impl IntoIterator<Item = Fault>) -> Self {
        self.planned = Some(faults.into_iter().collect());
        self
    }

    /// With a fault in the protocol: `make` makes the tamper for each run.
    #[must_use]
    pub fn tampered<T: Tamper + 'static>(mut self, make: impl Fn() -> T + Send + Sync + 'static) -> Self {
        self.tamper = Some(Arc::new(move || Box::new(make())));
        self
    }

    fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// The faults of that seed, each with its number.
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

    /// Runs that seed.
    ///
    /// # Errors
    ///
    /// The first promise that is broken, with the story of it. To find the fewest faults that are enough, the seed is run
    /// again and again.
    pub fn run(&self, seed: u64) -> Result<Report, Box<Failure>> {
        let mut world = self.world(seed, false);
        match world.book.take_broken() {
            None => Ok(report(seed, &world)),
            Some(broken) => Err(Box::new(Failure::of(self, seed, &broken))),
        }
    }

    /// Runs that seed, as [`run`](Self::run), and says no more of a failure than what is broken: it takes no longer than
    /// a seed that holds.
    ///
    /// # Errors
    ///
    /// What is broken, and how.
    pub fn check(&self, seed: u64) -> Result<Report, String> {
        let mut world = self.world(seed, false);
        match world.book.take_broken() {
            None => Ok(report(seed, &world)),
            Some(broken) => Err(broken.words()),
        }
    }

    /// Runs that seed, and tells everything that happens. The story is long.
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
