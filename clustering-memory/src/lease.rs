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
    /// Its name.
    pub id: LeaseId,
    /// The TTL that was granted.
    pub ttl: Duration,
    /// How long it still lives if nobody renews it.
    pub remaining: Duration,
    /// How many keys live under it.
    pub keys: usize,
}

/// All leases that have not ended: by id, and by deadline so that the next one to expire is found at once.
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

/// The leases as a backup keeps them: without deadlines, since time goes on while a backup lies there.
#[derive(Clone, Debug)]
pub(crate) struct SavedLeases {
    held: Vec<(LeaseId, Duration, BTreeSet<Key>)>,
    last_id: u64,
}

impl Leases {
    /// A new lease, under an id that none had before.
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

    /// Gives a lease its whole TTL again and returns what it has left, or `None` if it has ended.
    pub(crate) fn renew(&mut self, id: LeaseId, now: Instant) -> Option<Duration> {
        let held = self.held.get_mut(&id)?;
        // A deadline never moves back, not even if runtimes with different clocks share the store: a watch that
        // sleeps until it would sleep too long.
        let deadline = held.deadline.max(now + held.ttl);
        self.deadlines.remove(&(held.deadline, id));
        self.deadlines.insert((deadline, id));
        held.deadline = deadline;
        Some(deadline.saturating_duration_since(now))
    }

    /// Ends a lease and returns its keys, or `None` if it has ended before.
    pub(crate) fn end(&mut self, id: LeaseId) -> Option<BTreeSet<Key>> {
        let held = self.held.remove(&id)?;
        self.deadlines.remove(&(held.deadline, id));
        Some(held.keys)
    }

    /// The lease whose time was over first, if any is over. At its deadline the whole TTL has passed, so it counts.
    pub(crate) fn first_expired(&self, now: Instant) -> Option<LeaseId> {
        let &(deadline, id) = self.deadlines.first()?;
        (deadline <= now).then_some(id)
    }

    /// When the next lease expires unless it is renewed.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    pub(crate) fn is_live(&self, id: LeaseId) -> bool {
        self.held.contains_key(&id)
    }

    /// Puts a key under a live lease.
    pub(crate) fn attach(&mut self, id: LeaseId, key: Key) {
        if let Some(held) = self.held.get_mut(&id) {
            held.keys.insert(key);
        }
    }

    /// Takes a key from a lease.
    pub(crate) fn detach(&mut self, id: LeaseId, key: &Key) {
        if let Some(held) = self.held.get_mut(&id) {
            held.keys.remove(key);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// All of them, in the order in which they were granted.
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

    /// Puts back what was saved, each lease with its whole TTL. Ids granted since are not granted again.
    pub(crate) fn restore(&mut self, saved: &SavedLeases, now: Instant) {
        self.held.clear();
        self.deadlines.clear();
        self.last_id = self.last_id.max(saved.last_id);
        for (id, ttl, keys) in &saved.held {
            self.insert(*id, *ttl, keys.clone(), now);
        }
    }
}
