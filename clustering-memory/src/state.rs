use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    time::Duration,
};

use clustering_core::store::{
    Batch, Change, Entry, Guard, Key, Lease, LeaseId, Operation, Revision, Snapshot, StoreError, Txn,
    WatchEnd,
};
use tokio::time::Instant;

use crate::{
    Backup, Stats,
    backup::Restores,
    cursor::{Cursor, Opened},
    lease::Leases,
    revisions::History,
    watchers::{Lost, Watchers},
};

/// Settings of a store, as chosen with the builder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) history: usize,
    pub(crate) smallest_ttl: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { history: 10_000, smallest_ttl: Duration::ZERO }
    }
}

/// The whole state of a store.
///
/// Callers must call [`expire`](Self::expire) before every other method, so that none of them sees a lease past its
/// deadline.
#[derive(Debug, Default)]
pub(crate) struct State {
    settings: Settings,
    entries: BTreeMap<Key, Entry>,
    pub(crate) history: History,
    pub(crate) leases: Leases,
    pub(crate) watchers: Watchers,
    restores: Restores,
    pub(crate) stats: Stats,
}

impl State {
    pub(crate) fn new(settings: Settings) -> Self {
        State { settings, ..State::default() }
    }

    /// Ends all expired leases, in the order of their deadlines, and returns the current time. The time is read here,
    /// under the lock, so that it never goes backwards from one caller to the next.
    pub(crate) fn expire(&mut self) -> Instant {
        let now = Instant::now();
        while let Some(id) = self.leases.first_expired(now) {
            self.stats.expiries += 1;
            self.end_lease(id);
        }
        now
    }

    /// Ends a lease and deletes its keys in one revision. Returns false if the lease had already ended.
    fn end_lease(&mut self, id: LeaseId) -> bool {
        let Some(keys) = self.leases.end(id) else { return false };
        self.delete_all(keys);
        true
    }

    fn delete_all(&mut self, keys: BTreeSet<Key>) {
        for key in &keys {
            self.entries.remove(key);
        }
        self.record(keys.into_iter().map(Change::Delete).collect());
    }

    /// Adds a revision with the given changes to the history, unless there are none.
    fn record(&mut self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        self.history.push(changes);
        self.watchers.changed(&self.history);
        let excess = self.history.len().saturating_sub(self.settings.history);
        if excess > 0 {
            self.compact(Revision::new(self.history.compacted().get() + excess as u64));
        }
    }

    pub(crate) fn compact(&mut self, revision: Revision) {
        self.history.compact(revision);
        self.watchers.compacted(&self.history);
    }

    pub(crate) fn grant(&mut self, ttl: Duration, now: Instant) -> Lease {
        self.stats.grants += 1;
        let ttl = ttl.max(self.settings.smallest_ttl);
        Lease { id: self.leases.grant(ttl, now), ttl }
    }

    pub(crate) fn renew(&mut self, id: LeaseId, now: Instant) -> Result<Duration, StoreError> {
        let remaining = self.leases.renew(id, now).ok_or_else(|| self.stats.lease_not_found(id))?;
        self.stats.renewals += 1;
        Ok(remaining)
    }

    pub(crate) fn revoke(&mut self, id: LeaseId) -> Result<(), StoreError> {
        if !self.end_lease(id) {
            return Err(self.stats.lease_not_found(id));
        }
        self.stats.revokes += 1;
        Ok(())
    }

    pub(crate) fn read(&mut self, prefix: &str) -> Snapshot {
        self.stats.reads += 1;
        let from = self.entries.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        let under = from.take_while(|(key, _)| key.starts_with(prefix));
        let entries = under.map(|(_, entry)| entry.clone()).collect();
        Snapshot { revision: self.history.revision(), entries }
    }

    pub(crate) fn commit(&mut self, txn: &Txn) -> Result<Revision, StoreError> {
        let before = self.history.revision();
        let result = self.check(txn).map(|()| self.apply(txn));
        let counter = match result {
            Err(_) => &mut self.stats.commits_refused,
            Ok(revision) if revision == before => &mut self.stats.commits_without_effect,
            Ok(_) => &mut self.stats.commits_effective,
        };
        *counter += 1;
        result
    }

