use async_trait::async_trait;
use bytes::Bytes;

use super::{CoordinationStore, Entry, Guard, LeaseId, Revision, StoreError, Txn};

/// Convenience methods built from the six calls of [`CoordinationStore`]. Every store implements this trait
/// automatically.
#[async_trait]
pub trait CoordinationStoreExt: CoordinationStore {
    /// Reads one key and returns its entry, or `None` if the key is absent.
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let snapshot = self.read(key).await?;
        Ok(snapshot.entries.into_iter().find(|entry| entry.key.as_str() == key))
    }

    /// Writes one key unconditionally and returns the new revision.
    async fn put(&self, key: &str, value: Bytes, lease: Option<LeaseId>) -> Result<Revision, StoreError> {
        self.commit(Txn::new().put(key, value, lease)).await
    }

    /// Writes one key if it is absent, and returns the new revision.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::GuardFailed`](super::ErrorKind::GuardFailed) if the key exists.
    async fn create(&self, key: &str, value: Bytes, lease: Option<LeaseId>) -> Result<Revision, StoreError> {
        self.commit(Txn::new().guard(Guard::absent(key)).put(key, value, lease)).await
    }

    /// Deletes one key and returns the revision. An absent key is not an error.
    async fn delete(&self, key: &str) -> Result<Revision, StoreError> {
        self.commit(Txn::new().delete(key)).await
    }
}

impl<S: CoordinationStore + ?Sized> CoordinationStoreExt for S {}
