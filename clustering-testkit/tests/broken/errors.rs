//! Stores that break rule 8.

use std::{future::pending, sync::Arc, time::Duration};

use async_trait::async_trait;
use clustering_core::store::{
    CoordinationStore, ErrorKind, Lease, LeaseId, Operation, Revision, Snapshot, StoreError, Txn, WatchEnd,
    WatchStream,
};
use clustering_memory::MemoryStore;
use futures_util::stream;

use super::{Bend, commits::with_operations};

/// Reports a failed guard as `Busy`.
#[derive(Clone, Default)]
pub(crate) struct ReportsFailedGuardsAsBusy;

#[async_trait]
impl Bend for ReportsFailedGuardsAsBusy {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        store.commit(txn).await.map_err(|error| match error.kind() {
            ErrorKind::GuardFailed { .. } => StoreError::busy("another commit was faster"),
            _ => error,
        })
    }
}

/// Reports an invalid call as `OutcomeUnknown`.
#[derive(Clone, Default)]
pub(crate) struct ReportsInvalidAsUnknown;

#[async_trait]
impl Bend for ReportsInvalidAsUnknown {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        store.commit(txn).await.map_err(|error| match error.kind() {
            ErrorKind::Invalid => StoreError::outcome_unknown("something went wrong"),
            _ => error,
        })
    }
}

/// Succeeds in revoking a lease that does not exist.
#[derive(Clone, Default)]
pub(crate) struct RevokesMissingLeases;

#[async_trait]
impl Bend for RevokesMissingLeases {
    async fn revoke_lease(&self, store: &MemoryStore, id: LeaseId) -> Result<(), StoreError> {
        match store.revoke_lease(id).await {
            Err(error) if error.kind() == ErrorKind::LeaseNotFound => Ok(()),
            answer => answer,
        }
    }
}

/// Grants a lease even if the TTL is zero.
#[derive(Clone, Default)]
pub(crate) struct GrantsZero;

#[async_trait]
impl Bend for GrantsZero {
    async fn grant_lease(&self, store: &MemoryStore, ttl: Duration) -> Result<Lease, StoreError> {
        store.grant_lease(ttl.max(Duration::from_secs(1))).await
    }
}

/// Checks guards before sizes.
#[derive(Clone, Default)]
pub(crate) struct JudgesSizesLast;

#[async_trait]
impl Bend for JudgesSizesLast {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        store.commit(with_operations(&txn, [])).await?;
        store.commit(txn).await
    }
}

/// Quotes the values of a failed commit in the error.
#[derive(Clone, Default)]
pub(crate) struct QuotesValues;

#[async_trait]
impl Bend for QuotesValues {
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        let values: Vec<_> = txn
            .operations()
            .iter()
            .filter_map(|operation| match operation {
                Operation::Put { value, .. } => Some(value.clone()),
                Operation::Delete { .. } => None,
            })
            .collect();
        let answer = store.commit(txn).await;
        answer.map_err(|error| StoreError::new(error.kind(), format!("{error} with {values:?}")))
    }
}

/// An unreachable store with correct errors.
pub(crate) struct Nowhere;

#[async_trait]
impl CoordinationStore for Nowhere {
    async fn grant_lease(&self, _ttl: Duration) -> Result<Lease, StoreError> {
        Err(StoreError::unreachable("connection refused"))
    }
    async fn renew_lease(&self, _id: LeaseId) -> Result<Duration, StoreError> {
        Err(StoreError::unreachable("connection refused"))
    }
    async fn revoke_lease(&self, _id: LeaseId) -> Result<(), StoreError> {
        Err(StoreError::unreachable("connection refused"))
    }
    async fn read(&self, _prefix: &str) -> Result<Snapshot, StoreError> {
        Err(StoreError::unreachable("connection refused"))
    }
    async fn watch(&self, _prefix: &str, _after: Revision) -> Result<WatchStream, StoreError> {
        let end = WatchEnd::Disconnected { reason: "connection refused".to_owned() };
        Ok(Box::pin(stream::iter([Err(end)])))
    }
    async fn commit(&self, _txn: Txn) -> Result<Revision, StoreError> {
        Err(StoreError::outcome_unknown("no reply"))
    }
}

/// Defines a bend whose unreachable handle behaves wrongly.
macro_rules! nowhere {
    ($(#[$doc:meta])* $name:ident, $store:ident, $($read:tt)*) => {
        $(#[$doc])*
        #[derive(Clone, Default)]
        pub(crate) struct $name;

        impl Bend for $name {
            fn unreachable() -> Arc<dyn CoordinationStore> {
                Arc::new($store)
            }
        }

        struct $store;

        #[async_trait]
        impl CoordinationStore for $store {
            async fn grant_lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
                Nowhere.grant_lease(ttl).await
            }
            async fn renew_lease(&self, id: LeaseId) -> Result<Duration, StoreError> {
                Nowhere.renew_lease(id).await
            }
            async fn revoke_lease(&self, id: LeaseId) -> Result<(), StoreError> {
                Nowhere.revoke_lease(id).await
            }
            async fn commit(&self, txn: Txn) -> Result<Revision, StoreError> {
                Nowhere.commit(txn).await
            }
            $($read)*
        }
    };
}

nowhere! {
    /// Never answers a read on an unreachable store.
    HangsWhenUnreachable, Hangs,
    async fn read(&self, _prefix: &str) -> Result<Snapshot, StoreError> {
        pending().await
    }
    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, StoreError> {
        Nowhere.watch(prefix, after).await
    }
}

nowhere! {
    /// Reads an unreachable store as an empty one.
    SeesAnEmptyStore, Empty,
    async fn read(&self, _prefix: &str) -> Result<Snapshot, StoreError> {
        Ok(Snapshot { revision: Revision::ZERO, entries: Vec::new() })
    }
    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, StoreError> {
        Nowhere.watch(prefix, after).await
    }
}

nowhere! {
    /// Opens a watch on an unreachable store that never ends.
    WatchesWhenUnreachable, Silent,
    async fn read(&self, prefix: &str) -> Result<Snapshot, StoreError> {
        Nowhere.read(prefix).await
    }
    async fn watch(&self, _prefix: &str, _after: Revision) -> Result<WatchStream, StoreError> {
        Ok(Box::pin(stream::pending()))
    }
}
