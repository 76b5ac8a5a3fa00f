//! The store contract as a simple program: [`Contract`].

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use clustering_core::store::{Batch, Change, Entry, Guard, Key, LeaseId, Operation, Revision, Txn};

/// State of a store that follows the contract, with calls applied one at a time.
///
/// Everything here that judges a store or stands in for one uses this state: the [conformance](crate::conformance)
/// suite compares stores with it, the judge of [linearizability](crate::linearizability) replays calls on it, and the
/// store of this repository's simulation and model checker is built on it. It shares no code with
/// [`MemoryStore`](clustering_memory::MemoryStore), which is one of the stores under test.
///
/// The state does not assign revisions and has no clock. The caller supplies the revision of each change, and says when
/// a lease ends. The state therefore stays correct for a prefix of a shared store, as long as no other client writes
/// under that prefix.
///
/// ```
/// use clustering_core::store::{Guard, Revision, Txn};
/// use clustering_testkit::contract::{Contract, Verdict};
///
/// let mut contract = Contract::default();
/// let create = Txn::new().guard(Guard::absent("a")).put("a", "1", None);
/// assert_eq!(contract.judge(&create), Verdict::Change);
/// contract.apply(&create, Revision::new(7));
/// assert_eq!(contract.entry("a").unwrap().created, Revision::new(7));
/// // Now the key exists.
/// assert_eq!(contract.judge(&create), Verdict::GuardFailed);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Contract {
    entries: BTreeMap<Key, Entry>,
    live: BTreeSet<LeaseId>,
    ended: BTreeSet<LeaseId>,
    history: Vec<Batch>,
}

/// Outcome that the contract requires of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
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

impl Contract {
    /// Rebuilds the state of a store that was restored from a backup with this history. The live leases are those that
    /// hold keys.
    pub fn restored(history: Vec<Batch>) -> Self {
        let mut contract = Contract::default();
        for batch in &history {
            contract.change(&batch.changes);
        }
        contract.history = history;
        contract.live = contract.entries.values().filter_map(|entry| entry.lease).collect();
        contract
    }

    /// Returns the outcome required of `txn` if it were committed now. The contract fixes the order of these tests.
    pub fn judge(&self, txn: &Txn) -> Verdict {
        if txn.validate().is_err() {
            return Verdict::Invalid;
        }
        if !txn.guards().iter().all(|guard| self.holds(guard)) {
            return Verdict::GuardFailed;
        }
        if self.dead_lease(txn).is_some() {
            return Verdict::LeaseNotFound;
        }
        let changes = |operation: &Operation| match operation {
            Operation::Put { .. } => true,
            Operation::Delete { key } => self.entries.contains_key(key),
        };
        if txn.operations().iter().any(changes) { Verdict::Change } else { Verdict::Nothing }
    }

    /// Returns true if the guard holds.
    pub fn holds(&self, guard: &Guard) -> bool {
        let entry = self.entries.get(guard.key());
        match guard {
            Guard::CreatedAt(_, at) => *at == entry.map_or(Revision::ZERO, |entry| entry.created),
            Guard::ModifiedAt(_, at) => *at == entry.map_or(Revision::ZERO, |entry| entry.modified),
        }
    }

    /// Returns the first lease under which `txn` puts a key and that is unknown or has ended.
    pub fn dead_lease(&self, txn: &Txn) -> Option<LeaseId> {
        let lease = |operation: &Operation| match operation {
            Operation::Put { lease, .. } => *lease,
            Operation::Delete { .. } => None,
        };
        txn.operations().iter().filter_map(lease).find(|lease| !self.is_live(*lease))
    }

    /// Applies `txn` at `revision`, without [judging](Self::judge) it. Returns true if it changed something.
    pub fn apply(&mut self, txn: &Txn, revision: Revision) -> bool {
        let change = |operation: &Operation| match operation {
            Operation::Put { key, value, lease } => {
                let created = self.entries.get(key).map_or(revision, |entry| entry.created);
                let (key, value, lease) = (key.clone(), value.clone(), *lease);
                Some(Change::Put(Entry { key, value, created, modified: revision, lease }))
            }
            Operation::Delete { key } if self.entries.contains_key(key) => Some(Change::Delete(key.clone())),
            Operation::Delete { .. } => None,
        };
        let changes = txn.operations().iter().filter_map(change).collect();
        self.record(changes, revision)
    }

    /// Records a new lease. Returns false if the same ID was granted before.
    pub fn grant(&mut self, lease: LeaseId) -> bool {
        !self.ended.contains(&lease) && self.live.insert(lease)
    }

    /// Returns true if the lease was granted and has not ended.
    pub fn is_live(&self, lease: LeaseId) -> bool {
        self.live.contains(&lease)
    }

    /// Returns the leases that have not ended.
    pub fn leases(&self) -> impl Iterator<Item = LeaseId> {
        self.live.iter().copied()
    }

    /// Ends leases together at `revision`, by expiry or by revocation, and deletes their keys. Returns true if there
    /// were keys to delete.
    pub fn end(&mut self, leases: &[LeaseId], revision: Revision) -> bool {
        let mut changes = Vec::new();
        for lease in leases {
            self.live.remove(lease);
            self.ended.insert(*lease);
            changes.extend(self.keys_of(*lease).into_iter().map(Change::Delete));
        }
        self.record(changes, revision)
    }

    /// Returns the keys attached to a lease.
    pub fn keys_of(&self, lease: LeaseId) -> BTreeSet<Key> {
        let attached = self.entries.values().filter(|entry| entry.lease == Some(lease));
        attached.map(|entry| entry.key.clone()).collect()
    }

    /// Returns true if keys are attached to the lease.
    pub fn holds_keys(&self, lease: LeaseId) -> bool {
        self.entries.values().any(|entry| entry.lease == Some(lease))
    }

    /// Returns the entry of a key.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Returns the entries that a read of `prefix` must show, in the order of their keys.
    pub fn read(&self, prefix: &str) -> Vec<Entry> {
        let from = self.entries.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        from.map(|(_, entry)| entry).take_while(|entry| entry.key.starts_with(prefix)).cloned().collect()
    }

    /// Returns all changes so far, oldest first.
    pub fn history(&self) -> &[Batch] {
        &self.history
    }

    /// Returns the batches that a watch of `prefix` from the revision `after` must yield.
    pub fn changes(&self, prefix: &str, after: Revision) -> Vec<Batch> {
        let later = self.history.iter().filter(|batch| batch.revision > after);
        later.filter_map(|batch| batch.filtered(|change| change.key().starts_with(prefix))).collect()
    }

    fn record(&mut self, changes: Vec<Change>, revision: Revision) -> bool {
        if changes.is_empty() {
            return false;
        }
        self.change(&changes);
        self.history.push(Batch::new(revision, changes));
        true
    }

    fn change(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Put(entry) => self.entries.insert(entry.key.clone(), entry.clone()),
                Change::Delete(key) => self.entries.remove(key),
            };
        }
    }
}
