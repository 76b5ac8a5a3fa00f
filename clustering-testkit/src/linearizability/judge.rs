use std::fmt;

use bytes::Bytes;
use clustering_core::store::{Entry, Key, Operation as Write, Revision, Txn};

use super::{Answer, Call, History, Operation};
use crate::contract::Contract;

/// Reason why no order of the calls explains the answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotLinearizable {
    what: String,
    /// The calls up to the failure, in the order of their revisions.
    calls: Vec<String>,
}

impl NotLinearizable {
    /// Creates an error with a description of the contradiction.
    pub(super) fn of(what: String) -> Self {
        NotLinearizable { what, calls: Vec::new() }
    }
}

impl fmt::Display for NotLinearizable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "not linearizable: {}", self.what)?;
        if self.calls.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "the calls up to this point in the order of their revisions, with the times of call and answer:"
        )?;
        self.calls.iter().try_for_each(|call| writeln!(f, "  {call}"))
    }
}

impl std::error::Error for NotLinearizable {}

/// Maximum number of calls in an error.
const SHOWN: usize = 12;

impl History {
    /// Checks that one order of the calls explains all answers.
    ///
    /// # Errors
    ///
    /// Returns the first call that cannot be explained, and the calls before it.
    pub fn judge(&self) -> Result<(), NotLinearizable> {
        let mut order: Vec<_> = self.operations.iter().collect();
        // A commit that changed something at a revision comes before the calls that observed that revision.
        order.sort_by_key(|operation| (rank(operation), operation.invoked));
        let mut replay = Replay::default();
        // Latest invocation among the calls of lower rank, which must precede the current one, and among those of its
        // own rank.
        let (mut begun_before, mut begun_beside) = (0, 0);
        for (place, operation) in order.iter().enumerate() {
            if place > 0 && rank(order[place - 1]) != rank(operation) {
                begun_before = begun_before.max(begun_beside);
            }
            let explained = match operation.returned < begun_before {
                true => {
                    Err("it was answered before the start of a call that precedes it by revision".to_owned())
                }
                false => replay.apply(operation),
            };
            begun_beside = begun_beside.max(operation.invoked);
            if let Err(why) = explained {
                let first = (place + 1).saturating_sub(SHOWN);
                let calls = order[first..=place].iter().map(ToString::to_string).collect();
                return Err(NotLinearizable { what: format!("{why}: {operation}"), calls });
            }
        }
        Ok(())
    }
}

/// Position of a call within its revision: commits with puts, commits with deletes (which may have changed nothing),
/// and calls that only observe.
fn rank(operation: &Operation) -> (Revision, u8) {
    let is_put = |write: &Write| matches!(write, Write::Put { .. });
    let rank = match (&operation.call, &operation.answer) {
        (Call::Commit(txn), Answer::Committed(_)) if txn.operations().iter().any(is_put) => 0,
        (Call::Commit(txn), Answer::Committed(_)) if !txn.operations().is_empty() => 1,
        _ => 2,
    };
    (operation.answer.revision(), rank)
}

/// The state that the calls explain so far.
#[derive(Default)]
struct Replay {
    contract: Contract,
    /// The revision of the last change.
    changed: Revision,
}

impl Replay {
    /// Applies a call to the state, or says why its answer is wrong in that state.
    fn apply(&mut self, operation: &Operation) -> Result<(), String> {
        match (&operation.call, &operation.answer) {
            (Call::Commit(txn), Answer::Committed(revision)) => {
                if let Some(guard) = txn.guards().iter().find(|guard| !self.contract.holds(guard)) {
                    return Err(format!("{guard:?} did not hold"));
                }
                self.write(txn, *revision)
            }
            (Call::Commit(txn), Answer::GuardFailed(_)) => {
                match txn.guards().iter().all(|guard| self.contract.holds(guard)) {
                    true => Err("its guards held".to_owned()),
                    false => Ok(()),
                }
            }
            (Call::Read(prefix), Answer::Shown(snapshot)) => {
                let entries = self.contract.read(prefix);
                match snapshot.entries.iter().map(without_lease).eq(entries.iter().map(without_lease)) {
                    true => Ok(()),
                    false => Err(format!("the entries at that revision were {entries:?}")),
                }
            }
            _ => Err("the answer does not fit the call".to_owned()),
        }
    }

    fn write(&mut self, txn: &Txn, revision: Revision) -> Result<(), String> {
        if !self.contract.apply(txn, revision) {
            return Ok(());
        }
        let before = std::mem::replace(&mut self.changed, revision);
        match revision > before {
            true => Ok(()),
            false => Err(format!("it changed something without a revision above {before}")),
        }
    }
}

/// Returns what is compared of an entry. Histories may lack the leases.
fn without_lease(entry: &Entry) -> (&Key, &Bytes, Revision, Revision) {
    (&entry.key, &entry.value, entry.created, entry.modified)
}
