//! Stores that break rule 4.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use clustering_core::store::{
    CoordinationStore, ErrorKind, Key, Lease, LeaseId, Operation, Revision, Snapshot, StoreError, Txn,
};
use clustering_memory::MemoryStore;
use futures_util::FutureExt;
use tokio::{
    task::yield_now,
    time::{Instant, sleep_until},
};

use super::{Bend, commits::with_operations};

/// Returns the keys attached to a lease.
async fn keys_of(store: &MemoryStore, lease: LeaseId) -> Vec<Key> {
    let all = store.read("").await.expect("a MemoryStore reads").entries;
    all.into_iter().filter(|entry| entry.lease == Some(lease)).map(|entry| entry.key).collect()
}

/// Returns the transaction with the lease of each put replaced by `other`.
pub(crate) fn with_leases(txn: &Txn, other: impl Fn(Option<LeaseId>) -> Option<LeaseId>) -> Txn {
    let operations: Vec<Operation> = txn
        .operations()
        .iter()
        .cloned()
        .map(|operation| match operation {
            Operation::Put { key, value, lease } => Operation::Put { key, value, lease: other(lease) },
            delete => delete,
        })
        .collect();
    with_operations(txn, &operations)
}

/// Renews leases that have ended.
#[derive(Clone, Default)]
pub(crate) struct RenewsEndedLeases;

#[async_trait]
impl Bend for RenewsEndedLeases {
    async fn renew_lease(&self, store: &MemoryStore, id: LeaseId) -> Result<Duration, StoreError> {
        match store.renew_lease(id).await {
            Err(error) if error.kind() == ErrorKind::LeaseNotFound => Ok(Duration::from_secs(1)),
            answer => answer,
        }
    }
}

/// Keeps one key of a revoked lease.
#[derive(Clone, Default)]
pub(crate) struct KeepsAKey;

#[async_trait]
impl Bend for KeepsAKey {
    async fn revoke_lease(&self, store: &MemoryStore, id: LeaseId) -> Result<(), StoreError> {
        if let Some(key) = keys_of(store, id).await.pop() {
            store.commit(Txn::new().put(key, "kept", None)).await?;
        }
        store.revoke_lease(id).await
    }
}

/// Deletes the keys of a revoked lease in two revisions.
#[derive(Clone, Default)]
pub(crate) struct RevokesInTwo;

#[async_trait]
impl Bend for RevokesInTwo {
    async fn revoke_lease(&self, store: &MemoryStore, id: LeaseId) -> Result<(), StoreError> {
        let mut keys = keys_of(store, id).await;
        if keys.len() > 1
            && let Some(key) = keys.pop()
        {
            store.commit(Txn::new().delete(key)).await?;
        }
        store.revoke_lease(id).await
    }
}

/// Revokes a lease a moment after the reply.
#[derive(Clone, Default)]
pub(crate) struct RevokesLater;

#[async_trait]
impl Bend for RevokesLater {
    async fn revoke_lease(&self, store: &MemoryStore, id: LeaseId) -> Result<(), StoreError> {
        store.renew_lease(id).await?;
        let store = store.clone();
        tokio::spawn(async move { store.revoke_lease(id).await });
        Ok(())
    }
}

/// Allows only the handle that granted a lease to revoke it.
#[derive(Default)]
pub(crate) struct RevokesItsOwnOnly(Mutex<BTreeSet<LeaseId>>);

impl Clone for RevokesItsOwnOnly {
    fn clone(&self) -> Self {
        Self::default()
    }
}

#[async_trait]
impl Bend for RevokesItsOwnOnly {
    async fn grant_lease(&self, store: &MemoryStore, ttl: Duration) -> Result<Lease, StoreError> {
        let lease = store.grant_lease(ttl).await?;
        self.0.lock().unwrap().insert(lease.id);
        Ok(lease)
    }

    async fn revoke_lease(&self, store: &MemoryStore, id: LeaseId) -> Result<(), StoreError> {
        if !self.0.lock().unwrap().contains(&id) {
            return Err(StoreError::refused("the lease belongs to another handle"));
        }
        store.revoke_lease(id).await
    }
}

