use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use clustering_core::store::{
    CoordinationStore, ErrorKind, Guard, Key, Lease, LeaseId, Limits, Revision, Snapshot, StoreError, Txn,
};
use futures_util::{StreamExt, stream};
use tokio::time::{Instant, timeout};

use super::{
    Bounds, Harness,
    scene::{Rule, Scene, show_entry},
    watch::Watch,
};

/// Environment for one part of a check: a unique key prefix and handles to the store.
pub(super) struct Site<'h, H> {
    pub(super) harness: &'h H,
    pub(super) bounds: Bounds,
    pub(super) scene: Scene,
    /// Unique prefix of all keys of this site. It ends in `/`.
    pub(super) root: String,
    pub(super) client: Client,
}

impl<'h, H: Harness> Site<'h, H> {
    pub(super) async fn open(harness: &'h H, rule: Rule, part: &'static str) -> Self {
        Self::at(harness, Scene { rule, part, quiet: false }).await
    }

    pub(super) async fn at(harness: &'h H, scene: Scene) -> Self {
        let bounds = harness.bounds();
        let client = Client { store: harness.open().await, scene, bounds };
        Site { harness, bounds, scene, root: unique_root(), client }
    }

    /// Returns the key called `name` under this site's prefix.
    pub(super) fn key(&self, name: &str) -> Key {
        Key::from(format!("{}{name}", self.root))
    }

    /// Opens another handle to the store.
    pub(super) async fn another(&self) -> Client {
        Client { store: self.harness.open().await, ..self.client }
    }

    /// Reads all keys under this site's prefix.
    pub(super) async fn read(&self) -> Snapshot {
        self.client.read(&self.root).await
    }

    /// Watches all keys under this site's prefix, from the revision `after`.
    pub(super) async fn watch(&self, after: Revision) -> Watch {
        self.client.watch(&self.root, after).await
    }

    /// Watches all keys under this site's prefix, from the current revision.
    pub(super) async fn watch_from_now(&self) -> Watch {
        let now = self.read().await.revision;
        self.watch(now).await
    }

    /// Grants a lease that outlives the check unless it is revoked.
    pub(super) async fn grant_long(&self) -> Lease {
        self.client.grant(self.bounds.check_limit()).await
    }

    /// Deletes the keys that the check wrote, for the sake of other users of a shared store. The leases expire by
    /// themselves.
    pub(super) async fn leave(self) {
        let left = self.read().await.entries;
        let deletes = left
            .chunks(Limits::OPERATIONS)
            .map(|some| some.iter().fold(Txn::new(), |txn, entry| txn.delete(entry.key.clone())));
        stream::iter(deletes).for_each_concurrent(32, async |txn| drop(self.client.attempt(txn).await)).await;
    }
}

/// Returns a key prefix that is unique across the checks of all processes that use the store.
fn unique_root() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // The standard library has no other source of entropy.
    let process = RandomState::new().build_hasher().finish();
    format!("conformance/{process:016x}-{}/", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Store handle whose calls must answer in time and whose answers are checked.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) store: Arc<dyn CoordinationStore>,
    pub(super) scene: Scene,
    pub(super) bounds: Bounds,
}

impl Client {
    /// Waits for the answer to a call. No answer in time is a violation.
    pub(super) async fn answer<T>(&self, call: &str, answer: impl Future<Output = T>) -> T {
        let limit = self.bounds.call_timeout;
        match timeout(limit, answer).await {
            Ok(answer) => answer,
            Err(_) => {
                self.scene.broken(format!("an answer to {call}"), format!("did not answer within {limit:?}"))
            }
        }
    }

    /// Returns the result of a call. Failure is a violation.
    pub(super) fn done<T>(&self, call: &str, answer: Result<T, StoreError>) -> T {
        answer.unwrap_or_else(|error| {
            self.scene
                .broken(format!("{call} succeeds"), format!("failed with \"{error}\" ({:?})", error.kind()))
        })
    }

    /// Commits `txn`, which may fail.
    pub(super) async fn attempt(&self, txn: Txn) -> Result<Revision, StoreError> {
        self.answer("a commit", self.store.commit(txn)).await
    }

    /// Commits `txn`. Failure is a violation.
    pub(super) async fn commit(&self, txn: Txn) -> Revision {
        let text = format!("{txn:?}");
        let answer = self.attempt(txn).await;
        self.done(&text, answer)
    }

