use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use clustering_core::store::{
    CoordinationStore, Lease, LeaseId, Revision, Snapshot, StoreError, Txn, WatchStream,
};

use super::{Commit, Journal, Observation, StoreAnswer, StoreCall};

/// A store that records when a node's lease grants and renewals were sent, and their results. The check of P6 uses
/// these records.
///
/// Optionally, it also records reads and commits. They serve to check if the store was
/// [linearizable](crate::linearizability::History::of_journals) for all calls of the nodes.
#[derive(Clone)]
pub struct RecordingStore {
    store: Arc<dyn CoordinationStore>,
    journal: Journal,
    /// Number of the next read or commit, if these are recorded.
    calls: Option<Arc<AtomicU64>>,
}

impl RecordingStore {
    pub(super) fn new(store: impl CoordinationStore, journal: Journal) -> Self {
        RecordingStore { store: Arc::new(store), journal, calls: None }
    }

    /// Also records reads and commits, each before it is sent and when it is answered.
    #[must_use]
    pub fn with_calls(mut self) -> Self {
        self.calls = Some(Arc::default());
        self
    }

    /// Makes a call, and records it if enabled.
    async fn call<T>(
        &self,
        what: impl FnOnce() -> StoreCall,
        asked: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError>
    where
        for<'a> StoreAnswer: From<&'a Result<T, StoreError>>,
    {
        let Some(calls) = &self.calls else { return asked.await };
        let call = calls.fetch_add(1, Ordering::Relaxed);
        self.journal.note(Observation::Called { call, what: what() });
        let result = asked.await;
        self.journal.note(Observation::Answered { call, answer: StoreAnswer::from(&result) });
        result
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
        self.call(|| StoreCall::Read(prefix.to_owned()), self.store.read(prefix)).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, StoreError> {
        self.store.watch(prefix, after).await
    }

    async fn commit(&self, txn: Txn) -> Result<Revision, StoreError> {
        let what = || StoreCall::Commit(Commit::from(&txn));
        self.call(what, self.store.commit(txn.clone())).await
    }
}

impl fmt::Debug for RecordingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordingStore").field("journal", &self.journal).finish_non_exhaustive()
    }
}
