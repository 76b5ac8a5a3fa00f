use super::Machine;
use crate::{event::Event, time::Timestamp};

/// Whether the store answers, as far as this node can tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Contact {
    away_since: Option<Timestamp>,
    reason: Option<String>,
}

impl Contact {
    /// Takes down what was seen of a failure, for people.
    pub(crate) fn failed(&mut self, reason: impl ToString) {
        self.reason = Some(reason.to_string());
    }

    /// Since when it has not answered.
    pub(crate) fn away_since(&self) -> Option<Timestamp> {
        self.away_since
    }
}

impl Machine {
    pub(super) fn reconcile_contact(&mut self, now: Timestamp) {
        let away = self.log.follow.is_failing() || self.session.is_failing();
        match self.contact.away_since {
            None if away => {
                self.contact.away_since = Some(now);
                let reason = self.contact.reason.take().unwrap_or_else(|| "it does not answer".to_owned());
                self.emit(Event::StoreAway { reason });
            }
            Some(since) if !away => {
                self.contact.away_since = None;
                self.emit(Event::StoreBack { away: now.since(since) });
            }
            _ => {}
        }
    }
}
