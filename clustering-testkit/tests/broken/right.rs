//! Stores that keep the contract but behave unusually, to test that the suite accepts them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use clustering_core::store::{
    CoordinationStore, Lease, LeaseId, Liveness, Revision, Silent, Snapshot, StoreError, Txn, WatchStream,
};
use clustering_memory::MemoryStore;
use clustering_testkit::conformance::Bounds;
use futures_util::StreamExt;
use tokio::time::{Instant, sleep, sleep_until};

use super::{BOUNDS, Bend};

/// Changes nothing.
#[derive(Clone, Default)]
pub(crate) struct Straight;

impl Bend for Straight {}

/// Delays calls by `THERE` milliseconds, replies by `BACK` milliseconds and watches by `LAG` milliseconds.
#[derive(Clone, Default)]
pub(crate) struct Far<const THERE: u64, const BACK: u64, const LAG: u64>;

/// Delivers changes to watches long after replies.
pub(crate) type LateWatches = Far<3, 2, 20>;

/// Delivers changes to watches longer after replies than the shortest lease lives.
pub(crate) type SlowWatches = Far<3, 2, 3_000>;

/// Sends replies long after it delivers changes to watches.
pub(crate) type LateReplies = Far<20, 30, 1>;

impl<const THERE: u64, const BACK: u64, const LAG: u64> Far<THERE, BACK, LAG> {
    async fn travel<T>(call: impl Future<Output = T>) -> T {
        sleep(Duration::from_millis(THERE)).await;
        let answer = call.await;
        sleep(Duration::from_millis(BACK)).await;
        answer
    }
}

#[async_trait]
impl<const THERE: u64, const BACK: u64, const LAG: u64> Bend for Far<THERE, BACK, LAG> {
    fn bounds() -> Bounds {
        // Add the resolution of tokio's timer.
        Bounds { watch_lag: Duration::from_millis(LAG + 1), ..BOUNDS }
    }

    async fn grant_lease(&self, store: &MemoryStore, ttl: Duration) -> Result<Lease, StoreError> {
        Self::travel(store.grant_lease(ttl)).await
    }
    async fn renew_lease(&self, store: &MemoryStore, id: LeaseId) -> Result<Duration, StoreError> {
        Self::travel(store.renew_lease(id)).await
    }
    async fn revoke_lease(&self, store: &MemoryStore, id: LeaseId) -> Result<(), StoreError> {
        Self::travel(store.revoke_lease(id)).await
    }
    async fn read(&self, store: &MemoryStore, prefix: &str) -> Result<Snapshot, StoreError> {
        Self::travel(store.read(prefix)).await
    }
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        Self::travel(store.commit(txn)).await
    }
    async fn watch(
        &self,
        store: &MemoryStore,
        prefix: &str,
        after: Revision,
    ) -> Result<WatchStream, StoreError> {
        let stream = Self::travel(store.watch(prefix, after)).await?;
        // Delay every item by the same time, even if the reader does not poll. The delays must not add up.
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        let pipe = tokio::spawn(async move {
            let mut stream = stream;
            while let Some(item) = stream.next().await {
                if sender.send((Instant::now() + Duration::from_millis(LAG), item)).is_err() {
                    break;
                }
            }
        });
        let pipe = AbortOnDrop(pipe.abort_handle());
        let items = futures_util::stream::unfold((receiver, pipe), |(mut receiver, pipe)| async move {
            let (due, item) = receiver.recv().await?;
            sleep_until(due).await;
            Some((item, (receiver, pipe)))
        });
        Ok(Box::pin(items))
    }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A store with other clients that write all the time: about every third call finds another client's revision.
#[derive(Clone, Default)]
pub(crate) struct Busy(Arc<AtomicU64>);

impl Busy {
    async fn others(&self, store: &MemoryStore) {
        let call = self.0.fetch_add(1, Ordering::SeqCst);
        if (call.wrapping_mul(0x9e37_79b9) >> 7).is_multiple_of(3) {
            let txn = Txn::new().put("another client's", format!("{call}"), None);
            store.commit(txn).await.expect("a MemoryStore takes a put");
        }
    }
}

