use std::time::Duration;

use super::{Machine, Output, Purpose, Timers, Token};
use crate::{
    config::{Backoff, RENEW_RETRY, RETRY},
    event::{Event, LostReason, StoreCall},
    record::{Departure, DepartureRecord},
    store::{Effect, ErrorKind, Guard, Lease, LeaseId, Revision, StoreError, Txn},
    time::Timestamp,
};

/// Pause before a removed node rejoins. Doubles with each removal since the node was last ready.
const PAUSE: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(600));

/// Upper limit for TTLs. A store may grant a TTL that would overflow the node's timestamps.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// The node's one lease, and those of earlier sessions that are still to be given back.
///
/// ```text
///   Without ──Grant──▶ Granting ──▶ Held ──Renew, Renew, …──▶ Held
///      ▲                              │ deadline, lease gone, record removed, unhealthy
///      └─ revoked ◀─ stale ◀─ farewell, if the node goes of itself
/// ```
///
/// A node that goes of itself says so first, in the commit that deletes its record: of keys that go with their lease the
/// log does not tell whether it was revoked or expired.
///
/// Deadlines count from the *sending* of the last renewal that succeeded: the store cannot have handled it earlier, so
/// the lease lives at least until then (P6).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Session {
    state: State,
    stale_leases: Vec<StaleLease>,
    /// Grants that failed in a row.
    failures: u32,
    /// Number of times that the node was removed since it was last ready.
    removals: u32,
    /// No new session before that.
    not_before: Timestamp,
    /// The measured time from sending a call to its reply, smoothed.
    round_trip: Duration,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
enum State {
    #[default]
    Without,
    Granting {
        token: Token,
        sent: Timestamp,
    },
    Held(Held),
}

/// A lease that is held.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Held {
    pub(crate) lease: LeaseId,
    ttl: Duration,
    /// When the last good renewal, or the grant, was sent.
    renewed: Timestamp,
    /// How long the store then said that it has left.
    left: Duration,
    /// Time at which the lease has certainly expired, even if unanswered renewals succeeded.
    expires: Timestamp,
    renewal: Renewal,
    failing: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Renewal {
    Due { at: Timestamp },
    Sent { token: Token, sent: Timestamp },
}

/// A lease that is no longer used, and to be revoked before the node joins again: until its keys are gone they stand in
/// the way of the node's own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct StaleLease {
    lease: LeaseId,
    /// Time at which the lease has expired, as far as this node knows; zero if no key was ever put under it.
    expires: Timestamp,
    /// Its record was removed by somebody else. If the lease turns out to be alive, the node was removed on purpose.
    removed: bool,
    /// Calls that failed in a row: revocations, and the renewal before them.
    failures: u32,
    step: Step,
}

/// How far giving a lease back has come.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// The commit by which the node leaves is on its way. Whatever comes of it, the lease is revoked then, and not before:
    /// the commit would find nothing to delete any more, and say nothing.
    Leaving(Token),
    /// To be revoked at that time.
    Due(Timestamp),
    /// Being revoked.
    Revoking(Token),
}

/// How a session ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SessionEnd {
    /// The node gives it up.
    GivenUp,
    /// It is lost.
    Lost(LostReason),
}

impl Held {
    /// After that moment the store may have given the node's place to others.
    pub(crate) fn deadline(&self) -> Timestamp {
        self.renewed + self.left
    }
}

impl Session {
    pub(crate) fn held(&self) -> Option<&Held> {
        match &self.state {
            State::Held(held) => Some(held),
            _ => None,
        }
    }

    pub(crate) fn ttl(&self) -> Option<Duration> {
        self.held().map(|held| held.ttl)
    }

    /// Whether nothing is left that the store should get back.
    pub(crate) fn is_given_back(&self) -> bool {
        self.stale_leases.is_empty() && self.state == State::Without
    }

    /// True if no lease of this node can hold a key any more at `now`.
    pub(crate) fn shows_nothing(&self, now: Timestamp) -> bool {
        self.held().is_none() && self.stale_leases.iter().all(|stale| now >= stale.expires)
    }

    /// Returns the time at which the last of the leases to be revoked will have expired by itself.
    pub(crate) fn expiry(&self) -> Option<Timestamp> {
        self.stale_leases.iter().map(|stale| stale.expires).max()
    }

    /// Whether leases of earlier sessions are still to be given back.
    pub(crate) fn has_ghosts(&self) -> bool {
        !self.stale_leases.is_empty()
    }

    /// No session is wanted any more: that grants failed no longer matters.
    pub(crate) fn give_up_granting(&mut self) {
        self.failures = 0;
    }

    /// Whether the store did not answer the last call.
    pub(crate) fn is_failing(&self) -> bool {
        let held = self.held().is_some_and(|held| held.failing);
        held || self.failures > 0 || self.stale_leases.iter().any(|stale| stale.failures > 0)
    }

    pub(crate) fn fails_to_grant(&self) -> bool {
        self.failures > 0
    }

    pub(crate) fn fails_to_revoke(&self) -> bool {
        self.stale_leases.iter().any(|stale| stale.failures > 0)
    }

