//! Health of the process, by the user's own check (P11).

use super::{
    facts::{Facts, Intent},
    outbox::Outbox,
    timers::Timers,
    token::Token,
};
use crate::{config::HealthChecks, event::Event, time::Timestamp};

/// Runs the user's health check, one at a time, and judges its results.
///
/// A node is a member only while it is healthy. Its lease alone does not show that: the library renews it even if the
/// service is stuck.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Checks {
    verdict: Verdict,
    /// Number of checks that failed in a row.
    failures: u32,
    run: Option<Run>,
    /// Time of the next check.
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

/// A check that is running.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Run {
    token: Token,
    started: Timestamp,
    /// Time at which the check counts as failed, or as failed once more, if it has not ended.
    overdue: Timestamp,
    /// True once it was cancelled. Its result is ignored.
    cancelled: bool,
}

/// The health of a node, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Health {
    /// The node has no health check.
    Unchecked,
    /// No check has ended yet. The node does not join before one does.
    Unknown,
    /// The node may take part in the cluster.
    Healthy,
    /// The node may not take part in the cluster until a check passes.
    Unhealthy {
        /// Error of the check that made the node unhealthy.
        reason: String,
    },
}

impl Checks {
    /// True if the node may take part, as far as its health is concerned.
    pub(crate) fn is_fit(&self, facts: &Facts) -> bool {
        facts.config.health.is_none() || self.verdict == Verdict::Healthy
    }

    pub(crate) fn health(&self, facts: &Facts) -> Health {
        match (&facts.config.health, &self.verdict) {
            (None, _) => Health::Unchecked,
            (Some(_), Verdict::Unknown) => Health::Unknown,
            (Some(_), Verdict::Healthy) => Health::Healthy,
            (Some(_), Verdict::Unhealthy { reason }) => Health::Unhealthy { reason: reason.clone() },
        }
    }

    pub(crate) fn timers(&self, facts: &Facts, timers: &mut Timers) {
        if facts.config.health.is_some() && facts.intent == Intent::Register {
            timers.at(self.run.as_ref().map_or(self.due, |run| run.overdue));
        }
    }

    /// Starts the check that is due, and counts a check that takes too long as failed.
    pub(crate) fn reconcile(&mut self, facts: &Facts, out: &mut Outbox) {
        let Some(checks) = facts.config.health else { return };
        if facts.intent != Intent::Register {
            return;
        }
        match &mut self.run {
            None if facts.now >= self.due => {
                let overdue = facts.now + checks.deadline;
                let token = out.check_health(facts.now);
                self.run = Some(Run { token, started: facts.now, overdue, cancelled: false });
            }
            Some(run) if facts.now >= run.overdue => {
                // One failure, however late this is noticed: while the process was stopped, nothing was checked.
                run.overdue = facts.now + checks.interval;
                let reason = format!("the check did not answer within {:?}", checks.deadline);
                if !std::mem::replace(&mut run.cancelled, true) {
                    out.abort(run.token, reason.clone());
                }
                self.failed(checks, reason, out);
            }
            _ => {}
        }
    }

    /// Forgets the verdict and cancels the running check, because the node should not be a member. A check has to pass
    /// before it becomes a member again.
    pub(crate) fn cancel(&mut self, out: &mut Outbox) {
        self.verdict = Verdict::Unknown;
        self.failures = 0;
        if let Some(run) = &mut self.run
            && !std::mem::replace(&mut run.cancelled, true)
        {
            out.abort(run.token, "check cancelled".to_owned());
        }
    }

    /// Handles the result of a check.
    pub(crate) fn on_reported(
        &mut self,
        facts: &Facts,
        token: Token,
        result: Result<(), String>,
        out: &mut Outbox,
    ) {
        let Some(run) = self.run.take_if(|run| run.token == token) else { return };
        let Some(checks) = facts.config.health else { return };
        self.due = (run.started + checks.interval).max(facts.now);
        match result {
            _ if run.cancelled => {}
            Ok(()) => self.passed(out),
            Err(reason) => self.failed(checks, reason, out),
        }
    }

    fn passed(&mut self, out: &mut Outbox) {
        self.failures = 0;
        if self.verdict != Verdict::Healthy {
            self.verdict = Verdict::Healthy;
            out.emit(Event::Healthy);
        }
    }

    fn failed(&mut self, checks: HealthChecks, reason: String, out: &mut Outbox) {
        self.failures = self.failures.saturating_add(1);
        let is_decisive = match self.verdict {
            Verdict::Unhealthy { .. } => false,
            Verdict::Healthy => self.failures >= checks.failures,
            // The node has not joined, so a false alarm moves no keys.
            Verdict::Unknown => true,
        };
        if is_decisive {
            self.verdict = Verdict::Unhealthy { reason: reason.clone() };
            out.emit(Event::Unhealthy { failures: self.failures, reason });
        }
    }
}
