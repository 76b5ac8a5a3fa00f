use std::{collections::BTreeMap, time::Duration};

use clustering_core::store::{
    Batch, Entry, Guard, Lease, LeaseId, Revision, Snapshot, StoreError, Txn, WatchEnd,
};
use clustering_testkit::{
    contract::{Contract, Verdict},
    history::Moment,
};

/// A store in virtual time: the [`Contract`] with revisions, lease deadlines, compaction and restores.
///
/// Each commit that changes something creates the next revision, so the batch of revision `n` is at index `n - 1` of
/// the [history](Self::history). Restoring the store to an older state begins another era.
#[derive(Clone, Debug, Default)]
pub struct Store {
    contract: Contract,
    leases: BTreeMap<LeaseId, Term>,
    /// The earliest deadline of all leases.
    next_expiry: Option<Moment>,
    last_lease: u64,
    compacted: Revision,
    /// For each era but the first, the last revision that it shares with the era before.
    shared: Vec<Revision>,
}

/// TTL and deadline of a lease.
#[derive(Clone, Copy, Debug)]
struct Term {
    ttl: Duration,
    until: Moment,
}

impl Store {
    /// Returns the current revision.
    pub fn revision(&self) -> Revision {
        Revision::new(self.history().len() as u64)
    }

    /// Returns how often the store was restored to an older state.
    pub fn era(&self) -> usize {
        self.shared.len()
    }

    /// Returns the entry of a key.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.contract.entry(key)
    }

    /// Returns the entries of all keys that start with `prefix`.
    pub fn under(&self, prefix: &str) -> Vec<Entry> {
        self.contract.read(prefix)
    }

    /// Returns the changes of the current era, oldest first.
    pub fn history(&self) -> &[Batch] {
        self.contract.history()
    }

    pub(crate) fn grant(&mut self, now: Moment, ttl: Duration) -> Lease {
        self.last_lease += 1;
        let id = LeaseId::new(self.last_lease);
        self.contract.grant(id);
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
        let next = self.revision().next();
        self.contract.end(&[id], next);
        Ok(())
    }

    /// Returns the time at which the next lease expires if no lease is renewed.
    pub(crate) fn next_expiry(&self) -> Option<Moment> {
        self.next_expiry
    }

    /// Returns the expired lease with the earliest deadline, or `None` if no lease has expired at `now`.
    pub(crate) fn expired(&self, now: Moment) -> Option<LeaseId> {
        let over = self.leases.iter().filter(|(_, term)| term.until <= now);
        over.min_by_key(|(_, term)| term.until).map(|(id, _)| *id)
    }

    /// Returns all live leases.
    pub(crate) fn leases(&self) -> impl Iterator<Item = LeaseId> {
        self.leases.keys().copied()
    }

    /// Returns true if keys are attached to the lease.
    pub(crate) fn holds_keys(&self, lease: LeaseId) -> bool {
        self.contract.holds_keys(lease)
    }

    /// Returns true if the commit may be accepted now or later. A guard that names an older revision of its key, and a
    /// put under a lease that has ended, never succeed again.
    pub(crate) fn may_hold(&self, txn: &Txn) -> bool {
        let failed_for_good = |guard: &Guard| match guard {
            Guard::CreatedAt(_, Revision::ZERO) | Guard::ModifiedAt(_, Revision::ZERO) => false,
            other => !self.contract.holds(other),
        };
        !txn.guards().iter().any(failed_for_good) && self.contract.dead_lease(txn).is_none()
    }

    fn find_next_expiry(&mut self) {
        self.next_expiry = self.leases.values().map(|term| term.until).min();
    }

    pub(crate) fn read(&self, prefix: &str) -> Snapshot {
        Snapshot { revision: self.revision(), entries: self.under(prefix) }
    }

    pub(crate) fn commit(&mut self, txn: &Txn) -> Result<Revision, StoreError> {
        match self.contract.judge(txn) {
            Verdict::Invalid => txn.validate()?,
            Verdict::GuardFailed => return Err(StoreError::guard_failed(self.revision())),
            Verdict::LeaseNotFound => {
                let dead = self.contract.dead_lease(txn).expect("the verdict is about a lease");
                return Err(StoreError::lease_not_found(dead));
            }
            Verdict::Nothing => {}
            Verdict::Change => {
                let next = self.revision().next();
                self.contract.apply(txn, next);
            }
        }
        Ok(self.revision())
    }

    /// Returns the next batch for a watch of `prefix` that has seen everything up to `seen`.
    pub(crate) fn next_after(&self, prefix: &str, seen: Revision) -> Option<Batch> {
        let later = self.history().get(seen.get() as usize..)?;
        later.iter().find_map(|batch| batch.filtered(|change| change.key().starts_with(prefix)))
    }

    /// Checks if a watch that has seen everything up to `seen` in that era can resume.
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

    /// Compacts the history up to the current revision.
    pub(crate) fn compact(&mut self) {
        self.compacted = self.revision();
    }

    /// Restores the state at `revision`. Leases that held keys then live again, for a whole TTL.
    pub(crate) fn rewind(&mut self, now: Moment, revision: Revision) {
        let ttl = self.leases.values().map(|term| term.ttl).max().unwrap_or(Duration::from_secs(5));
        let history = self.history()[..revision.get() as usize].to_vec();
        self.contract = Contract::restored(history);
        let term = Term { ttl, until: now + ttl };
        self.leases = self.contract.leases().map(|lease| (lease, term)).collect();
        self.find_next_expiry();
        self.compacted = Revision::ZERO;
        self.shared.push(revision);
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
    fn an_expired_lease_deletes_its_keys() {
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
        assert_eq!(store.under("a/").len(), 1);
        assert_eq!(store.next_after("a/", Revision::new(3)).unwrap().changes.len(), 2);
        assert!(store.renew(at(7), lease).is_err());
        assert!(store.commit(&Txn::new().put("a/1", "x", lease)).is_err());
    }

    #[test]
    fn guards_compare_the_current_revisions() {
        let mut store = Store::default();
        let first = put(&mut store, "k", None);
        let second = put(&mut store, "k", None);
        let mut holds = |guard| store.commit(&Txn::new().guard(guard)).is_ok();
        assert!(holds(Guard::created_at("k", first)) && holds(Guard::modified_at("k", second)));
        assert!(!holds(Guard::created_at("k", second)) && !holds(Guard::modified_at("k", first)));
        assert!(holds(Guard::absent("l")) && !holds(Guard::absent("k")));
    }

    #[test]
    fn a_watch_sees_its_prefix_and_learns_of_gaps() {
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
    fn a_rewound_store_ends_watches_that_saw_later_changes() {
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
