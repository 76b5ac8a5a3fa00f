//! Model checking: all states that a few real machines and a store can reach, within bounds.
//!
//! ```text
//!   Bounds ──▶ ClusterModel ──▶ every state, by every order of what may happen ──▶ promises, in each of them
//!                  │
//!                  └── State: Machine × n, the store's history, calls, watches and callbacks on their way
//! ```
//!
//! Where the [simulation](crate::sim) draws long histories at random, the [`ClusterModel`] goes through *all* short ones:
//! [stateright](https://docs.rs/stateright) explores them. The machines are those that run in production.
//!
//! ```
//! use clustering_testkit::model::{Bounds, ClusterModel, Limited, Reached};
//!
//! // One node whose lease may expire at any time, once.
//! let bounds = Bounds::nodes(1).with(Limited::Expiry, 1).with(Limited::Wake, 1);
//! let checked = ClusterModel::new(bounds).check(1, None);
//! assert!(checked.exhausted, "{checked}");
//! assert!(checked.reached(Reached::StaleLeader) && checked.reached(Reached::Rejoin));
//! ```
//!
//! # What may happen
//!
//! In any order, at any time: a call takes effect; a watch delivers the changes of the next revision; a callback says yes;
//! a process that died is started again; the lease of one that died expires; a call that nobody waits for takes effect.
//! So often as the [`Bounds`] say: what is [`Limited`].
//!
//! # What is left out
//!
//! - **Time.** Each process has a clock of its own, which stands still but for [`Limited::Wake`] and [`Limited::Pause`]; the
//!   store has none, and ends leases at any time. So nothing that holds here rests on clocks that run at the same pace. What
//!   is promised of time (P6) is judged on each process's own clock: a lead is claimed and acted on for no longer than two
//!   thirds of a TTL from the sending of the last renewal that succeeded.
//! - Grants and the opening of watches take effect at once; reads, renewals and revocations take effect when their replies
//!   come. Replies to commits come later than the effect as often as [`Limited::Delay`] allows.
//! - Stores that are restored to an older state, keys deleted by hand, evictions, second instances under one name other than
//!   restarts: the simulation has them.
//!
//! # What is judged
//!
//! In every state the [promises](Promise) P1 to P7, by the [`Ledger`](crate::history::Ledger), which makes its own cuts and
//! counts from the store's history; and in every state with nothing on its way P8: if from there on nothing goes wrong, all
//! nodes are members of a stable version within three minutes.
//!
//! That these checks find something is seen by models whose protocol has a fault: [`ClusterModel::tampered`].

mod action;
mod bounds;
mod calm;
mod check;
mod judge;
mod reached;
mod state;
mod step;

use std::{fmt, sync::Arc};

use clustering_core::{Config, Keyspace, Namespace, NodeName};
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

/// The namespace of the cluster.
const NAMESPACE: &str = "c";

/// The name of a node, by its number.
fn name(place: usize) -> String {
    char::from(b'a' + place as u8).to_string()
}

/// All that some nodes and a store can come to within [`Bounds`]. See the [module's page](self).
#[derive(Clone)]
pub struct ClusterModel {
    bounds: Bounds,
    keys: Keyspace,
    config: Config,
    tamper: Option<MakeTamper>,
}

type MakeTamper = Arc<dyn Fn() -> Box<dyn Tamper> + Send + Sync>;

impl ClusterModel {
    /// One within these bounds.
    pub fn new(bounds: Bounds) -> Self {
        let keys = Keyspace::new(Namespace::parse(NAMESPACE).expect("a namespace"));
        ClusterModel { bounds, keys, config: Config::default(), tamper: None }
    }

    /// With a fault in the protocol. A tamper remembers nothing: `make` makes it anew for every step.
    #[must_use]
    pub fn tampered<T: Tamper + 'static>(mut self, make: impl Fn() -> T + Send + Sync + 'static) -> Self {
        self.tamper = Some(Arc::new(move || Box::new(make())));
        self
    }

    /// How far it is explored.
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

    /// A store with nothing in it, and nodes that were never started.
    fn empty(&self) -> State {
        let node = |place| Arc::new(Node::new(NodeName::parse(&name(place)).expect("a name")));
        let mut shared = Shared::new(NAMESPACE);
        shared.seal();
        State {
            shared: Arc::new(shared),
            nodes: (0..usize::from(self.bounds.nodes)).map(node).collect(),
            left: self.bounds,
            announced: Vec::new(),
            reached: 0,
            breach: None,
        }
    }

    /// A cluster at rest, whose nodes were started one after the other.
    fn stable(&self) -> State {
        // Whatever fault the protocol has, it begins from a cluster that was built without it.
        let honest = ClusterModel { tamper: None, ..self.clone() };
        let rested = calm::run(&honest, &self.empty()).expect("a cluster comes to rest by itself");
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
        let mut properties = Vec::from(always!(P1, P2, P3, P4, P5, P6, P7));
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
