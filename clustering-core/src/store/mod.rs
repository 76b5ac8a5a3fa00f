//! The interface to a coordination store: the [`CoordinationStore`] trait, its types and its contract.
//!
//! The trait has six calls, and its documentation lists ten rules. Everything built on top (leader election, cluster
//! versions, the readiness barrier) relies on those rules and on nothing else. A store that keeps all of them can carry
//! a cluster; a store that breaks one cannot, however well it seems to work. The conformance suite in
//! `clustering-testkit` checks every rule.
//!
//! ```text
//!   grant_lease ─┐
//!   renew_lease  ├─ liveness of nodes       commit ── guards, then puts and deletes, all or nothing
//!   revoke_lease ┘
//!   read ── a prefix at one revision        watch ── every later change under it, in order, exactly once
//! ```
//!
//! Helpers for implementors: [`feed`](fn@feed) makes watches of a log that is read page by page, with a [`Signal`]
//! for new changes; [`prefix_range`](fn@prefix_range) bounds the keys of a prefix; [`Liveness`] notices connections
//! that died silently; [`Stage`] classifies errors by how far a call had come. [Implementing the
//! trait](crate::docs::store) shows how they fit together.

mod batch;
mod error;
mod ext;
mod feed;
mod lease;
mod liveness;
mod prefix_range;
mod revision;
mod signal;
mod snapshot;
mod stage;
mod txn;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

pub use self::{
    batch::{Batch, Change, WatchEnd, WatchStream},
    error::{Effect, ErrorKind, StoreError},
    ext::CoordinationStoreExt,
    feed::{Log, Page, ended, feed},
    lease::{Lease, LeaseId},
    liveness::{Liveness, Silent},
    prefix_range::prefix_range,
    revision::Revision,
    signal::{Signal, Signals},
    snapshot::{Entry, Key, Snapshot},
    stage::Stage,
    txn::{Guard, Limits, Operation, Txn},
};

/// A coordination store: the minimum that an implementation must provide to carry a cluster.
///
/// The trait is meant for implementors and stays small; [`CoordinationStoreExt`] adds convenience methods for
/// callers. It is object safe: the runtime holds an `Arc<dyn CoordinationStore>`. Implementations need the attribute
/// `#[async_trait]`, from the crate `async-trait`. [Implementing the trait](crate::docs::store) answers common
/// questions.
///
#[doc = include_str!("contract.md")]
///
/// # Cancellation
///
/// Every future may be dropped at any await point, and nodes do so: they give up each call after
/// [`Config::call_timeout`](crate::Config::call_timeout), a sixth of the TTL by default. A dropped
/// [`commit`](Self::commit) or [`grant_lease`](Self::grant_lease) may have taken effect; callers treat it like
/// [`ErrorKind::OutcomeUnknown`].
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait CoordinationStore: Send + Sync + 'static {
    /// Grants a lease and returns it with the TTL that the store chose, which may be longer than `ttl` but never
    /// shorter. Nodes request at least 1 s and at most 1 day.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if `ttl` is zero, or longer than the store supports, which must be at least 1 day.
    /// After [`ErrorKind::OutcomeUnknown`], a lease with an unknown ID may exist; it expires by itself.
    async fn grant_lease(&self, ttl: Duration) -> Result<Lease, StoreError>;

    /// Renews a lease for its whole TTL and returns its remaining lifetime as of the renewal.
    ///
    /// The returned time is at most the TTL, and at least the TTL minus the time that the reply took to arrive.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LeaseNotFound`] if the lease has ended. A renewal never revives an ended lease. A lease that is
    /// overdue but whose keys have not vanished yet has not ended, and may be renewed.
    async fn renew_lease(&self, id: LeaseId) -> Result<Duration, StoreError>;

    /// Ends a lease and deletes its keys, in one revision, before it returns.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LeaseNotFound`] if the lease has already ended; nothing is left to do in that case.
    async fn revoke_lease(&self, id: LeaseId) -> Result<(), StoreError>;

    /// Reads all keys that start with `prefix`, in byte order, at one revision.
    ///
    /// An empty prefix reads every key that the caller has permission to see.
    async fn read(&self, prefix: &str) -> Result<Snapshot, StoreError>;

    /// Reads the keys that start with `prefix`, without their values, in byte order, at one revision. Returns the same
    /// keys as [`read`](Self::read).
    ///
    /// Tools use it to look for clusters in a store that also holds other data, whose values may be large. The provided
    /// implementation reads the values too and drops them; a store that can leave them out should override it.
    async fn read_keys(&self, prefix: &str) -> Result<Vec<Key>, StoreError> {
        let snapshot = self.read(prefix).await?;
        Ok(snapshot.entries.into_iter().map(|entry| entry.key).collect())
    }

    /// Watches all keys that start with `prefix`, from the first revision after `after`.
    ///
    /// The stream yields [`Batch`]es, then at most one [`WatchEnd`], and nothing after that. If `after` has been
    /// compacted or is ahead of the store, the call succeeds and the stream's first item is the corresponding
    /// [`WatchEnd`]. A watch after a revision before the last compaction may end with [`WatchEnd::Compacted`] even if
    /// nothing under its prefix was compacted. The stream outlives the handle.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, StoreError>;

    /// Applies all operations of `txn` if all its guards hold, or none of them, and returns the revision.
    ///
    /// # Errors
    ///
    /// Nothing was written in the case of [`ErrorKind::GuardFailed`] (which carries the revision at which the guards
    /// were evaluated), [`ErrorKind::LeaseNotFound`] and [`ErrorKind::Invalid`] (a size limit was exceeded). After
    /// [`ErrorKind::OutcomeUnknown`] the transaction may have been written.
    async fn commit(&self, txn: Txn) -> Result<Revision, StoreError>;
}

macro_rules! forward {
    ($($pointer:ty),+) => {$(
        #[async_trait]
        impl<S: CoordinationStore + ?Sized> CoordinationStore for $pointer {
            async fn grant_lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
                (**self).grant_lease(ttl).await
            }
            async fn renew_lease(&self, id: LeaseId) -> Result<Duration, StoreError> {
                (**self).renew_lease(id).await
            }
            async fn revoke_lease(&self, id: LeaseId) -> Result<(), StoreError> {
                (**self).revoke_lease(id).await
            }
            async fn read(&self, prefix: &str) -> Result<Snapshot, StoreError> {
                (**self).read(prefix).await
            }
            async fn read_keys(&self, prefix: &str) -> Result<Vec<Key>, StoreError> {
                (**self).read_keys(prefix).await
            }
            async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, StoreError> {
                (**self).watch(prefix, after).await
            }
            async fn commit(&self, txn: Txn) -> Result<Revision, StoreError> {
                (**self).commit(txn).await
            }
        }
    )+};
}

forward!(Arc<S>, Box<S>);
