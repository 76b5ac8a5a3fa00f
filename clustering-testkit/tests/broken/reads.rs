//! Stores that break rule 2.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use clustering_core::store::{CoordinationStore, Entry, Revision, Snapshot, StoreError, Txn};
use clustering_memory::MemoryStore;
use tokio::task::yield_now;

use super::Bend;

/// Serves one read after each commit from a replica that lacks the commit.
#[derive(Clone, Default)]
pub(crate) struct ReadsAReplica(Arc<Mutex<Option<Snapshot>>>);

#[async_trait]
impl Bend for ReadsAReplica {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        let before = store.read("").await?;
        let revision = store.commit(txn).await?;
        *self.0.lock().unwrap() = Some(before);
        Ok(revision)
    }

    async fn read(&self, store: &MemoryStore, prefix: &str) -> Result<Snapshot, StoreError> {
        let replica = self.0.lock().unwrap().take();
        let Some(mut replica) = replica else { return store.read(prefix).await };
        replica.entries.retain(|entry| entry.key.starts_with(prefix));
        Ok(replica)
    }
}

/// Caches the snapshot of each prefix until the same handle commits.
#[derive(Default)]
pub(crate) struct CachesReads(Mutex<BTreeMap<String, Snapshot>>);

impl Clone for CachesReads {
    fn clone(&self) -> Self {
        CachesReads::default()
    }
}

#[async_trait]
impl Bend for CachesReads {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        self.0.lock().unwrap().clear();
        store.commit(txn).await
    }

    async fn read(&self, store: &MemoryStore, prefix: &str) -> Result<Snapshot, StoreError> {
        if let Some(cached) = self.0.lock().unwrap().get(prefix) {
            return Ok(cached.clone());
        }
        let snapshot = store.read(prefix).await?;
        self.0.lock().unwrap().insert(prefix.to_owned(), snapshot.clone());
        Ok(snapshot)
    }
}

/// Returns the first `page` entries of one revision and the rest of a later one.
async fn torn(store: &MemoryStore, prefix: &str, page: usize) -> Result<Snapshot, StoreError> {
    let first = store.read(prefix).await?;
    if first.entries.len() <= page {
        return Ok(first);
    }
    let last = first.entries[page - 1].key.clone();
    yield_now().await;
    let rest = store.read(prefix).await?;
    let entries =
        first.entries.into_iter().take(page).chain(rest.entries.into_iter().filter(|entry| entry.key > last));
    Ok(Snapshot { revision: rest.revision, entries: entries.collect() })
}

/// Reads the first key at one revision and the rest at a later one.
#[derive(Clone, Default)]
pub(crate) struct TearsReads;

#[async_trait]
impl Bend for TearsReads {
    async fn read(&self, store: &MemoryStore, prefix: &str) -> Result<Snapshot, StoreError> {
        torn(store, prefix, 1).await
    }
}

/// Reads the first thousand keys at one revision and the rest at a later one.
#[derive(Clone, Default)]
pub(crate) struct TearsPages;

#[async_trait]
impl Bend for TearsPages {
    async fn read(&self, store: &MemoryStore, prefix: &str) -> Result<Snapshot, StoreError> {
        torn(store, prefix, 1_000).await
    }
}

/// Returns only the first page.
#[derive(Clone, Default)]
pub(crate) struct ReadsOnePage;

#[async_trait]
impl Bend for ReadsOnePage {
    async fn read(&self, store: &MemoryStore, prefix: &str) -> Result<Snapshot, StoreError> {
        let mut snapshot = store.read(prefix).await?;
        snapshot.entries.truncate(1_000);
        Ok(snapshot)
    }
}

/// Treats the prefix `a/` as `a`.
#[derive(Clone, Default)]
pub(crate) struct DropsTheSlash;

#[async_trait]
impl Bend for DropsTheSlash {
    async fn read(&self, store: &MemoryStore, prefix: &str) -> Result<Snapshot, StoreError> {
        store.read(prefix.trim_end_matches('/')).await
    }
}

/// Treats the prefix `a` as `a/`.
#[derive(Clone, Default)]
pub(crate) struct TreatsPrefixesAsDirectories;

#[async_trait]
impl Bend for TreatsPrefixesAsDirectories {
    async fn read(&self, store: &MemoryStore, prefix: &str) -> Result<Snapshot, StoreError> {
        let mut snapshot = store.read(prefix).await?;
        let below = format!("{}/", prefix.trim_end_matches('/'));
        snapshot.entries.retain(|entry| {
            prefix.is_empty() || entry.key.as_str() == prefix || entry.key.starts_with(&below)
        });
        Ok(snapshot)
    }
}

/// Computes the end of the range from the next character, which the largest character does not have.
#[derive(Clone, Default)]
pub(crate) struct HasNoNextCharacter;

#[async_trait]
impl Bend for HasNoNextCharacter {
    async fn read(&self, store: &MemoryStore, prefix: &str) -> Result<Snapshot, StoreError> {
        let mut snapshot = store.read(prefix).await?;
        if prefix.ends_with(char::MAX) {
            snapshot.entries.retain(|entry| entry.key.as_str() == prefix);
        }
        Ok(snapshot)
    }
}

/// Sorts keys alphabetically, ignoring case.
#[derive(Clone, Default)]
pub(crate) struct SortsByLetters;

#[async_trait]
impl Bend for SortsByLetters {
    async fn read(&self, store: &MemoryStore, prefix: &str) -> Result<Snapshot, StoreError> {
        let mut snapshot = store.read(prefix).await?;
        snapshot.entries.sort_by_key(|entry| entry.key.to_lowercase());
        Ok(snapshot)
    }
}

/// Answers with the largest modification revision among the entries instead of the store's revision.
#[derive(Clone, Default)]
pub(crate) struct GuessesTheRevision;

#[async_trait]
impl Bend for GuessesTheRevision {
    async fn read(&self, store: &MemoryStore, prefix: &str) -> Result<Snapshot, StoreError> {
        let mut snapshot = store.read(prefix).await?;
        snapshot.revision = snapshot.entries.iter().map(|entry| entry.modified).max().unwrap_or_default();
        Ok(snapshot)
    }
}

/// Reads a prefix and changes each entry.
async fn retouched(store: &MemoryStore, prefix: &str, touch: fn(&mut Entry)) -> Result<Snapshot, StoreError> {
    let mut snapshot = store.read(prefix).await?;
    snapshot.entries.iter_mut().for_each(touch);
    Ok(snapshot)
}

/// Omits the lease of an entry.
#[derive(Clone, Default)]
pub(crate) struct HidesLeases;

#[async_trait]
impl Bend for HidesLeases {
    async fn read(&self, store: &MemoryStore, prefix: &str) -> Result<Snapshot, StoreError> {
        retouched(store, prefix, |entry| entry.lease = None).await
    }
}

/// Treats values as text.
#[derive(Clone, Default)]
pub(crate) struct TreatsValuesAsText;

#[async_trait]
impl Bend for TreatsValuesAsText {
    async fn read(&self, store: &MemoryStore, prefix: &str) -> Result<Snapshot, StoreError> {
        retouched(store, prefix, |entry| {
            entry.value = String::from_utf8_lossy(&entry.value).into_owned().into();
        })
        .await
    }
}
