use clustering_core::store::{Revision, StoreError, Txn};

/// Kinds of calls of [`CoordinationStore`](clustering_core::store::CoordinationStore).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// `grant_lease`
    Grant,
    /// `renew_lease`
    Renew,
    /// `revoke_lease`
    Revoke,
    /// `read`
    Read,
    /// `watch`
    Watch,
    /// `commit`
    Commit,
}

impl Call {
    /// All kinds of calls.
    pub const ALL: [Call; 6] =
        [Call::Grant, Call::Renew, Call::Revoke, Call::Read, Call::Watch, Call::Commit];
}

/// A commit that reached the store behind the faulty one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CommitRecord {
    /// The transaction.
    pub txn: Txn,
    /// Answer of the store. The caller did not receive it if the reply was lost.
    pub result: Result<Revision, StoreError>,
}

/// Counts and commits of the calls to a faulty store.
#[derive(Debug, Default)]
pub(crate) struct Log {
    attempted: [usize; Call::ALL.len()],
    passed: [usize; Call::ALL.len()],
    commits: Vec<CommitRecord>,
}

impl Log {
    pub(crate) fn attempt(&mut self, call: Call) {
        self.attempted[call as usize] += 1;
    }

    pub(crate) fn pass(&mut self, call: Call) {
        self.passed[call as usize] += 1;
    }

    pub(crate) fn answer(&mut self, txn: Txn, result: Result<Revision, StoreError>) {
        self.commits.push(CommitRecord { txn, result });
    }

    pub(crate) fn attempted(&self, call: Call) -> usize {
        self.attempted[call as usize]
    }

    pub(crate) fn passed(&self, call: Call) -> usize {
        self.passed[call as usize]
    }

    pub(crate) fn commits(&self) -> Vec<CommitRecord> {
        self.commits.clone()
    }
}
