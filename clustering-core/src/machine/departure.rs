//! Leaving the cluster, and giving the lease back (P7).

use super::{
    facts::Facts,
    membership::Membership,
    outbox::Outbox,
    output::Purpose,
    ownership::Ownership,
    session::{Ended, Session, SessionEnd},
    timers::Timers,
    token::Token,
};
use crate::{
    config::RETRY,
    event::{Event, StoreCall},
    record::{Departure, DepartureRecord, HoldsRecord, encode},
    store::{ErrorKind, Guard, Revision, StoreError, Txn},
    time::Timestamp,
    version::Term,
};

/// Gives back the lease of an ended session.
///
/// ```text
///   session ended ──▶ Leaving ──▶ Due ──revoke──▶ Revoking ──▶ given back
///        │                         ▲ ▲               │
///        └─────── if it was lost ──┘ └──── failed ───┘
/// ```
///
/// An exclusive node revokes the lease only after it has let go of all slots. If that takes longer than the lease
/// lives, the lease expires instead. If the leave commit failed, it is repeated in the meantime: otherwise the others
/// would treat the node as a member, or even for their leader, until the lease ends.
///
/// A node that leaves of its own accord first commits its departure, which also deletes its record. If the keys were
/// only deleted with their lease, the log would not show whether the lease was revoked or expired.
///
/// This concern is above all others, so that each of them has finished its work in the session before the keys are
/// deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Departing {
    /// Revision of the node's record in the current session, or in the one that is being ended.
    record: Option<Revision>,
    /// Progress of giving the lease back; `None` while the session lives.
    step: Option<Step>,
    /// Number of calls that failed in a row: revocations, and the renewal before them.
    failures: u32,
    /// Number of leave commits that failed.
    refusals: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// The leave commit is in flight. Whatever its result, the lease is revoked next. It is not revoked earlier,
    /// because the commit would then find nothing to delete and record nothing.
    Leaving(Token),
    /// The leave commit failed, and is to be repeated at this time, if the lease is still renewed by then.
    LeaveAgain(Timestamp),
    /// The lease is to be revoked at this time.
    Due(Timestamp),
    /// The revocation is in flight.
    Revoking(Token),
}

