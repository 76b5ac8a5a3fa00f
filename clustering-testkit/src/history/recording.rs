use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use clustering_core::store::{
    CoordinationStore, Lease, LeaseId, Revision, Snapshot, StoreError, Txn, WatchStream,
};

use super::{Journal, Observation};

/// A store that takes down when a node's grants and renewals were sent, and how they went: what P6 is judged by.
#[derive(Clone)]
pub struct RecordingStore {
    store: Arc<dyn CoordinationStore>,
    journal: Journal,
}

impl RecordingStore {
    pub(super) fn new(store: impl CoordinationStore, journal: Journal) -> Self {
        RecordingStore { store: Arc::new(store), journal }
    }
}

#[async_trait]
impl CoordinationStore for RecordingStore {
    async fn grant_lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
        let sent = self.journal.clock().now();
        let result = self.store.grant_lease(ttl).await;
        if let Ok(lease) = &result {
            self.journal.note(Observation::Granted { lease: lease.id.get(), sent, ttl: lease.ttl });
        }
        result
    }

    async fn renew_lease(&self, id: LeaseId) -> Result<Duration, StoreError> {
        let (lease, sent) = (id.get(), self.journal.clock().now());
        let result = self.store.renew_lease(id).await;
        self.journal.note(match &result {
            Ok(left) => Observation::Renewed { lease, sent, left: *left },
            Err(error) => Observation::RenewalFailed { lease, sent, error: error.to_string() },
        });
        result
    }

    async fn revoke_lease(&self, id: LeaseId) -> Result<(), StoreError> {
        self.store.revoke_lease(id).await
    }

    async fn read(&self, prefix: &str) -> Result<Snapshot, StoreError> {
        self.store.read(prefix).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, StoreError> {
        self.store.watch(prefix, after).await
    }

    async fn commit(&self, txn: Txn) -> Result<Revision, StoreError> {
        self.store.commit(txn).await
    }
}

impl fmt::Debug for RecordingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordingStore").field("journal", &self.journal).finish_non_exhaustive()
    }
}
