use std::fmt;

use clustering_core::store::{Revision, Snapshot, Txn};

/// What several callers asked of a store, when, and what it answered.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// In no particular order.
    pub operations: Vec<Operation>,
    /// How many calls took effect, or not, without their caller knowing.
    pub unknown: usize,
}

/// A call and its answer. The moments are numbers that grow with time; nothing else is said of them.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Who called.
    pub caller: usize,
    /// What was asked.
    pub call: Call,
    /// What was answered; for a commit whose reply was lost, what the watch tells of it.
    pub answer: Answer,
    /// The moment before the call.
    pub invoked: usize,
    /// The moment after the answer; [`usize::MAX`] if there was none.
    pub returned: usize,
}

/// A call of the store.
#[derive(Clone, Debug)]
pub enum Call {
    /// A commit without leases.
    Commit(Txn),
    /// A read of what starts with that prefix.
    Read(String),
}

/// What a store answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// To a commit: done.
    Committed(Revision),
    /// To a commit: a guard did not hold.
    GuardFailed(Revision),
    /// To a read.
    Shown(Snapshot),
}

impl Answer {
    /// The revision that it bears.
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
