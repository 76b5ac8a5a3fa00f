use std::fmt;

use clustering_core::store::{Revision, Snapshot, Txn};

/// Calls that several callers made to one store, with their times and answers.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The calls, in no particular order.
    pub operations: Vec<Operation>,
    /// Number of calls whose caller does not know if they took effect.
    pub unknown: usize,
}

/// A call and its answer. Times are arbitrary numbers that grow with time.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Number of the caller.
    pub caller: usize,
    /// The call.
    pub call: Call,
    /// The answer. For a commit whose reply was lost, this is its effect as shown by a watch.
    pub answer: Answer,
    /// Time just before the call.
    pub invoked: usize,
    /// Time just after the answer, or [`usize::MAX`] if there was none.
    pub returned: usize,
}

/// A call to the store.
#[derive(Clone, Debug)]
pub enum Call {
    /// A commit without leases.
    Commit(Txn),
    /// A read of all keys that start with a prefix.
    Read(String),
}

/// Answer of the store to a [`Call`].
#[derive(Clone, Debug)]
pub enum Answer {
    /// A commit succeeded at this revision.
    Committed(Revision),
    /// A guard of a commit failed at this revision.
    GuardFailed(Revision),
    /// A read returned this snapshot.
    Shown(Snapshot),
}

impl Answer {
    /// Returns the revision in the answer.
    pub fn revision(&self) -> Revision {
        match self {
            Answer::Committed(revision) | Answer::GuardFailed(revision) => *revision,
            Answer::Shown(snapshot) => snapshot.revision,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Operation { caller, call, answer, invoked, returned } = self;
        match returned {
            &usize::MAX => write!(f, "{invoked:>4} ..     caller {caller}: ")?,
            returned => write!(f, "{invoked:>4} .. {returned:<4} caller {caller}: ")?,
        }
        match call {
            Call::Commit(txn) => {
                write!(f, "commit if {:?} then {:?}", txn.guards(), txn.operations())?;
            }
            Call::Read(prefix) => write!(f, "read {prefix:?}")?,
        }
        match answer {
            Answer::Committed(revision) => write!(f, " = done at {revision}"),
            Answer::GuardFailed(revision) => write!(f, " = guard failed at {revision}"),
            Answer::Shown(snapshot) => {
                write!(f, " = at {}:", snapshot.revision)?;
                for entry in &snapshot.entries {
                    let value = String::from_utf8_lossy(&entry.value);
                    write!(f, " {}={value} ({}, {})", entry.key, entry.created, entry.modified)?;
                }
                Ok(())
            }
        }
    }
}
