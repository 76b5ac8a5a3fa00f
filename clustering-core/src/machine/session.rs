//! The lease of the node (P6, P7).

use std::time::Duration;

use super::{
    facts::{Facts, Intent},
    health::Checks,
    outbox::Outbox,
    timers::Timers,
    token::Token,
};
use crate::{
    config::{Backoff, RENEW_RETRY, RETRY},
    event::{LostReason, StoreCall},
    store::{Effect, ErrorKind, Lease, LeaseId, StoreError},
    time::Timestamp,
};

/// Pause before a removed node rejoins. Doubles with each removal since the node was last ready.
const PAUSE: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(600));

/// Upper limit for TTLs. A store may grant a TTL that would overflow the node's timestamps.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// The session: one lease at a time, from its grant until it was given back.
///
/// ```text
///   Without ──grant──▶ Granting ──▶ Held ──renew──▶ Held ──end──▶ Ended ──given back──▶ Without
/// ```
///
/// A session ends if the node is to leave, or if it is lost: the deadline passed, the store no longer knows the lease,
/// the record was removed, the process is unhealthy, or the node does not let go of slots that it lost. Its keys may
/// remain until the lease is revoked or expires, and would block the next session, which therefore waits for that.
///
/// An exclusive node that leaves by itself keeps renewing the lease until it has released its slots, so that a long
/// release is not cut short (P12).
///
/// Deadlines count from the *sending* of the last renewal that succeeded: the store cannot have handled it earlier, so
/// the lease lives at least until then (P6).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Session {
    state: State,
    /// Number of sessions that began or ended so far.
    epoch: u64,
    /// Number of grants that failed in a row.
    failures: u32,
    /// Number of times that the node was removed since it was last ready.
    removals: u32,
    /// No lease is requested before this time.
    not_before: Timestamp,
    /// Measured time from the sending of a call to its reply, smoothed.
    round_trip: Duration,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
enum State {
    #[default]
    Without,
    Granting,
    Held(Held),
    Ended(Ended),
}

/// A lease that the node holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Held {
    pub(crate) lease: LeaseId,
    ttl: Duration,
    /// Time at which the last renewal that succeeded, or the grant, was sent.
    renewed: Timestamp,
    /// Remaining time of the lease at that moment, according to the store's reply.
    left: Duration,
    /// Time at which the lease has certainly expired, even if unanswered renewals succeeded.
    expires: Timestamp,
    renewal: Renewal,
    /// True if the last renewal failed.
    failing: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Renewal {
    Due(Timestamp),
    Sent(Token),
}

/// The lease of a session that is over.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ended {
    pub(crate) lease: LeaseId,
    pub(crate) end: SessionEnd,
    /// Time at which the lease has expired, even if it is not revoked; zero if no key was ever put under it. Moves
    /// while the lease is still renewed.
    pub(crate) expires: Timestamp,
    /// Time after which nothing is held under the lease any more. Moves while the lease is still renewed.
    void: Timestamp,
    /// True if the last renewal failed.
    pub(crate) failing: bool,
    /// The lease while it is still renewed.
    kept: Option<Kept>,
}

/// The lease of an ended session that is still renewed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Kept {
    held: Held,
    /// Time at which the renewals stop.
    until: Timestamp,
}

/// The reason why a session ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum SessionEnd {
    /// The node leaves.
    GivenUp,
    /// The session was lost.
    Lost(LostReason),
}

/// The last change of the session that a concern has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Epoch(u64);

/// A change of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionChange {
    Began,
    Ended,
}

impl Held {
    /// Returns the end of the session: after that, the store may give the node's name to others.
    pub(crate) fn deadline(&self) -> Timestamp {
        self.renewed + self.left
    }

    /// Returns the time until which holds are given out. It is earlier than the end of the session, so that there is
    /// time to let go.
    fn hold_deadline(&self) -> Timestamp {
        self.renewed + (self.ttl * 2 / 3).min(self.left)
    }

    /// Returns the time at which the lease has certainly expired.
    fn expires(&self, now: Timestamp, out: &Outbox) -> Timestamp {
        match self.renewal {
            Renewal::Due(_) => self.expires,
            Renewal::Sent(_) => now + out.call_timeout() + self.ttl,
        }
    }
}

