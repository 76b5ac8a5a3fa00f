//! Reclaiming the slots of removed sessions whose processes do not follow the log (P12).

use std::{collections::BTreeMap, time::Duration};

use super::{
    election::Election, facts::Facts, in_flight::InFlight, outbox::Outbox, output::Purpose, timers::Timers,
    token::Token,
};
use crate::{
    config::{MAX_TTL, RETRY},
    event::{Event, Holder, StoreCall},
    fold::Changed,
    record::{HoldsRecord, StoredRecord, encode},
    store::{ErrorKind, Guard, Key, LeaseId, Revision, StoreError, Txn},
    time::Timestamp,
    version::Term,
};

/// On the leader, ends the witness of a session that was evicted or taken over, if its process keeps renewing the lease
/// because it does not see the log.
///
/// ```text
///   removed ──2 TTL──▶ detach the witness from the lease ──▶ revoke the lease ──▶ wait one TTL ──▶ delete the witness
/// ```
///
/// The witness is detached first, because it would otherwise be deleted with the lease, while the process may still
/// hold keys until its deadline, one TTL after its last renewal. A session that left by itself is never reclaimed: its
/// process ends the lease when it has released its slots. A new leader starts the waits again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Reclaim {
    commit: InFlight,
    /// The witnesses to reclaim, with the progress of each.
    orphans: BTreeMap<LeaseId, Orphan>,
    /// True if the log has changed in a way that may affect witnesses.
    is_outdated: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Orphan {
    step: Step,
    /// Number of revocations that failed in a row.
    failures: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// Until this time, the leader waits for the lease to end by itself.
    Waiting(Timestamp),
    /// The witness is detached. The lease is revoked at this time.
    Revoke(Timestamp),
    Revoking(Token),
    /// The lease is revoked. All holds under it are void at this time.
    Revoked(Timestamp),
}

impl Reclaim {
    pub(crate) fn fails_to_reclaim(&self, facts: &Facts) -> bool {
        self.commit.is_failing(facts) || self.orphans.values().any(|orphan| orphan.failures > 0)
    }

    pub(crate) fn timers(&self, facts: &Facts, timers: &mut Timers) {
        timers.maybe(self.commit.due(facts));
        for orphan in self.orphans.values() {
            if let Step::Waiting(at) | Step::Revoke(at) | Step::Revoked(at) = orphan.step {
                timers.at(at);
            }
        }
    }

    /// Handles a change of the log.
    pub(crate) fn on_change(&mut self, change: &Changed) {
        if matches!(
            change,
            Changed::Other | Changed::Up(_) | Changed::Down(..) | Changed::Renewed(_) | Changed::Version
        ) {
            self.is_outdated = true;
        }
    }

    pub(crate) fn reconcile(&mut self, facts: &Facts, election: &Election, out: &mut Outbox) {
        let Some(term) = election.active_term(facts.now) else {
            if election.leading().is_none() {
                *self = Reclaim { is_outdated: true, ..Reclaim::default() };
            }
            return;
        };
        if std::mem::take(&mut self.is_outdated) {
            self.find(facts);
        }
        for (lease, orphan) in &mut self.orphans {
            if let Some(witness) = facts.fold.holds().get(lease) {
                orphan.proceed(facts, term, (*lease, witness), &mut self.commit, out);
            }
        }
    }

    /// Finds the witnesses to reclaim.
    fn find(&mut self, facts: &Facts) {
        self.orphans.retain(|lease, _| is_orphan(facts, *lease));
        for lease in facts.fold.holds().keys().filter(|lease| is_orphan(facts, **lease)) {
            let new = || Orphan { step: first_step(facts, *lease), failures: 0 };
            self.orphans.entry(*lease).or_insert_with(new);
        }
    }

    /// Handles the reply to a commit. Returns false if it is no longer awaited.
    #[must_use]
    pub(crate) fn on_committed(
        &mut self,
        facts: &Facts,
        token: Token,
        result: &Result<Revision, StoreError>,
    ) -> bool {
        self.commit.take(facts, token, result)
    }

