use std::time::Duration;

use super::{Follow, Machine, Output, Token, follow::Want, session::SessionEnd};
use crate::{
    config::RETRY,
    event::{Event, LostReason, StoreCall},
    keyspace::Keyspace,
    store::{Batch, Snapshot, StoreError, WatchEnd},
    time::Timestamp,
};

/// Broken watches are resumed within this time, spread at random.
const RESUME_WITHIN: Duration = Duration::from_millis(100);

/// Following the log that all nodes fold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Log {
    pub(crate) follow: Follow,
    /// The watch that ended said that the store was restored to an older state: the next snapshot starts all over.
    rewound: bool,
}

impl Log {
    pub(crate) fn new(keyspace: &Keyspace) -> Self {
        Log { follow: Follow::new(keyspace.view_prefix().clone()), rewound: false }
    }
}

impl Machine {
    pub(super) fn reconcile_log(&mut self, now: Timestamp) {
        if self.is_ending() {
            return;
        }
        self.log.follow.start(now);
        let Some(want) = self.log.follow.due(now) else { return };
        let token = self.token();
        let (prefix, timeout) = (self.log.follow.prefix().clone(), self.call_timeout());
        self.outputs.push_back(match want {
            Want::Read => Output::Read { token, prefix, timeout },
            // After the last revision folded: nothing is missed, nothing comes twice.
            Want::Watch => Output::Watch { token, prefix, after: self.fold.revision(), timeout },
        });
        self.log.follow.sent(want, token);
    }

    pub(super) fn on_read(&mut self, now: Timestamp, token: Token, result: Result<Snapshot, StoreError>) {
        if self.log.follow.is_reading(token) {
            match result {
                Ok(snapshot) => self.resync(now, &snapshot),
                Err(error) => {
                    self.report_refusal(&error);
                    self.contact.failed(&error);
                    self.log.follow.read_failed(now, &RETRY);
                }
            }
        } else if self.consistency.follow.is_reading(token) {
            self.on_acknowledgements_read(now, result);
        } else {
            self.on_own_acknowledgement_read(now, token, result);
        }
    }

    fn resync(&mut self, now: Timestamp, snapshot: &Snapshot) {
        // A snapshot older than what was folded tells the same: revisions never decrease.
        let rewound = std::mem::take(&mut self.log.rewound) || snapshot.revision < self.fold.revision();
        let first = !self.log.follow.is_synced();
        let changes = self.fold.resync(snapshot, rewound);
        self.log.follow.read(now);
        self.consistency.rejudge();
        self.election.rerank();
        if !first {
            self.emit(Event::Resynced { rewound, revision: snapshot.revision });
            // Whoever missed a version cannot know its view. A member asks for a new one, which all can cut.
            self.requests.note_gap(self.fold.version().is_some() && self.fold.newest().is_none());
        }
        if first || rewound {
            self.requests.begin(self.fold.version_modified());
        }
        if rewound {
            self.reset_flights();
            // Revisions count from lower again, and name other things than they did.
            self.announcement.rewound();
            self.election.rewound();
            self.end_session(now, SessionEnd::Lost(LostReason::Rewound));
        }
        self.note_changes(now, &changes);
    }

    /// Forgets commits of which the log that was replaced would have told.
    fn reset_flights(&mut self) {
        self.membership.join.reset();
        self.membership.rewrite.reset();
        self.election.campaign.reset();
        self.election.resign.reset();
        self.publication.publish.reset();
        self.consistency.confirm.reset();
        self.consistency.evict.reset();
        self.requests.ask.reset();
    }

    pub(super) fn on_watch_opened(&mut self, now: Timestamp, token: Token, result: Result<(), StoreError>) {
        let (follow, call) = if self.log.follow.is_watching(token) {
            (&mut self.log.follow, None)
        } else if self.consistency.follow.is_watching(token) {
            (&mut self.consistency.follow, Some(StoreCall::FollowAcknowledgements))
        } else {
            return;
        };
        match result {
            Ok(()) => follow.opened(token, now),
            Err(error) => {
                follow.broke(now, &RETRY, RESUME_WITHIN);
                self.contact.failed(&error);
                if let Some(call) = call {
                    self.failing.failed(now, call, &error);
                }
                self.report_refusal(&error);
            }
        }
    }

    pub(super) fn on_batches(&mut self, now: Timestamp, token: Token, batches: &[Batch]) {
        if self.log.follow.is_watching(token) {
            self.log.follow.yielded();
            for batch in batches {
                let changes = self.fold.apply(batch);
                self.note_changes(now, &changes);
            }
        } else if self.consistency.follow.is_watching(token) {
            batches.iter().for_each(|batch| self.on_acknowledgements(now, batch));
        }
    }

    pub(super) fn on_watch_ended(&mut self, now: Timestamp, token: Token, end: WatchEnd) {
        if self.log.follow.is_watching(token) {
            self.contact.failed(&end);
            match end {
                WatchEnd::Compacted { .. } => self.log.follow.gap(now, &RETRY),
                WatchEnd::Rewound { .. } => {
                    self.log.rewound = true;
                    self.log.follow.gap(now, &RETRY);
                }
                WatchEnd::Disconnected { .. } => {
                    let jitter = Duration::from_nanos(self.ids.below(RESUME_WITHIN.as_nanos() as u64));
                    self.log.follow.broke(now, &RETRY, jitter);
                }
            }
        } else if self.consistency.follow.is_watching(token) {
            // Acknowledgements have no order to keep: a re-read shows all that stand.
            self.consistency.follow.gap(now, &RETRY);
        }
    }

    /// Drops all watches: nothing is followed any more.
    pub(super) fn drop_watches(&mut self) {
        let open = [self.log.follow.stop(), self.consistency.follow.stop()];
        self.outputs.extend(open.into_iter().flatten().map(|token| Output::Unwatch { token }));
    }
}