/// Renews only leases that the same handle granted, but reports success for all.
#[derive(Default)]
pub(crate) struct RenewsItsOwnOnly(Mutex<BTreeSet<LeaseId>>);

impl Clone for RenewsItsOwnOnly {
    fn clone(&self) -> Self {
        Self::default()
    }
}

#[async_trait]
impl Bend for RenewsItsOwnOnly {
    async fn grant_lease(&self, store: &MemoryStore, ttl: Duration) -> Result<Lease, StoreError> {
        let lease = store.grant_lease(ttl).await?;
        self.0.lock().unwrap().insert(lease.id);
        Ok(lease)
    }

    async fn renew_lease(&self, store: &MemoryStore, id: LeaseId) -> Result<Duration, StoreError> {
        let own = self.0.lock().unwrap().contains(&id);
        if own { store.renew_lease(id).await } else { RenewsNothing.renew_lease(store, id).await }
    }
}

/// Revokes a handle's leases when the handle is dropped.
#[derive(Default)]
pub(crate) struct LeasesDieWithTheirHandle(Mutex<Option<(MemoryStore, Vec<LeaseId>)>>);

impl Clone for LeasesDieWithTheirHandle {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Drop for LeasesDieWithTheirHandle {
    fn drop(&mut self) {
        if let Some((store, leases)) = self.0.lock().unwrap().take() {
            for lease in leases {
                let _ = store.revoke_lease(lease).now_or_never();
            }
        }
    }
}

#[async_trait]
impl Bend for LeasesDieWithTheirHandle {
    async fn grant_lease(&self, store: &MemoryStore, ttl: Duration) -> Result<Lease, StoreError> {
        let lease = store.grant_lease(ttl).await?;
        let mut mine = self.0.lock().unwrap();
        mine.get_or_insert_with(|| (store.clone(), Vec::new())).1.push(lease.id);
        Ok(lease)
    }
}

/// Ends leases before their TTL has passed.
#[derive(Clone, Default)]
pub(crate) struct ExpiresEarly;

#[async_trait]
impl Bend for ExpiresEarly {
    async fn grant_lease(&self, store: &MemoryStore, ttl: Duration) -> Result<Lease, StoreError> {
        let lease = store.grant_lease(ttl * 9 / 10).await?;
        Ok(Lease { ttl, ..lease })
    }

    async fn renew_lease(&self, store: &MemoryStore, id: LeaseId) -> Result<Duration, StoreError> {
        Ok(store.renew_lease(id).await? * 10 / 9)
    }
}

/// Ends leases later than the stated slack allows.
#[derive(Clone, Default)]
pub(crate) struct ExpiresLate;

#[async_trait]
impl Bend for ExpiresLate {
    async fn grant_lease(&self, store: &MemoryStore, ttl: Duration) -> Result<Lease, StoreError> {
        let lease = store.grant_lease(ttl * 2).await?;
        Ok(Lease { ttl, ..lease })
    }

    async fn renew_lease(&self, store: &MemoryStore, id: LeaseId) -> Result<Duration, StoreError> {
        Ok(store.renew_lease(id).await? / 2)
    }
}

/// Renews a lease with every put under it.
#[derive(Clone, Default)]
pub(crate) struct PutsRenew;

#[async_trait]
impl Bend for PutsRenew {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        let revision = store.commit(txn.clone()).await?;
        for operation in txn.operations() {
            if let Operation::Put { lease: Some(lease), .. } = operation {
                store.renew_lease(*lease).await?;
            }
        }
        Ok(revision)
    }
}

/// Reports a renewal without renewing the lease.
#[derive(Clone, Default)]
pub(crate) struct RenewsNothing;

#[async_trait]
impl Bend for RenewsNothing {
    async fn renew_lease(&self, store: &MemoryStore, id: LeaseId) -> Result<Duration, StoreError> {
        let live = store.leases().into_iter().find(|lease| lease.id == id);
        live.map(|lease| lease.ttl).ok_or_else(|| StoreError::lease_not_found(id))
    }
}

