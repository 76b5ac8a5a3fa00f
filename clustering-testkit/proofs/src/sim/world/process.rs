use std::time::Duration;

use clustering_core::{
    Endpoint, HealthChecks, NameConflict, NodeName, Term, Version,
    machine::{Machine, RequestId, Token},
    slots::Slot,
    store::{Key, LeaseId, Revision},
    time::Timestamp,
};
use clustering_testkit::{
    history::{Life, Moment},
    random::Random,
};

use super::{Due, holds::Holds};
use crate::sim::{Kind, checks::p11_health::Owed, clock::DriftingClock};

/// A process: its machine, its environment, and the results of its calls.
pub(super) struct Process {
    pub(super) name: NodeName,
    /// The policy of a second instance under a node's name.
    pub(super) twin: Option<NameConflict>,
    /// Number of times that the process was started.
    pub(super) life: u32,
    pub(super) label: Life,
    pub(super) machine: Option<Machine>,
    pub(super) clock: DriftingClock,
    pub(super) rate: u64,
    /// Offset of the wall clock, in milliseconds.
    pub(super) wall: u64,
    pub(super) random: Random,
    windows: [(Moment, u64); Kind::ALL.len()],
    pub(super) frozen: bool,
    /// Events that arrived while the process was frozen.
    pub(super) held: Vec<Due>,
    pub(super) wake_at: Option<Moment>,
    pub(super) watches: Vec<Watch>,
    /// Where others can find out whether the process is alive.
    pub(super) endpoint: Option<Endpoint>,
    /// The endpoints that the process watches.
    pub(super) watched: Vec<Endpoint>,
    /// True once the process knows that it was removed although it is alive.
    pub(super) knows_false_alarm: bool,
    pub(super) stabilizing: Option<Run>,
    pub(super) announcing: Option<Run>,
    /// Configuration of the health checks.
    pub(super) checks: Option<HealthChecks>,
    pub(super) checking: Option<Check>,
    /// Lease of the session that the node lost because it is unhealthy, until the node gives it back.
    pub(super) owes: Option<Owed>,
    /// The process's last lease, according to the replies that it received.
    pub(super) lease: Option<Held>,
    /// The process's answer to the question whether it may act as leader.
    pub(super) claim: Option<Claim>,
    /// Term of the leader in the last leader event.
    pub(super) told_leader: Option<Term>,
    /// Last label that the process saw published.
    pub(super) seen_label: Option<Version>,
    /// Time on the process's clock at which it last saw a version published.
    pub(super) seen_version_at: Timestamp,
    /// Version of the last `on_stable` call.
    pub(super) announced: Option<Version>,
    /// Time on the clock when the process was frozen.
    pub(super) frozen_at: Timestamp,
    pub(super) asked: Vec<(RequestId, String, Term)>,
    pub(super) owner_commits: Vec<(RequestId, Slot)>,
    pub(super) holds: Holds,
    /// Eras of the store from which the process knows `view/` and `ready/`.
    pub(super) seen_in: [usize; 2],
    /// Era of the store to which the process is connected.
    pub(super) era: usize,
    pub(super) handled: u64,
    /// True if the process is restarted when it ends.
    pub(super) returns: bool,
}

pub(super) struct Watch {
    pub(super) token: Token,
    pub(super) prefix: Key,
    /// 0 for `view/`, 1 for `ready/`.
    pub(super) place: usize,
    pub(super) seen: Revision,
    pub(super) open: bool,
    /// True if the next delivery is in flight.
    pub(super) coming: bool,
}

/// A running callback.
pub(super) struct Run {
    pub(super) token: Token,
    pub(super) version: Version,
    pub(super) attempt: u32,
    pub(super) term: Term,
    pub(super) told: bool,
    pub(super) stuck: bool,
}

/// A running health check.
pub(super) struct Check {
    pub(super) token: Token,
    /// Time on the process's clock when the check began or when the process last resumed.
    pub(super) since: Timestamp,
    pub(super) stuck: bool,
    /// True if the check was aborted.
    pub(super) ended: bool,
}

/// A lease as its process knows it, with times on the process's own clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) id: LeaseId,
    pub(super) ttl: Duration,
    /// Time until which the holder may act as leader.
    pub(super) acts_until: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) term: Term,
    pub(super) era: usize,
    pub(super) lease: Option<LeaseId>,
    pub(super) until: Moment,
}

impl Process {
    pub(super) fn new(name: NodeName, twin: Option<NameConflict>, random: Random) -> Self {
        Process {
            label: Life::from(name.as_str()),
            name,
            twin,
            life: 0,
            machine: None,
            clock: DriftingClock::new(Moment::default(), Timestamp::ZERO),
            rate: 1_000_000,
            wall: 0,
            random,
            windows: [(Moment::default(), 0); Kind::ALL.len()],
            frozen: false,
            held: Vec::new(),
            wake_at: None,
            watches: Vec::new(),
            endpoint: None,
            watched: Vec::new(),
            knows_false_alarm: false,
            stabilizing: None,
            announcing: None,
            checks: None,
            checking: None,
            owes: None,
            lease: None,
            claim: None,
            told_leader: None,
            seen_label: None,
            seen_version_at: Timestamp::ZERO,
            announced: None,
            frozen_at: Timestamp::ZERO,
            asked: Vec::new(),
            owner_commits: Vec::new(),
            holds: Holds::default(),
            seen_in: [0; 2],
            era: 0,
            handled: 0,
            returns: true,
        }
    }

    /// Ends the process and discards its memory.
    pub(super) fn end(&mut self) {
        self.machine = None;
        self.frozen = false;
        self.held.clear();
        self.wake_at = None;
        self.watches.clear();
        self.endpoint = None;
        self.watched.clear();
        self.knows_false_alarm = false;
        (self.stabilizing, self.announcing) = (None, None);
        (self.checking, self.owes) = (None, None);
        (self.lease, self.claim) = (None, None);
        (self.told_leader, self.seen_label, self.announced) = (None, None, None);
        self.asked.clear();
        self.owner_commits.clear();
        self.holds = Holds::default();
    }

    /// Starts a fault that lasts until `until`.
    pub(super) fn open_window(&mut self, kind: Kind, until: Moment, choice: u64) {
        let window = &mut self.windows[kind as usize];
        *window = (window.0.max(until), choice);
    }

    /// Returns the random number of a fault, if the fault is active.
    pub(super) fn window(&self, kind: Kind, now: Moment) -> Option<u64> {
        let (until, choice) = self.windows[kind as usize];
        (now < until).then_some(choice)
    }

    pub(super) fn window_ends(&self, kind: Kind) -> Moment {
        self.windows[kind as usize].0
    }

    /// Ends all faults.
    pub(super) fn close_windows(&mut self) {
        self.windows = [(Moment::default(), 0); Kind::ALL.len()];
    }

    /// Returns the wall clock time in milliseconds since 1970.
    pub(super) fn wall_ms(&self, now: Moment) -> u64 {
        1_700_000_000_000 + self.wall + now.as_nanos() / 1_000_000
    }

    pub(super) fn is_up(&self) -> bool {
        self.machine.is_some()
    }

    /// True if the process is running and not frozen.
    pub(super) fn is_awake(&self) -> bool {
        self.is_up() && !self.frozen
    }
}
