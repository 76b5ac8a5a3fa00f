use std::{collections::BTreeMap, time::Duration};

use clustering_core::store::{
    Batch, Change, Entry, Guard, Key, Lease, LeaseId, Operation, Revision, Snapshot, StoreError, Txn,
    WatchEnd,
};

use crate::history::Moment;

/// In-memory implementation of the store contract: synchronous, in virtual time, and with the whole history.
///
/// Each commit that changes something creates the next revision. Restoring the store to an older state begins a new
/// era.
#[derive(Clone, Debug, Default)]
pub struct Store {
    entries: BTreeMap<Key, Entry>,
    leases: BTreeMap<LeaseId, Term>,
    /// Time at which the next lease expires.
    next_expiry: Option<Moment>,
    last_lease: u64,
    /// The batch of revision `n` is at `n - 1`.
    history: Vec<Batch>,
    compacted: Revision,
    /// For each era but the first, the last revision that it shares with the previous era.
    shared: Vec<Revision>,
}

/// Lifetime of a lease.
#[derive(Clone, Copy, Debug)]
struct Term {
    ttl: Duration,
    until: Moment,
}

impl Store {
    /// Returns the current revision.
    pub fn revision(&self) -> Revision {
        Revision::new(self.history.len() as u64)
    }

    /// Returns the number of times that the store was restored to an older state.
    pub fn era(&self) -> usize {
        self.shared.len()
    }

