use super::{Machine, Output, Timers, Token};
use crate::{
    event::Event, outcome::Outcome, record::ReadinessOutcome, store::Revision, time::Timestamp, view::View,
};

/// Running the user's stabilize: one at a time, for the newest version only, until it says yes (P3).
///
/// The target is the newest view if this node is in it under its present session. A run for anything else is told
/// that it is superseded, and its answer is discarded; the next one begins when it has ended, not before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Stabilization {
    running: Option<Running>,
    /// The version last worked on, and how it went.
    progress: Option<Progress>,
    /// The last view to which a stabilize of this process said yes: what its own state is adapted to.
    adapted: Option<View>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Running {
    token: Token,
    view: View,
    attempt: u32,
    started: Timestamp,
    superseded: bool,
    aborted: bool,
    told_slow: bool,
}

/// How far this node is with a version, by the revision that wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Progress {
    revision: Revision,
    attempts: u32,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum State {
    Refused { again: Timestamp },
    Done,
}

impl Stabilization {
    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }
}

impl Machine {
    pub(super) fn stabilization_timers(&self, timers: &mut Timers) {
        if let Some(run) = &self.stabilization.running {
            timers.at(run.started + self.config.warn_after);
            timers.maybe(self.config.stabilize_timeout.map(|limit| run.started + limit));
        }
        if let Some(Progress { state: State::Refused { again }, .. }) = &self.stabilization.progress {
            timers.at(*again);
        }
    }

    /// The view to adapt to: the newest, if this node is in it as it stands now.
    pub(super) fn target(&self) -> Option<&View> {
        let modified = self.membership.modified()?;
        let view = self.fold.newest()?;
        let own = view.own()?;
        (own.modified == modified).then_some(view)
    }

    pub(super) fn reconcile_stabilization(&mut self, now: Timestamp) {
        let wanted = self.target().map(View::revision);
        if let Some(run) = &mut self.stabilization.running {
            if Some(run.view.revision()) != wanted && !run.superseded {
                run.superseded = true;
                let (token, version) = (run.token, run.view.version());
                self.outputs.push_back(Output::Supersede { token });
                self.emit(Event::Superseded { version });
            }
            return self.watch_run(now);
        }
        let Some(view) = self.target().filter(|_| !self.is_ending()) else { return };
        let attempts = match &self.stabilization.progress {
            Some(progress) if progress.revision == view.revision() => match progress.state {
                State::Done => return,
                State::Refused { again } if now < again => return,
                State::Refused { .. } => progress.attempts,
            },
            _ => 0,
        };
        let (view, token, attempt) = (view.clone(), self.token(), attempts + 1);
        let previous = self.stabilization.adapted.clone();
        self.stabilization.running = Some(Running {
            token,
            view: view.clone(),
            attempt,
            started: now,
            superseded: false,
            aborted: false,
            told_slow: false,
        });
        self.emit(Event::Stabilizing { version: view.version(), attempt });
        self.outputs.push_back(Output::Stabilize { token, view, previous, attempt });
    }

    /// Warns of a run that takes long, and ends one that takes too long.
    fn watch_run(&mut self, now: Timestamp) {
        let Some(run) = &mut self.stabilization.running else { return };
        let (token, running) = (run.token, now.since(run.started));
        let mut slow = None;
        if running >= self.config.warn_after && !run.told_slow {
            run.told_slow = true;
            slow = Some(Event::StabilizeSlow { version: run.view.version(), attempt: run.attempt, running });
        }
        let limit = self.config.stabilize_timeout.filter(|limit| running >= *limit && !run.aborted);
        run.aborted |= limit.is_some();
        if let Some(event) = slow {
            self.emit(event);
        }
        if let Some(limit) = limit {
            let reason = format!("it was ended after {limit:?}, the stabilize timeout");
            self.outputs.push_back(Output::Abort { token, reason });
        }
    }

    pub(super) fn on_stabilized(&mut self, now: Timestamp, token: Token, outcome: Outcome) {
        let Some(run) = self.stabilization.running.take_if(|run| run.token == token) else { return };
        if outcome == Outcome::Ready {
            // Also if the answer no longer matters: the process has adapted to that view, and the next difference that it
            // is shown has to start from there.
            self.stabilization.adapted = Some(run.view.clone());
        }
        if run.superseded {
            return;
        }
        let (revision, version, attempts) = (run.view.revision(), run.view.version(), run.attempt);
        let (state, detail) = match outcome {
            Outcome::Ready => (State::Done, None),
            Outcome::Refused { reason } => {
                let retry_in = self.jittered(self.config.stabilize_retry.after(attempts));
                self.emit(Event::StabilizeRefused {
                    version,
                    attempt: attempts,
                    reason: reason.clone(),
                    retry_in,
                });
                (State::Refused { again: now + retry_in }, Some(reason))
            }
        };
        let outcome = match state {
            State::Done => ReadinessOutcome::Ready,
            State::Refused { .. } => ReadinessOutcome::Failed,
        };
        self.stabilization.progress = Some(Progress { revision, attempts, state });
        self.report(run.view, outcome, detail);
    }

    /// The session is over: what runs is for nothing, and the next session begins anew.
    pub(super) fn drop_stabilization(&mut self) {
        self.stabilization.progress = None;
        if let Some(run) = &mut self.stabilization.running
            && !run.superseded
        {
            run.superseded = true;
            let (token, version) = (run.token, run.view.version());
            self.outputs.push_back(Output::Supersede { token });
            self.emit(Event::Superseded { version });
        }
    }
}
