//! Model checking: explores all states that a few real machines and a store can reach within bounds.
//!
//! ```text
//!   Bounds ──▶ ClusterModel ──▶ every state, by every order of the actions ──▶ promises checked in each state
//!                  │
//!                  └── State: Machine × n, the store's history, calls, watches and callbacks in flight
//! ```
//!
//! The [simulation](crate::sim) draws long random histories; the [`ClusterModel`] covers *all* short ones, explored by
//! [stateright](https://docs.rs/stateright). The machines are those that run in production.
//!
//! ```
//! use clustering_proofs::model::{Bounds, ClusterModel, Limited, Reached};
//!
//! // One node whose lease may expire at any time, once.
//! let bounds = Bounds::nodes(1).with(Limited::Expiry, 1).with(Limited::Wake, 1);
//! let checked = ClusterModel::new(bounds).check(1, None);
//! assert!(checked.exhausted, "{checked}");
//! assert!(checked.reached(Reached::StaleLeader) && checked.reached(Reached::Rejoin));
//! ```
//!
//! # Actions
//!
//! These actions may happen in any order, at any time: a call takes effect; a watch delivers the changes of the next
//! revision; a callback accepts; a dead process is restarted; the lease of a dead process expires; a call takes effect
//! after its caller has given up on it. Other actions are [`Limited`] and happen only as often as the [`Bounds`] allow.
//!
//! # Limits of the model
//!
//! - **Time.** Each process has its own clock, which advances only by [`Limited::Wake`] and [`Limited::Pause`]. The
//!   store has no clock, and ends leases at any time. So nothing that holds here depends on clocks running at the same
//!   rate. The promise about time (P6) is checked against each process's own clock: a node claims the lead and acts on
//!   it for at most two thirds of a TTL after sending its last successful renewal.
//! - Lease grants and opening watches take effect at once. Reads, renewals and revocations take effect when their
//!   replies arrive. Replies to commits arrive later than the effect only as often as [`Limited::Delay`] allows. P12
//!   compares what different processes hold at the same time. So the nodes of a model with slots share one clock:
//!   when time passes for one node, it passes for all, and a lease ends only one TTL after its last renewal was sent.
//!   Users may keep holds for any length of time. The nodes have no release callback. Reclaiming the session of a
//!   process that does not see the log takes too many timers to be reached.
//! - Restoring the store to an older state, keys deleted by hand (other than evictions), and second instances under one
//!   name (other than restarts) are not modelled. The simulation covers them.
//!
//! # Checks
//!
//! The [promises](Promise) P1 to P7 and P12 are checked in every state, with the
//! [`Ledger`](clustering_testkit::history::Ledger), which computes views and acknowledgements from the store's
//! history by itself. P8 is checked in every state that has nothing in flight: if nothing goes wrong from there on,
//! all nodes must become members of a stable version within three minutes.
//!
//! Models with a fault in the protocol show that these checks find violations: [`ClusterModel::tampered`].

mod action;
mod bounds;
mod calm;
mod check;
mod holds;
mod judge;
mod reached;
mod state;
mod step;

use std::{fmt, sync::Arc};

use clustering_core::{Config, CrashDetection, Keyspace, Namespace, NodeName, slots::SlotCount};
use stateright::{Model, Property};

pub use self::{
    action::Action,
    bounds::{Bounds, Limited, Start},
    check::{Checked, Counterexample},
    judge::Promise,
    reached::Reached,
    state::State,
};
use self::{
    state::{Node, Shared},
    step::Step,
};
use crate::sim::Tamper;

/// Namespace of the modelled cluster.
const NAMESPACE: &str = "c";

/// Returns the name of the node with this number.
fn name(place: usize) -> String {
    char::from(b'a' + place as u8).to_string()
}

/// Model of all states that some nodes and a store can reach within [`Bounds`]. See the [module documentation](self).
#[derive(Clone)]
pub struct ClusterModel {
    bounds: Bounds,
    keys: Keyspace,
    config: Config,
    tamper: Option<MakeTamper>,
}

type MakeTamper = Arc<dyn Fn() -> Box<dyn Tamper> + Send + Sync>;

