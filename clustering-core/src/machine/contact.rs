//! Contact with the store, as far as this node can tell.

use crate::{event::Event, time::Timestamp};

/// Records since when the store has not answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Contact {
    away_since: Option<Timestamp>,
    /// Description of the last failure, for the event.
    reason: Option<String>,
}

impl Contact {
    /// Records the description of a failure.
    pub(crate) fn failed(&mut self, reason: impl ToString) {
        self.reason = Some(reason.to_string());
    }

    /// Returns the time at which the store stopped answering; `None` while it answers.
    pub(crate) fn away_since(&self) -> Option<Timestamp> {
        self.away_since
    }

    /// Updates the contact. Returns an event if it was lost or restored.
    pub(crate) fn update(&mut self, is_away: bool, now: Timestamp) -> Option<Event> {
        match self.away_since {
            None if is_away => {
                self.away_since = Some(now);
                let reason = self.reason.take().unwrap_or_else(|| "it does not answer".to_owned());
                Some(Event::StoreAway { reason })
            }
            Some(since) if !is_away => {
                self.away_since = None;
                Some(Event::StoreBack { away: now.since(since) })
            }
            _ => None,
        }
    }
}
