//! Stores that break rule 1.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use clustering_core::store::{
    CoordinationStore, ErrorKind, Guard, Key, LeaseId, Operation, Revision, StoreError, Txn,
};
use clustering_memory::MemoryStore;
use tokio::task::yield_now;

use super::{Bend, entry};

/// Returns the transaction with other guards.
pub(crate) fn with_guards(txn: &Txn, guards: impl IntoIterator<Item = Guard>) -> Txn {
    with_operations(&guards.into_iter().fold(Txn::new(), Txn::guard), txn.operations())
}

/// Returns the transaction with other operations.
pub(crate) fn with_operations<'a>(txn: &Txn, operations: impl IntoIterator<Item = &'a Operation>) -> Txn {
    let guarded = txn.guards().iter().cloned().fold(Txn::new(), Txn::guard);
    operations.into_iter().fold(guarded, |txn, operation| match operation.clone() {
        Operation::Put { key, value, lease } => txn.put(key, value, lease),
        Operation::Delete { key } => txn.delete(key),
    })
}

/// Ignores the last guard of a commit.
#[derive(Clone, Default)]
pub(crate) struct IgnoresTheLastGuard;

#[async_trait]
impl Bend for IgnoresTheLastGuard {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        txn.validate()?;
        let judged = txn.guards().len().saturating_sub(1);
        store.commit(with_guards(&txn, txn.guards()[..judged].iter().cloned())).await
    }
}

/// Treats `CreatedAt` guards as `ModifiedAt` guards.
#[derive(Clone, Default)]
pub(crate) struct CreatedAtMeansModifiedAt;

#[async_trait]
impl Bend for CreatedAtMeansModifiedAt {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        let guards = txn.guards().iter().map(|guard| match guard.clone() {
            Guard::CreatedAt(key, at) => Guard::ModifiedAt(key, at),
            guard => guard,
        });
        store.commit(with_guards(&txn, guards)).await
    }
}

/// Treats `ModifiedAt` guards as `CreatedAt` guards.
#[derive(Clone, Default)]
pub(crate) struct ModifiedAtMeansCreatedAt;

#[async_trait]
impl Bend for ModifiedAtMeansCreatedAt {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        let guards = txn.guards().iter().map(|guard| match guard.clone() {
            Guard::ModifiedAt(key, at) => Guard::CreatedAt(key, at),
            guard => guard,
        });
        store.commit(with_guards(&txn, guards)).await
    }
}

/// Ignores guards on absent keys.
#[derive(Clone, Default)]
pub(crate) struct AbsentKeysMatchAnything;

#[async_trait]
impl Bend for AbsentKeysMatchAnything {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        let mut guards = Vec::new();
        for guard in txn.guards() {
            if entry(store, guard.key()).await.is_some() {
                guards.push(guard.clone());
            }
        }
        txn.validate()?;
        store.commit(with_guards(&txn, guards)).await
    }
}

/// Applies the operations one by one, each at its own revision.
#[derive(Clone, Default)]
pub(crate) struct AppliesOneByOne;

#[async_trait]
impl Bend for AppliesOneByOne {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        txn.validate()?;
        let mut revision = store.commit(with_operations(&txn, [])).await?;
        for operation in txn.operations() {
            revision = store.commit(with_operations(&Txn::new(), [operation])).await?;
            yield_now().await;
        }
        Ok(revision)
    }
}

/// Applies the operations a moment after it has checked the guards.
#[derive(Clone, Default)]
pub(crate) struct ChecksThenActs;

#[async_trait]
impl Bend for ChecksThenActs {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        txn.validate()?;
        store.commit(with_operations(&txn, [])).await?;
        yield_now().await;
        store.commit(with_guards(&txn, [])).await
    }
}

/// Checks guards for absent keys atomically with the operations, but all other guards a moment earlier.
#[derive(Clone, Default)]
pub(crate) struct ComparesThenSwaps;

#[async_trait]
impl Bend for ComparesThenSwaps {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        txn.validate()?;
        store.commit(with_operations(&txn, [])).await?;
        yield_now().await;
        let absent = |guard: &&Guard| {
            matches!(guard, Guard::CreatedAt(_, Revision::ZERO) | Guard::ModifiedAt(_, Revision::ZERO))
        };
        store.commit(with_guards(&txn, txn.guards().iter().filter(absent).cloned())).await
    }
}

