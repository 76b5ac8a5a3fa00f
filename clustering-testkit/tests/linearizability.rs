//! Tests that the memory store is linearizable. Stores that are not are tested in `broken_stores`.

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use std::{sync::Arc, time::Duration};

use clustering_core::store::CoordinationStore;
use clustering_memory::MemoryStore;
use clustering_testkit::{
    faulty::{Call, FaultyStore},
    linearizability::{History, Plan, play},
};

/// Runs a future on its own runtime with the clock paused.
fn paused<T>(play: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(play)
}

fn plan(seed: u64) -> Plan {
    Plan { seed, ..Plan::default() }
}

async fn on_memory(seed: u64) -> History {
    let store = MemoryStore::new();
    play(&plan(seed), async |_| Arc::new(store.clone()) as Arc<dyn CoordinationStore>).await
}

#[test]
fn memory_is_linearizable() {
    for seed in 0..200 {
        let history = paused(on_memory(seed));
        assert_eq!((history.operations.len(), history.unknown), (200, 0));
        history.judge().unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
}

#[test]
fn memory_is_linearizable_on_several_threads() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    for seed in 0..20 {
        let store = MemoryStore::new();
        // Each caller accesses the store through tasks that may run on any thread.
        let history = runtime.block_on(play(&plan(seed), async |_| {
            Arc::new(elsewhere::Elsewhere(store.clone())) as Arc<dyn CoordinationStore>
        }));
        history.judge().unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
}

#[test]
fn memory_is_linearizable_with_lost_and_late_replies() {
    let mut unknown = 0;
    for seed in 0..50 {
        let history = paused(async {
            let store = MemoryStore::new();
            let open = async |caller: usize| {
                let line = FaultyStore::new(store.clone());
                if caller < plan(seed).callers {
                    line.delay(Duration::from_millis(caller as u64));
                    line.lose_replies(Call::Commit, 3 * caller);
                }
                Arc::new(line) as Arc<dyn CoordinationStore>
            };
            play(&plan(seed), open).await
        });
        unknown += history.unknown;
        history.judge().unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
    assert!(unknown > 500, "only {unknown} replies were lost");
}

#[test]
fn a_seed_always_gives_the_same_history() {
    let told = |seed| {
        let history = paused(on_memory(seed));
        history.operations.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(told(3), told(3));
    assert_ne!(told(3), told(4));
}

#[tokio::test]
#[should_panic(expected = "there are already keys under \"linearizability/\"")]
async fn a_root_in_use_is_refused() {
    let store = MemoryStore::new();
    use clustering_core::store::CoordinationStoreExt;
    store.put("linearizability/else", "x".into(), None).await.unwrap();
    play(&plan(1), async |_| Arc::new(store.clone()) as Arc<dyn CoordinationStore>).await;
}

mod elsewhere {
    use async_trait::async_trait;
    use clustering_core::store::{
        CoordinationStore, Lease, LeaseId, Revision, Snapshot, StoreError, Txn, WatchStream,
    };
    use clustering_memory::MemoryStore;

    /// Makes its calls in other tasks.
    pub(super) struct Elsewhere(pub(super) MemoryStore);

    #[async_trait]
    impl CoordinationStore for Elsewhere {
        async fn grant_lease(&self, ttl: std::time::Duration) -> Result<Lease, StoreError> {
            self.0.grant_lease(ttl).await
        }
        async fn renew_lease(&self, id: LeaseId) -> Result<std::time::Duration, StoreError> {
            self.0.renew_lease(id).await
        }
        async fn revoke_lease(&self, id: LeaseId) -> Result<(), StoreError> {
            self.0.revoke_lease(id).await
        }
        async fn read(&self, prefix: &str) -> Result<Snapshot, StoreError> {
            let (store, prefix) = (self.0.clone(), prefix.to_owned());
            tokio::spawn(async move { store.read(&prefix).await }).await.unwrap()
        }
        async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, StoreError> {
            self.0.watch(prefix, after).await
        }
        async fn commit(&self, txn: Txn) -> Result<Revision, StoreError> {
            let store = self.0.clone();
            tokio::spawn(async move { store.commit(txn).await }).await.unwrap()
        }
    }
}
