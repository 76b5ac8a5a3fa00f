//! Calling the user's `on_stable` (P4).

use super::{election::Election, facts::Facts, log::Resync, outbox::Outbox, timers::Timers, token::Token};
use crate::{event::Event, store::Revision, time::Timestamp, version::Term, view::View};

/// Calls `on_stable` at most once for each version, on the leader that recorded the version as stable, one call at a
/// time.
///
/// The log shows that the version was recorded, and under which term. The reply to the commit may be lost.
///
/// A call that does not return keeps later versions from being announced. It is reported, and cancelled if a time limit
/// is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Announcement {
    running: Option<Running>,
    /// Revision that published the last version that was announced.
    announced: Revision,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Running {
    token: Token,
    view: View,
    term: Term,
    started: Timestamp,
    superseded: bool,
    aborted: bool,
    reported_slow: bool,
}

impl Announcement {
    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(crate) fn timers(&self, facts: &Facts, timers: &mut Timers) {
        if let Some(run) = &self.running {
            timers.at(run.started + facts.config.warn_after);
            timers.maybe(facts.config.on_stable_timeout.map(|limit| run.started + limit));
        }
    }

    /// Handles a snapshot of the log. After a restore of the store, revisions start again below that of the last
    /// announced version. Versions do not repeat, because new labels are greater than all that were seen.
    pub(crate) fn on_resync(&mut self, resync: &Resync) {
        if resync.rewound {
            self.announced = Revision::ZERO;
        }
    }

    /// Supersedes the call for an older version or term, or starts the call that is due.
    pub(crate) fn reconcile(&mut self, facts: &Facts, election: &Election, out: &mut Outbox) {
        let acting = election.active_term(facts.now);
        let newest = facts.fold.newest();
        if let Some(run) = &mut self.running {
            let version = newest.map(View::revision);
            let is_current = acting == Some(run.term) && version == Some(run.view.revision());
            if !is_current && !run.superseded {
                run.superseded = true;
                out.supersede(run.token);
            }
            return run.check_time(facts, out);
        }
        let stable = facts.fold.stable().filter(|_| facts.fold.is_stable());
        let recorded = stable.and_then(|stable| stable.record.as_ref()).and_then(|record| record.term);
        let (Some(term), Some(view)) = (acting, newest) else { return };
        if recorded == Some(term) && view.revision() > self.announced {
            self.start(facts, view.clone(), term, out);
        }
    }

    fn start(&mut self, facts: &Facts, view: View, term: Term, out: &mut Outbox) {
        self.announced = view.revision();
        let token = out.announce(view.clone(), term, facts.now);
        self.running = Some(Running {
            token,
            view,
            term,
            started: facts.now,
            superseded: false,
            aborted: false,
            reported_slow: false,
        });
    }

    /// Handles the result of the call.
    pub(crate) fn on_ended(&mut self, token: Token, result: Result<(), String>, out: &mut Outbox) {
        let Some(run) = self.running.take_if(|run| run.token == token) else { return };
        if let Err(reason) = result {
            out.emit(Event::AnnouncementFailed { version: run.view.version(), reason });
        }
    }
}

impl Running {
    /// Reports a call that takes long, and cancels a call that exceeds the time limit.
    fn check_time(&mut self, facts: &Facts, out: &mut Outbox) {
        let running = facts.now.since(self.started);
        if running >= facts.config.warn_after && !self.reported_slow {
            self.reported_slow = true;
            out.emit(Event::AnnouncementSlow { version: self.view.version(), running });
        }
        let limit = facts.config.on_stable_timeout.filter(|limit| running >= *limit);
        if let Some(limit) = limit.filter(|_| !self.aborted) {
            self.aborted = true;
            out.abort(self.token, format!("it was ended after {limit:?}, the on_stable timeout"));
        }
    }
}
