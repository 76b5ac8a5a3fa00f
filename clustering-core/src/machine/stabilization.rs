//! Running the user's `stabilize` (P3).

use super::{
    facts::Facts,
    membership::Membership,
    outbox::Outbox,
    ownership::Ownership,
    session::{Epoch, Session, SessionChange},
    timers::Timers,
    token::Token,
};
use crate::{
    event::Event,
    outcome::Outcome,
    record::{ReadinessOutcome, ReadinessPhase},
    store::Revision,
    time::Timestamp,
    view::View,
};

/// Runs `stabilize` for the newest version, one run at a time, until it succeeds. On an exclusive node, waits until the
/// slots that the node would gain are released.
///
/// The target is the newest view, if this node is in it under its current session. A run for another view is told that
/// it is superseded, and its result is ignored; the next run begins when that one has ended, not before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Stabilization {
    epoch: Epoch,
    running: Option<Running>,
    /// The version last worked on, and the result.
    progress: Option<Progress>,
    /// The last view for which a run of this process succeeded: the process is adapted to it.
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
    reported_slow: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Progress {
    /// Revision that published the version.
    version: Revision,
    attempts: u32,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum State {
    Refused { again: Timestamp },
    Done,
}

/// The result of a run, to be reported to the other nodes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Report {
    pub(crate) view: View,
    pub(crate) outcome: ReadinessOutcome,
    pub(crate) detail: Option<String>,
    pub(crate) phase: ReadinessPhase,
}

impl Stabilization {
    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(crate) fn timers(&self, facts: &Facts, timers: &mut Timers) {
        if let Some(run) = &self.running {
            timers.at(run.started + facts.config.warn_after);
            timers.maybe(facts.config.stabilize_timeout.map(|limit| run.started + limit));
        }
        if let Some(Progress { state: State::Refused { again }, .. }) = &self.progress {
            timers.at(*again);
        }
    }

    /// Supersedes the run for an older version, or starts the run that is due.
    pub(crate) fn reconcile(
        &mut self,
        facts: &Facts,
        session: &Session,
        membership: &Membership,
        ownership: &mut Ownership,
        out: &mut Outbox,
    ) {
        if session.change_since(&mut self.epoch) == Some(SessionChange::Ended) {
            self.progress = None;
        }
        let target = membership.target(facts);
        if let Some(run) = &mut self.running {
            if Some(run.view.revision()) != target.map(View::revision) && !run.superseded {
                run.superseded = true;
                out.supersede(run.token);
                out.emit(Event::Superseded { version: run.view.version() });
            }
            return run.check_time(facts, out);
        }
        if let Some(view) = target.filter(|_| !facts.is_ending())
            && let Some(attempt) = self.next_attempt(facts, view)
            && ownership.may_stabilize(facts, view)
        {
            self.start(facts, view.clone(), attempt, ownership, out);
        }
    }

    /// Returns the number of the run that is due for that view, if one is.
    fn next_attempt(&self, facts: &Facts, view: &View) -> Option<u32> {
        let progress = self.progress.as_ref().filter(|progress| progress.version == view.revision());
        let Some(progress) = progress else { return Some(1) };
        match progress.state {
            State::Refused { again } if facts.now >= again => Some(progress.attempts + 1),
            State::Refused { .. } | State::Done => None,
        }
    }

    fn start(
        &mut self,
        facts: &Facts,
        view: View,
        attempt: u32,
        ownership: &mut Ownership,
        out: &mut Outbox,
    ) {
        let slots = ownership.load(facts, &view, self.adapted.as_ref());
        let token = out.stabilize(view.clone(), self.adapted.clone(), attempt, slots, facts.now);
        self.running = Some(Running {
            token,
            view,
            attempt,
            started: facts.now,
            superseded: false,
            aborted: false,
            reported_slow: false,
        });
    }

    /// Handles the result of a run. Returns the report for the other nodes, unless the run was superseded.
    #[must_use]
    pub(crate) fn on_ended(
        &mut self,
        facts: &Facts,
        token: Token,
        outcome: Outcome,
        out: &mut Outbox,
    ) -> Option<Report> {
        let run = self.running.take_if(|run| run.token == token)?;
        if outcome == Outcome::Ready {
            // Also if the run was superseded: the process has adapted to that view, and the next difference that it is
            // shown has to start from there.
            self.adapted = Some(run.view.clone());
        }
        if run.superseded {
            return None;
        }
        let (state, outcome, detail) = match outcome {
            Outcome::Ready => (State::Done, ReadinessOutcome::Ready, None),
            Outcome::Refused { reason } => {
                let retry_in = out.jittered(facts.config.stabilize_retry.after(run.attempt));
                out.emit(Event::StabilizeRefused {
                    version: run.view.version(),
                    attempt: run.attempt,
                    reason: reason.clone(),
                    retry_in,
                });
                let state = State::Refused { again: facts.now + retry_in };
                (state, ReadinessOutcome::Failed, Some(reason))
            }
        };
        self.progress = Some(Progress { version: run.view.revision(), attempts: run.attempt, state });
        // `stabilize` runs only after the node has let go of the slots that it lost.
        let phase = match run.view.has_handover() && outcome == ReadinessOutcome::Failed {
            true => ReadinessPhase::Released,
            false => ReadinessPhase::Holding,
        };
        Some(Report { view: run.view, outcome, detail, phase })
    }
}

impl Running {
    /// Reports a run that takes long, and cancels a run that exceeds the time limit.
    fn check_time(&mut self, facts: &Facts, out: &mut Outbox) {
        let running = facts.now.since(self.started);
        if running >= facts.config.warn_after && !self.reported_slow {
            self.reported_slow = true;
            let (version, attempt) = (self.view.version(), self.attempt);
            out.emit(Event::StabilizeSlow { version, attempt, running });
        }
        let limit = facts.config.stabilize_timeout.filter(|limit| running >= *limit);
        if let Some(limit) = limit.filter(|_| !self.aborted) {
            self.aborted = true;
            out.abort(self.token, format!("it was ended after {limit:?}, the stabilize timeout"));
        }
    }
}