#[async_trait]
impl Bend for Busy {
    async fn revoke_lease(&self, store: &MemoryStore, id: LeaseId) -> Result<(), StoreError> {
        self.others(store).await;
        store.revoke_lease(id).await
    }
    async fn read(&self, store: &MemoryStore, prefix: &str) -> Result<Snapshot, StoreError> {
        self.others(store).await;
        store.read(prefix).await
    }
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        self.others(store).await;
        store.commit(txn).await
    }
    async fn watch(
        &self,
        store: &MemoryStore,
        prefix: &str,
        after: Revision,
    ) -> Result<WatchStream, StoreError> {
        self.others(store).await;
        store.watch(prefix, after).await
    }
}

/// Has one connection per handle, and replaces it once [`Liveness`] counts it as dead.
#[derive(Default)]
pub(crate) struct ReplacesSilentConnections(Mutex<Connection>);

/// A connection, and whether it went silent.
#[derive(Clone)]
struct Connection {
    liveness: Arc<Liveness>,
    silent: bool,
}

impl Default for Connection {
    fn default() -> Self {
        // Longer than the callers wait.
        Connection { liveness: Arc::new(Liveness::new(Duration::from_millis(500))), silent: false }
    }
}

impl Clone for ReplacesSilentConnections {
    fn clone(&self) -> Self {
        ReplacesSilentConnections::default()
    }
}

impl ReplacesSilentConnections {
    async fn call<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let connection = {
            let mut connection = self.0.lock().unwrap();
            if connection.liveness.is_silent() {
                *connection = Connection::default();
            }
            connection.clone()
        };
        let answer = async {
            match connection.silent {
                true => std::future::pending().await,
                false => call.await,
            }
        };
        let lost = |silent: Silent| Err(StoreError::outcome_unknown(silent.to_string()));
        connection.liveness.answered(answer).await.unwrap_or_else(lost)
    }
}

#[async_trait]
impl Bend for ReplacesSilentConnections {
    fn silenced(&self) {
        self.0.lock().unwrap().silent = true;
    }
    async fn renew_lease(&self, store: &MemoryStore, id: LeaseId) -> Result<Duration, StoreError> {
        self.call(store.renew_lease(id)).await
    }
    async fn read(&self, store: &MemoryStore, prefix: &str) -> Result<Snapshot, StoreError> {
        self.call(store.read(prefix)).await
    }
    async fn commit(&self, store: &MemoryStore, txn: Txn) -> Result<Revision, StoreError> {
        self.call(store.commit(txn)).await
    }
}

/// Grants TTLs in whole seconds and expires leases in a sweep twice a second, like some servers.
#[derive(Clone, Default)]
pub(crate) struct SweepsTwiceASecond(Arc<Mutex<BTreeMap<LeaseId, (Instant, Duration)>>>);

impl SweepsTwiceASecond {
    const EVERY: Duration = Duration::from_millis(500);

    fn deadline(&self, id: LeaseId) -> Option<Instant> {
        self.0.lock().unwrap().get(&id).map(|(deadline, _)| *deadline)
    }
}

#[async_trait]
impl Bend for SweepsTwiceASecond {
    fn bounds() -> Bounds {
        Bounds { expiry_slack: Self::EVERY, ..BOUNDS }
    }

    async fn grant_lease(&self, store: &MemoryStore, ttl: Duration) -> Result<Lease, StoreError> {
        if ttl.is_zero() {
            return store.grant_lease(ttl).await;
        }
        let ttl = Duration::from_secs(ttl.as_secs_f64().ceil() as u64);
        let lease = store.grant_lease(ttl * 1_000).await?;
        self.0.lock().unwrap().insert(lease.id, (Instant::now() + ttl, ttl));
        let (this, store) = (self.clone(), store.clone());
        tokio::spawn(async move {
            // The sweeps are independent of the time of the grant.
            let mut sweep = tokio::time::interval(Self::EVERY);
            while let Some(deadline) = this.deadline(lease.id) {
                sweep.tick().await;
                if deadline <= Instant::now() && this.deadline(lease.id) == Some(deadline) {
                    let _ = store.revoke_lease(lease.id).await;
                    break;
                }
            }
        });
        Ok(Lease { ttl, ..lease })
    }

    async fn renew_lease(&self, store: &MemoryStore, id: LeaseId) -> Result<Duration, StoreError> {
        store.renew_lease(id).await?;
        let mut leases = self.0.lock().unwrap();
        let Some((deadline, ttl)) = leases.get_mut(&id) else { return Err(StoreError::lease_not_found(id)) };
        *deadline = Instant::now() + *ttl;
        Ok(*ttl)
    }
}
