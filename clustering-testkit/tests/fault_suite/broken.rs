use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use clustering_core::store::{
    CoordinationStore, ErrorKind, Lease, LeaseId, Revision, Snapshot, StoreError, Txn, WatchEnd, WatchStream,
};
use clustering_memory::MemoryStore;
use clustering_testkit::faulty::FaultyStore;
use futures_util::{StreamExt, stream};

/// A way in which a store fails under faults. A healthy store with such a flaw keeps the contract, except for the last
/// four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    None,
    /// After a reconnect, watches continue with the next change.
    SkipsChanges,
    /// Watches continue after changes that were compacted.
    SkipsCompactedChanges,
    /// Watches continue after a restore of the store.
    HidesRewinds,
    /// Watches whose connection was closed neither end nor continue.
    SilentWatches,
    /// A commit whose answer was lost is reported as not sent.
    RefusesLostCommits,
    /// A commit whose answer was lost is sent again.
    RepeatsLostCommits,
    /// Like the former, without the guards.
    RepeatsUnguarded,
    /// Renewals are reported as successful without an answer.
    RenewsBlindly,
    /// A handle stops working after a call was dropped before its answer came.
    BreaksOnDroppedCalls,
    /// A handle stops working once the store could not be reached for a second.
    GivesUpForGood,
    /// Leases end when the connection of their client does.
    BindsLeasesToConnections,
    /// A server that resumes after a pause ends all leases.
    EndsLeasesAtResume,
    /// A server that starts ends all leases.
    EndsLeasesAtStart,
    /// A server that starts has no data.
    StartsEmpty,
    /// A server that starts extends the leases that it finds forever.
    KeepsLeasesAfterStart,
    /// Writes of a leader that are late are made without their guards.
    TakesLateWrites,
    /// Leases never end by themselves.
    EndsNoLease,
    /// Leases live for twice their TTL.
    EndsLeasesLate,
    /// Leases live for half of their TTL.
    EndsLeasesEarly,
}

impl Flaw {
    pub(crate) async fn at_start(self, store: &MemoryStore) {
        match self {
            Flaw::EndsLeasesAtStart => end_leases(store).await,
            Flaw::StartsEmpty => store.restore(&MemoryStore::new().backup()),
            Flaw::KeepsLeasesAfterStart => {
                let (leases, store) = (store.leases(), store.clone());
                tokio::spawn(async move {
                    loop {
                        for lease in &leases {
                            let _ = store.renew_lease(lease.id).await;
                        }
                        tokio::time::sleep(Duration::from_millis(500)).await;
                    }
                });
            }
            _ => {}
        }
    }

    pub(crate) async fn at_resume(self, store: &MemoryStore) {
        if self == Flaw::EndsLeasesAtResume {
            end_leases(store).await;
        }
    }

    /// Returns the TTL that a lease really has.
    fn ttl(self, ttl: Duration) -> Duration {
        match self {
            Flaw::EndsNoLease => Duration::from_secs(10_000),
            Flaw::EndsLeasesLate => 2 * ttl,
            Flaw::EndsLeasesEarly => ttl / 2,
            _ => ttl,
        }
    }
}

async fn end_leases(store: &MemoryStore) {
    for lease in store.leases() {
        store.revoke_lease(lease.id).await.unwrap();
    }
}

/// A handle to a store with a flaw.
#[derive(Clone)]
pub(crate) struct Broken {
    flaw: Flaw,
    /// The store as seen through the network.
    seen: FaultyStore,
    /// The store itself.
    store: MemoryStore,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// True if the handle has stopped working.
    is_broken: AtomicBool,
    /// True if a watch was disconnected.
    was_disconnected: AtomicBool,
    /// Leases of this client, with the TTLs that were reported.
    leases: Mutex<BTreeMap<LeaseId, Duration>>,
    failing_since: Mutex<Option<tokio::time::Instant>>,
}

impl Broken {
    pub(crate) fn new(flaw: Flaw, seen: FaultyStore, store: MemoryStore) -> Self {
        Broken { flaw, seen, store, state: Arc::default() }
    }

