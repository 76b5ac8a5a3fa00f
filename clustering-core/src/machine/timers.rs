use crate::time::Timestamp;

/// Collects when something is due because time passes, and not because anything happens.
///
/// What was due by the last input has been seen to: where a concern could not act then, some other input will change
/// that. So only later moments count, and a machine never asks to be woken at once.
#[derive(Debug)]
pub(crate) struct Timers {
    seen_to: Timestamp,
    next: Timestamp,
}

impl Timers {
    pub(crate) fn after(seen_to: Timestamp) -> Self {
        Timers { seen_to, next: Timestamp::NEVER }
    }

    /// Something is due at that time.
    pub(crate) fn at(&mut self, time: Timestamp) {
        if time > self.seen_to {
            self.next = self.next.min(time);
        }
    }

    /// Something is due at that time, if there is one.
    pub(crate) fn maybe(&mut self, time: Option<Timestamp>) {
        if let Some(time) = time {
            self.at(time);
        }
    }

    pub(crate) fn next(self) -> Option<Timestamp> {
        (self.next != Timestamp::NEVER).then_some(self.next)
    }
}