    pub(crate) fn round_trip(&self) -> Duration {
        self.round_trip
    }

    /// Takes down how long a call took.
    pub(crate) fn measured(&mut self, took: Duration) {
        self.round_trip = if self.round_trip.is_zero() { took } else { (self.round_trip * 7 + took) / 8 };
    }

    /// Resets the count of removals, since the node was ready. Membership alone must not reset it: a node that refuses
    /// every version is also a member until it is evicted again.
    pub(crate) fn forgive_removals(&mut self) {
        self.removals = 0;
    }
}

impl Machine {
    /// After that moment this node must not act as leader. Earlier than the end of the session, so that there is time
    /// to stop.
    pub(super) fn leadership_deadline(&self) -> Option<Timestamp> {
        let held = self.session.held()?;
        let share = self.config.leadership.unwrap_or(held.ttl * 2 / 3);
        Some(held.renewed + share.min(held.left))
    }

    fn renew_every(&self, ttl: Duration) -> Duration {
        self.config.renew_every.unwrap_or(ttl / 3)
    }

    pub(super) fn session_timers(&self, timers: &mut Timers) {
        for stale in &self.session.stale_leases {
            if let Step::Due(at) = stale.step {
                timers.at(at);
            }
        }
        match &self.session.state {
            State::Without => timers.at(self.session.not_before),
            State::Granting { .. } => {}
            State::Held(held) => {
                timers.at(held.deadline());
                if let Renewal::Due { at } = held.renewal {
                    timers.at(at);
                }
            }
        }
    }

    pub(super) fn reconcile_session(&mut self, now: Timestamp) {
        if self.session.held().is_some_and(|held| now >= held.deadline()) {
            self.end_session(now, SessionEnd::Lost(LostReason::Expired));
        }
        self.revoke_ghosts(now);
        self.renew(now);
        self.grant(now);
    }

    fn revoke_ghosts(&mut self, now: Timestamp) {
        let timeout = self.call_timeout();
        for place in 0..self.session.stale_leases.len() {
            if matches!(self.session.stale_leases[place].step, Step::Due(at) if now >= at) {
                let token = self.token();
                let stale = &mut self.session.stale_leases[place];
                stale.step = Step::Revoking(token);
                self.outputs.push_back(Output::Revoke { token, lease: stale.lease, timeout });
            }
        }
    }

    fn renew(&mut self, now: Timestamp) {
        let Some(held) = self.session.held() else { return };
        let lease = held.lease;
        if !matches!(held.renewal, Renewal::Due { at } if now >= at) {
            return;
        }
        let (token, timeout) = (self.token(), self.call_timeout());
        if let State::Held(held) = &mut self.session.state {
            held.renewal = Renewal::Sent { token, sent: now };
        }
        self.outputs.push_back(Output::Renew { token, lease, timeout });
    }

    fn grant(&mut self, now: Timestamp) {
        let free = self.session.state == State::Without && self.session.stale_leases.is_empty();
        if !self.wants_place() || !free || now < self.session.not_before {
            return;
        }
        let (token, timeout) = (self.token(), self.call_timeout());
        self.session.state = State::Granting { token, sent: now };
        self.outputs.push_back(Output::Grant { token, ttl: self.config.ttl, timeout });
    }

    pub(super) fn on_granted(&mut self, now: Timestamp, token: Token, result: Result<Lease, StoreError>) {
        let State::Granting { token: awaited, sent } = self.session.state else { return };
        if token != awaited {
            return;
        }
        self.session.state = State::Without;
        match result {
            Ok(Lease { id, .. }) if !self.wants_place() => {
                let step = Step::Due(now);
                let expires = Timestamp::ZERO;
                self.give_back(now, StaleLease { lease: id, expires, removed: false, failures: 0, step });
            }
            Ok(Lease { id, ttl }) => {
                let ttl = ttl.min(LONGEST);
                self.session.measured(now.since(sent));
                self.session.failures = 0;
                let renewal = Renewal::Due { at: sent + self.renew_every(ttl) };
                let expires = now + ttl;
                let held =
                    Held { lease: id, ttl, renewed: sent, left: ttl, expires, renewal, failing: false };
                self.session.state = State::Held(held);
                self.begin_membership(now);
            }
            Err(_) if !self.wants_place() => {}
            Err(error) => {
                self.session.failures += 1;
                let delay = match error.is_transient() {
                    true => RETRY.after(self.session.failures),
                    false => RETRY.max,
                };
                self.session.not_before = now + self.jittered(delay);
                self.contact.failed(&error);
                self.failing.failed(now, StoreCall::Grant, &error);
                self.report_refusal(&error);
            }
        }
    }