    async fn call<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        if self.state.is_broken.load(Ordering::Relaxed) {
            return Err(StoreError::unreachable("this handle has given up"));
        }
        let dropped = BreaksOnDrop { state: &self.state, armed: self.flaw == Flaw::BreaksOnDroppedCalls };
        let answer = call.await;
        dropped.disarm();
        if self.flaw == Flaw::GivesUpForGood {
            self.give_up_if_away(&answer);
        }
        answer
    }

    fn give_up_if_away<T>(&self, answer: &Result<T, StoreError>) {
        let is_away = answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::Unreachable);
        let mut since = self.state.failing_since.lock().unwrap();
        let now = tokio::time::Instant::now();
        let began = *since.get_or_insert(now);
        if !is_away {
            *since = None;
        } else if now - began > Duration::from_secs(1) {
            self.state.is_broken.store(true, Ordering::Relaxed);
        }
    }

    /// Continues a watch that has ended, if the flaw hides its end.
    async fn after_end(&self, prefix: String, end: WatchEnd) -> WatchStream {
        let hidden = match (&end, self.flaw) {
            (WatchEnd::Compacted { .. }, Flaw::SkipsCompactedChanges)
            | (WatchEnd::Rewound { .. }, Flaw::HidesRewinds) => true,
            (WatchEnd::Disconnected { .. }, Flaw::SilentWatches) => return Box::pin(stream::pending()),
            (WatchEnd::Disconnected { .. }, _) => {
                self.state.was_disconnected.store(true, Ordering::Relaxed);
                if self.flaw == Flaw::BindsLeasesToConnections {
                    let leases = std::mem::take(&mut *self.state.leases.lock().unwrap());
                    for lease in leases.into_keys() {
                        let _ = self.store.revoke_lease(lease).await;
                    }
                }
                false
            }
            _ => false,
        };
        match hidden {
            true => self.store.watch(&prefix, self.store.revision()).await.unwrap(),
            false => Box::pin(stream::iter([Err(end)])),
        }
    }
}

/// Makes a handle useless if this is dropped before it is disarmed.
struct BreaksOnDrop<'a> {
    state: &'a State,
    armed: bool,
}

impl BreaksOnDrop<'_> {
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for BreaksOnDrop<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.state.is_broken.store(true, Ordering::Relaxed);
        }
    }
}

#[async_trait]
impl CoordinationStore for Broken {
    async fn grant_lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
        let lease = self.call(self.seen.grant_lease(self.flaw.ttl(ttl))).await?;
        self.state.leases.lock().unwrap().insert(lease.id, ttl);
        Ok(Lease { ttl, ..lease })
    }

    async fn renew_lease(&self, id: LeaseId) -> Result<Duration, StoreError> {
        let ttl = self.state.leases.lock().unwrap().get(&id).copied();
        if self.flaw == Flaw::RenewsBlindly
            && let Some(ttl) = ttl
        {
            let answer = tokio::time::timeout(Duration::from_millis(50), self.seen.renew_lease(id)).await;
            return answer.unwrap_or(Ok(ttl));
        }
        let left = self.call(self.seen.renew_lease(id)).await?;
        Ok(ttl.unwrap_or(left))
    }

    async fn revoke_lease(&self, id: LeaseId) -> Result<(), StoreError> {
        self.call(self.seen.revoke_lease(id)).await
    }

    async fn read(&self, prefix: &str) -> Result<Snapshot, StoreError> {
        self.call(self.seen.read(prefix)).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, StoreError> {
        let skips = self.flaw == Flaw::SkipsChanges && self.state.was_disconnected.load(Ordering::Relaxed);
        let after = if skips { self.store.revision() } else { after };
        let inner = self.call(self.seen.watch(prefix, after)).await?;
        let (this, prefix) = (self.clone(), prefix.to_owned());
        let items = inner.then(move |item| {
            let (this, prefix) = (this.clone(), prefix.clone());
            async move {
                match item {
                    Ok(batch) => Box::pin(stream::iter([Ok(batch)])),
                    Err(end) => this.after_end(prefix, end).await,
                }
            }
        });
        Ok(Box::pin(items.flatten()))
    }

    async fn commit(&self, txn: Txn) -> Result<Revision, StoreError> {
        let is_late = txn.operations().iter().any(|operation| operation.key().ends_with("/late"));
        if self.flaw == Flaw::TakesLateWrites && is_late {
            return self.call(self.seen.commit(unguarded(&txn))).await;
        }
        let answer = self.call(self.seen.commit(txn.clone())).await;
        match (&answer, self.flaw) {
            (Err(error), flaw) if error.kind() == ErrorKind::OutcomeUnknown => match flaw {
                Flaw::RefusesLostCommits => Err(StoreError::unreachable("not sent")),
                Flaw::RepeatsLostCommits => self.seen.commit(txn).await,
                Flaw::RepeatsUnguarded => self.seen.commit(unguarded(&txn)).await,
                _ => answer,
            },
            _ => answer,
        }
    }
}

/// Returns the transaction without its guards.
fn unguarded(txn: &Txn) -> Txn {
    use clustering_core::store::Operation;
    txn.operations().iter().fold(Txn::new(), |all, operation| match operation {
        Operation::Put { key, value, lease } => all.put(key.clone(), value.clone(), *lease),
        Operation::Delete { key } => all.delete(key.clone()),
    })
}
