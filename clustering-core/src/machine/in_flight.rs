//! A kind of commit of which at most one is in flight.

use super::{facts::Facts, token::Token};
use crate::{
    config::RETRY,
    store::{ErrorKind, Revision, StoreError},
    time::Timestamp,
};

/// Tracks one kind of commit, so that it is not sent again before the log could show the result of the last attempt.
///
/// Replies decide little: the log shows what happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct InFlight {
    state: State,
    /// Number of failures in a row.
    failures: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
enum State {
    #[default]
    Idle,
    /// Sent when the fold was at `folded`, and not answered yet.
    Sent { token: Token, folded: Revision },
    /// Succeeded at that revision. Until the fold has reached it, new decisions would be based on outdated state. But
    /// if the store is restored to a moment before the commit, the commit never appears, and a watch that had not
    /// reached it need not report the restore. Therefore the commit is repeated at `until` if it is still needed.
    Folding { revision: Revision, until: Timestamp },
    /// Refused by a guard, since the fold was behind. May be sent again once the fold is past `folded`, or at `until`.
    Refused { folded: Revision, until: Timestamp },
    /// Failed otherwise. May be sent again at `until`; the guards make that safe even if it was applied.
    Waiting { until: Timestamp },
}

impl InFlight {
    /// True if the commit may be sent now, provided that it is needed.
    pub(crate) fn is_free(&self, facts: &Facts) -> bool {
        let (now, folded) = (facts.now, facts.folded());
        match self.state {
            State::Idle => true,
            State::Sent { .. } => false,
            State::Folding { revision, until } => folded >= revision || now >= until,
            State::Refused { folded: at, until } => folded > at || now >= until,
            State::Waiting { until } => now >= until,
        }
    }

    /// True if the commit is in flight, or has succeeded and is not folded yet.
    pub(crate) fn is_under_way(&self, facts: &Facts) -> bool {
        match self.state {
            State::Sent { .. } => true,
            State::Folding { revision, .. } => facts.folded() < revision,
            State::Idle | State::Refused { .. } | State::Waiting { .. } => false,
        }
    }

    /// True if the last attempt failed, and another attempt is in flight or due later.
    pub(crate) fn is_failing(&self, facts: &Facts) -> bool {
        self.failures > 0 && !self.is_free(facts)
    }

    /// Returns the time at which the commit may be sent even if the log does not change.
    pub(crate) fn due(&self, facts: &Facts) -> Option<Timestamp> {
        match self.state {
            State::Refused { until, .. } | State::Waiting { until } => Some(until),
            State::Folding { revision, until } => (facts.folded() < revision).then_some(until),
            State::Idle | State::Sent { .. } => None,
        }
    }

    pub(crate) fn sent(&mut self, facts: &Facts, token: Token) {
        self.state = State::Sent { token, folded: facts.folded() };
    }

    /// Handles the reply. Returns false if no attempt waits for a reply with that token.
    #[must_use]
    pub(crate) fn take(
        &mut self,
        facts: &Facts,
        token: Token,
        result: &Result<Revision, StoreError>,
    ) -> bool {
        let State::Sent { token: awaited, folded } = self.state else { return false };
        if token != awaited {
            return false;
        }
        let now = facts.now;
        self.state = match result {
            Ok(revision) => {
                self.failures = 0;
                State::Folding { revision: *revision, until: now + RETRY.max }
            }
            Err(error) => {
                self.failures += 1;
                match error.kind() {
                    ErrorKind::GuardFailed { .. } => State::Refused { folded, until: now + RETRY.max },
                    ErrorKind::Invalid | ErrorKind::Refused => State::Waiting { until: now + RETRY.max },
                    _ => State::Waiting { until: now + RETRY.after(self.failures) },
                }
            }
        };
        true
    }

    /// Forgets the last attempt, since its session is over or the log was replaced.
    pub(crate) fn reset(&mut self) {
        *self = InFlight::default();
    }
}