    /// Checks whether a commit may be applied: sizes first, then guards, then leases, as the store contract requires.
    fn check(&self, txn: &Txn) -> Result<(), StoreError> {
        txn.validate()?;
        if !txn.guards().iter().all(|guard| self.holds(guard)) {
            return Err(StoreError::guard_failed(self.history.revision()));
        }
        let leases = txn.operations().iter().filter_map(|operation| match operation {
            Operation::Put { lease, .. } => *lease,
            Operation::Delete { .. } => None,
        });
        match leases.into_iter().find(|&id| !self.leases.is_live(id)) {
            Some(ended) => Err(StoreError::lease_not_found(ended)),
            None => Ok(()),
        }
    }

    fn holds(&self, guard: &Guard) -> bool {
        let entry = self.entries.get(guard.key());
        match guard {
            Guard::CreatedAt(_, revision) => entry.map_or(Revision::ZERO, |entry| entry.created) == *revision,
            Guard::ModifiedAt(_, revision) => {
                entry.map_or(Revision::ZERO, |entry| entry.modified) == *revision
            }
        }
    }

    fn apply(&mut self, txn: &Txn) -> Revision {
        let revision = self.history.revision().next();
        let changes = txn.operations().iter().filter_map(|operation| match operation {
            Operation::Put { key, value, lease } => {
                let old = self.entries.get(key);
                let created = old.map_or(revision, |old| old.created);
                if let Some(former) = old.and_then(|old| old.lease) {
                    self.leases.detach(former, key);
                }
                if let Some(lease) = lease {
                    self.leases.attach(*lease, key.clone());
                }
                let (key, value, lease) = (key.clone(), value.clone(), *lease);
                let entry = Entry { key, value, created, modified: revision, lease };
                self.entries.insert(entry.key.clone(), entry.clone());
                Some(Change::Put(entry))
            }
            Operation::Delete { key } => {
                let old = self.entries.remove(key)?;
                if let Some(lease) = old.lease {
                    self.leases.detach(lease, key);
                }
                Some(Change::Delete(old.key))
            }
        });
        let changes = changes.collect();
        self.record(changes);
        self.history.revision()
    }

    /// Opens a watch, or returns the reason why it cannot start.
    ///
    /// The reason is determined now and not at the first poll, by which time the store may have passed a revision that
    /// is in the future now.
    pub(crate) fn open_watch(&mut self, prefix: &str, after: Revision) -> Opened {
        self.stats.watches += 1;
        if let Err(end) = WatchEnd::check(after, self.history.compacted(), self.history.revision()) {
            return Opened::Ended(end);
        }
        let (prefix, id, signal) = self.watchers.open(prefix, &self.history);
        Opened::Live(Cursor { prefix, id, seen: after, timeline: self.restores.timeline() }, signal)
    }

    /// Returns the next batch of a watch, or `None` if there is none yet.
    pub(crate) fn next_batch(&mut self, cursor: &mut Cursor) -> Result<Option<Batch>, WatchEnd> {
        if let Some(common) = self.restores.common_since(&cursor.timeline) {
            if cursor.seen > common {
                return Err(WatchEnd::Rewound { revision: self.history.revision() });
            }
            cursor.timeline = self.restores.timeline();
        }
        let next = self.watchers.next(&cursor.prefix, cursor.seen);
        let next = next.map_err(|Lost| WatchEnd::Compacted { compacted: self.history.compacted() })?;
        if let Some(batch) = &next {
            self.stats.batches += 1;
            self.stats.changes += batch.changes.len() as u64;
        }
        Ok(next)
    }

    pub(crate) fn backup(&self) -> Backup {
        Backup {
            timeline: self.restores.timeline(),
            entries: self.entries.clone(),
            history: self.history.clone(),
            leases: self.leases.save(),
        }
    }

    pub(crate) fn restore(&mut self, backup: &Backup, now: Instant) {
        self.restores.push(backup);
        self.entries = backup.entries.clone();
        self.history = backup.history.clone();
        self.leases.restore(&backup.leases, now);
        self.watchers.replaced(&self.history);
    }
}