    /// Returns the current entry of a key.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Returns the current entries of all keys with this prefix.
    pub fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Entry> {
        let from =
            self.entries.range::<str, _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded));
        from.map(|(_, entry)| entry).take_while(move |entry| entry.key.starts_with(prefix))
    }

    /// Returns all changes of the current era, oldest first.
    pub fn history(&self) -> &[Batch] {
        &self.history
    }

    pub(crate) fn grant(&mut self, now: Moment, ttl: Duration) -> Lease {
        self.last_lease += 1;
        let id = LeaseId::new(self.last_lease);
        self.leases.insert(id, Term { ttl, until: now + ttl });
        self.find_next_expiry();
        Lease { id, ttl }
    }

    pub(crate) fn renew(&mut self, now: Moment, id: LeaseId) -> Result<Duration, StoreError> {
        let term = self.leases.get_mut(&id).ok_or_else(|| StoreError::lease_not_found(id))?;
        term.until = now + term.ttl;
        let ttl = term.ttl;
        self.find_next_expiry();
        Ok(ttl)
    }

    /// Ends a lease and deletes its keys.
    pub(crate) fn end(&mut self, id: LeaseId) -> Result<(), StoreError> {
        self.leases.remove(&id).ok_or_else(|| StoreError::lease_not_found(id))?;
        self.find_next_expiry();
        let under = self.entries.values().filter(|entry| entry.lease == Some(id));
        let changes = under.map(|entry| Change::Delete(entry.key.clone())).collect();
        self.append(changes);
        Ok(())
    }

    /// Returns the time at which the next lease expires unless it is renewed.
    pub(crate) fn next_expiry(&self) -> Option<Moment> {
        self.next_expiry
    }

    /// Returns a lease that has expired at `now`, if there is one.
    pub(crate) fn expired(&self, now: Moment) -> Option<LeaseId> {
        let over = self.leases.iter().filter(|(_, term)| term.until <= now);
        over.min_by_key(|(_, term)| term.until).map(|(id, _)| *id)
    }

    /// Returns the live leases.
    #[cfg(feature = "model")]
    pub(crate) fn leases(&self) -> impl Iterator<Item = LeaseId> {
        self.leases.keys().copied()
    }

    /// True if keys are attached to the lease.
    #[cfg(feature = "model")]
    pub(crate) fn holds_keys(&self, lease: LeaseId) -> bool {
        self.entries.values().any(|entry| entry.lease == Some(lease))
    }

    /// True if the store might accept the commit at some time. Deleted revisions and ended leases do not return.
    #[cfg(feature = "model")]
    pub(crate) fn may_hold(&self, txn: &Txn) -> bool {
        let passed = |guard: &Guard| {
            let entry = self.entries.get(guard.key());
            match guard {
                Guard::CreatedAt(_, Revision::ZERO) | Guard::ModifiedAt(_, Revision::ZERO) => false,
                Guard::CreatedAt(_, at) => entry.is_none_or(|entry| entry.created != *at),
                Guard::ModifiedAt(_, at) => entry.is_none_or(|entry| entry.modified != *at),
            }
        };
        let gone = |operation: &Operation| matches!(operation, Operation::Put { lease: Some(lease), .. } if !self.leases.contains_key(lease));
        !txn.guards().iter().any(passed) && !txn.operations().iter().any(gone)
    }

    fn find_next_expiry(&mut self) {
        self.next_expiry = self.leases.values().map(|term| term.until).min();
    }

    pub(crate) fn read(&self, prefix: &str) -> Snapshot {
        Snapshot { revision: self.revision(), entries: self.under(prefix).cloned().collect() }
    }

    pub(crate) fn commit(&mut self, txn: &Txn) -> Result<Revision, StoreError> {
        txn.validate()?;
        let holds = |guard: &Guard| {
            let entry = self.entries.get(guard.key());
            match guard {
                Guard::CreatedAt(_, at) => entry.map_or(Revision::ZERO, |entry| entry.created) == *at,
                Guard::ModifiedAt(_, at) => entry.map_or(Revision::ZERO, |entry| entry.modified) == *at,
            }
        };
        if !txn.guards().iter().all(holds) {
            return Err(StoreError::guard_failed(self.revision()));
        }
        let modified = self.revision().next();
        let mut changes = Vec::with_capacity(txn.operations().len());
        for operation in txn.operations() {
            match operation {
                Operation::Put { key, value, lease } => {
                    if let Some(lease) = lease.filter(|lease| !self.leases.contains_key(lease)) {
                        return Err(StoreError::lease_not_found(lease));
                    }
                    let created = self.entries.get(key).map_or(modified, |entry| entry.created);
                    let (key, value, lease) = (key.clone(), value.clone(), *lease);
                    changes.push(Change::Put(Entry { key, value, created, modified, lease }));
                }
                Operation::Delete { key } if self.entries.contains_key(key) => {
                    changes.push(Change::Delete(key.clone()));
                }
                Operation::Delete { .. } => {}
            }
        }
        self.append(changes);
        Ok(self.revision())
    }

    fn append(&mut self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        apply(&mut self.entries, &changes);
        self.history.push(Batch::new(self.revision().next(), changes));
    }

    /// Returns the next changes for a watch of `prefix` that has seen all changes up to `seen`.
    pub(crate) fn next_after(&self, prefix: &str, seen: Revision) -> Option<Batch> {
        let later = self.history.get(seen.get() as usize..)?;
        later.iter().find_map(|batch| batch.filtered(|change| change.key().starts_with(prefix)))
    }

    /// Checks if a watch can resume after `seen`, a revision of `era`.
    pub(crate) fn resumes(&self, seen: Revision, era: usize) -> Result<(), WatchEnd> {
        let revision = self.revision();
        let shared = self.shared[era..].iter().min().copied().unwrap_or(revision);
        if seen > shared || seen > revision {
            return Err(WatchEnd::Rewound { revision });
        }
        if seen < self.compacted {
            return Err(WatchEnd::Compacted { compacted: self.compacted });
        }
        Ok(())
    }

    /// Compacts the history: watches cannot resume from earlier revisions any more.
    pub(crate) fn compact(&mut self) {
        self.compacted = self.revision();
    }

    /// Restores the state at `revision`. Leases that existed then live for their full TTL again.
    pub(crate) fn rewind(&mut self, now: Moment, revision: Revision) {
        let ttl = self.leases.values().map(|term| term.ttl).max().unwrap_or(Duration::from_secs(5));
        self.history.truncate(revision.get() as usize);
        self.entries.clear();
        for batch in &self.history {
            apply(&mut self.entries, &batch.changes);
        }
        let leases = self.entries.values().filter_map(|entry| entry.lease);
        self.leases = leases.map(|lease| (lease, Term { ttl, until: now + ttl })).collect();
        self.find_next_expiry();
        self.compacted = Revision::ZERO;
        self.shared.push(revision);
    }
}