/// The times of the lease under which slots are, or were, held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HoldTimes {
    pub(crate) lease: LeaseId,
    /// Time until which holds are given out; zero if the session is over.
    pub(crate) until: Timestamp,
    /// Time after which all holds are void.
    pub(crate) void: Timestamp,
}

impl Session {
    pub(crate) fn held(&self) -> Option<&Held> {
        match &self.state {
            State::Held(held) => Some(held),
            _ => None,
        }
    }

    pub(crate) fn lease(&self) -> Option<LeaseId> {
        self.held().map(|held| held.lease)
    }

    /// Returns the TTL that the store granted, or the one to request.
    pub(crate) fn ttl(&self, facts: &Facts) -> Duration {
        self.held().map_or(facts.config.ttl, |held| held.ttl)
    }

    /// Returns the lease that is still to be given back.
    pub(crate) fn ended(&self) -> Option<&Ended> {
        match &self.state {
            State::Ended(ended) => Some(ended),
            _ => None,
        }
    }

    /// Returns the times of this session's lease, or of an ended session's lease that is not given back yet.
    pub(crate) fn hold_times(&self) -> Option<HoldTimes> {
        match &self.state {
            State::Held(held) => {
                Some(HoldTimes { lease: held.lease, until: held.hold_deadline(), void: held.deadline() })
            }
            State::Ended(ended) => {
                Some(HoldTimes { lease: ended.lease, until: Timestamp::ZERO, void: ended.void })
            }
            State::Without | State::Granting => None,
        }
    }

    /// True if all holds under that lease are void at `now`.
    pub(crate) fn is_void(&self, lease: LeaseId, now: Timestamp) -> bool {
        self.hold_times().is_none_or(|times| times.lease != lease || now >= times.void)
    }

    /// True if the node has no lease, and none is being granted.
    pub(crate) fn is_given_back(&self) -> bool {
        self.state == State::Without
    }

    /// True if no lease of this node can hold a key any more at `now`.
    pub(crate) fn shows_nothing(&self, now: Timestamp) -> bool {
        self.held().is_none() && self.ended().is_none_or(|ended| now >= ended.expires)
    }

    /// Returns how the session has changed since the concern last called this method.
    pub(crate) fn change_since(&self, seen: &mut Epoch) -> Option<SessionChange> {
        let seen = std::mem::replace(&mut seen.0, self.epoch);
        (seen != self.epoch).then(|| match self.held() {
            Some(_) => SessionChange::Began,
            None => SessionChange::Ended,
        })
    }

    /// Returns the time until which this node may act as leader. It is earlier than the end of the session, so that
    /// there is time to stop work.
    pub(crate) fn leadership_deadline(&self, facts: &Facts) -> Option<Timestamp> {
        let held = self.held()?;
        let share = facts.config.leadership.unwrap_or(held.ttl * 2 / 3);
        Some(held.renewed + share.min(held.left))
    }

