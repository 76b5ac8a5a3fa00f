use std::time::Duration;

use super::Token;
use crate::{config::Backoff, store::Key, time::Timestamp};

/// Follows a prefix: reads a snapshot, watches from its revision, and resumes when the watch breaks.
///
/// It knows where it stands, not what it saw: its owner folds the snapshot and the batches.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Follow {
    prefix: Key,
    state: State,
    failures: u32,
    synced: bool,
    /// The store did not answer, or broke the watch off, and the watch is not open again yet.
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

/// What a follower wants done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    Read,
    Watch,
}

impl Follow {
    pub(crate) fn new(prefix: Key) -> Self {
        Follow { prefix, state: State::Off, failures: 0, synced: false, broken: false }
    }

    pub(crate) fn prefix(&self) -> &Key {
        &self.prefix
    }

    /// Starts from a snapshot, if it is off.
    pub(crate) fn start(&mut self, now: Timestamp) {
        if self.state == State::Off {
            self.state = State::Waiting { until: now, next: Next::Read };
        }
    }

    /// Starts without a snapshot, if it is off: what stands there now is of no interest. Whether it was off.
    pub(crate) fn start_watching(&mut self, now: Timestamp) -> bool {
        let off = self.state == State::Off;
        if off {
            self.synced = true;
            self.state = State::Waiting { until: now, next: Next::Watch };
        }
        off
    }

    /// Ends, and returns the watch to drop.
    pub(crate) fn stop(&mut self) -> Option<Token> {
        let open = match self.state {
            State::Opening { token } | State::Open { token, .. } => Some(token),
            _ => None,
        };
        *self = Follow::new(self.prefix.clone());
        open
    }

    /// Whether a snapshot was read since it was started.
    pub(crate) fn is_synced(&self) -> bool {
        self.synced
    }

    /// Whether nothing was missed since the last snapshot: its watch is open, or is yet to be.
    pub(crate) fn is_whole(&self) -> bool {
        match self.state {
            State::Opening { .. } | State::Open { .. } => true,
            State::Waiting { next, .. } => next == Next::Watch,
            State::Off | State::Reading { .. } => false,
        }
    }

    /// Whether the watch is open, so that what happens from now on will be seen.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// Whether the store did not answer, or broke the watch off, and it is not open again yet.
    pub(crate) fn is_failing(&self) -> bool {
        self.broken
    }

    /// What is due. The caller does it, and tells under which token.
    pub(crate) fn due(&self, now: Timestamp) -> Option<Want> {
        match self.state {
            State::Waiting { until, next } if now >= until => Some(match next {
                Next::Read => Want::Read,
                Next::Watch => Want::Watch,
            }),
            _ => None,
        }
    }

    pub(crate) fn sent(&mut self, want: Want, token: Token) {
        self.state = match want {
            Want::Read => State::Reading { token },
            Want::Watch => State::Opening { token },
        };
    }

    /// When it goes on because time passed.
    pub(crate) fn wakeup(&self) -> Option<Timestamp> {
        match self.state {
            State::Waiting { until, .. } => Some(until),
            _ => None,
        }
    }

    pub(crate) fn is_reading(&self, token: Token) -> bool {
        self.state == State::Reading { token }
    }

    pub(crate) fn is_watching(&self, token: Token) -> bool {
        matches!(self.state, State::Opening { token: mine } | State::Open { token: mine, .. } if mine == token)
    }

    /// The snapshot was read: watch from its revision, at once.
    pub(crate) fn read(&mut self, now: Timestamp) {
        self.synced = true;
        self.state = State::Waiting { until: now, next: Next::Watch };
    }

    /// The watch is open.
    pub(crate) fn opened(&mut self, token: Token, now: Timestamp) {
        self.broken = false;
        self.state = State::Open { token, since: now };
    }

    /// The watch yields: what was wrong is over.
    pub(crate) fn yielded(&mut self) {
        self.failures = 0;
    }

    /// The snapshot could not be read: again after a while.
    pub(crate) fn read_failed(&mut self, now: Timestamp, retry: &Backoff) {
        self.failures += 1;
        self.broken = true;
        self.state = State::Waiting { until: now + retry.after(self.failures), next: Next::Read };
    }

    /// The watch broke: resume it. The first try comes soon, `jitter` later, so that a thousand nodes whose connections
    /// broke together do not come back together.
    pub(crate) fn broke(&mut self, now: Timestamp, retry: &Backoff, jitter: Duration) {
        self.forgive(now, retry);
        let delay = if self.failures == 0 { jitter } else { retry.after(self.failures) };
        self.failures += 1;
        self.broken = true;
        self.state = State::Waiting { until: now + delay, next: Next::Watch };
    }

    /// A watch that was open for a while was a good one, also if there was nothing to yield.
    fn forgive(&mut self, now: Timestamp, retry: &Backoff) {
        if let State::Open { since, .. } = self.state
            && now.since(since) > retry.max
        {
            self.failures = 0;
        }
    }

    /// The watch cannot go on from where it stood: start from a snapshot again.
    pub(crate) fn gap(&mut self, now: Timestamp, retry: &Backoff) {
        self.forgive(now, retry);
        let delay = if self.failures == 0 { Duration::ZERO } else { retry.after(self.failures) };
        self.failures += 1;
        self.state = State::Waiting { until: now + delay, next: Next::Read };
    }
}