    /// Handles the reply to a revocation. The wait for the TTL begins with the reply, because the process may have
    /// renewed the lease until then.
    pub(crate) fn on_revoked(
        &mut self,
        facts: &Facts,
        token: Token,
        result: Result<(), StoreError>,
        out: &mut Outbox,
    ) {
        let is_it = |(_, orphan): &(&LeaseId, &mut Orphan)| orphan.step == Step::Revoking(token);
        let Some((lease, orphan)) = self.orphans.iter_mut().find(is_it) else { return };
        match result {
            Err(error) if error.kind() != ErrorKind::LeaseNotFound => {
                orphan.failures += 1;
                orphan.step = Step::Revoke(facts.now + RETRY.after(orphan.failures));
                out.call_failed(StoreCall::Reclaim, &error, facts.now);
            }
            _ => {
                orphan.failures = 0;
                let ttl = facts.fold.holds().get(lease).map_or(MAX_TTL, ttl);
                orphan.step = Step::Revoked(facts.now + ttl);
            }
        }
    }
}

impl Orphan {
    /// Takes the next step if it is due. All orphans share one commit slot, so their commits are sent one at a time.
    fn proceed(
        &mut self,
        facts: &Facts,
        term: Term,
        (lease, witness): (LeaseId, &StoredRecord<HoldsRecord>),
        commit: &mut InFlight,
        out: &mut Outbox,
    ) {
        if matches!(self.step, Step::Waiting(at) if facts.now >= at) && witness.lease.is_none() {
            self.step = Step::Revoke(facts.now);
        }
        match self.step {
            Step::Waiting(at) if facts.now >= at && commit.is_free(facts) => {
                out.emit(Event::Reclaiming { holder: Holder::new(lease, witness) });
                let txn = detach(facts, term, lease, witness);
                commit.sent(facts, out.commit(Purpose::Reclaim, txn, facts.now));
            }
            Step::Revoke(at) if facts.now >= at => {
                self.step = Step::Revoking(out.reclaim(lease, facts.now));
            }
            Step::Revoked(at) if facts.now >= at && commit.is_free(facts) => {
                let key = facts.keys().holds_key(lease);
                let txn = guarded(facts, term, &key, witness.modified).delete(key);
                commit.sent(facts, out.commit(Purpose::Reclaim, txn, facts.now));
            }
            Step::Waiting(_) | Step::Revoke(_) | Step::Revoking(_) | Step::Revoked(_) => {}
        }
    }
}

/// True if a witness of that lease exists although no present node has the lease, and its process did not leave by
/// itself.
fn is_orphan(facts: &Facts, lease: LeaseId) -> bool {
    let Some(witness) = facts.fold.holds().get(&lease) else { return false };
    let present = match &witness.record {
        Some(record) if record.left => return false,
        Some(record) => facts.fold.node(&record.node).is_some_and(|node| node.lease == Some(lease)),
        None => facts.fold.present().any(|node| node.lease == Some(lease)),
    };
    !present
}

fn first_step(facts: &Facts, lease: LeaseId) -> Step {
    match facts.fold.holds().get(&lease) {
        // An earlier leader has already detached the witness.
        Some(witness) if witness.lease.is_none() => Step::Revoke(facts.now),
        witness => Step::Waiting(facts.now + witness.map_or(MAX_TTL, ttl) * 2),
    }
}

/// Returns the TTL of the witness's lease. For a witness that cannot be read, assumes the longest TTL that a node can
/// have.
fn ttl(witness: &StoredRecord<HoldsRecord>) -> Duration {
    witness.record.as_ref().map_or(MAX_TTL, |record| record.ttl().min(MAX_TTL))
}

/// Builds the commit that detaches the witness from its lease.
fn detach(facts: &Facts, term: Term, lease: LeaseId, witness: &StoredRecord<HoldsRecord>) -> Txn {
    let key = facts.keys().holds_key(lease);
    let txn = guarded(facts, term, &key, witness.modified);
    match &witness.record {
        Some(record) => txn.put(key, encode(record), None),
        None => txn.put(key, "{}", None),
    }
}

fn guarded(facts: &Facts, term: Term, key: &Key, modified: Revision) -> Txn {
    Txn::new()
        .guard(Guard::created_at(facts.keys().election_key().clone(), term.revision()))
        .guard(Guard::modified_at(key.clone(), modified))
}
