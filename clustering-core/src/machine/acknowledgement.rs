//! Acknowledging versions (P4, P8).

use super::{
    facts::Facts,
    membership::Membership,
    outbox::{Call, Outbox},
    output::Purpose,
    ownership::Ownership,
    session::{Epoch, Session, SessionChange},
    stabilization::{Report, Stabilization},
    timers::Timers,
    token::Token,
};
use crate::{
    config::{Backoff, RETRY},
    event::{Event, StoreCall},
    record::{ReadinessOutcome, ReadinessPhase, ReadinessRecord, decode, encode, shorten},
    store::{Entry, ErrorKind, Guard, LeaseId, Revision, Snapshot, StoreError, Txn},
    time::Timestamp,
    view::View,
};

/// Reports the results of `stabilize` to the other nodes, in the node's own key under `{ns}/ready/`.
///
/// The key is guarded by its last known revision, by the node's record and by the version, so that a late repetition of
/// an older report changes nothing. Only the leader watches these keys. Therefore a node reads its own key
///
/// - to *resolve* a report whose commit a guard refused: an earlier attempt, whose reply was lost, may have succeeded;
/// - to *check* that an acknowledgement is still stored, while its version does not become stable. It can be lost
///   without the leader seeing it: deleted by hand while no leader watched, or missing because the store was restored
///   to an earlier state. Then it is repeated (P8). A version that is stable within a TTL costs no check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Acknowledgement {
    epoch: Epoch,
    /// The report that the store does not have yet.
    open: Option<Report>,
    state: State,
    /// Number of failures in a row.
    failures: u32,
    /// Revision at which the node's record was last put. Each put deletes the node's acknowledgement.
    record: Option<Revision>,
    /// Revision at which the node's own key was last put, as far as it knows; zero if the key is absent.
    stored: Revision,
    /// The last report that the store has.
    reported: Option<Report>,
    /// The view that this node acknowledged last in its current session.
    acknowledged: Option<View>,
    /// The next check, while one is needed.
    check: Option<Check>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
enum State {
    #[default]
    Idle,
    /// The commit is in flight.
    Sending { token: Token, report: Report },
    /// The read that resolves a report is in flight.
    Resolving { token: Token, report: Report },
    /// The read that checks the last acknowledgement is in flight.
    Checking { token: Token, version: Revision },
    /// A call failed.
    Waiting { until: Timestamp, version: Revision, next: Next },
}

/// The step after a failed call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Next {
    Send,
    Resolve(Report),
    Check,
}

/// Schedule of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Check {
    at: Timestamp,
    /// Number of checks that found the acknowledgement.
    times: u32,
}

impl State {
    /// Returns the revision of the version that the state concerns. Returns `None` for a commit in flight, because its
    /// reply is awaited even if the version is superseded.
    fn version(&self) -> Option<Revision> {
        match self {
            State::Idle | State::Sending { .. } => None,
            State::Resolving { report, .. } => Some(report.view.revision()),
            State::Checking { version, .. } | State::Waiting { version, .. } => Some(*version),
        }
    }
}

impl Report {
    fn record(&self) -> ReadinessRecord {
        ReadinessRecord {
            version: self.view.version(),
            outcome: self.outcome,
            detail: self.detail.clone(),
            phase: self.phase,
        }
    }

    /// True if the entry contains this report, written in the session with that lease.
    fn is_stored_in(&self, entry: Option<&Entry>, lease: LeaseId) -> bool {
        entry.is_some_and(|entry| {
            entry.lease == Some(lease) && decode(&entry.value).as_ref() == Ok(&self.record())
        })
    }
}

impl Acknowledgement {
    /// Returns the view that this node acknowledged last in its current session.
    pub(crate) fn acknowledged(&self) -> Option<&View> {
        self.acknowledged.as_ref()
    }

