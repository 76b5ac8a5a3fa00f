use std::time::Duration;

use clustering_core::{
    HealthChecks, NameConflict, NodeName, Term, Version,
    machine::{Machine, RequestId, Token},
    store::{Key, LeaseId, Revision},
    time::Timestamp,
};
use clustering_testkit::{
    history::{Life, Moment},
    random::Random,
};

use super::Due;
use crate::sim::{Kind, checks::p11_health::Owed, clock::DriftingClock};

/// A process: a machine, what it runs on, and what came of its calls.
pub(super) struct Process {
    pub(super) name: NodeName,
    /// The policy of a second instance under a node's name.
    pub(super) twin: Option<NameConflict>,
    /// How often it was started.
    pub(super) life: u32,
    pub(super) label: Life,
    pub(super) machine: Option<Machine>,
    pub(super) clock: DriftingClock,
    pub(super) rate: u64,
    /// What its wall clock is ahead by, in milliseconds.
    pub(super) wall: u64,
    pub(super) random: Random,
    windows: [(Moment, u64); Kind::ALL.len()],
    pub(super) frozen: bool,
    /// What came while it was frozen.
    pub(super) held: Vec<Due>,
    pub(super) wake_at: Option<Moment>,
    pub(super) watches: Vec<Watch>,
    pub(super) stabilizing: Option<Run>,
    pub(super) announcing: Option<Run>,
    /// How its health is checked.
    pub(super) checks: Option<HealthChecks>,
    pub(super) checking: Option<Check>,
    /// The lease that it lost as it is unhealthy, until it gives it back.
    pub(super) owes: Option<Owed>,
    /// Its last lease, as the replies that it got have it.
    pub(super) lease: Option<Held>,
    /// What it answers if it is asked whether it may act as leader.
    pub(super) claim: Option<Claim>,
    /// The term of the leader in its last leader event.
    pub(super) told_leader: Option<Term>,
    /// The last label that it saw published.
    pub(super) seen_label: Option<Version>,
    /// The version of its last `on_stable` call.
    pub(super) announced: Option<Version>,
    /// The time on its clock when it was frozen.
    pub(super) frozen_at: Timestamp,
    pub(super) asked: Vec<(RequestId, String, Term)>,
    /// In which era it saw what it knows of `view/` and of `ready/`.
    pub(super) seen_in: [usize; 2],
    /// The era of the store to which it is connected.
    pub(super) era: usize,
    pub(super) handled: u64,
    /// Whether it is started again when it ends.
    pub(super) returns: bool,
}

pub(super) struct Watch {
    pub(super) token: Token,
    pub(super) prefix: Key,
    /// 0 for `view/`, 1 for `ready/`.
    pub(super) place: usize,
    pub(super) seen: Revision,
    pub(super) open: bool,
    /// Whether the next delivery is on its way.
    pub(super) coming: bool,
}

/// A callback that runs.
pub(super) struct Run {
    pub(super) token: Token,
    pub(super) version: Version,
    pub(super) attempt: u32,
    pub(super) term: Term,
    pub(super) told: bool,
    pub(super) stuck: bool,
}

/// A health check that runs.
pub(super) struct Check {
    pub(super) token: Token,
    /// When it began, or the process last went on, on its own clock.
    pub(super) since: Timestamp,
    pub(super) stuck: bool,
    /// Whether it was to be ended.
    pub(super) ended: bool,
}

/// A lease by what its process was told: times on its own clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) id: LeaseId,
    pub(super) ttl: Duration,
    /// Until when its holder may act as leader.
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
            stabilizing: None,
            announcing: None,
            checks: None,
            checking: None,
            owes: None,
            lease: None,
            claim: None,
            told_leader: None,
            seen_label: None,
            announced: None,
            frozen_at: Timestamp::ZERO,
            asked: Vec::new(),
            seen_in: [0; 2],
            era: 0,
            handled: 0,
            returns: true,
        }
    }

    /// The process is gone, and what it held in memory.
    pub(super) fn end(&mut self) {
        self.machine = None;
        self.frozen = false;
        self.held.clear();
        self.wake_at = None;
        self.watches.clear();
        (self.stabilizing, self.announcing) = (None, None);
        (self.checking, self.owes) = (None, None);
        (self.lease, self.claim) = (None, None);
        (self.told_leader, self.seen_label, self.announced) = (None, None, None);
        self.asked.clear();
    }

    /// Something is wrong with it until then.
    pub(super) fn open_window(&mut self, kind: Kind, until: Moment, choice: u64) {
        let window = &mut self.windows[kind as usize];
        *window = (window.0.max(until), choice);
    }

    /// Whether that is wrong with it, and the choice made for it.
    pub(super) fn window(&self, kind: Kind, now: Moment) -> Option<u64> {
        let (until, choice) = self.windows[kind as usize];
        (now < until).then_some(choice)
    }

    pub(super) fn window_ends(&self, kind: Kind) -> Moment {
        self.windows[kind as usize].0
    }

    /// Nothing is wrong with it any more.
    pub(super) fn close_windows(&mut self) {
        self.windows = [(Moment::default(), 0); Kind::ALL.len()];
    }

    /// Its wall clock time, in milliseconds since 1970.
    pub(super) fn wall_ms(&self, now: Moment) -> u64 {
        1_700_000_000_000 + self.wall + now.as_nanos() / 1_000_000
    }

    pub(super) fn is_up(&self) -> bool {
        self.machine.is_some()
    }

    /// Whether it runs, and is not frozen.
    pub(super) fn is_awake(&self) -> bool {
        self.is_up() && !self.frozen
    }
}
