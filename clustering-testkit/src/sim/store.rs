use std::{collections::BTreeMap, time::Duration};

use clustering_core::store::{
    Batch, Change, Entry, Guard, Key, Lease, LeaseId, Operation, Revision, Snapshot, StoreError, Txn,
    WatchEnd,
};

use crate::history::Moment;

/// The store contract, synchronous and in virtual time, with its whole history.
///
/// Each commit that changes something makes the next revision. A store that is put back to an older state begins another
/// era.
#[derive(Clone, Debug, Default)]
pub struct Store {
    entries: BTreeMap<Key, Entry>,
    leases: BTreeMap<LeaseId, Term>,
    /// The next of them to end.
    next_expiry: Option<Moment>,
    last_lease: u64,
    /// The batch of revision `n` is at `n - 1`.
    history: Vec<Batch>,
    compacted: Revision,
    /// For each era but the first: the last revision that it shares with the one before.
    shared: Vec<Revision>,
}

/// How long a lease lives.
#[derive(Clone, Copy, Debug)]
struct Term {
    ttl: Duration,
    until: Moment,
}

impl Store {
    /// The revision at which it stands.
    pub fn revision(&self) -> Revision {
        Revision::new(self.history.len() as u64)
    }

    /// How often it was put back to an older state.
    pub fn era(&self) -> usize {
        self.shared.len()
    }

    /// What stands under a key.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// What stands under keys that start like that.
    pub fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Entry> {
        let from =
            self.entries.range::<str, _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded));
        from.map(|(_, entry)| entry).take_while(move |entry| entry.key.starts_with(prefix))
    }

    /// The changes of the present era, oldest first.
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

    /// Ends a lease, and with it its keys.
    pub(crate) fn end(&mut self, id: LeaseId) -> Result<(), StoreError> {
        self.leases.remove(&id).ok_or_else(|| StoreError::lease_not_found(id))?;
        self.find_next_expiry();
        let under = self.entries.values().filter(|entry| entry.lease == Some(id));
        let changes = under.map(|entry| Change::Delete(entry.key.clone())).collect();
        self.append(changes);
        Ok(())
    }

    /// When the next lease ends if nobody renews it.
    pub(crate) fn next_expiry(&self) -> Option<Moment> {
        self.next_expiry
    }

    /// A lease whose time is over by then.
    pub(crate) fn expired(&self, now: Moment) -> Option<LeaseId> {
        let over = self.leases.iter().filter(|(_, term)| term.until <= now);
        over.min_by_key(|(_, term)| term.until).map(|(id, _)| *id)
    }

    /// The leases that live.
    #[cfg(feature = "model")]
    pub(crate) fn leases(&self) -> impl Iterator<Item = LeaseId> {
        self.leases.keys().copied()
    }

    /// Whether keys live under that lease.
    #[cfg(feature = "model")]
    pub(crate) fn holds_keys(&self, lease: LeaseId) -> bool {
        self.entries.values().any(|entry| entry.lease == Some(lease))
    }

    /// Whether that commit might still be accepted at some time. Revisions do not come again, and nor do leases.
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

    /// The next changes that a watch of `prefix` has coming which has seen all up to `seen`.
    pub(crate) fn next_after(&self, prefix: &str, seen: Revision) -> Option<Batch> {
        let later = self.history.get(seen.get() as usize..)?;
        later.iter().find_map(|batch| batch.filtered(|change| change.key().starts_with(prefix)))
    }

    /// Whether a watch may go on after what was seen up to there in that era.
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

    /// Changes up to here can no longer be had.
    pub(crate) fn compact(&mut self) {
        self.compacted = self.revision();
    }

    /// Puts it back to what it was at `revision`. Leases of then have their whole TTL again.
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
    fn a_lease_takes_its_keys_along_when_its_time_is_over() {
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
    fn guards_are_judged_by_what_stands() {
        let mut store = Store::default();
        let first = put(&mut store, "k", None);
        let second = put(&mut store, "k", None);
        let mut holds = |guard| store.commit(&Txn::new().guard(guard)).is_ok();
        assert!(holds(Guard::created_at("k", first)) && holds(Guard::modified_at("k", second)));
        assert!(!holds(Guard::created_at("k", second)) && !holds(Guard::modified_at("k", first)));
        assert!(holds(Guard::absent("l")) && !holds(Guard::absent("k")));
    }

    #[test]
    fn a_watch_gets_what_is_under_its_prefix_and_learns_of_gaps() {
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
    fn a_store_that_was_put_back_tells_those_who_saw_more() {
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