    /// True if the last attempt to acknowledge, or to read the stored acknowledgement, failed, and another attempt is
    /// in flight or due later.
    pub(crate) fn is_failing(&self) -> bool {
        match self.state {
            State::Idle => false,
            State::Sending { .. } => self.failures > 0,
            State::Resolving { .. } | State::Checking { .. } | State::Waiting { .. } => true,
        }
    }

    pub(crate) fn timers(&self, timers: &mut Timers) {
        if let State::Waiting { until, .. } = &self.state {
            timers.at(*until);
        }
        timers.maybe(self.check.map(|check| check.at));
    }

    /// Accepts a report to be sent to the other nodes. Repeated refusals are reported only when their reason changes.
    pub(crate) fn report(&mut self, report: Report) {
        let report = Report { detail: report.detail.map(shorten), ..report };
        if self.reported.as_ref() != Some(&report) {
            self.open = Some(report);
        }
    }

    /// Sends the pending report, or performs the check that is due.
    pub(crate) fn reconcile(
        &mut self,
        facts: &Facts,
        session: &Session,
        membership: &Membership,
        ownership: &Ownership,
        stabilization: &Stabilization,
        out: &mut Outbox,
    ) {
        self.follow_session(session);
        self.follow_record(membership);
        let takes_long = stabilization.takes_long(facts);
        if let Some(view) = ownership.released(facts, membership, takes_long) {
            self.report_release(view);
        } else if let Some((view, reason)) = ownership.delay(facts, membership) {
            self.report_delay(view, reason);
        }
        let target = membership.target(facts).map(View::revision);
        self.open.take_if(|report| Some(report.view.revision()) != target);
        self.schedule_check(facts, session, target, out);
        if self.state == State::Idle && self.open.is_none() {
            return;
        }
        // Do not wait for a call about a version that is no longer the newest.
        let is_outdated = self.state.version().is_some_and(|version| Some(version) != target);
        match std::mem::take(&mut self.state) {
            State::Idle => self.send(facts, session, membership, out),
            _ if is_outdated => self.send(facts, session, membership, out),
            State::Waiting { until, next, .. } if facts.now >= until => match next {
                Next::Send => self.send(facts, session, membership, out),
                Next::Resolve(report) => self.resolve(facts, report, out),
                Next::Check => self.check(facts, out),
            },
            waiting => self.state = waiting,
        }
    }

    /// Reports that the slots that the newest version takes from this node are released.
    fn report_release(&mut self, view: &View) {
        if !self.has_said(view, |report| report.record().is_released()) {
            self.report(Report {
                view: view.clone(),
                outcome: ReadinessOutcome::Pending,
                detail: None,
                phase: ReadinessPhase::Released,
            });
        }
    }

    /// Reports why this node has not released the slots that the newest version takes from it. Only the first reason is
    /// reported, so this costs one commit for each version that waits for this node.
    fn report_delay(&mut self, view: &View, reason: String) {
        if !self.has_said(view, |_| true) {
            self.report(Report {
                view: view.clone(),
                outcome: ReadinessOutcome::Failed,
                detail: Some(reason),
                phase: ReadinessPhase::Holding,
            });
        }
    }

    /// True if a report about the version that satisfies `is_such` is stored, in flight or pending.
    fn has_said(&self, view: &View, is_such: impl Fn(&Report) -> bool) -> bool {
        let sending = match &self.state {
            State::Sending { report, .. } | State::Resolving { report, .. } => Some(report),
            _ => None,
        };
        let mut said = self.reported.iter().chain(&self.open).chain(sending);
        said.any(|report| report.view.revision() == view.revision() && is_such(report))
    }

    /// Resets the state when the session ends: the key is deleted with the lease.
    fn follow_session(&mut self, session: &Session) {
        if session.change_since(&mut self.epoch) == Some(SessionChange::Ended) {
            *self = Acknowledgement { epoch: self.epoch, ..Acknowledgement::default() };
        }
    }

    fn follow_record(&mut self, membership: &Membership) {
        let modified = membership.modified();
        if std::mem::replace(&mut self.record, modified) != modified {
            self.stored = Revision::ZERO;
        }
    }

