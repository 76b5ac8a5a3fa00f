use std::{future::Future, time::Duration};

use async_trait::async_trait;
use clustering_core::store::{
    CoordinationStore, ErrorKind, Key, Lease, LeaseId, Revision, Snapshot, StoreError, Txn, WatchStream,
};
use tokio::time::sleep;

use super::{Call, FaultyStore, Link, plan::Fault, watches::FaultyWatch};

fn told(kind: ErrorKind) -> StoreError {
    StoreError::new(kind, "fault injected by the test")
}

async fn pass_time(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

impl FaultyStore {
    /// Passes one call through: to the store, with the fault planned for it, and back.
    async fn pass<T>(
        &self,
        call: Call,
        txn: Option<&Txn>,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let (delay, fate) = self.control.locked(|state| {
            state.log.attempt(call);
            (state.delay, state.lot.fate(call))
        });
        pass_time(delay + fate.there).await;
        if self.link_once(|link| link != Link::Hung).await == Link::Cut {
            return Err(StoreError::unreachable("the test disconnected this node"));
        }
        let fault = self.control.locked(|state| state.plan.meet(call, txn)).or(fate.fault.map(Fault::from));
        match (fault, txn) {
            (Some(Fault::Fail(kind)), _) => return Err(told(kind)),
            (Some(Fault::Late(delay)), Some(txn)) => {
                let (store, txn) = (self.clone(), txn.clone());
                tokio::spawn(async move {
                    pass_time(delay).await;
                    store.arrive(txn).await
                });
                return Err(told(ErrorKind::OutcomeUnknown));
            }
            (Some(Fault::Hold), Some(txn)) => {
                self.control.locked(|state| state.plan.hold(txn.clone()));
                return Err(told(ErrorKind::OutcomeUnknown));
            }
            _ => {}
        }
        self.control.locked(|state| state.log.pass(call));
        let answer = answer.await;
        pass_time(fate.back).await;
        let link = self.link_once(|link| matches!(link, Link::Up | Link::Cut)).await;
        if link == Link::Cut || fault == Some(Fault::LoseReply) {
            return Err(told(ErrorKind::OutcomeUnknown));
        }
        answer
    }

    /// Waits until the link is in a wanted state and returns that state. Yields to other tasks from time to time even
    /// if no wait is needed, so that a caller that retries without pause does not keep the test from healing the link.
    async fn link_once(&self, wanted: impl Fn(Link) -> bool) -> Link {
        let mut link = self.control.link.subscribe();
        // An error would mean that the sender was dropped, but this store holds it.
        link.wait_for(|link| wanted(*link)).await.map_or(Link::Cut, |link| *link)
    }

    /// Commits `txn` without any fault.
    pub(super) async fn arrive(&self, txn: Txn) -> Result<Revision, StoreError> {
        self.control.locked(|state| state.log.pass(Call::Commit));
        self.commit_and_log(txn).await
    }

    async fn commit_and_log(&self, txn: Txn) -> Result<Revision, StoreError> {
        let result = self.store.commit(txn.clone()).await;
        self.control.locked(|state| state.log.answer(txn, result.clone()));
        result
    }
}

#[async_trait]
impl CoordinationStore for FaultyStore {
    async fn grant_lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
        self.pass(Call::Grant, None, self.store.grant_lease(ttl)).await
    }

    async fn renew_lease(&self, id: LeaseId) -> Result<Duration, StoreError> {
        self.pass(Call::Renew, None, self.store.renew_lease(id)).await
    }

    async fn revoke_lease(&self, id: LeaseId) -> Result<(), StoreError> {
        self.pass(Call::Revoke, None, self.store.revoke_lease(id)).await
    }

    async fn read(&self, prefix: &str) -> Result<Snapshot, StoreError> {
        self.pass(Call::Read, None, self.store.read(prefix)).await
    }

    async fn read_keys(&self, prefix: &str) -> Result<Vec<Key>, StoreError> {
        self.pass(Call::Read, None, self.store.read_keys(prefix)).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, StoreError> {
        let stream = self.pass(Call::Watch, None, self.store.watch(prefix, after)).await?;
        let id = self.control.locked(|state| state.watches.open(prefix, after));
        Ok(Box::pin(FaultyWatch::new(self.control.clone(), id, stream)))
    }

    async fn commit(&self, txn: Txn) -> Result<Revision, StoreError> {
        self.pass(Call::Commit, Some(&txn), self.commit_and_log(txn.clone())).await
    }
}
