//! Stores that break rule 6.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use clustering_core::store::{
    CoordinationStore, Entry, Guard, Key, Operation, Revision, Snapshot, StoreError, Txn,
};
use clustering_memory::MemoryStore;

use super::{Bend, commits::with_guards, entry};

/// Deletes a key before overwriting it.
#[derive(Clone, Default)]
pub(crate) struct RecreatesOverwrittenKeys;

#[async_trait]
impl Bend for RecreatesOverwrittenKeys {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        // Check the guards first, because a failed commit must not delete.
        store.commit(with_guards(&Txn::new(), txn.guards().iter().cloned())).await?;
        let puts = txn.operations().iter().filter(|operation| matches!(operation, Operation::Put { .. }));
        let deletes = puts.fold(Txn::new(), |deletes, put| deletes.delete(put.key().clone()));
        store.commit(deletes).await?;
        store.commit(with_guards(&txn, [])).await
    }
}

/// Shows the modification revision as the creation revision.
#[derive(Clone, Default)]
pub(crate) struct ShowsTheLastPut;

#[async_trait]
impl Bend for ShowsTheLastPut {
    async fn read(&self, store: &MemoryStore, prefix: &str) -> Result<Snapshot, StoreError> {
        let mut snapshot = store.read(prefix).await?;
        snapshot.entries.iter_mut().for_each(|entry| entry.created = entry.modified);
        Ok(snapshot)
    }
}

/// Remembers the first creation revision of each key forever, and uses it in reads and guards.
#[derive(Clone, Default)]
pub(crate) struct RemembersTheFirst(Arc<Mutex<BTreeMap<Key, Revision>>>);

impl RemembersTheFirst {
    fn first(&self, entry: &Entry) -> Revision {
        *self.0.lock().unwrap().entry(entry.key.clone()).or_insert(entry.created)
    }
}

#[async_trait]
impl Bend for RemembersTheFirst {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        let mut guards = Vec::new();
        for guard in txn.guards() {
            let entry = entry(store, guard.key()).await;
            guards.push(match (guard, entry) {
                (Guard::CreatedAt(key, at), Some(entry)) if *at == self.first(&entry) => {
                    Guard::created_at(key.clone(), entry.created)
                }
                _ => guard.clone(),
            });
        }
        store.commit(with_guards(&txn, guards)).await
    }

    async fn read(&self, store: &MemoryStore, prefix: &str) -> Result<Snapshot, StoreError> {
        let mut snapshot = store.read(prefix).await?;
        for entry in &mut snapshot.entries {
            entry.created = self.first(entry);
        }
        Ok(snapshot)
    }
}

/// Shows the right creation revision, but lets guards on the first creation hold for a key that was created again.
#[derive(Clone, Default)]
pub(crate) struct JudgesByTheFirst(RemembersTheFirst);

#[async_trait]
impl Bend for JudgesByTheFirst {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        let revision = self.0.commit(store, txn.clone()).await?;
        // Remember the keys that this commit created.
        for operation in txn.operations() {
            if let Some(entry) = entry(store, operation.key()).await {
                self.0.first(&entry);
            }
        }
        Ok(revision)
    }
}

/// Remembers the first creation revision of a key beyond the end of its lease.
#[derive(Clone, Default)]
pub(crate) struct RemembersThroughLeases(RemembersTheFirst);

#[async_trait]
impl Bend for RemembersThroughLeases {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        let revision = self.0.commit(store, txn.clone()).await?;
        for operation in txn.operations() {
            match entry(store, operation.key()).await {
                Some(entry) => drop(self.0.first(&entry)),
                None => drop(self.0.0.lock().unwrap().remove(operation.key())),
            }
        }
        Ok(revision)
    }

    async fn read(&self, store: &MemoryStore, prefix: &str) -> Result<Snapshot, StoreError> {
        self.0.read(store, prefix).await
    }
}