    /// Schedules the check of the acknowledgement while its version is the newest and not stable, and performs the
    /// check when it is due.
    fn schedule_check(
        &mut self,
        facts: &Facts,
        session: &Session,
        target: Option<Revision>,
        out: &mut Outbox,
    ) {
        let waits = |report: &Report| match report.outcome {
            _ if target != Some(report.view.revision()) => false,
            ReadinessOutcome::Ready => !facts.fold.is_stable(),
            ReadinessOutcome::Pending | ReadinessOutcome::Failed => {
                report.phase == ReadinessPhase::Released && !facts.fold.is_released()
            }
        };
        match self.check {
            _ if !self.reported.as_ref().is_some_and(waits) => self.check = None,
            None => self.check_later(facts, session, 0, out),
            Some(check) if facts.now >= check.at && self.state == State::Idle => self.check(facts, out),
            Some(_) => {}
        }
    }

    /// Schedules the next check, after `times` checks that found the acknowledgement. Many nodes may wait for the same
    /// laggard, so their checks are spread out.
    fn check_later(&mut self, facts: &Facts, session: &Session, times: u32, out: &mut Outbox) {
        let ttl = session.ttl(facts);
        let pause = Backoff::new(ttl, ttl * 4).after(times + 1);
        self.check = Some(Check { at: facts.now + out.jittered(pause), times });
    }

    fn send(&mut self, facts: &Facts, session: &Session, membership: &Membership, out: &mut Outbox) {
        let Some(report) = self.open.clone() else { return };
        let (Some(name), Some(modified), Some(lease)) =
            (facts.name(), membership.modified(), session.lease())
        else {
            return;
        };
        let keys = facts.keys();
        let own = keys.readiness_key(name);
        let txn = Txn::new()
            .guard(Guard::modified_at(keys.node_key(name), modified))
            .guard(Guard::modified_at(keys.version_key().clone(), report.view.revision()))
            .guard(Guard::modified_at(own.clone(), self.stored))
            .put(own, encode(&report.record()), lease);
        let token = out.commit(Purpose::Acknowledge, txn, facts.now);
        self.state = State::Sending { token, report };
    }

    /// Reads the node's own key, to find out whether a report was stored.
    fn resolve(&mut self, facts: &Facts, report: Report, out: &mut Outbox) {
        if let Some(token) = read_own(facts, out) {
            self.state = State::Resolving { token, report };
        }
    }

    /// Reads the node's own key, to find out whether its acknowledgement is still stored.
    fn check(&mut self, facts: &Facts, out: &mut Outbox) {
        if let (Some(report), Some(token)) = (&self.reported, read_own(facts, out)) {
            self.state = State::Checking { token, version: report.view.revision() };
        }
    }

    /// Handles the reply to the commit. Returns false if it is no longer awaited.
    #[must_use]
    pub(crate) fn on_committed(
        &mut self,
        facts: &Facts,
        session: &mut Session,
        membership: &Membership,
        token: Token,
        result: &Result<Revision, StoreError>,
        out: &mut Outbox,
    ) -> bool {
        let report = match std::mem::take(&mut self.state) {
            State::Sending { token: own, report } if own == token => report,
            other => {
                self.state = other;
                return false;
            }
        };
        match result {
            Ok(revision) => self.stored(session, report, *revision, out),
            Err(error) if matches!(error.kind(), ErrorKind::GuardFailed { .. }) => {
                // Either the version or the record has changed, which the log shows or will soon show; or the node's
                // own key has changed.
                if membership.target(facts).map(View::revision) == Some(report.view.revision()) {
                    self.resolve(facts, report, out);
                }
            }
            Err(error) => {
                self.failures += 1;
                let delay = match error.is_transient() {
                    true => RETRY.after(self.failures),
                    false => RETRY.max,
                };
                self.wait(facts.now + out.jittered(delay), report.view.revision(), Next::Send);
            }
        }
        true
    }