fn apply(entries: &mut BTreeMap<Key, Entry>, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Put(entry) => entries.insert(entry.key.clone(), entry.clone()),
            Change::Delete(key) => entries.remove(key),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(5);

    fn put(store: &mut Store, key: &str, lease: Option<LeaseId>) -> Revision {
        store.commit(&Txn::new().put(key, "x", lease)).unwrap()
    }

    #[test]
    fn keys_are_deleted_when_their_lease_expires() {
        let mut store = Store::default();
        let at = |seconds: u64| Moment::from_nanos(seconds * 1_000_000_000);
        let lease = store.grant(at(0), TTL).id;
        put(&mut store, "a/1", Some(lease));
        put(&mut store, "a/2", Some(lease));
        put(&mut store, "a/3", None);
        store.renew(at(2), lease).unwrap();
        assert_eq!((store.next_expiry(), store.expired(at(6))), (Some(at(7)), None));
        assert_eq!(store.expired(at(7)), Some(lease));
        store.end(lease).unwrap();
        assert_eq!(store.under("a/").count(), 1);
        assert_eq!(store.next_after("a/", Revision::new(3)).unwrap().changes.len(), 2);
        assert!(store.renew(at(7), lease).is_err());
        assert!(store.commit(&Txn::new().put("a/1", "x", lease)).is_err());
    }

    #[test]
    fn guards_are_checked_against_the_current_entries() {
        let mut store = Store::default();
        let first = put(&mut store, "k", None);
        let second = put(&mut store, "k", None);
        let mut holds = |guard| store.commit(&Txn::new().guard(guard)).is_ok();
        assert!(holds(Guard::created_at("k", first)) && holds(Guard::modified_at("k", second)));
        assert!(!holds(Guard::created_at("k", second)) && !holds(Guard::modified_at("k", first)));
        assert!(holds(Guard::absent("l")) && !holds(Guard::absent("k")));
    }

    #[test]
    fn a_watch_sees_only_its_prefix_and_reports_compacted_changes() {
        let mut store = Store::default();
        put(&mut store, "a/1", None);
        put(&mut store, "b/1", None);
        put(&mut store, "a/2", None);
        assert_eq!(store.next_after("a/", Revision::new(1)).unwrap().revision, Revision::new(3));
        assert_eq!(store.next_after("a/", Revision::new(3)), None);
        store.compact();
        put(&mut store, "a/3", None);
        assert!(matches!(store.resumes(Revision::new(2), 0), Err(WatchEnd::Compacted { .. })));
        assert_eq!(store.resumes(Revision::new(3), 0), Ok(()));
    }

    #[test]
    fn a_watch_that_saw_discarded_revisions_reports_the_rewind() {
        let mut store = Store::default();
        let lease = store.grant(Moment::default(), TTL).id;
        put(&mut store, "a/1", Some(lease));
        put(&mut store, "a/2", None);
        store.end(lease).unwrap();
        store.rewind(Moment::default(), Revision::new(1));
        assert!(store.get("a/1").is_some() && store.renew(Moment::default(), lease).is_ok());
        put(&mut store, "a/4", None);
        put(&mut store, "a/5", None);
        assert!(matches!(store.resumes(Revision::new(2), 0), Err(WatchEnd::Rewound { .. })));
        assert_eq!(store.resumes(Revision::new(2), 1), Ok(()));
        assert_eq!(store.resumes(Revision::new(1), 0), Ok(()));
        assert_ne!(store.grant(Moment::default(), TTL).id, lease);
    }
}
