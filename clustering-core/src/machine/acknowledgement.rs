use super::{Machine, Output, Purpose, Timers, Token};
use crate::{
    config::{Backoff, RETRY},
    event::{Event, StoreCall},
    record::{ReadinessOutcome, ReadinessRecord, decode, encode, shorten},
    store::{ErrorKind, Guard, Revision, Snapshot, StoreError, Txn},
    time::Timestamp,
    view::View,
};

/// Telling the others how a stabilize went, in the node's own key under `{ns}/ready/`.
///
/// The key is guarded by what this node last knew to stand there, by its record and by the version: a late repeat of an
/// older acknowledgement changes nothing. Only the leader watches those keys. So a node whose reply is lost repeats the
/// commit, and if a guard refuses that, reads its own key to learn what became of it.
///
/// What was told can be lost where no leader sees it: deleted by hand while nobody watched, or with a store that was
/// restored to a moment before it. So a node whose version does not become stable looks now and then whether its yes
/// still stands, and repeats it if not (P8). Where a version is stable within a TTL that costs nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Acknowledgement {
    /// What is to be told, until the store has it.
    report: Option<Report>,
    state: State,
    failures: u32,
    /// When the own key was last put, as far as this node knows; zero if it is absent.
    standing: Revision,
    /// What the store has: the last report that got there.
    told: Option<Report>,
    /// The view of the newest version that this node acknowledged in its present session.
    acknowledged: Option<View>,
    /// When to look whether the acknowledgement still stands, and how often that was done: while its version is the newest
    /// and not stable.
    check: Option<(Timestamp, u32)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Report {
    view: View,
    outcome: ReadinessOutcome,
    detail: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
enum State {
    #[default]
    Idle,
    Sent {
        token: Token,
        sent: Timestamp,
        report: Report,
    },
    /// A guard refused: look what stands.
    Reading {
        token: Token,
        report: Report,
    },
    Waiting {
        until: Timestamp,
        /// Whether to look before sending again.
        unsure: bool,
        report: Report,
    },
}

impl Report {
    fn record(&self) -> ReadinessRecord {
        ReadinessRecord { version: self.view.version(), outcome: self.outcome, detail: self.detail.clone() }
    }
}

impl Acknowledgement {
    /// The view of the newest version that this node acknowledged in its present session.
    pub(crate) fn acknowledged(&self) -> Option<&View> {
        self.acknowledged.as_ref()
    }

    /// True if the last attempt to acknowledge, or to read the stored acknowledgement, failed, and another attempt is
    /// in flight or due later.
    pub(crate) fn is_failing(&self) -> bool {
        match self.state {
            State::Idle => false,
            State::Sent { .. } => self.failures > 0,
            // A guard failed, or the store did not answer.
            State::Reading { .. } | State::Waiting { .. } => true,
        }
    }

    /// The own record was put again, and the acknowledgement that was given under it deleted with that.
    pub(crate) fn record_changed(&mut self) {
        self.standing = Revision::ZERO;
    }
}

impl Machine {
    pub(super) fn acknowledgement_timers(&self, timers: &mut Timers) {
        if let State::Waiting { until, .. } = &self.acknowledgement.state {
            timers.at(*until);
        }
        timers.maybe(self.acknowledgement.check.map(|(at, _)| at));
    }

    /// Something is to be told. A no is told once for each reason, a yes always.
    pub(super) fn report(&mut self, view: View, outcome: ReadinessOutcome, detail: Option<String>) {
        let report = Report { view, outcome, detail: detail.map(shorten) };
        if self.acknowledgement.told.as_ref() != Some(&report) {
            self.acknowledgement.report = Some(report);
        }
    }

    pub(super) fn reconcile_acknowledgement(&mut self, now: Timestamp) {
        let target = self.target().map(View::revision);
        if self.acknowledgement.report.as_ref().is_some_and(|report| Some(report.view.revision()) != target) {
            self.acknowledgement.report = None;
        }
        self.reconcile_check(now, target);
        match &self.acknowledgement.state {
            // What waited is for a version that is no longer the newest: what is new need not wait for it.
            State::Waiting { report, .. } | State::Reading { report, .. }
                if Some(report.view.revision()) != target => {}
            State::Waiting { until, .. } if now < *until => return,
            State::Waiting { unsure: true, report, .. } => {
                let report = report.clone();
                return self.look(report);
            }
            State::Sent { .. } | State::Reading { .. } => return,
            State::Idle | State::Waiting { .. } => {}
        }
        self.acknowledgement.state = State::Idle;
        let Some(report) = self.acknowledgement.report.clone() else { return };
        let (Some(identity), Some(modified), Some(held)) =
            (&self.identity, self.membership.modified(), self.session.held())
        else {
            return;
        };
        let keys = self.fold.keyspace();
        let own = keys.readiness_key(&identity.name);
        let txn = Txn::new()
            .guard(Guard::modified_at(keys.node_key(&identity.name), modified))
            .guard(Guard::modified_at(keys.version_key().clone(), report.view.revision()))
            .guard(Guard::modified_at(own.clone(), self.acknowledgement.standing))
            .put(own, encode(&report.record()), held.lease);
        let token = self.commit(Purpose::Acknowledge, txn);
        self.acknowledgement.state = State::Sent { token, sent: now, report };
    }

    /// Looks whether the yes that was told still stands, if the newest version waits although this node said yes.
    fn reconcile_check(&mut self, now: Timestamp, target: Option<Revision>) {
        let acknowledged = self.acknowledgement.acknowledged.as_ref().map(View::revision);
        let waits = target.is_some() && acknowledged == target && !self.fold.is_stable();
        let told = self.acknowledgement.told.clone();
        let Some(told) = told.filter(|told| waits && told.outcome == ReadinessOutcome::Ready) else {
            self.acknowledgement.check = None;
            return;
        };
        match self.acknowledgement.check {
            None => self.check_again(now, 0),
            Some((at, _)) if now >= at && self.acknowledgement.state == State::Idle => self.look(told),
            Some(_) => {}
        }
    }

    /// The yes stands, and has been looked at so often. Many nodes may wait for the same one: they take turns.
    fn check_again(&mut self, now: Timestamp, times: u32) {
        let ttl = self.session.ttl().unwrap_or(self.config.ttl);
        let pause = Backoff::new(ttl, ttl * 4).after(times + 1);
        self.acknowledgement.check = Some((now + self.jittered(pause), times));
    }

    /// Reads the own key, to learn what became of a report.
    fn look(&mut self, report: Report) {
        let Some(identity) = &self.identity else { return };
        let prefix = self.fold.keyspace().readiness_key(&identity.name);
        let (token, timeout) = (self.token(), self.call_timeout());
        self.outputs.push_back(Output::Read { token, prefix, timeout });
        self.acknowledgement.state = State::Reading { token, report };
    }

    /// Takes the reply to an acknowledgement. Returns when that was sent, if it was one.
    pub(super) fn on_acknowledged(
        &mut self,
        now: Timestamp,
        token: Token,
        result: &Result<Revision, StoreError>,
    ) -> Option<Timestamp> {
        let State::Sent { token: awaited, sent, report } = &self.acknowledgement.state else { return None };
        if *awaited != token {
            return None;
        }
        let (sent, report) = (*sent, report.clone());
        match result {
            Ok(revision) => self.told(report, *revision),
            // The version or the record moved on, as the log says already or soon will; or the own key did: look.
            Err(error) if matches!(error.kind(), ErrorKind::GuardFailed { .. }) => {
                if self.target().map(View::revision) == Some(report.view.revision()) {
                    self.look(report);
                } else {
                    self.acknowledgement.state = State::Idle;
                }
            }
            Err(error) => {
                self.acknowledgement.failures += 1;
                let delay = match error.is_transient() {
                    true => RETRY.after(self.acknowledgement.failures),
                    false => RETRY.max,
                };
                let until = now + self.jittered(delay);
                self.acknowledgement.state = State::Waiting { until, unsure: false, report };
            }
        }
        Some(sent)
    }

    pub(super) fn on_own_acknowledgement_read(
        &mut self,
        now: Timestamp,
        token: Token,
        result: Result<Snapshot, StoreError>,
    ) {
        let State::Reading { token: awaited, report } = &self.acknowledgement.state else { return };
        let (Some(identity), Some(held)) = (&self.identity, self.session.held()) else { return };
        if *awaited != token {
            return;
        }
        let report = report.clone();
        self.acknowledgement.failures += 1;
        let delay = RETRY.after(self.acknowledgement.failures);
        let snapshot = match result {
            Ok(snapshot) => snapshot,
            Err(error) => {
                let until = now + self.jittered(delay);
                self.acknowledgement.state = State::Waiting { until, unsure: true, report };
                self.failing.failed(now, StoreCall::Acknowledge, &error);
                return self.report_refusal(&error);
            }
        };
        let own = self.fold.keyspace().readiness_key(&identity.name);
        let entry = snapshot.entries.iter().find(|entry| entry.key == own);
        let arrived = entry.is_some_and(|entry| {
            entry.lease == Some(held.lease) && decode(&entry.value).as_ref() == Ok(&report.record())
        });
        let standing = entry.map_or(Revision::ZERO, |entry| entry.modified);
        // Nothing is open of what was told: this was a look whether it still stands.
        if self.acknowledgement.told.as_ref() == Some(&report) {
            self.acknowledgement.failures = 0;
            self.acknowledgement.standing = standing;
            self.acknowledgement.state = State::Idle;
            if arrived {
                let times = self.acknowledgement.check.map_or(0, |(_, times)| times);
                return self.check_again(now, times + 1);
            }
            self.acknowledgement.told = None;
            self.acknowledgement.report.get_or_insert(report);
            return;
        }
        if arrived {
            return self.told(report, standing);
        }
        if standing == self.acknowledgement.standing {
            // Not that guard: the log has news. Wait for it, but not for ever.
            let until = now + self.jittered(delay);
            self.acknowledgement.state = State::Waiting { until, unsure: false, report };
        } else {
            self.acknowledgement.standing = standing;
            self.acknowledgement.state = State::Idle;
        }
    }

    /// The store has it.
    fn told(&mut self, report: Report, standing: Revision) {
        self.acknowledgement.failures = 0;
        self.acknowledgement.standing = standing;
        self.acknowledgement.state = State::Idle;
        self.acknowledgement.report.take_if(|open| *open == report);
        if report.outcome == ReadinessOutcome::Ready {
            self.session.forgive_removals();
            self.acknowledgement.acknowledged = Some(report.view.clone());
            self.emit(Event::Ready { version: report.view.version() });
        }
        self.acknowledgement.told = Some(report);
    }

    /// The session is over, and its key gone with the lease.
    pub(super) fn drop_acknowledgement(&mut self) {
        self.acknowledgement = Acknowledgement::default();
    }
}
