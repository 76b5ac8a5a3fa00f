//! What a coordination store must do, and the words for it.
//!
//! [`CoordinationStore`] is the whole of it: six calls and ten rules. Everything above (election, versions, the
//! barrier) rests on those rules and on nothing else, so a store that keeps them carries a cluster, and one that
//! bends them does not, however well it seems to work. `clustering-testkit` has the suite that tells which it is.
//!
//! ```text
//!   grant_lease ─┐
//!   renew_lease  ├─ who is alive          commit ── guards, then puts and deletes, all or nothing
//!   revoke_lease ┘
//!   read ── a prefix at one revision      watch ── every later change of it, in order, each once
//! ```

mod batch;
mod error;
mod ext;
mod lease;
mod revision;
mod snapshot;
mod txn;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

pub use self::{
    batch::{Batch, Change, WatchEnd, WatchStream},
    error::{Effect, ErrorKind, StoreError},
    ext::CoordinationStoreExt,
    lease::{Lease, LeaseId},
    revision::Revision,
    snapshot::{Entry, Key, Snapshot},
    txn::{Guard, Limits, Operation, Txn},
};

/// The least that a store must do to carry a cluster.
///
/// The trait is for implementors and stays small; what is convenient for callers stands in
/// [`CoordinationStoreExt`]. It is object safe: the runtime holds an `Arc<dyn CoordinationStore>`.
///
/// # Contract
///
/// The conformance suite in `clustering-testkit` has one test for each of these rules, under the name given in
/// brackets.
///
/// 1. **Commits are atomic and linearizable** (`rule_01_commits_are_atomic`). Expiry and revocation of a lease count
///    as commits. Each commit that changes something gets a larger revision than every one before it. Revisions never
///    decrease. A commit that changes nothing (no operation, or deletes of absent keys alone) leaves the revision
///    where it is and answers with it.
/// 2. **A read sees one revision** (`rule_02_reads_see_one_revision`). It sees every commit that finished before it
///    began, and shows the state at one revision, however many pages it took to fetch.
/// 3. **A watch yields every change, once, in order** (`rule_03_watches_yield_every_change`). It yields the changes
///    after the revision asked for; all changes of one revision under the prefix come in one [`Batch`]. It may lag
///    replies and reads, but within a time that the implementation states it delivers or ends. It never skips: where
///    it cannot go on it ends, with [`WatchEnd::Compacted`] if changes it owes are gone, [`WatchEnd::Rewound`] if
///    the revision asked for lies beyond the store's own, [`WatchEnd::Disconnected`] otherwise.
/// 4. **A lease's keys vanish together** (`rule_04_lease_keys_vanish_together`), in one revision, when the lease is
///    revoked (by anybody) or expires. By the store's own clock it does not expire before its TTL has passed since the
///    store handled the last renewal, and without store faults it does within a slack that the implementation states.
///    Lease ids are never used again, also not after the store was restored to an older
///    state. Who sweeps expired leases is the store's business.
/// 5. **A put needs a live lease** (`rule_05_puts_need_a_live_lease`). One with an unknown or ended lease fails with
///    [`ErrorKind::LeaseNotFound`], and nothing of that commit is written. A lease has ended once its keys have
///    vanished. Guards are judged first: where both fail, [`ErrorKind::GuardFailed`] is reported.
/// 6. **A key created again is a new key** (`rule_06_creation_revisions`). Deleting a key and putting it again gives
///    it a new creation revision; overwriting it does not.
/// 7. **A put decides the key's lease** (`rule_07_puts_move_and_detach`). One without a lease detaches the key from
///    the lease that it had; one with another lease moves it there.
/// 8. **Errors tell what happened** (`rule_08_errors_tell_what_happened`): it did not happen, it may have happened
///    ([`ErrorKind::OutcomeUnknown`]), the store cannot be reached ([`ErrorKind::Unreachable`]). See [`StoreError`].
///    A retry policy needs no guess.
/// 9. **Dropping frees** (`rule_09_dropping_frees`). Dropping a future or a stream frees what it held. A dropped
///    commit may or may not have applied.
/// 10. **Sizes** (`rule_10_sizes`): values of up to 64 KiB, 16 guards and 16 operations in one commit, keys of up to
///     512 bytes, as [`Limits`] has them. A larger one, an empty key (an empty value is fine), and a commit that names
///     a key in two operations are refused with [`ErrorKind::Invalid`] ([`Txn::validate`] does the checking).
///
/// # Cancellation
///
/// Every future may be dropped at any await point. A dropped [`commit`](Self::commit) or
/// [`grant_lease`](Self::grant_lease) may have taken effect; the caller treats it like
/// [`ErrorKind::OutcomeUnknown`].
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait CoordinationStore: Send + Sync + 'static {
    /// Grants a lease, with the TTL that the store really gave: it may be longer than `ttl`, never shorter.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] for a TTL of zero. After [`ErrorKind::OutcomeUnknown`] a lease may exist that nobody
    /// knows; it expires by itself.
    async fn grant_lease(&self, ttl: Duration) -> Result<Lease, StoreError>;

    /// Renews a lease for its whole TTL and returns the time that it has left as of the renewal: no more than the TTL, and
    /// no less than that without the time which the reply took.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LeaseNotFound`] if it has ended. A renewal never brings it back.
    async fn renew_lease(&self, id: LeaseId) -> Result<Duration, StoreError>;

    /// Ends a lease and deletes its keys, in one revision, before it returns.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LeaseNotFound`] if it has ended already: then there is nothing left to do.
    async fn revoke_lease(&self, id: LeaseId) -> Result<(), StoreError>;

    /// Reads all keys that start with `prefix`, in the order of their bytes, at one revision.
    ///
    /// An empty prefix reads everything that the caller may see.
    async fn read(&self, prefix: &str) -> Result<Snapshot, StoreError>;

    /// Reads the keys that start with `prefix`, without their values, in the order of their bytes, at one revision: the
    /// keys that [`read`](Self::read) would show.
    ///
    /// Tools look for clusters with it in a store that they share with others, whose values may be large. The provided
    /// implementation reads the values too and drops them; a store that can leave them out should override it.
    async fn read_keys(&self, prefix: &str) -> Result<Vec<Key>, StoreError> {
        let snapshot = self.read(prefix).await?;
        Ok(snapshot.entries.into_iter().map(|entry| entry.key).collect())
    }

    /// Watches all keys that start with `prefix`, from the first revision after `after`.
    ///
    /// The stream yields [`Batch`]es, then at most one [`WatchEnd`], then nothing more. That `after` was compacted or
    /// lies ahead of the store is said by the stream's first item, not by this call.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, StoreError>;

    /// Applies all operations of `txn` if all its guards hold, else none, and returns the revision.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::GuardFailed`] with the revision at which the guards were judged, [`ErrorKind::LeaseNotFound`],
    /// [`ErrorKind::Invalid`] where the sizes are exceeded: none of these wrote anything.
    /// [`ErrorKind::OutcomeUnknown`] where it may have been written.
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