/// Grants a shorter TTL than requested.
#[derive(Clone, Default)]
pub(crate) struct GrantsLess;

#[async_trait]
impl Bend for GrantsLess {
    async fn grant_lease(&self, store: &MemoryStore, ttl: Duration) -> Result<Lease, StoreError> {
        store.grant_lease(ttl / 2).await
    }
}

/// Leases that the bend expires itself instead of the store.
#[derive(Clone, Default)]
struct OwnLeases(Arc<Mutex<BTreeMap<LeaseId, (Instant, Duration)>>>);

impl OwnLeases {
    async fn grant(&self, store: &MemoryStore, ttl: Duration) -> Result<Lease, StoreError> {
        let lease = store.grant_lease(ttl.saturating_mul(1_000)).await?;
        self.0.lock().unwrap().insert(lease.id, (Instant::now() + ttl, ttl));
        Ok(Lease { ttl, ..lease })
    }

    async fn renew(&self, store: &MemoryStore, id: LeaseId) -> Result<Duration, StoreError> {
        store.renew_lease(id).await?;
        let mut leases = self.0.lock().unwrap();
        let Some((deadline, ttl)) = leases.get_mut(&id) else { return Err(StoreError::lease_not_found(id)) };
        *deadline = Instant::now() + *ttl;
        Ok(*ttl)
    }

    fn deadline(&self, id: LeaseId) -> Option<Instant> {
        self.0.lock().unwrap().get(&id).map(|(deadline, _)| *deadline)
    }
}

/// Deletes the keys of an expired lease in two revisions.
#[derive(Clone, Default)]
pub(crate) struct ExpiresInTwo(OwnLeases);

#[async_trait]
impl Bend for ExpiresInTwo {
    async fn grant_lease(&self, store: &MemoryStore, ttl: Duration) -> Result<Lease, StoreError> {
        let lease = self.0.grant(store, ttl).await?;
        let (own, store) = (self.0.clone(), store.clone());
        tokio::spawn(async move {
            while let Some(deadline) = own.deadline(lease.id)
                && deadline > Instant::now()
            {
                sleep_until(deadline).await;
            }
            if let Some(key) = keys_of(&store, lease.id).await.pop() {
                let _ = store.commit(Txn::new().delete(key)).await;
            }
            let _ = store.revoke_lease(lease.id).await;
        });
        Ok(lease)
    }

    async fn renew_lease(&self, store: &MemoryStore, id: LeaseId) -> Result<Duration, StoreError> {
        self.0.renew(store, id).await
    }
}

/// Expires leases only during calls.
#[derive(Clone, Default)]
pub(crate) struct ExpiresOnlyDuringCalls(OwnLeases);

impl ExpiresOnlyDuringCalls {
    async fn sweep(&self, store: &MemoryStore) {
        let due: Vec<LeaseId> = {
            let leases = self.0.0.lock().unwrap();
            leases
                .iter()
                .filter(|(_, (deadline, _))| *deadline <= Instant::now())
                .map(|(id, _)| *id)
                .collect()
        };
        for id in due {
            let _ = store.revoke_lease(id).await;
            self.0.0.lock().unwrap().remove(&id);
        }
    }
}

#[async_trait]
impl Bend for ExpiresOnlyDuringCalls {
    async fn grant_lease(&self, store: &MemoryStore, ttl: Duration) -> Result<Lease, StoreError> {
        self.0.grant(store, ttl).await
    }

    async fn renew_lease(&self, store: &MemoryStore, id: LeaseId) -> Result<Duration, StoreError> {
        self.sweep(store).await;
        self.0.renew(store, id).await
    }

    async fn revoke_lease(&self, store: &MemoryStore, id: LeaseId) -> Result<(), StoreError> {
        self.sweep(store).await;
        store.revoke_lease(id).await
    }

    async fn read(&self, store: &MemoryStore, prefix: &str) -> Result<Snapshot, StoreError> {
        self.sweep(store).await;
        store.read(prefix).await
    }

    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        self.sweep(store).await;
        store.commit(txn).await
    }
}