    /// True if the last renewal or grant failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.fails_to_grant() || self.renewing().is_some_and(|held| held.failing)
    }

    /// Returns the lease that the node is renewing.
    fn renewing(&self) -> Option<&Held> {
        match &self.state {
            State::Held(held) => Some(held),
            State::Ended(ended) => ended.kept.as_ref().map(|kept| &kept.held),
            State::Without | State::Granting => None,
        }
    }

    fn renewing_mut(&mut self) -> Option<&mut Held> {
        match &mut self.state {
            State::Held(held) => Some(held),
            State::Ended(ended) => ended.kept.as_mut().map(|kept| &mut kept.held),
            State::Without | State::Granting => None,
        }
    }

    pub(crate) fn fails_to_grant(&self) -> bool {
        self.failures > 0
    }

    pub(crate) fn round_trip(&self) -> Duration {
        self.round_trip
    }

    /// Takes the duration of a call into account.
    pub(crate) fn measured(&mut self, took: Duration) {
        self.round_trip = if self.round_trip.is_zero() { took } else { (self.round_trip * 7 + took) / 8 };
    }

    /// Resets the count of removals, since the node was ready. Membership alone must not reset it: a node that refuses
    /// every version is also a member until it is evicted again.
    pub(crate) fn forgive_removals(&mut self) {
        self.removals = 0;
    }

    pub(crate) fn timers(&self, timers: &mut Timers) {
        match &self.state {
            State::Without => timers.at(self.not_before),
            State::Granting | State::Held(_) => {}
            State::Ended(ended) => timers.maybe(ended.kept.as_ref().map(|kept| kept.until)),
        }
        if let Some(held) = self.renewing() {
            timers.at(held.deadline());
            if let Renewal::Due(at) = held.renewal {
                timers.at(at);
            }
        }
    }

    /// Ends the session if it should end, renews the lease when that is due, and requests a lease if the node needs
    /// one and is `free` to begin a session.
    pub(crate) fn reconcile(&mut self, facts: &Facts, health: &Checks, free: bool, out: &mut Outbox) {
        if let Some(end) = self.due_end(facts, health) {
            self.end(facts, end, out);
        }
        if !wants_lease(facts, health) && !facts.is_ending() {
            // Failed grants say nothing about the store once no lease is wanted.
            self.failures = 0;
        }
        self.stop_keeping_in_time(facts, out);
        if let Some(held) = self.renewing_mut()
            && matches!(held.renewal, Renewal::Due(at) if facts.now >= at)
        {
            held.renewal = Renewal::Sent(out.renew(held.lease, facts.now));
        }
        if self.state == State::Without && free && wants_lease(facts, health) && facts.now >= self.not_before
        {
            out.grant(facts.config.ttl, facts.now);
            self.state = State::Granting;
        }
    }

    /// Stops renewing the lease of an ended session at the time limit, or when it has expired.
    fn stop_keeping_in_time(&mut self, facts: &Facts, out: &mut Outbox) {
        let State::Ended(ended) = &mut self.state else { return };
        let is_over = |kept: &mut Kept| facts.now >= kept.until.min(kept.held.deadline());
        if let Some(kept) = ended.kept.take_if(is_over) {
            ended.note_times(&kept.held, facts.now, out);
        }
    }

    /// Stops renewing the lease of an ended session, since everything is released.
    pub(crate) fn stop_renewing(&mut self) {
        if let State::Ended(ended) = &mut self.state {
            ended.kept = None;
        }
    }

    /// Returns the reason why the session ends now, if it does.
    fn due_end(&self, facts: &Facts, health: &Checks) -> Option<SessionEnd> {
        let held = self.held()?;
        if facts.intent != Intent::Register {
            Some(SessionEnd::GivenUp)
        } else if !health.is_fit(facts) {
            Some(SessionEnd::Lost(LostReason::Unhealthy))
        } else if facts.now >= held.deadline() {
            Some(SessionEnd::Lost(LostReason::Expired))
        } else {
            None
        }
    }

    /// Ends the session, if there is one. Nothing that was done under its lease counts from now on.
    pub(crate) fn end(&mut self, facts: &Facts, end: SessionEnd, out: &mut Outbox) {
        // A lease that is being granted is not a session yet. The reply will be handled according to the goal of the
        // node at that time.
        let State::Held(held) = &self.state else { return };
        let keeps = facts.config.exclusive.is_some() && end.is_in_order();
        let until = facts.now + facts.config.stop_timeout();
        let mut ended = Ended {
            lease: held.lease,
            end,
            expires: Timestamp::ZERO,
            void: Timestamp::ZERO,
            failing: held.failing,
            kept: keeps.then(|| Kept { held: held.clone(), until }),
        };
        ended.note_times(held, facts.now, out);
        self.state = State::Ended(ended);
        self.epoch += 1;
        out.limit_calls(&facts.config, facts.config.ttl);
    }

    /// The lease of the last session was given back. `was_alive` tells whether the store still knew it.
    pub(crate) fn given_back(&mut self, facts: &Facts, was_alive: bool) {
        let State::Ended(ended) = &self.state else { return };
        let is_stuck = ended.end == SessionEnd::Lost(LostReason::ReleaseTimeout);
        if is_stuck || was_alive && ended.end == SessionEnd::Lost(LostReason::Removed) {
            // The node waits before it joins again. Either its record was deleted on purpose, since the lease was
            // alive, or the node left because it did not let go of its slots.
            self.removals += 1;
            self.not_before = facts.now + PAUSE.after(self.removals);
        }
        self.state = State::Without;
    }

    /// Handles the reply to a grant that was sent at `sent`.
    pub(crate) fn on_granted(
        &mut self,
        facts: &Facts,
        health: &Checks,
        sent: Timestamp,
        result: Result<Lease, StoreError>,
        out: &mut Outbox,
    ) {
        if self.state != State::Granting {
            return;
        }
        self.state = State::Without;
        match result {
            Ok(Lease { id, .. }) if !wants_lease(facts, health) => {
                self.state = State::Ended(Ended {
                    lease: id,
                    end: SessionEnd::GivenUp,
                    expires: Timestamp::ZERO,
                    void: Timestamp::ZERO,
                    failing: false,
                    kept: None,
                });
            }
            Ok(Lease { id, ttl }) => self.begin(facts, sent, id, ttl.min(LONGEST), out),
            Err(_) if !wants_lease(facts, health) => {}
            Err(error) => {
                self.failures += 1;
                let delay = match error.is_transient() {
                    true => RETRY.after(self.failures),
                    false => RETRY.max,
                };
                self.not_before = facts.now + out.jittered(delay);
                out.contact.failed(&error);
                out.call_failed(StoreCall::Grant, &error, facts.now);
            }
        }
    }

    fn begin(&mut self, facts: &Facts, sent: Timestamp, lease: LeaseId, ttl: Duration, out: &mut Outbox) {
        self.measured(facts.now.since(sent));
        self.failures = 0;
        self.state = State::Held(Held {
            lease,
            ttl,
            renewed: sent,
            left: ttl,
            expires: facts.now + ttl,
            renewal: Renewal::Due(sent + renew_every(facts, ttl)),
            failing: false,
        });
        self.epoch += 1;
        out.limit_calls(&facts.config, ttl);
    }

    /// Handles the reply to a renewal that was sent at `sent`.
    pub(crate) fn on_renewed(
        &mut self,
        facts: &Facts,
        token: Token,
        sent: Timestamp,
        result: Result<Duration, StoreError>,
        out: &mut Outbox,
    ) {
        let Some(held) = self.renewing_mut() else { return };
        if held.renewal != Renewal::Sent(token) {
            return;
        }
        match result {
            Ok(left) if !left.is_zero() => {
                held.renewed = sent;
                held.left = left.min(held.ttl);
                held.expires = facts.now + held.left;
                held.failing = false;
                held.renewal = Renewal::Due((sent + renew_every(facts, held.ttl)).max(facts.now));
                let held = held.clone();
                if let State::Ended(ended) = &mut self.state {
                    ended.note_times(&held, facts.now, out);
                }
                self.measured(facts.now.since(sent));
            }
            Err(error) if error.kind() != ErrorKind::LeaseNotFound => {
                held.failing = true;
                if error.effect() == Effect::Unknown {
                    held.expires = facts.now + held.ttl;
                }
                held.renewal = Renewal::Due(facts.now + RENEW_RETRY.min(held.ttl / 6));
                out.contact.failed(&error);
                out.report_refusal(&error);
            }
            _ => {
                held.failing = false;
                if let State::Ended(ended) = &mut self.state {
                    // Another client has revoked the lease.
                    ended.kept = None;
                    ended.expires = ended.void;
                }
                self.end(facts, SessionEnd::Lost(LostReason::LeaseGone), out);
            }
        }
    }
}

impl Ended {
    /// True while the lease is still renewed.
    pub(crate) fn is_renewed(&self) -> bool {
        self.kept.is_some()
    }

    /// Records when the lease and its holds end if the lease is no longer renewed.
    fn note_times(&mut self, held: &Held, now: Timestamp, out: &Outbox) {
        self.expires = held.expires(now, out);
        self.void = held.deadline();
        self.failing = held.failing;
    }
}

impl SessionEnd {
    /// True if the node leaves by itself while its lease is live: it commits its departure, and lets go of its slots in
    /// order.
    pub(crate) fn is_in_order(&self) -> bool {
        matches!(
            self,
            SessionEnd::GivenUp | SessionEnd::Lost(LostReason::Unhealthy | LostReason::ReleaseTimeout)
        )
    }
}

/// True if the node should be a member now, and therefore needs a lease.
fn wants_lease(facts: &Facts, health: &Checks) -> bool {
    facts.intent == Intent::Register && health.is_fit(facts)
}

fn renew_every(facts: &Facts, ttl: Duration) -> Duration {
    facts.config.renew_every.unwrap_or(ttl / 3)
}
