use super::{Intent, Machine, Output, Timers, Token, session::SessionEnd};
use crate::{
    config::HealthChecks,
    event::{Event, LostReason},
    time::Timestamp,
};

/// Whether the process that the node speaks for is well, by the user's own check: one at a time.
///
/// A node takes part only while it is healthy (P11). Its lease lives by what the library does, and that goes on when the
/// service is wedged; so the service is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Checks {
    verdict: Verdict,
    /// Checks that failed, in a row.
    failures: u32,
    run: Option<Run>,
    /// When the next check begins.
    due: Timestamp,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
enum Verdict {
    #[default]
    Unknown,
    Healthy,
    Unhealthy {
        reason: String,
    },
}

/// A check that runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Run {
    token: Token,
    started: Timestamp,
    /// When it counts as a failure, or as another one, if it has not ended by then.
    overdue: Timestamp,
    /// It counted as a failure, or nobody wants to know any more: it was to be ended, and whatever it says does not
    /// matter.
    given_up: bool,
}

/// What a node knows of its own health.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Health {
    /// It is not checked.
    Unchecked,
    /// No check has ended yet: the node waits with joining.
    Unknown,
    /// The node takes part.
    Healthy,
    /// The node takes no part until a check passes.
    Unhealthy {
        /// What the check said that decided it.
        reason: String,
    },
}

impl Machine {
    /// Whether the node may take part, as far as its health goes.
    pub(super) fn is_fit(&self) -> bool {
        self.config.health.is_none() || self.health.verdict == Verdict::Healthy
    }

    /// What is known of the node's health.
    pub(super) fn health(&self) -> Health {
        match (&self.config.health, &self.health.verdict) {
            (None, _) => Health::Unchecked,
            (Some(_), Verdict::Unknown) => Health::Unknown,
            (Some(_), Verdict::Healthy) => Health::Healthy,
            (Some(_), Verdict::Unhealthy { reason }) => Health::Unhealthy { reason: reason.clone() },
        }
    }

    pub(super) fn health_timers(&self, timers: &mut Timers) {
        if self.config.health.is_none() || self.intent != Intent::Register {
            return;
        }
        timers.at(self.health.run.as_ref().map_or(self.health.due, |run| run.overdue));
    }

    pub(super) fn reconcile_health(&mut self, now: Timestamp) {
        let Some(checks) = self.config.health else { return };
        if self.intent != Intent::Register {
            return;
        }
        match &mut self.health.run {
            None if now >= self.health.due => self.check(now, checks),
            Some(run) if now >= run.overdue => {
                // One failure, however late this is noticed: a process that was stopped as a whole was not asked.
                run.overdue = now + checks.interval;
                let (token, given_up) = (run.token, std::mem::replace(&mut run.given_up, true));
                let reason = format!("the check did not answer within {:?}", checks.deadline);
                if !given_up {
                    self.outputs.push_back(Output::Abort { token, reason: reason.clone() });
                }
                self.check_failed(now, checks, reason);
            }
            _ => {}
        }
    }

    fn check(&mut self, now: Timestamp, checks: HealthChecks) {
        let token = self.token();
        let overdue = now + checks.deadline;
        self.health.run = Some(Run { token, started: now, overdue, given_up: false });
        self.outputs.push_back(Output::CheckHealth { token });
    }

    /// The node wants no place any more: nobody asks how it is, and the next time it has to pass a check first.
    pub(super) fn drop_health(&mut self) {
        self.health.verdict = Verdict::Unknown;
        self.health.failures = 0;
        if let Some(run) = &mut self.health.run
            && !std::mem::replace(&mut run.given_up, true)
        {
            let reason = "nobody wants to know any more".to_owned();
            self.outputs.push_back(Output::Abort { token: run.token, reason });
        }
    }

    pub(super) fn on_health(&mut self, now: Timestamp, token: Token, result: Result<(), String>) {
        let Some(run) = self.health.run.take_if(|run| run.token == token) else { return };
        let Some(checks) = self.config.health else { return };
        self.health.due = (run.started + checks.interval).max(now);
        match result {
            _ if run.given_up => {}
            Ok(()) => self.check_passed(),
            Err(reason) => self.check_failed(now, checks, reason),
        }
    }

    fn check_passed(&mut self) {
        self.health.failures = 0;
        if self.health.verdict != Verdict::Healthy {
            self.health.verdict = Verdict::Healthy;
            self.emit(Event::Healthy);
        }
    }

    fn check_failed(&mut self, now: Timestamp, checks: HealthChecks, reason: String) {
        self.health.failures = self.health.failures.saturating_add(1);
        let falls = match self.health.verdict {
            Verdict::Unhealthy { .. } => false,
            Verdict::Healthy => self.health.failures >= checks.failures,
            // It has not joined: there is nothing to be patient about.
            Verdict::Unknown => true,
        };
        if falls {
            self.health.verdict = Verdict::Unhealthy { reason: reason.clone() };
            self.emit(Event::Unhealthy { failures: self.health.failures, reason });
            self.session.give_up_granting();
            self.end_session(now, SessionEnd::Lost(LostReason::Unhealthy));
        }
    }
}