    /// Returns true if the guard holds now.
    pub(super) async fn holds(&self, guard: &Guard) -> bool {
        match self.attempt(Txn::new().guard(guard.clone())).await {
            Ok(_) => true,
            Err(error) if matches!(error.kind(), ErrorKind::GuardFailed { .. }) => false,
            Err(error) => self.scene.broken(
                format!("{guard:?} holds or fails"),
                format!("failed with {:?}: {error}", error.kind()),
            ),
        }
    }

    /// Puts one key. Failure is a violation.
    pub(super) async fn put(
        &self,
        key: &Key,
        value: impl Into<bytes::Bytes>,
        lease: Option<LeaseId>,
    ) -> Revision {
        self.commit(Txn::new().put(key.clone(), value, lease)).await
    }

    /// Deletes one key. Failure is a violation.
    pub(super) async fn delete(&self, key: &Key) -> Revision {
        self.commit(Txn::new().delete(key.clone())).await
    }

    /// Reads a prefix, which may fail.
    pub(super) async fn attempt_read(&self, prefix: &str) -> Result<Snapshot, StoreError> {
        self.answer("a read", self.store.read(prefix)).await
    }

    /// Reads the keys under a prefix without their values. Failure is a violation.
    pub(super) async fn read_keys(&self, prefix: &str) -> Vec<Key> {
        let answer = self.answer("a read of keys", self.store.read_keys(prefix)).await;
        self.done("a read of keys", answer)
    }

    /// Reads a prefix and checks the invariants of a snapshot. Failure is a violation.
    pub(super) async fn read(&self, prefix: &str) -> Snapshot {
        let answer = self.attempt_read(prefix).await;
        let snapshot = self.done("a read", answer);
        let scene = self.scene.under(Rule::Reads);
        for entry in &snapshot.entries {
            scene.check(
                entry.key.starts_with(prefix),
                format!("a read of {prefix:?} shows only keys with that prefix"),
                format!("showed {}", show_entry(entry)),
            );
            scene.check(
                Revision::ZERO < entry.created
                    && entry.created <= entry.modified
                    && entry.modified <= snapshot.revision,
                format!("0 < created <= modified <= {}, the snapshot's revision", snapshot.revision),
                format!("showed {}", show_entry(entry)),
            );
        }
        for pair in snapshot.entries.windows(2) {
            scene.check(
                pair[0].key.as_bytes() < pair[1].key.as_bytes(),
                "entries sorted by the bytes of their keys, each key once",
                format!("showed {:?} and then {:?}", pair[0].key, pair[1].key),
            );
        }
        snapshot
    }

    pub(super) async fn attempt_grant(&self, ttl: Duration) -> Result<Lease, StoreError> {
        self.answer("a grant", self.store.grant_lease(ttl)).await
    }

    pub(super) async fn grant(&self, ttl: Duration) -> Lease {
        let answer = self.attempt_grant(ttl).await;
        let lease = self.done("a grant", answer);
        self.scene.under(Rule::Leases).check(
            lease.ttl >= ttl,
            format!("a lease of at least the {ttl:?} asked for"),
            format!("granted {:?}", lease.ttl),
        );
        lease
    }

    pub(super) async fn attempt_renew(&self, id: LeaseId) -> Result<Duration, StoreError> {
        self.answer("a renewal", self.store.renew_lease(id)).await
    }

    pub(super) async fn renew(&self, lease: Lease) -> Duration {
        let sent = Instant::now();
        let answer = self.attempt_renew(lease.id).await;
        let left = self.done("the renewal of a live lease", answer);
        self.scene.under(Rule::Leases).check(
            left <= lease.ttl && left + sent.elapsed() >= lease.ttl,
            format!(
                "a renewal extends the lease to its full TTL of {:?} and returns the time left",
                lease.ttl
            ),
            format!("returned {left:?} after {:?}", sent.elapsed()),
        );
        left
    }

    pub(super) async fn attempt_revoke(&self, id: LeaseId) -> Result<(), StoreError> {
        self.answer("a revocation", self.store.revoke_lease(id)).await
    }

    pub(super) async fn revoke(&self, id: LeaseId) {
        let answer = self.attempt_revoke(id).await;
        self.done("the revocation of a live lease", answer);
    }

    pub(super) async fn watch(&self, prefix: &str, after: Revision) -> Watch {
        let answer = self.answer("a watch", self.store.watch(prefix, after)).await;
        let stream = self.done("a watch", answer);
        Watch::new(stream, self.scene, self.bounds, prefix, after)
    }
}
