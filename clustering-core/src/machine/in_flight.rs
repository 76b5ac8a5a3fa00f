use super::Token;
use crate::{
    config::Backoff,
    store::{ErrorKind, Revision, StoreError},
    time::Timestamp,
};

/// One kind of commit, of which at most one is on its way.
///
/// Replies decide little: the log tells what happened. A flight only keeps the same commit from being sent again before
/// the log had a chance to tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct InFlight {
    state: State,
    failures: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
enum State {
    #[default]
    Idle,
    /// On its way since the fold stood at `folded`.
    Sent { token: Token, sent: Timestamp, folded: Revision },
    /// Succeeded at that revision. Until the fold has reached it, new decisions would be based on outdated state. But
    /// if the store is restored to a moment before the commit, the commit never appears, and a watch that had not
    /// reached it need not report the restore. Therefore the commit is repeated at `until` if it is still needed.
    Folding { revision: Revision, until: Timestamp },
    /// Refused by a guard: the fold was behind. Again once it moved past `folded`, or at `until` at the latest.
    Refused { folded: Revision, until: Timestamp },
    /// The store did not answer, or not now. Repeated at `until`; the guards make that safe.
    Waiting { until: Timestamp },
}

impl InFlight {
    /// Whether the commit may be sent, if it is still wanted.
    pub(crate) fn is_free(&self, now: Timestamp, folded: Revision) -> bool {
        match self.state {
            State::Idle => true,
            State::Sent { .. } => false,
            State::Folding { revision, until } => folded >= revision || now >= until,
            State::Refused { folded: at, until } => folded > at || now >= until,
            State::Waiting { until } => now >= until,
        }
    }

    /// Whether it is on its way, or done and the fold has not seen it yet.
    pub(crate) fn is_under_way(&self, folded: Revision) -> bool {
        match self.state {
            State::Sent { .. } => true,
            State::Folding { revision, .. } => folded < revision,
            State::Idle | State::Refused { .. } | State::Waiting { .. } => false,
        }
    }

    /// True if the last attempt failed, and another attempt is in flight or due later.
    pub(crate) fn is_failing(&self, now: Timestamp, folded: Revision) -> bool {
        self.failures > 0 && !self.is_free(now, folded)
    }

    /// When a commit that is still wanted may be sent because time passed.
    pub(crate) fn due(&self, folded: Revision) -> Option<Timestamp> {
        match self.state {
            State::Refused { until, .. } | State::Waiting { until } => Some(until),
            State::Folding { revision, until } => (folded < revision).then_some(until),
            State::Idle | State::Sent { .. } => None,
        }
    }

    pub(crate) fn sent(&mut self, token: Token, now: Timestamp, folded: Revision) {
        self.state = State::Sent { token, sent: now, folded };
    }

    /// Takes the reply if it is to this commit. Returns when the commit was sent.
    pub(crate) fn take(
        &mut self,
        token: Token,
        result: &Result<Revision, StoreError>,
        now: Timestamp,
        retry: &Backoff,
    ) -> Option<Timestamp> {
        let State::Sent { token: awaited, sent, folded } = self.state else { return None };
        if token != awaited {
            return None;
        }
        self.state = match result {
            Ok(revision) => {
                self.failures = 0;
                State::Folding { revision: *revision, until: now + retry.max }
            }
            Err(error) => {
                self.failures += 1;
                match error.kind() {
                    ErrorKind::GuardFailed { .. } => State::Refused { folded, until: now + retry.max },
                    ErrorKind::Invalid | ErrorKind::Refused => State::Waiting { until: now + retry.max },
                    _ => State::Waiting { until: now + retry.after(self.failures) },
                }
            }
        };
        Some(sent)
    }

    /// Forgets what was on its way: its session is over, or the log that would tell was replaced.
    pub(crate) fn reset(&mut self) {
        *self = InFlight::default();
    }
}