/// Gives the id of an ended lease to the next lease.
#[derive(Clone, Default)]
pub(crate) struct ReusesIds(Arc<Mutex<BTreeMap<LeaseId, LeaseId>>>);

impl ReusesIds {
    fn inner(&self, id: LeaseId) -> LeaseId {
        // An id that no lease has.
        self.0.lock().unwrap().get(&id).copied().unwrap_or(LeaseId::new(u64::MAX))
    }
}

#[async_trait]
impl Bend for ReusesIds {
    async fn grant_lease(&self, store: &MemoryStore, ttl: Duration) -> Result<Lease, StoreError> {
        let inner = store.grant_lease(ttl).await?;
        let mut ids = self.0.lock().unwrap();
        let live: BTreeSet<LeaseId> = store.leases().into_iter().map(|lease| lease.id).collect();
        ids.retain(|_, inner| live.contains(inner));
        let free = (1..).map(LeaseId::new).find(|id| !ids.contains_key(id)).unwrap_or(inner.id);
        ids.insert(free, inner.id);
        Ok(Lease { id: free, ..inner })
    }

    async fn renew_lease(&self, store: &MemoryStore, id: LeaseId) -> Result<Duration, StoreError> {
        store.renew_lease(self.inner(id)).await
    }

    async fn revoke_lease(&self, store: &MemoryStore, id: LeaseId) -> Result<(), StoreError> {
        store.revoke_lease(self.inner(id)).await
    }

    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        txn.validate()?;
        store.commit(with_leases(&txn, |lease| lease.map(|id| self.inner(id)))).await
    }
}

/// Never ends a lease without keys.
#[derive(Clone, Default)]
pub(crate) struct KeepsEmptyLeases(Arc<Mutex<BTreeSet<LeaseId>>>);

#[async_trait]
impl Bend for KeepsEmptyLeases {
    async fn grant_lease(&self, store: &MemoryStore, ttl: Duration) -> Result<Lease, StoreError> {
        let lease = store.grant_lease(ttl).await?;
        self.0.lock().unwrap().insert(lease.id);
        Ok(lease)
    }

    async fn renew_lease(&self, store: &MemoryStore, id: LeaseId) -> Result<Duration, StoreError> {
        match store.renew_lease(id).await {
            Err(_) if self.0.lock().unwrap().contains(&id) => Ok(Duration::from_secs(1)),
            answer => answer,
        }
    }

    async fn revoke_lease(&self, store: &MemoryStore, id: LeaseId) -> Result<(), StoreError> {
        self.0.lock().unwrap().remove(&id);
        store.revoke_lease(id).await
    }

    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        for operation in txn.operations() {
            if let Operation::Put { lease: Some(lease), .. } = operation {
                self.0.lock().unwrap().remove(lease);
            }
        }
        store.commit(txn).await
    }
}

/// Checks that the leases are live, and writes a moment later even if they have ended.
#[derive(Clone, Default)]
pub(crate) struct LeavesOrphans;

#[async_trait]
impl Bend for LeavesOrphans {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        let live: BTreeSet<LeaseId> = store.leases().into_iter().map(|lease| lease.id).collect();
        yield_now().await;
        match store.commit(txn.clone()).await {
            Err(error) if error.kind() == ErrorKind::LeaseNotFound => {
                let lived = |operation: &Operation| match operation {
                    Operation::Put { lease: Some(lease), .. } => live.contains(lease),
                    _ => true,
                };
                if !txn.operations().iter().all(lived) {
                    return Err(error);
                }
                store.commit(with_leases(&txn, |_| None)).await
            }
            answer => answer,
        }
    }
}

/// Refuses TTLs of more than an hour.
#[derive(Clone, Default)]
pub(crate) struct RefusesLongTtls;

#[async_trait]
impl Bend for RefusesLongTtls {
    async fn grant_lease(&self, store: &MemoryStore, ttl: Duration) -> Result<Lease, StoreError> {
        if ttl > Duration::from_secs(3_600) {
            return Err(StoreError::invalid("the TTL is too long"));
        }
        store.grant_lease(ttl).await
    }
}
