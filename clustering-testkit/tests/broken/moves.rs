//! Stores that break rule 7.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use clustering_core::store::{
    CoordinationStore, ErrorKind, Key, LeaseId, Operation, Revision, StoreError, Txn,
};
use clustering_memory::MemoryStore;

use super::{Bend, commits::with_operations, entry};

/// The same transaction, with the lease of each put as `decide` has it from the key's old one and the new one.
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

/// Leaves a key under its lease if a put names none.
#[derive(Clone, Default)]
pub(crate) struct KeepsTheOldLease;

#[async_trait]
impl Bend for KeepsTheOldLease {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        store.commit(decided(store, &txn, |old, new| new.or(old)).await).await
    }
}

/// Leaves a key under its first lease if a put names another.
#[derive(Clone, Default)]
pub(crate) struct NeverMoves;

#[async_trait]
impl Bend for NeverMoves {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        store.commit(decided(store, &txn, |old, new| new.and(old.or(new))).await).await
    }
}

/// Shows and keeps the new lease, and lets the key go with the old one as well.
#[derive(Clone, Default)]
pub(crate) struct GoesWithTheOldLeaseToo(Arc<Mutex<BTreeMap<LeaseId, BTreeSet<Key>>>>);

#[async_trait]
impl Bend for GoesWithTheOldLeaseToo {
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
