//! The next wake-up of the machine.

use crate::time::Timestamp;

/// Collects the times at which concerns have something to do, and keeps the earliest.
///
/// Times up to the last input are ignored: all that was due by then has been done, and a concern that could not act
/// waits for an input, not for time to pass. So the machine never asks to be woken at once.
#[derive(Debug)]
pub(crate) struct Timers {
    last_input: Timestamp,
    next: Timestamp,
}

impl Timers {
    pub(crate) fn after(last_input: Timestamp) -> Self {
        Timers { last_input, next: Timestamp::NEVER }
    }

    /// Adds a time.
    pub(crate) fn at(&mut self, time: Timestamp) {
        if time > self.last_input {
            self.next = self.next.min(time);
        }
    }

    /// Adds a time, if there is one.
    pub(crate) fn maybe(&mut self, time: Option<Timestamp>) {
        if let Some(time) = time {
            self.at(time);
        }
    }

    /// Returns the earliest time, if any was added.
    pub(crate) fn next(self) -> Option<Timestamp> {
        (self.next != Timestamp::NEVER).then_some(self.next)
    }
}