/// Lets one more guard on a key hold after the key's lease was revoked.
#[derive(Clone, Default)]
pub(crate) struct HoldsAGuardAfterRevocation(Arc<Mutex<BTreeMap<Key, Revision>>>);

#[async_trait]
impl Bend for HoldsAGuardAfterRevocation {
    async fn revoke_lease(&self, store: &MemoryStore, id: LeaseId) -> Result<(), StoreError> {
        let all = store.read("").await?.entries;
        store.revoke_lease(id).await?;
        let gone = all.into_iter().filter(|entry| entry.lease == Some(id));
        self.0.lock().unwrap().extend(gone.map(|entry| (entry.key, entry.created)));
        Ok(())
    }

    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        let guards: Vec<Guard> = {
            let mut gone = self.0.lock().unwrap();
            let mut stood = |guard: &&Guard| match guard {
                Guard::CreatedAt(key, at) => gone.remove(key) == Some(*at),
                Guard::ModifiedAt(..) => false,
            };
            txn.guards().iter().filter(|guard| !stood(guard)).cloned().collect()
        };
        store.commit(with_guards(&txn, guards)).await
    }
}

/// Applies the deletes of a commit whose guards failed.
#[derive(Clone, Default)]
pub(crate) struct DeletesDespiteGuards;

#[async_trait]
impl Bend for DeletesDespiteGuards {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        let answer = store.commit(txn.clone()).await;
        if matches!(&answer, Err(error) if matches!(error.kind(), ErrorKind::GuardFailed { .. })) {
            let deletes =
                txn.operations().iter().filter(|operation| matches!(operation, Operation::Delete { .. }));
            store.commit(with_operations(&Txn::new(), deletes)).await?;
        }
        answer
    }
}

/// Answers every fortieth commit with the revision before its own.
#[derive(Clone, Default)]
pub(crate) struct RevisionsGoBack(Arc<AtomicU64>);

#[async_trait]
impl Bend for RevisionsGoBack {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        let revision = store.commit(txn).await?;
        match self.0.fetch_add(1, Ordering::SeqCst) % 40 {
            39 => Ok(Revision::new(revision.get() - 1)),
            _ => Ok(revision),
        }
    }
}

/// Answers with the store's revision after the commit, so that concurrent commits can get the same revision.
#[derive(Clone, Default)]
pub(crate) struct AnswersWithTheLatestRevision;

#[async_trait]
impl Bend for AnswersWithTheLatestRevision {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        store.commit(txn).await?;
        yield_now().await;
        Ok(store.revision())
    }
}

/// Reports that failed guards were judged at revision zero.
#[derive(Clone, Default)]
pub(crate) struct ReportsGuardsAtRevisionZero;

#[async_trait]
impl Bend for ReportsGuardsAtRevisionZero {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        store.commit(txn).await.map_err(|error| match error.kind() {
            ErrorKind::GuardFailed { .. } => StoreError::guard_failed(Revision::ZERO),
            _ => error,
        })
    }
}

/// Creates a revision for every commit, even if it changes nothing.
#[derive(Clone, Default)]
pub(crate) struct AdvancesWithoutChange;

#[async_trait]
impl Bend for AdvancesWithoutChange {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        let before = store.revision();
        let revision = store.commit(txn).await?;
        if revision > before {
            return Ok(revision);
        }
        store.commit(Txn::new().put("counter", "", None)).await
    }
}

/// Skips puts that would not change a key's value or lease.
#[derive(Clone, Default)]
pub(crate) struct SkipsEqualPuts;

#[async_trait]
impl Bend for SkipsEqualPuts {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        txn.validate()?;
        let mut kept = Vec::new();
        for operation in txn.operations() {
            let old = entry(store, operation.key()).await;
            let same = match (operation, old) {
                (Operation::Put { value, lease, .. }, Some(old)) => {
                    *value == old.value && *lease == old.lease
                }
                _ => false,
            };
            if !same {
                kept.push(operation);
            }
        }
        store.commit(with_operations(&txn, kept)).await
    }
}
