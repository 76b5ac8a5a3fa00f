//! Following the log, `{ns}/view/` (P1, P2).

use std::time::Duration;

use super::{
    facts::Facts,
    follow::{Follow, RESUME_WITHIN},
    outbox::{Call, Outbox},
    session::{Session, SessionEnd},
    timers::Timers,
    token::Token,
};
use crate::{
    event::{Event, LostReason},
    fold::Changed,
    keyspace::Keyspace,
    name::NodeName,
    store::{Batch, Snapshot, StoreError, WatchEnd},
    time::Timestamp,
    version::Version,
};

/// Follows the log, folds its changes and reports them as events.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Log {
    follow: Follow,
    /// True if the watch ended because the store was restored to an older state. The next snapshot then replaces
    /// everything that was folded.
    rewound: bool,
    /// The newest version label that this process has seen, or that a node record in the log names as seen. It is kept
    /// across sessions and restores of the store, and new labels are greater (P2).
    newest_seen: Option<Version>,
    /// Time at which the newest version was folded.
    version_at: Option<Timestamp>,
    /// Time between the newest version and the one before.
    version_interval: Option<Duration>,
}

/// The effect of a snapshot.
#[derive(Debug)]
pub(crate) struct Resync {
    /// True for the first snapshot.
    pub(crate) first: bool,
    /// True if the store was restored to an older state: revisions count from lower again.
    pub(crate) rewound: bool,
    pub(crate) changes: Vec<Changed>,
}

impl Log {
    pub(crate) fn new(keyspace: &Keyspace) -> Self {
        Log {
            follow: Follow::new(keyspace.view_prefix().clone(), Call::Log),
            rewound: false,
            newest_seen: None,
            version_at: None,
            version_interval: None,
        }
    }

    /// True once a snapshot was read.
    pub(crate) fn is_synced(&self) -> bool {
        self.follow.is_synced()
    }

    /// True if the watch is open.
    pub(crate) fn is_open(&self) -> bool {
        self.follow.is_open()
    }

    /// True if the store did not answer or broke the watch off, and the watch is not open again.
    pub(crate) fn is_failing(&self) -> bool {
        self.follow.is_failing()
    }

    /// Returns the label above which new labels are generated.
    pub(crate) fn newest_seen(&self) -> Option<Version> {
        self.newest_seen
    }

    /// True if a node has seen a newer label than the newest version has. This happens after a restore of the store, if
    /// a node that had seen the newer label joins between the leader's last read and its commit.
    pub(crate) fn is_outdone(&self, facts: &Facts) -> bool {
        facts.fold.newest().is_some_and(|newest| Some(newest.version()) < self.newest_seen)
    }

    /// Returns the time at which the newest version was folded.
    pub(crate) fn version_at(&self) -> Option<Timestamp> {
        self.version_at
    }

    /// Returns the time between the newest version and the one before.
    pub(crate) fn version_interval(&self) -> Option<Duration> {
        self.version_interval
    }

    pub(crate) fn timers(&self, timers: &mut Timers) {
        timers.maybe(self.follow.wakeup());
    }

    /// Sends the read or opens the watch that is due.
    pub(crate) fn reconcile(&mut self, facts: &Facts, out: &mut Outbox) {
        if facts.is_ending() {
            return;
        }
        self.follow.start(facts.now);
        self.follow.reconcile(facts.folded(), facts.now, out);
    }

    /// Drops the watch, because the node ends.
    pub(crate) fn stop(&mut self, out: &mut Outbox) {
        self.follow.stop(out);
    }

    /// Handles the reply to a read of the log, and folds the snapshot. If the store was restored to an older state, the
    /// session ends.
    pub(crate) fn on_read(
        &mut self,
        facts: &mut Facts,
        session: &mut Session,
        token: Token,
        result: Result<Snapshot, StoreError>,
        out: &mut Outbox,
    ) -> Option<Resync> {
        if !self.follow.is_reading(token) {
            return None;
        }
        let snapshot = match result {
            Ok(snapshot) => snapshot,
            Err(error) => {
                out.report_refusal(&error);
                out.contact.failed(&error);
                self.follow.read_failed(facts.now);
                return None;
            }
        };
        // Revisions never decrease, so an older snapshot than the fold shows that the store was restored.
        let rewound = std::mem::take(&mut self.rewound) || snapshot.revision < facts.folded();
        let first = !self.is_synced();
        let changes = facts.fold.resync(&snapshot, rewound);
        self.follow.read(facts.now);
        if !first {
            out.emit(Event::Resynced { rewound, revision: snapshot.revision });
        }
        if rewound {
            session.end(facts, SessionEnd::Lost(LostReason::Rewound), out);
        }
        Some(Resync { first, rewound, changes })
    }

