use async_trait::async_trait;
use bytes::Bytes;

use super::{CoordinationStore, Entry, Guard, LeaseId, Revision, StoreError, Txn};

/// What is convenient for callers, built from the six calls. Nobody implements it: every store has it.
#[async_trait]
pub trait CoordinationStoreExt: CoordinationStore {
    /// Reads one key.
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let snapshot = self.read(key).await?;
        Ok(snapshot.entries.into_iter().find(|entry| entry.key.as_str() == key))
    }

    /// Writes one key without a guard.
    async fn put(&self, key: &str, value: Bytes, lease: Option<LeaseId>) -> Result<Revision, StoreError> {
        self.commit(Txn::new().put(key, value, lease)).await
    }

    /// Writes one key if it is absent; [`ErrorKind::GuardFailed`](super::ErrorKind::GuardFailed) otherwise.
    async fn create(&self, key: &str, value: Bytes, lease: Option<LeaseId>) -> Result<Revision, StoreError> {
        self.commit(Txn::new().guard(Guard::absent(key)).put(key, value, lease)).await
    }

    /// Deletes one key, if it is there.
    async fn delete(&self, key: &str) -> Result<Revision, StoreError> {
        self.commit(Txn::new().delete(key)).await
    }
}

impl<S: CoordinationStore + ?Sized> CoordinationStoreExt for S {}
