//! The contract as a simple program: what a store holds and shows after each call.

use std::collections::{BTreeMap, BTreeSet};

use clustering_core::store::{Batch, Change, Entry, Guard, Key, LeaseId, Operation, Revision, Txn};
use futures_util::{StreamExt, stream};

use super::site::Client;

/// Model of a store that follows the contract, with calls applied one at a time.
///
/// The model does not assign revisions: it takes them from the replies of the store under test. It therefore stays
/// correct on a shared store, as long as other clients leave the keys of this check alone.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    entries: BTreeMap<Key, Entry>,
    live: BTreeSet<LeaseId>,
    ended: BTreeSet<LeaseId>,
    /// All changes since the start of the check, oldest first.
    history: Vec<Batch>,
}

/// Outcome that the contract requires of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The commit breaks a rule of the API.
    Invalid,
    /// A guard does not hold.
    GuardFailed,
    /// The commit puts a key under a lease that is unknown or has ended.
    LeaseNotFound,
    /// The commit changes nothing.
    Nothing,
    /// The commit changes something and therefore creates a new revision.
    Change,
}

impl Model {
    /// Returns the outcome required of `txn` if it were committed now. The contract fixes the order of these tests.
    pub(super) fn judge(&self, txn: &Txn) -> Verdict {
        if txn.validate().is_err() {
            return Verdict::Invalid;
        }
        if !txn.guards().iter().all(|guard| self.holds(guard)) {
            return Verdict::GuardFailed;
        }
        let under_dead_lease = |operation: &Operation| match operation {
            Operation::Put { lease: Some(lease), .. } => !self.live.contains(lease),
            _ => false,
        };
        if txn.operations().iter().any(under_dead_lease) {
            return Verdict::LeaseNotFound;
        }
        let changes = |operation: &Operation| match operation {
            Operation::Put { .. } => true,
            Operation::Delete { key } => self.entries.contains_key(key),
        };
        if txn.operations().iter().any(changes) { Verdict::Change } else { Verdict::Nothing }
    }

    fn holds(&self, guard: &Guard) -> bool {
        let entry = self.entries.get(guard.key());
        match guard {
            Guard::CreatedAt(_, at) => *at == entry.map_or(Revision::ZERO, |entry| entry.created),
            Guard::ModifiedAt(_, at) => *at == entry.map_or(Revision::ZERO, |entry| entry.modified),
        }
    }

    /// Applies `txn`, which the store committed at `revision`.
    pub(super) fn apply(&mut self, txn: &Txn, revision: Revision) {
        let mut changes = Vec::new();
        for operation in txn.operations() {
            match operation {
                Operation::Put { key, value, lease } => {
                    let created = self.entries.get(key).map_or(revision, |entry| entry.created);
                    let entry = Entry {
                        key: key.clone(),
                        value: value.clone(),
                        created,
                        modified: revision,
                        lease: *lease,
                    };
                    self.entries.insert(key.clone(), entry.clone());
                    changes.push(Change::Put(entry));
                }
                Operation::Delete { key } => {
                    if self.entries.remove(key).is_some() {
                        changes.push(Change::Delete(key.clone()));
                    }
                }
            }
        }
        if !changes.is_empty() {
            self.history.push(Batch::new(revision, changes));
        }
    }

    /// Records a lease that the store granted. Returns false if the store had granted the same id before.
    pub(super) fn grant(&mut self, lease: LeaseId) -> bool {
        !self.ended.contains(&lease) && self.live.insert(lease)
    }

    pub(super) fn is_live(&self, lease: LeaseId) -> bool {
        self.live.contains(&lease)
    }

    /// Returns the keys attached to a lease.
    pub(super) fn keys_of(&self, lease: LeaseId) -> BTreeSet<Key> {
        self.entries
            .values()
            .filter(|entry| entry.lease == Some(lease))
            .map(|entry| entry.key.clone())
            .collect()
    }

    /// Ends leases that the store ended at `revision`, by expiry or by revocation.
    pub(super) fn end(&mut self, leases: &[LeaseId], revision: Revision) {
        let mut changes = Vec::new();
        for lease in leases {
            self.live.remove(lease);
            self.ended.insert(*lease);
            for key in self.keys_of(*lease) {
                self.entries.remove(&key);
                changes.push(Change::Delete(key));
            }
        }
        if !changes.is_empty() {
            self.history.push(Batch::new(revision, changes));
        }
    }

    /// Returns the entries that a read of `prefix` must show.
    pub(super) fn read(&self, prefix: &str) -> Vec<Entry> {
        self.entries.values().filter(|entry| entry.key.starts_with(prefix)).cloned().collect()
    }

    /// Returns the batches that a watch of `prefix` from the revision `after` must yield.
    pub(super) fn changes(&self, prefix: &str, after: Revision) -> Vec<Batch> {
        let later = self.history.iter().filter(|batch| batch.revision > after);
        later.filter_map(|batch| batch.filtered(|change| change.key().starts_with(prefix))).collect()
    }
}

/// Store handle that also applies every successful commit to a [`Model`].
pub(super) struct Mirrored {
    pub(super) client: Client,
    pub(super) model: Model,
}

impl Mirrored {
    pub(super) fn new(client: Client) -> Self {
        Mirrored { client, model: Model::default() }
    }

    /// Commits `txn`. Failure is a violation.
    pub(super) async fn commit(&mut self, txn: Txn) -> Revision {
        let revision = self.client.commit(txn.clone()).await;
        self.model.apply(&txn, revision);
        revision
    }

    /// Commits many transactions concurrently. The store decides their order, and failure is a violation.
    pub(super) async fn commit_all(&mut self, txns: impl IntoIterator<Item = Txn>) {
        const AT_ONCE: usize = 32;
        let commits = txns.into_iter().map(async |txn| (self.client.commit(txn.clone()).await, txn));
        let mut done: Vec<(Revision, Txn)> = stream::iter(commits).buffer_unordered(AT_ONCE).collect().await;
        done.sort_by_key(|(revision, _)| *revision);
        for (revision, txn) in done {
            self.model.apply(&txn, revision);
        }
    }
}