    /// Handles the reply to the opening of the watch.
    pub(crate) fn on_opened(
        &mut self,
        facts: &Facts,
        token: Token,
        result: Result<(), StoreError>,
        out: &mut Outbox,
    ) {
        if let Err(error) = self.follow.opened(facts, token, result) {
            out.contact.failed(&error);
            out.report_refusal(&error);
        }
    }

    /// Folds a batch of the watch, and returns its changes.
    pub(crate) fn on_batch(&mut self, facts: &mut Facts, token: Token, batch: &Batch) -> Vec<Changed> {
        if !self.follow.is_watching(token) {
            return Vec::new();
        }
        self.follow.yielded();
        facts.fold.apply(batch)
    }

    /// Handles the end of the watch.
    pub(crate) fn on_watch_ended(&mut self, facts: &Facts, token: Token, end: WatchEnd, out: &mut Outbox) {
        if !self.follow.is_watching(token) {
            return;
        }
        out.contact.failed(&end);
        match end {
            WatchEnd::Compacted { .. } => self.follow.gap(facts),
            WatchEnd::Rewound { .. } => {
                self.rewound = true;
                self.follow.gap(facts);
            }
            WatchEnd::Disconnected { .. } => {
                let pause = Duration::from_nanos(out.ids.below(RESUME_WITHIN.as_nanos() as u64));
                self.follow.broke(facts, pause);
            }
        }
    }

    /// Reports a change of the log, and remembers the newest label.
    pub(crate) fn on_change(&mut self, facts: &Facts, change: &Changed, out: &mut Outbox) {
        match change {
            Changed::Up(node) => {
                self.see(node.seen);
                out.emit(Event::NodeUp { name: node.name.clone(), uri: node.uri.clone() });
            }
            Changed::Renewed(node) => {
                self.see(node.seen);
                out.emit(Event::NodeChanged { name: node.name.clone(), uri: node.uri.clone() });
            }
            Changed::Down(node, how, _) => {
                out.emit(Event::NodeDown { name: node.name.clone(), how: *how });
            }
            Changed::Version => self.on_version(facts, out),
            Changed::Stable => {
                if facts.fold.is_stable()
                    && let Some(view) = facts.fold.newest()
                {
                    out.emit(Event::Stable { version: view.version() });
                }
            }
            Changed::Malformed { key, reason } => {
                out.emit(Event::Malformed { key: key.clone(), reason: reason.clone() });
            }
            Changed::Released => {
                if facts.fold.is_released()
                    && let Some(view) = facts.fold.newest()
                {
                    out.emit(Event::Released { version: view.version() });
                }
            }
            Changed::Cordoned(name) => out.emit(Event::Cordoned { name: name.clone() }),
            Changed::Uncordoned(name) => out.emit(Event::Uncordoned { name: name.clone() }),
            Changed::Leader | Changed::Request | Changed::Departed(_) | Changed::Other => {}
        }
    }

    fn on_version(&mut self, facts: &Facts, out: &mut Outbox) {
        let record = facts.fold.version().and_then(|version| version.record.as_ref());
        self.see(record.map(|record| record.version));
        self.version_interval = self.version_at.map(|last| facts.now.since(last));
        self.version_at = Some(facts.now);
        if let Some(view) = facts.fold.newest() {
            out.emit(Event::VersionPublished {
                version: view.version(),
                revision: view.revision(),
                nodes: view.len(),
                causes: view.causes().to_vec(),
            });
            let previous = facts.fold.previous();
            let is_new =
                |name: &NodeName| previous.is_none_or(|previous| !previous.kept().contains_key(name));
            for (name, keep) in
                view.kept().iter().filter(|(name, _)| view.get(name).is_none() && is_new(name))
            {
                out.emit(Event::SlotsKept { name: name.clone(), keep: *keep });
            }
        }
    }

    /// Records a label. Labels that are out of range were written by hand and are ignored.
    fn see(&mut self, label: Option<Version>) {
        self.newest_seen = self.newest_seen.max(label.filter(|label| label.is_plausible()));
    }
}
