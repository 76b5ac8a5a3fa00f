use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use clustering_core::store::{Key, LeaseId};
use tokio::time::Instant;

/// A lease that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct LiveLease {
    /// The ID of the lease.
    pub id: LeaseId,
    /// The TTL that was granted.
    pub ttl: Duration,
    /// Time until the lease expires if it is not renewed.
    pub remaining: Duration,
    /// Number of keys attached to the lease.
    pub keys: usize,
}

/// All live leases, by ID, and also by deadline so that the next lease to expire is found quickly.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    held: BTreeMap<LeaseId, Held>,
    deadlines: BTreeSet<(Instant, LeaseId)>,
    last_id: u64,
}

#[derive(Debug)]
struct Held {
    ttl: Duration,
    deadline: Instant,
    keys: BTreeSet<Key>,
}

/// The leases in a backup. Deadlines are not saved, because they are meaningless by the time the backup is restored.
#[derive(Clone, Debug)]
pub(crate) struct SavedLeases {
    held: Vec<(LeaseId, Duration, BTreeSet<Key>)>,
    last_id: u64,
}

impl Leases {
    /// Grants a new lease, with an ID that was never used before.
    pub(crate) fn grant(&mut self, ttl: Duration, now: Instant) -> LeaseId {
        self.last_id += 1;
        let id = LeaseId::new(self.last_id);
        self.insert(id, ttl, BTreeSet::new(), now);
        id
    }

    fn insert(&mut self, id: LeaseId, ttl: Duration, keys: BTreeSet<Key>, now: Instant) {
        let deadline = now + ttl;
        self.deadlines.insert((deadline, id));
        self.held.insert(id, Held { ttl, deadline, keys });
    }

    /// Renews a lease for its whole TTL and returns its remaining lifetime, or `None` if the lease has ended.
    pub(crate) fn renew(&mut self, id: LeaseId, now: Instant) -> Option<Duration> {
        let held = self.held.get_mut(&id)?;
        // A deadline must never move back, even if runtimes with different clocks share the store: a watch that sleeps
        // until the old deadline would wake too late.
        let deadline = held.deadline.max(now + held.ttl);
        self.deadlines.remove(&(held.deadline, id));
        self.deadlines.insert((deadline, id));
        held.deadline = deadline;
        Some(deadline.saturating_duration_since(now))
    }

    /// Ends a lease and returns its keys, or `None` if the lease had already ended.
    pub(crate) fn end(&mut self, id: LeaseId) -> Option<BTreeSet<Key>> {
        let held = self.held.remove(&id)?;
        self.deadlines.remove(&(held.deadline, id));
        Some(held.keys)
    }

    /// Returns the expired lease with the earliest deadline, or `None` if no lease has expired. A lease counts as
    /// expired at its deadline, because its whole TTL has passed by then.
    pub(crate) fn first_expired(&self, now: Instant) -> Option<LeaseId> {
        let &(deadline, id) = self.deadlines.first()?;
        (deadline <= now).then_some(id)
    }

    /// Returns the earliest deadline of all live leases.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    pub(crate) fn is_live(&self, id: LeaseId) -> bool {
        self.held.contains_key(&id)
    }

    /// Attaches a key to a live lease.
    pub(crate) fn attach(&mut self, id: LeaseId, key: Key) {
        if let Some(held) = self.held.get_mut(&id) {
            held.keys.insert(key);
        }
    }

    /// Detaches a key from a lease.
    pub(crate) fn detach(&mut self, id: LeaseId, key: &Key) {
        if let Some(held) = self.held.get_mut(&id) {
            held.keys.remove(key);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// Returns all live leases, in the order in which they were granted.
    pub(crate) fn list(&self, now: Instant) -> Vec<LiveLease> {
        let live = |(&id, held): (&LeaseId, &Held)| LiveLease {
            id,
            ttl: held.ttl,
            remaining: held.deadline.saturating_duration_since(now),
            keys: held.keys.len(),
        };
        self.held.iter().map(live).collect()
    }

    pub(crate) fn save(&self) -> SavedLeases {
        let held = self.held.iter().map(|(&id, held)| (id, held.ttl, held.keys.clone())).collect();
        SavedLeases { held, last_id: self.last_id }
    }

    /// Restores saved leases, each for its whole TTL. IDs granted since the backup are not reused.
    pub(crate) fn restore(&mut self, saved: &SavedLeases, now: Instant) {
        self.held.clear();
        self.deadlines.clear();
        self.last_id = self.last_id.max(saved.last_id);
        for (id, ttl, keys) in &saved.held {
            self.insert(*id, *ttl, keys.clone(), now);
        }
    }
}
