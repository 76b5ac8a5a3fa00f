use super::{Machine, Output, Timers, Token};
use crate::{event::Event, store::Revision, time::Timestamp, version::Term, view::View};

/// Calling the user's `on_stable`: at most once for a version, by the leader that recorded it, one at a time (P4).
///
/// The log tells that it was recorded and under which term, not the reply to the commit, which may be lost.
///
/// A call that does not return keeps later versions from being announced. It is reported, and cancelled if a time limit
/// is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Announcement {
    running: Option<Running>,
    /// The last version announced, by the revision that wrote it.
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

    /// The store was restored to an older state: revisions begin again below the last one announced. Versions do not
    /// come again, their labels are minted above all that were seen.
    pub(crate) fn rewound(&mut self) {
        self.announced = Revision::ZERO;
    }
}

impl Machine {
    pub(super) fn announcement_timers(&self, timers: &mut Timers) {
        if let Some(run) = &self.announcement.running {
            timers.at(run.started + self.config.warn_after);
            timers.maybe(self.config.on_stable_timeout.map(|limit| run.started + limit));
        }
    }

    pub(super) fn reconcile_announcement(&mut self, now: Timestamp) {
        let acting = self.active_term(now);
        let newest = self.fold.newest().map(View::revision);
        if let Some(run) = &mut self.announcement.running {
            let good = acting == Some(run.term) && newest == Some(run.view.revision());
            if !good && !run.superseded {
                run.superseded = true;
                let token = run.token;
                self.outputs.push_back(Output::Supersede { token });
            }
            return self.watch_announcement(now);
        }
        let Some(term) = acting else { return };
        let recorded =
            self.fold.stable().and_then(|stable| stable.record.as_ref()).and_then(|record| record.term);
        if recorded != Some(term) || !self.fold.is_stable() {
            return;
        }
        let Some(view) = self.fold.newest().filter(|view| view.revision() > self.announcement.announced)
        else {
            return;
        };
        let (view, token) = (view.clone(), self.token());
        self.announcement.announced = view.revision();
        self.announcement.running = Some(Running {
            token,
            view: view.clone(),
            term,
            started: now,
            superseded: false,
            aborted: false,
            reported_slow: false,
        });
        self.emit(Event::Announcing { version: view.version(), term });
        self.outputs.push_back(Output::Announce { token, view, term });
    }

    /// Reports a call that takes long, and cancels a call that exceeds the time limit.
    fn watch_announcement(&mut self, now: Timestamp) {
        let Some(run) = &mut self.announcement.running else { return };
        let (token, version, running) = (run.token, run.view.version(), now.since(run.started));
        let slow = running >= self.config.warn_after && !run.reported_slow;
        run.reported_slow |= slow;
        let limit = self.config.on_stable_timeout.filter(|limit| running >= *limit && !run.aborted);
        run.aborted |= limit.is_some();
        if slow {
            self.emit(Event::AnnouncementSlow { version, running });
        }
        if let Some(limit) = limit {
            let reason = format!("it was ended after {limit:?}, the on_stable timeout");
            self.outputs.push_back(Output::Abort { token, reason });
        }
    }

    pub(super) fn on_announced(&mut self, token: Token, result: Result<(), String>) {
        let Some(run) = self.announcement.running.take_if(|run| run.token == token) else { return };
        if let Err(reason) = result {
            self.emit(Event::AnnouncementFailed { version: run.view.version(), reason });
        }
    }
}
