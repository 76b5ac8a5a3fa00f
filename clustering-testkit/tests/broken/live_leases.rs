//! Stores that break rule 5.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use clustering_core::store::{CoordinationStore, ErrorKind, LeaseId, Operation, Revision, StoreError, Txn};
use clustering_memory::MemoryStore;

use super::{Bend, commits::with_operations, leases::with_leases};

fn is_live(store: &MemoryStore, id: LeaseId) -> bool {
    store.leases().iter().any(|lease| lease.id == id)
}

fn is_dead(store: &MemoryStore, operation: &Operation) -> bool {
    matches!(operation, Operation::Put { lease: Some(lease), .. } if !is_live(store, *lease))
}

/// Ignores the lease of a put if the lease does not exist.
#[derive(Clone, Default)]
pub(crate) struct AcceptsAnyLease;

#[async_trait]
impl Bend for AcceptsAnyLease {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        txn.validate()?;
        store.commit(with_leases(&txn, |lease| lease.filter(|lease| is_live(store, *lease)))).await
    }
}

/// Treats lease id 0 as no lease.
#[derive(Clone, Default)]
pub(crate) struct TreatsLeaseZeroAsNone;

#[async_trait]
impl Bend for TreatsLeaseZeroAsNone {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        txn.validate()?;
        store.commit(with_leases(&txn, |lease| lease.filter(|lease| lease.get() != 0))).await
    }
}

/// Writes the operations that do not name the dead lease, and reports the error.
#[derive(Clone, Default)]
pub(crate) struct WritesTheRest;

#[async_trait]
impl Bend for WritesTheRest {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        let answer = store.commit(txn.clone()).await;
        if matches!(&answer, Err(error) if error.kind() == ErrorKind::LeaseNotFound) {
            let rest = txn.operations().iter().filter(|operation| !is_dead(store, operation));
            store.commit(with_operations(&txn, rest)).await?;
        }
        answer
    }
}

/// Writes the operations before the one with the dead lease, and reports the error.
#[derive(Clone, Default)]
pub(crate) struct WritesUpToTheDeadLease;

#[async_trait]
impl Bend for WritesUpToTheDeadLease {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        let answer = store.commit(txn.clone()).await;
        if matches!(&answer, Err(error) if error.kind() == ErrorKind::LeaseNotFound) {
            let rest = txn.operations().iter().take_while(|operation| !is_dead(store, operation));
            store.commit(with_operations(&txn, rest)).await?;
        }
        answer
    }
}

/// Checks only the lease of the first put.
#[derive(Clone, Default)]
pub(crate) struct JudgesTheFirstLease;

#[async_trait]
impl Bend for JudgesTheFirstLease {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        txn.validate()?;
        let first = txn.operations().iter().find(|operation| matches!(operation, Operation::Put { .. }));
        match first {
            Some(first) if !is_dead(store, first) => {
                store.commit(with_leases(&txn, |lease| lease.filter(|lease| is_live(store, *lease)))).await
            }
            _ => store.commit(txn).await,
        }
    }
}

/// Checks leases before guards.
#[derive(Clone, Default)]
pub(crate) struct JudgesLeasesFirst;

#[async_trait]
impl Bend for JudgesLeasesFirst {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        txn.validate()?;
        for operation in txn.operations() {
            if let Operation::Put { lease: Some(lease), .. } = operation
                && !is_live(store, *lease)
            {
                return Err(StoreError::lease_not_found(*lease));
            }
        }
        store.commit(txn).await
    }
}

/// Accepts puts under a lease that expired without ever having had a key.
#[derive(Clone, Default)]
pub(crate) struct AcceptsExpiredLeases(Arc<Mutex<BTreeSet<LeaseId>>>);

#[async_trait]
impl Bend for AcceptsExpiredLeases {
    async fn grant_lease(
        &self,
        store: &MemoryStore,
        ttl: std::time::Duration,
    ) -> Result<clustering_core::store::Lease, StoreError> {
        let lease = store.grant_lease(ttl).await?;
        self.0.lock().unwrap().insert(lease.id);
        Ok(lease)
    }

    async fn revoke_lease(&self, store: &MemoryStore, id: LeaseId) -> Result<(), StoreError> {
        self.0.lock().unwrap().remove(&id);
        store.revoke_lease(id).await
    }

    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        txn.validate()?;
        for operation in txn.operations() {
            if let Operation::Put { lease: Some(lease), .. } = operation
                && is_live(store, *lease)
            {
                self.0.lock().unwrap().remove(lease);
            }
        }
        let granted = self.0.lock().unwrap().clone();
        let kept = |lease: &LeaseId| is_live(store, *lease) || !granted.contains(lease);
        store.commit(with_leases(&txn, |lease| lease.filter(kept))).await
    }
}

/// Reports a dead lease as `Invalid`.
#[derive(Clone, Default)]
pub(crate) struct ReportsDeadLeasesAsInvalid;

#[async_trait]
impl Bend for ReportsDeadLeasesAsInvalid {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        store.commit(txn).await.map_err(|error| match error.kind() {
            ErrorKind::LeaseNotFound => StoreError::invalid("no such lease"),
            _ => error,
        })
    }
}

/// Refuses puts in the last tenth of a lease's TTL.
#[derive(Clone, Default)]
pub(crate) struct RefusesLatePuts;

#[async_trait]
impl Bend for RefusesLatePuts {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        for operation in txn.operations() {
            if let Operation::Put { lease: Some(id), .. } = operation
                && store.leases().iter().any(|lease| lease.id == *id && lease.remaining < lease.ttl / 10)
            {
                return Err(StoreError::lease_not_found(*id));
            }
        }
        store.commit(txn).await
    }
}
