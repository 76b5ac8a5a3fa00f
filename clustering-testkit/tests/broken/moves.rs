//! Stores that break rule 7.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use clustering_core::store::{
    CoordinationStore, ErrorKind, Key, Lease, LeaseId, Operation, Revision, StoreError, Txn,
};
use clustering_memory::MemoryStore;
use tokio::time::sleep;

use super::{Bend, commits::with_operations, entry};

/// Returns the transaction with the lease of each put replaced by `decide(old lease of the key, lease of the put)`.
async fn decided(
    store: &MemoryStore,
    txn: &Txn,
    decide: fn(Option<LeaseId>, Option<LeaseId>) -> Option<LeaseId>,
) -> Txn {
    let mut operations = Vec::new();
    for operation in txn.operations() {
        operations.push(match operation.clone() {
            Operation::Put { key, value, lease } => {
                let old = entry(store, &key).await.and_then(|entry| entry.lease);
                Operation::Put { key, value, lease: decide(old, lease) }
            }
            delete => delete,
        });
    }
    with_operations(txn, &operations)
}

/// Leaves a key attached to its lease if a put names no lease.
#[derive(Clone, Default)]
pub(crate) struct KeepsTheOldLease;

#[async_trait]
impl Bend for KeepsTheOldLease {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        store.commit(decided(store, &txn, |old, new| new.or(old)).await).await
    }
}

/// Leaves a key attached to its first lease if a put names another.
#[derive(Clone, Default)]
pub(crate) struct NeverMoves;

#[async_trait]
impl Bend for NeverMoves {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        store.commit(decided(store, &txn, |old, new| new.and(old.or(new))).await).await
    }
}

/// Attaches a key to the new lease, but also deletes it when an old lease is revoked.
#[derive(Clone, Default)]
pub(crate) struct DeletesWithTheOldLeaseToo(Arc<Mutex<BTreeMap<LeaseId, BTreeSet<Key>>>>);

#[async_trait]
impl Bend for DeletesWithTheOldLeaseToo {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        for operation in txn.operations() {
            if let Operation::Put { key, lease: Some(lease), .. } = operation {
                self.0.lock().unwrap().entry(*lease).or_default().insert(key.clone());
            }
        }
        store.commit(txn).await
    }

    async fn revoke_lease(&self, store: &MemoryStore, id: LeaseId) -> Result<(), StoreError> {
        store.revoke_lease(id).await?;
        let keys = self.0.lock().unwrap().remove(&id).unwrap_or_default();
        store.commit(keys.into_iter().fold(Txn::new(), Txn::delete)).await?;
        Ok(())
    }
}

/// Attaches a key to the new lease, but also deletes it when an old lease expires.
#[derive(Clone, Default)]
pub(crate) struct ExpiresWithTheOldLeaseToo {
    ever: DeletesWithTheOldLeaseToo,
    revoked: Arc<Mutex<BTreeSet<LeaseId>>>,
}

#[async_trait]
impl Bend for ExpiresWithTheOldLeaseToo {
    async fn grant_lease(&self, store: &MemoryStore, ttl: Duration) -> Result<Lease, StoreError> {
        let lease = store.grant_lease(ttl).await?;
        let (this, store) = (self.clone(), store.clone());
        tokio::spawn(async move {
            while store.leases().iter().any(|live| live.id == lease.id) {
                sleep(Duration::from_millis(1)).await;
            }
            if !this.revoked.lock().unwrap().contains(&lease.id) {
                let keys = this.ever.0.lock().unwrap().remove(&lease.id).unwrap_or_default();
                let _ = store.commit(keys.into_iter().fold(Txn::new(), Txn::delete)).await;
            }
        });
        Ok(lease)
    }

    async fn revoke_lease(&self, store: &MemoryStore, id: LeaseId) -> Result<(), StoreError> {
        self.revoked.lock().unwrap().insert(id);
        store.revoke_lease(id).await
    }

    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        self.ever.commit(store, txn).await
    }
}

/// Detaches a key by a put whose guard fails.
#[derive(Clone, Default)]
pub(crate) struct DetachesOnFailure;

#[async_trait]
impl Bend for DetachesOnFailure {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        let answer = store.commit(txn.clone()).await;
        if matches!(&answer, Err(error) if matches!(error.kind(), ErrorKind::GuardFailed { .. })) {
            for operation in txn.operations() {
                if let Some(old) = entry(store, operation.key()).await {
                    store.commit(Txn::new().put(old.key, old.value, None)).await?;
                }
            }
        }
        answer
    }
}