    pub(super) fn on_renewed(&mut self, now: Timestamp, token: Token, result: Result<Duration, StoreError>) {
        let State::Held(held) = &mut self.session.state else { return };
        let Renewal::Sent { token: awaited, sent } = held.renewal else { return };
        if token != awaited {
            return;
        }
        let ttl = held.ttl;
        let every = self.config.renew_every.unwrap_or(ttl / 3);
        match result {
            Ok(left) if !left.is_zero() => {
                held.renewed = sent;
                held.left = left.min(ttl);
                held.expires = now + held.left;
                held.failing = false;
                held.renewal = Renewal::Due { at: (sent + every).max(now) };
                self.session.measured(now.since(sent));
            }
            Err(error) if error.kind() != ErrorKind::LeaseNotFound => {
                held.failing = true;
                if error.effect() == Effect::Unknown {
                    held.expires = now + ttl;
                }
                held.renewal = Renewal::Due { at: now + RENEW_RETRY.min(ttl / 6) };
                self.contact.failed(&error);
                self.report_refusal(&error);
            }
            _ => {
                held.failing = false;
                self.end_session(now, SessionEnd::Lost(LostReason::LeaseGone));
            }
        }
    }

    pub(super) fn on_revoked(&mut self, now: Timestamp, token: Token, result: Result<(), StoreError>) {
        let Some(place) =
            self.session.stale_leases.iter().position(|stale| stale.step == Step::Revoking(token))
        else {
            return;
        };
        let stale = &mut self.session.stale_leases[place];
        match result {
            Err(error) if error.kind() != ErrorKind::LeaseNotFound => {
                stale.failures += 1;
                stale.step = Step::Due(now + RETRY.after(stale.failures));
                self.contact.failed(&error);
                self.failing.failed(now, StoreCall::Revoke, &error);
                self.report_refusal(&error);
            }
            outcome => {
                let removed = self.session.stale_leases.remove(place).removed;
                if removed && outcome.is_ok() {
                    // The lease lived, so somebody deleted the record on purpose: don't come straight back.
                    self.session.removals += 1;
                    self.session.not_before = now + PAUSE.after(self.session.removals);
                }
            }
        }
    }

    fn give_back(&mut self, now: Timestamp, stale: StaleLease) {
        self.session.stale_leases.push(stale);
        self.revoke_ghosts(now);
    }

    /// The commit by which the node leaves, if its record is known to stand: what the end of its lease would delete, and how
    /// it came to that.
    fn farewell(&self) -> Option<Txn> {
        let modified = self.membership.modified()?;
        let node = self.fold.own().filter(|own| own.modified == modified)?.record.as_ref()?;
        let keys = self.fold.keyspace();
        let record = keys.node_key(&node.name);
        let txn = Txn::new()
            .guard(Guard::modified_at(record.clone(), modified))
            .delete(record)
            .delete(keys.readiness_key(&node.name));
        let txn = DepartureRecord::add_to(txn, keys, node, Departure::Left);
        let Some(term) = self.own_term() else { return Some(txn) };
        let election = keys.election_key().clone();
        Some(txn.guard(Guard::created_at(election.clone(), term.revision())).delete(election))
    }

    fn leave(&mut self, txn: Txn) -> Step {
        let token = self.token();
        // A node that ends has to come to the revocation: a store that says nothing gets half of the time.
        let timeout = self.call_timeout().min(self.config.stop_timeout / 2);
        self.outputs.push_back(Output::Commit { token, txn, purpose: Purpose::Leave, timeout });
        Step::Leaving(token)
    }

    /// Takes the reply if it is to the commit by which the node leaves. The lease is revoked next, in any case: if that commit
    /// was done, nothing is left under it.
    pub(super) fn on_left(
        &mut self,
        now: Timestamp,
        token: Token,
        result: &Result<Revision, StoreError>,
    ) -> bool {
        let Some(stale) =
            self.session.stale_leases.iter_mut().find(|stale| stale.step == Step::Leaving(token))
        else {
            return false;
        };
        stale.step = Step::Due(now);
        if let Err(error) = result {
            self.report_refusal(error);
        }
        true
    }

    /// Ends the session, if there is one: nothing that was held under it counts from now on.
    pub(super) fn end_session(&mut self, now: Timestamp, end: SessionEnd) {
        // A grant on its way is no session yet. Its reply will find out what became of the node.
        let Some(held) = self.session.held() else { return };
        let (lease, failing) = (held.lease, held.failing);
        let expires = match held.renewal {
            Renewal::Due { .. } => held.expires,
            Renewal::Sent { .. } => now + self.call_timeout() + held.ttl,
        };
        let farewell = match end {
            SessionEnd::GivenUp | SessionEnd::Lost(LostReason::Unhealthy) => self.farewell(),
            SessionEnd::Lost(_) => None,
        };
        self.session.state = State::Without;
        let was_member = self.membership.is_member();
        self.leave_membership();
        self.lose_leadership();
        self.drop_stabilization();
        self.drop_acknowledgement();
        self.stop_consistency();
        if let SessionEnd::Lost(reason) = &end
            && was_member
        {
            self.emit(Event::SessionLost { reason: reason.clone() });
        }
        // A store that did not answer is not back because nobody asks it to renew any more.
        let failures = u32::from(failing);
        let removed = end == SessionEnd::Lost(LostReason::Removed);
        let step = farewell.map_or(Step::Due(now), |txn| self.leave(txn));
        self.give_back(now, StaleLease { lease, expires, removed, failures, step });
    }
}
