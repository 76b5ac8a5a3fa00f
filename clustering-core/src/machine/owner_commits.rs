//! Commits of the user as owner of a slot (P12).

use super::{
    facts::Facts,
    outbox::{Call, Outbox},
    output::{Purpose, Reply, RequestError},
    ownership::Ownership,
    timers::Timers,
    token::{RequestId, Token},
};
use crate::{
    config::RETRY,
    event::StopReason,
    slots::Slot,
    store::{ErrorKind, Guard, Revision, Snapshot, StoreError, Txn},
    time::Timestamp,
};

/// Commits transactions of the user that may be applied only while this node holds a slot.
///
/// Each transaction is guarded by the newest version, because the slot's next owner can acquire the slot only under a
/// later version. If a guard fails, the store does not report which one. So the machine reads the version key. If the
/// key is unchanged, a guard of the user failed. Otherwise the commit is repeated under the newer version, once this
/// node has folded it, if the node still holds the slot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct OwnerCommits(Vec<OwnerCommit>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct OwnerCommit {
    id: RequestId,
    slot: Slot,
    /// The version under which the slot of the user's hold was acquired.
    acquired: Revision,
    txn: Txn,
    /// The version that guarded the last attempt.
    guarded_by: Revision,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    Sent(Token),
    /// A guard failed at that revision. The version key is read at the time `at`.
    Refused {
        revision: Revision,
        at: Timestamp,
    },
    /// The read of the version key is in flight.
    Reading {
        revision: Revision,
        token: Token,
    },
    /// The store has a newer version that is not folded yet.
    Superseded,
}

/// The slot of a commit, and the version under which the slot was acquired when the user took the hold.
pub(crate) type Held = (Slot, Revision);

impl OwnerCommits {
    pub(crate) fn timers(&self, timers: &mut Timers) {
        for commit in &self.0 {
            if let State::Refused { at, .. } = commit.state {
                timers.at(at);
            }
        }
    }

    /// Commits the user's transaction.
    pub(crate) fn commit(
        &mut self,
        facts: &Facts,
        ownership: &Ownership,
        id: RequestId,
        (slot, acquired): Held,
        txn: Txn,
        out: &mut Outbox,
    ) {
        let keys = facts.keys();
        let mut written = txn.operations().iter().map(|operation| operation.key());
        let refusal = match written.find(|key| keys.is_reserved(key)) {
            Some(key) => Some(RequestError::Reserved { key: key.clone() }),
            None => (!ownership.holds(slot, acquired)).then_some(RequestError::NotHeld),
        };
        if let Some(refusal) = refusal {
            return out.reply(id, Reply::Committed(Err(refusal)));
        }
        let guarded_by = facts.fold.version_modified();
        let state = send(facts, &txn, out);
        self.0.push(OwnerCommit { id, slot, acquired, txn, guarded_by, state });
    }

    /// Handles the reply to a commit.
    pub(crate) fn on_committed(
        &mut self,
        facts: &Facts,
        token: Token,
        result: Result<Revision, StoreError>,
        out: &mut Outbox,
    ) {
        let is_it = |commit: &OwnerCommit| commit.state == State::Sent(token);
        let Some(place) = self.0.iter().position(is_it) else { return };
        if let Err(error) = &result
            && let ErrorKind::GuardFailed { revision } = error.kind()
        {
            self.0[place].state = State::Refused { revision, at: facts.now };
            return;
        }
        let OwnerCommit { id, .. } = self.0.remove(place);
        out.reply(id, Reply::Committed(result.map_err(RequestError::Store)));
    }

    /// Handles the reply to a read of the version key.
    pub(crate) fn on_read(
        &mut self,
        facts: &Facts,
        token: Token,
        result: Result<Snapshot, StoreError>,
        out: &mut Outbox,
    ) {
        let is_it =
            |commit: &OwnerCommit| matches!(commit.state, State::Reading { token: own, .. } if own == token);
        let Some(place) = self.0.iter().position(is_it) else { return };
        let State::Reading { revision, .. } = self.0[place].state else { return };
        let Ok(snapshot) = result else {
            self.0[place].state = State::Refused { revision, at: facts.now + RETRY.first };
            return;
        };
        let version = facts.keys().version_key();
        let stored = snapshot.entries.iter().find(|entry| entry.key == *version);
        let is_newest = stored.map_or(Revision::ZERO, |entry| entry.modified) == self.0[place].guarded_by;
        if !is_newest {
            self.0[place].state = State::Superseded;
            return;
        }
        let OwnerCommit { id, .. } = self.0.remove(place);
        let error = RequestError::Store(StoreError::guard_failed(revision));
        out.reply(id, Reply::Committed(Err(error)));
    }

    /// Rejects commits for slots that the node no longer holds, and repeats commits that failed because of a newer
    /// version.
    pub(crate) fn reconcile(&mut self, facts: &Facts, ownership: &Ownership, out: &mut Outbox) {
        let newest = facts.fold.version_modified();
        self.0.retain_mut(|commit| {
            if let State::Sent(_) = commit.state {
                return true;
            }
            if !ownership.holds(commit.slot, commit.acquired) {
                out.reply(commit.id, Reply::Committed(Err(RequestError::NotHeld)));
                return false;
            }
            if newest != commit.guarded_by {
                commit.guarded_by = newest;
                commit.state = send(facts, &commit.txn, out);
            } else if let State::Refused { revision, at } = commit.state
                && facts.now >= at
            {
                let token = out.read(Call::OwnerCommits, facts.keys().version_key().clone(), facts.now);
                commit.state = State::Reading { revision, token };
            }
            true
        });
    }

    /// Refuses all requests because the node ends.
    pub(crate) fn refuse_all(&mut self, reason: &StopReason, out: &mut Outbox) {
        for OwnerCommit { id, .. } in std::mem::take(&mut self.0) {
            out.reply(id, Reply::Committed(Err(RequestError::Stopped(reason.clone()))));
        }
    }
}

fn send(facts: &Facts, txn: &Txn, out: &mut Outbox) -> State {
    let newest = Guard::modified_at(facts.keys().version_key().clone(), facts.fold.version_modified());
    State::Sent(out.commit(Purpose::OwnerCommit, txn.clone().guard(newest), facts.now))
}