impl Departing {
    /// True if the last revocation, or the renewal before it, failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    pub(crate) fn timers(&self, session: &Session, timers: &mut Timers) {
        if let Some(Step::Due(at) | Step::LeaveAgain(at)) = self.step {
            timers.at(at);
            timers.maybe(session.ended().map(|ended| ended.expires));
        }
    }

    /// Begins to give the lease back once the session has ended, and revokes it when that is due.
    pub(crate) fn reconcile(
        &mut self,
        facts: &Facts,
        session: &Session,
        membership: &Membership,
        ownership: &Ownership,
        out: &mut Outbox,
    ) {
        let Some(ended) = session.ended() else {
            self.record = membership.modified();
            return;
        };
        // The leave commit also deletes the witness if the node has let go of all slots. So first wait for the report
        // of outstanding holds.
        if self.step.is_none() && (ownership.is_reported() || !ended.end.is_in_order()) {
            self.begin(facts, ended, ownership.has_let_go(), out);
        }
        if let Some(Step::LeaveAgain(at)) = self.step {
            self.leave_again(facts, ended, ownership.has_let_go(), at, out);
        }
        if matches!(self.step, Some(Step::Due(at)) if ownership.has_let_go() && facts.now >= at) {
            self.step = Some(Step::Revoking(out.revoke(ended.lease, facts.now)));
        }
    }

    /// Gives up an expired lease if the node has not let go of its slots within the time limit. The node requests
    /// another lease only when it has.
    pub(crate) fn give_up(&mut self, facts: &Facts, session: &mut Session, ownership: &Ownership) {
        let Some(expires) = session.ended().map(|ended| ended.expires) else { return };
        let is_over = facts.now >= expires.max(ownership.patience(facts));
        let is_idle = matches!(self.step, None | Some(Step::Due(_) | Step::LeaveAgain(_)));
        if is_over && is_idle && !ownership.has_let_go() {
            *self = Departing::default();
            session.given_back(facts, false);
        }
    }

    fn begin(&mut self, facts: &Facts, ended: &Ended, has_let_go: bool, out: &mut Outbox) {
        // A store that did not answer has not recovered just because the node does not renew the lease any more.
        self.failures = u32::from(ended.failing);
        let record = self.record.take();
        if let SessionEnd::Lost(reason) = &ended.end
            && record.is_some()
        {
            out.emit(Event::SessionLost { reason: reason.clone() });
        }
        let leave = match ended.end.is_in_order() {
            true => leave(facts, ended, record, has_let_go),
            false => None,
        };
        self.send(facts, leave, out);
    }

    /// Repeats the leave commit if that is due. Once the lease may be revoked, or is no longer renewed, its end
    /// deletes the keys.
    fn leave_again(
        &mut self,
        facts: &Facts,
        ended: &Ended,
        has_let_go: bool,
        at: Timestamp,
        out: &mut Outbox,
    ) {
        if has_let_go || !ended.is_renewed() {
            self.step = Some(Step::Due(facts.now));
        } else if facts.now >= at {
            let own = facts.fold.own().filter(|own| own.lease == Some(ended.lease));
            let leave = leave(facts, ended, own.map(|own| own.modified), false);
            self.send(facts, leave, out);
        }
    }

    fn send(&mut self, facts: &Facts, leave: Option<Txn>, out: &mut Outbox) {
        self.step = Some(match leave {
            Some(txn) => {
                // A node that ends needs time for the revocation, so it waits for this commit for at most half of the
                // time limit.
                let timeout = out.call_timeout().min(facts.config.stop_timeout() / 2);
                Step::Leaving(out.commit_within(timeout, Purpose::Leave, txn, facts.now))
            }
            None => Step::Due(facts.now),
        });
    }

    /// Handles the reply to the leave commit.
    pub(crate) fn on_left(
        &mut self,
        facts: &Facts,
        token: Token,
        result: &Result<Revision, StoreError>,
        out: &mut Outbox,
    ) {
        if self.step != Some(Step::Leaving(token)) {
            return;
        }
        self.step = Some(Step::Due(facts.now));
        if let Err(error) = result {
            self.refusals += 1;
            self.step = Some(Step::LeaveAgain(facts.now + RETRY.after(self.refusals)));
            out.report_refusal(error);
        }
    }

    /// Handles the reply to the revocation.
    pub(crate) fn on_revoked(
        &mut self,
        facts: &Facts,
        session: &mut Session,
        token: Token,
        result: Result<(), StoreError>,
        out: &mut Outbox,
    ) {
        if self.step != Some(Step::Revoking(token)) {
            return;
        }
        match result {
            Err(error) if error.kind() != ErrorKind::LeaseNotFound => {
                self.failures += 1;
                self.step = Some(Step::Due(facts.now + RETRY.after(self.failures)));
                session.stop_renewing();
                out.contact.failed(&error);
                out.call_failed(StoreCall::Revoke, &error, facts.now);
            }
            revoked => {
                *self = Departing::default();
                session.given_back(facts, revoked.is_ok());
            }
        }
    }
}

/// Builds the leave commit, if the node's record is stored as it was put at `record`: it deletes the keys attached to
/// the lease, and records that the node left. The witness of an exclusive session stays until the node has let go of
/// its slots.
fn leave(facts: &Facts, ended: &Ended, record: Option<Revision>, has_let_go: bool) -> Option<Txn> {
    let modified = record?;
    let node = facts.fold.own().filter(|own| own.modified == modified)?.record.as_ref()?;
    let keys = facts.keys();
    let own = keys.node_key(&node.name);
    let txn = Txn::new()
        .guard(Guard::modified_at(own.clone(), modified))
        .delete(own)
        .delete(keys.readiness_key(&node.name));
    let txn = DepartureRecord::add_to(txn, keys, node, Departure::Left, facts.keep());
    let witness = facts.fold.holds().get(&ended.lease).and_then(|witness| witness.record.clone());
    let key = keys.holds_key(ended.lease);
    let txn = match witness {
        None => txn,
        Some(_) if has_let_go => txn.delete(key),
        Some(witness) => txn.put(key, encode(&HoldsRecord { left: true, ..witness }), ended.lease),
    };
    let leader = facts.fold.leader().filter(|leader| leader.lease == Some(ended.lease));
    let Some(term) = leader.map(|leader| Term::new(leader.created)) else { return Some(txn) };
    let election = keys.election_key().clone();
    Some(txn.guard(Guard::created_at(election.clone(), term.revision())).delete(election))
}
