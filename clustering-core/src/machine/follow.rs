//! Following a prefix of the store.

use std::time::Duration;

use super::{
    facts::Facts,
    outbox::{Call, Outbox},
    token::Token,
};
use crate::{
    config::RETRY,
    store::{Key, Revision, StoreError},
    time::Timestamp,
};

/// Watches that broke are resumed within this time, spread at random, so that a thousand nodes whose connections broke
/// together do not reconnect together.
pub(crate) const RESUME_WITHIN: Duration = Duration::from_millis(100);

/// Follows a prefix: reads a snapshot, watches from its revision, and resumes the watch when it breaks.
///
/// The type only tracks the calls. Its owner folds the snapshot and the batches.
///
/// ```text
///   Off ──start──▶ Waiting(Read) ──▶ Reading ──▶ Waiting(Watch) ──▶ Opening ──▶ Open
///                       ▲                             ▲                           │
///                       └────────────── gap ──────────┴────────── broke ──────────┘
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Follow {
    prefix: Key,
    call: Call,
    state: State,
    /// Number of failures in a row.
    failures: u32,
    /// True once a snapshot was read since the start.
    synced: bool,
    /// True from a failure on until the watch is open again.
    broken: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum State {
    Off,
    Reading { token: Token },
    Opening { token: Token },
    Open { token: Token, since: Timestamp },
    Waiting { until: Timestamp, next: Next },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Next {
    Read,
    Watch,
}

impl Follow {
    pub(crate) fn new(prefix: Key, call: Call) -> Self {
        Follow { prefix, call, state: State::Off, failures: 0, synced: false, broken: false }
    }

    /// Starts by reading a snapshot, unless it has already started.
    pub(crate) fn start(&mut self, now: Timestamp) {
        if self.state == State::Off {
            self.state = State::Waiting { until: now, next: Next::Read };
        }
    }

    /// Starts with the watch, unless it has already started. No snapshot is read, because what is stored now does not
    /// matter. Returns true if it had not started.
    pub(crate) fn start_watching(&mut self, now: Timestamp) -> bool {
        let off = self.state == State::Off;
        if off {
            self.synced = true;
            self.state = State::Waiting { until: now, next: Next::Watch };
        }
        off
    }

    /// Stops, and drops the watch.
    pub(crate) fn stop(&mut self, out: &mut Outbox) {
        let open = match self.state {
            State::Opening { token } | State::Open { token, .. } => Some(token),
            _ => None,
        };
        if let Some(token) = open {
            out.unwatch(token);
        }
        if self.state != State::Off {
            *self = Follow::new(self.prefix.clone(), self.call);
        }
    }

    /// True if a snapshot was read since the start.
    pub(crate) fn is_synced(&self) -> bool {
        self.synced
    }

    /// True if no change was missed since the last snapshot: the watch is open or will be opened.
    pub(crate) fn is_whole(&self) -> bool {
        match self.state {
            State::Opening { .. } | State::Open { .. } => true,
            State::Waiting { next, .. } => next == Next::Watch,
            State::Off | State::Reading { .. } => false,
        }
    }

    /// True if the watch is open, so that changes from now on will be seen.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// True if the store did not answer or ended the watch, and the watch is not open again.
    pub(crate) fn is_failing(&self) -> bool {
        self.broken
    }

    /// Returns the time of the next call, if one is scheduled.
    pub(crate) fn wakeup(&self) -> Option<Timestamp> {
        match self.state {
            State::Waiting { until, .. } => Some(until),
            _ => None,
        }
    }

    /// Sends the call that is due, if any. A watch begins after `after`, the last revision folded: so no change is
    /// missed, and none comes twice.
    pub(crate) fn reconcile(&mut self, after: Revision, now: Timestamp, out: &mut Outbox) {
        match self.state {
            State::Waiting { until, .. } if now < until => {}
            State::Waiting { next: Next::Read, .. } => {
                let token = out.read(self.call, self.prefix.clone(), now);
                self.state = State::Reading { token };
            }
            State::Waiting { next: Next::Watch, .. } => {
                let token = out.watch(self.call, self.prefix.clone(), after, now);
                self.state = State::Opening { token };
            }
            State::Off | State::Reading { .. } | State::Opening { .. } | State::Open { .. } => {}
        }
    }

    pub(crate) fn is_reading(&self, token: Token) -> bool {
        self.state == State::Reading { token }
    }

    pub(crate) fn is_watching(&self, token: Token) -> bool {
        matches!(self.state, State::Opening { token: own } | State::Open { token: own, .. } if own == token)
    }

    /// Handles a snapshot that was read. The watch is opened at once.
    pub(crate) fn read(&mut self, now: Timestamp) {
        self.synced = true;
        self.state = State::Waiting { until: now, next: Next::Watch };
    }

    /// Handles a failed read. The snapshot is read again after a delay.
    pub(crate) fn read_failed(&mut self, now: Timestamp) {
        self.failures += 1;
        self.broken = true;
        self.state = State::Waiting { until: now + RETRY.after(self.failures), next: Next::Read };
    }

    /// Handles the result of opening the watch, and returns the error if the watch could not be opened. Ignores a watch
    /// that was dropped.
    pub(crate) fn opened(
        &mut self,
        facts: &Facts,
        token: Token,
        result: Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        if !self.is_watching(token) {
            return Ok(());
        }
        match result {
            Ok(()) => {
                self.broken = false;
                self.state = State::Open { token, since: facts.now };
            }
            Err(_) => self.broke(facts, RESUME_WITHIN),
        }
        result
    }

    /// Resets the backoff: the watch yielded a batch, so it works.
    pub(crate) fn yielded(&mut self) {
        self.failures = 0;
    }

    /// Handles a broken watch. It is resumed after `pause`, and after longer pauses if that fails.
    pub(crate) fn broke(&mut self, facts: &Facts, pause: Duration) {
        self.forgive(facts.now);
        let delay = if self.failures == 0 { pause } else { RETRY.after(self.failures) };
        self.failures += 1;
        self.broken = true;
        self.state = State::Waiting { until: facts.now + delay, next: Next::Watch };
    }

    /// Handles a watch that cannot be resumed from its last revision. A snapshot is read instead.
    pub(crate) fn gap(&mut self, facts: &Facts) {
        self.forgive(facts.now);
        let delay = if self.failures == 0 { Duration::ZERO } else { RETRY.after(self.failures) };
        self.failures += 1;
        self.state = State::Waiting { until: facts.now + delay, next: Next::Read };
    }

    /// Resets the backoff if the watch was open for a while, even if it yielded nothing.
    fn forgive(&mut self, now: Timestamp) {
        if let State::Open { since, .. } = self.state
            && now.since(since) > RETRY.max
        {
            self.failures = 0;
        }
    }
}
