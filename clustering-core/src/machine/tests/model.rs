use std::{collections::BTreeMap, time::Duration};

use crate::{
    store::{
        Batch, Change, Entry, Guard, Key, Lease, LeaseId, Operation, Revision, Snapshot, StoreError, Txn,
        WatchEnd,
    },
    time::Timestamp,
};

/// A model of the store contract, pure and under virtual time. It keeps its whole history.
#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    pub(super) revision: Revision,
    entries: BTreeMap<Key, Entry>,
    leases: BTreeMap<LeaseId, (Duration, Timestamp)>,
    last_lease: u64,
    history: Vec<Batch>,
    compacted: Revision,
}

impl Store {
    pub(super) fn grant(&mut self, now: Timestamp, ttl: Duration) -> Lease {
        self.last_lease += 1;
        let id = LeaseId::new(self.last_lease);
        self.leases.insert(id, (ttl, now + ttl));
        Lease { id, ttl }
    }

    pub(super) fn renew(&mut self, now: Timestamp, id: LeaseId) -> Result<Duration, StoreError> {
        let (ttl, until) = self.leases.get_mut(&id).ok_or_else(|| StoreError::lease_not_found(id))?;
        *until = now + *ttl;
        Ok(*ttl)
    }

    pub(super) fn revoke(&mut self, id: LeaseId) -> Result<(), StoreError> {
        self.leases.remove(&id).ok_or_else(|| StoreError::lease_not_found(id))?;
        let attached = self.entries.values().filter(|entry| entry.lease == Some(id));
        let changes: Vec<Change> = attached.map(|entry| Change::Delete(entry.key.clone())).collect();
        self.append(changes);
        Ok(())
    }

    /// Revokes the leases that have expired, each in a revision of its own.
    pub(super) fn expire(&mut self, now: Timestamp) {
        let expired: Vec<LeaseId> =
            self.leases.iter().filter(|(_, (_, until))| now >= *until).map(|(id, _)| *id).collect();
        for id in expired {
            self.revoke(id).expect("an expired lease still exists");
        }
    }

    /// Returns the time at which the lease expires, or `None` if it does not exist.
    pub(super) fn lives_until(&self, id: LeaseId) -> Option<Timestamp> {
        self.leases.get(&id).map(|(_, until)| *until)
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key)
    }

    pub(super) fn read(&self, prefix: &Key) -> Snapshot {
        let entries = self.entries.values().filter(|entry| entry.key.starts_with(prefix.as_str()));
        Snapshot { revision: self.revision, entries: entries.cloned().collect() }
    }

    pub(super) fn commit(&mut self, txn: &Txn) -> Result<Revision, StoreError> {
        txn.validate()?;
        let holds = |guard: &Guard| match guard {
            Guard::CreatedAt(key, at) => self.get(key).map_or(Revision::ZERO, |entry| entry.created) == *at,
            Guard::ModifiedAt(key, at) => self.get(key).map_or(Revision::ZERO, |entry| entry.modified) == *at,
        };
        if !txn.guards().iter().all(holds) {
            return Err(StoreError::guard_failed(self.revision));
        }
        let mut changes = Vec::new();
        for operation in txn.operations() {
            match operation {
                Operation::Put { key, value, lease } => {
                    if let Some(lease) = lease.filter(|lease| !self.leases.contains_key(lease)) {
                        return Err(StoreError::lease_not_found(lease));
                    }
                    let modified = self.revision.next();
                    let created = self.get(key).map_or(modified, |entry| entry.created);
                    let (key, value, lease) = (key.clone(), value.clone(), *lease);
                    changes.push(Change::Put(Entry { key, value, created, modified, lease }));
                }
                Operation::Delete { key } if self.get(key).is_some() => {
                    changes.push(Change::Delete(key.clone()));
                }
                Operation::Delete { .. } => {}
            }
        }
        self.append(changes);
        Ok(self.revision)
    }

    fn append(&mut self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        self.revision = self.revision.next();
        apply(&mut self.entries, &changes);
        self.history.push(Batch::new(self.revision, changes));
    }

    /// Returns the batches that a watch of `prefix` receives after revision `after`.
    pub(super) fn changes(&self, prefix: &Key, after: Revision) -> Result<Vec<Batch>, WatchEnd> {
        if after > self.revision {
            return Err(WatchEnd::Rewound { revision: self.revision });
        }
        if after < self.compacted {
            return Err(WatchEnd::Compacted { compacted: self.compacted });
        }
        let later = self.history.iter().skip_while(|batch| batch.revision <= after);
        let under = |batch: &Batch| batch.filtered(|change| change.key().starts_with(prefix.as_str()));
        Ok(later.filter_map(under).collect())
    }

    /// Compacts the history up to the current revision: watches that lag behind can no longer be served.
    pub(super) fn compact(&mut self) {
        self.compacted = self.revision;
    }

    /// Returns all batches since the beginning.
    pub(super) fn history(&self) -> &[Batch] {
        &self.history
    }

    /// Restores the store to its state at `revision`.
    pub(super) fn rewind(&mut self, revision: Revision) {
        self.history.retain(|batch| batch.revision <= revision);
        self.entries.clear();
        for batch in &self.history {
            apply(&mut self.entries, &batch.changes);
        }
        self.revision = revision;
        self.compacted = Revision::ZERO;
    }
}

/// Applies changes to a copy of the entries.
pub(super) fn apply(entries: &mut BTreeMap<Key, Entry>, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Put(entry) => entries.insert(entry.key.clone(), entry.clone()),
            Change::Delete(key) => entries.remove(key),
        };
    }
}