    /// Handles the reply to a read of the node's own key.
    pub(crate) fn on_read(
        &mut self,
        facts: &Facts,
        session: &mut Session,
        token: Token,
        result: Result<Snapshot, StoreError>,
        out: &mut Outbox,
    ) {
        let (Some(name), Some(lease)) = (facts.name(), session.lease()) else { return };
        let key = facts.keys().readiness_key(name);
        let entry = |snapshot: Snapshot| snapshot.entries.into_iter().find(|entry| entry.key == key);
        match std::mem::take(&mut self.state) {
            State::Resolving { token: own, report } if own == token => match result.map(entry) {
                Ok(entry) => self.resolved(facts, session, lease, report, entry.as_ref(), out),
                Err(error) => {
                    let version = report.view.revision();
                    self.read_failed(facts, &error, version, Next::Resolve(report), out);
                }
            },
            State::Checking { token: own, version } if own == token => match result.map(entry) {
                Ok(entry) => self.checked(facts, session, lease, entry.as_ref(), out),
                Err(error) => self.read_failed(facts, &error, version, Next::Check, out),
            },
            other => self.state = other,
        }
    }

    /// Determines from the stored entry what became of a report.
    fn resolved(
        &mut self,
        facts: &Facts,
        session: &mut Session,
        lease: LeaseId,
        report: Report,
        entry: Option<&Entry>,
        out: &mut Outbox,
    ) {
        let modified = modified(entry);
        if report.is_stored_in(entry, lease) {
            return self.stored(session, report, modified, out);
        }
        self.failures += 1;
        if modified != self.stored {
            // The node's own key had changed. With its current revision as the guard, the report can be sent again.
            self.stored = modified;
            return;
        }
        // Another guard failed, so the log will change. Wait for that, but not forever.
        let delay = RETRY.after(self.failures);
        self.wait(facts.now + out.jittered(delay), report.view.revision(), Next::Send);
    }

    /// Determines from the stored entry whether the last acknowledgement has to be repeated.
    fn checked(
        &mut self,
        facts: &Facts,
        session: &Session,
        lease: LeaseId,
        entry: Option<&Entry>,
        out: &mut Outbox,
    ) {
        self.failures = 0;
        self.stored = modified(entry);
        if self.reported.as_ref().is_some_and(|report| report.is_stored_in(entry, lease)) {
            let times = self.check.map_or(0, |check| check.times);
            return self.check_later(facts, session, times + 1, out);
        }
        if let Some(lost) = self.reported.take() {
            self.open.get_or_insert(lost);
        }
    }

    fn read_failed(
        &mut self,
        facts: &Facts,
        error: &StoreError,
        version: Revision,
        next: Next,
        out: &mut Outbox,
    ) {
        self.failures += 1;
        let delay = RETRY.after(self.failures);
        self.wait(facts.now + out.jittered(delay), version, next);
        out.call_failed(StoreCall::Acknowledge, error, facts.now);
    }

    fn wait(&mut self, until: Timestamp, version: Revision, next: Next) {
        self.state = State::Waiting { until, version, next };
    }

    /// Records that the store has the report, which was put at `revision`.
    fn stored(&mut self, session: &mut Session, report: Report, revision: Revision, out: &mut Outbox) {
        self.failures = 0;
        self.stored = revision;
        self.open.take_if(|open| *open == report);
        if report.outcome == ReadinessOutcome::Ready {
            session.forgive_removals();
            self.acknowledged = Some(report.view.clone());
            out.emit(Event::Ready { version: report.view.version() });
        }
        self.reported = Some(report);
    }
}

/// Returns the revision at which the entry was put, or zero if there is none.
fn modified(entry: Option<&Entry>) -> Revision {
    entry.map_or(Revision::ZERO, |entry| entry.modified)
}

/// Reads the node's own key under `{ns}/ready/`.
fn read_own(facts: &Facts, out: &mut Outbox) -> Option<Token> {
    let key = facts.keys().readiness_key(facts.name()?);
    Some(out.read(Call::OwnAcknowledgement, key, facts.now))
}