impl ClusterModel {
    /// Creates a model with these bounds.
    pub fn new(bounds: Bounds) -> Self {
        let keys = Keyspace::new(Namespace::parse(NAMESPACE).expect("the namespace is valid"));
        let mut config = Config::default();
        config.exclusive = SlotCount::new(bounds.slots.into()).ok();
        config.release_timeout = None;
        if bounds.most(Limited::Report) > 0 {
            let mut detection = CrashDetection::default();
            detection.trust_refused = bounds.trusts;
            config.crash_detection = Some(detection);
        }
        ClusterModel { bounds, keys, config, tamper: None }
    }

    /// Adds a fault to the protocol. Tampers have no memory: `make` creates a new one for every step.
    #[must_use]
    pub fn tampered<T: Tamper + 'static>(mut self, make: impl Fn() -> T + Send + Sync + 'static) -> Self {
        self.tamper = Some(Arc::new(move || Box::new(make())));
        self
    }

    /// Returns the bounds within which the model is explored.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    fn keys(&self) -> &Keyspace {
        &self.keys
    }

    fn config(&self) -> &Config {
        &self.config
    }

    fn tamper(&self) -> Option<Box<dyn Tamper>> {
        self.tamper.as_ref().map(|make| make())
    }

    /// Returns the state with an empty store and nodes that have never been started.
    fn empty(&self) -> State {
        let node = |place| Arc::new(Node::new(NodeName::parse(&name(place)).expect("the name is valid")));
        let mut shared = Shared::new(NAMESPACE);
        shared.seal();
        State {
            shared: Arc::new(shared),
            nodes: (0..usize::from(self.bounds.nodes)).map(node).collect(),
            left: self.bounds,
            announced: Vec::new(),
            acquired: Vec::new(),
            reached: 0,
            breach: None,
        }
    }

    /// Returns the state of a cluster at rest, whose nodes were started one after another.
    fn stable(&self) -> State {
        // The initial cluster is built without the tampered fault.
        let honest = ClusterModel { tamper: None, ..self.clone() };
        let rested = calm::run(&honest, &self.empty()).expect("a cluster without faults comes to rest");
        State { left: self.bounds, reached: 0, ..rested }
    }
}

impl Model for ClusterModel {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![match self.bounds.start {
            Start::Empty => self.empty(),
            Start::Stable => self.stable(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        action::all(state, actions);
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        Some(Step::new(self, before).take(action))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        macro_rules! always {
            ($($promise:ident),+) => {
                [$(Property::always(Promise::$promise.name(), |_: &ClusterModel, state: &State| {
                    state.breach.as_ref().is_none_or(|breach| breach.promise != Promise::$promise)
                })),+]
            };
        }
        macro_rules! sometimes {
            ($($reached:ident),+ $(,)?) => {
                [$(Property::sometimes(Reached::$reached.name(), |_: &ClusterModel, state: &State| {
                    Reached::$reached.shows(state)
                })),+]
            };
        }
        let mut properties = Vec::from(always!(P1, P2, P3, P4, P5, P6, P7, P12));
        properties.push(Property::always(Promise::P8.name(), |model: &ClusterModel, state: &State| {
            state.breach.is_some() || action::pending(state).is_some() || calm::run(model, state).is_ok()
        }));
        properties.extend(sometimes!(
            Stable,
            OnStable,
            SupersededBarrier,
            SupersededRun,
            StaleLeader,
            Takeover,
            ConfirmRefused,
            LeaderRefused,
            CandidateRefused,
            AcknowledgementRefused,
            LateEffect,
            Resync,
            SessionLost,
            Rejoin,
            NameHeld,
            Suspended,
            Resumed,
            RefusedRun,
            Acquired,
            HeldByUser,
            OwnerRefused,
            Crashed,
            FalseAlarm,
        ));
        properties
    }
}

impl fmt::Debug for ClusterModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tampered = self.tamper.is_some();
        f.debug_struct("ClusterModel").field("bounds", &self.bounds).field("tampered", &tampered).finish()
    }
}
