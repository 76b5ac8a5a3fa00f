//! Tests that a faulty store without faults passes the conformance suite, and that a cut one behaves like an
//! unreachable store.

use std::{sync::Arc, time::Duration};

use clustering_core::store::{CoordinationStore, Revision};
use clustering_memory::MemoryStore;
use clustering_testkit::{
    conformance::{Bounds, Clock, Harness, Hook},
    faulty::FaultyStore,
};

use crate::SECOND;

struct Faulty(MemoryStore);

impl Harness for Faulty {
    fn bounds(&self) -> Bounds {
        let tick = Duration::from_millis(1);
        Bounds {
            clock: Clock::Paused,
            smallest_ttl: SECOND,
            expiry_slack: tick,
            watch_lag: tick,
            call_timeout: SECOND,
        }
    }
    async fn open(&self) -> Arc<dyn CoordinationStore> {
        Arc::new(FaultyStore::new(self.0.clone()))
    }
    async fn compact(&self, revision: Revision) {
        self.0.compact(revision);
    }
    async fn unreachable(&self) -> Hook<Arc<dyn CoordinationStore>> {
        let store = FaultyStore::new(self.0.clone());
        store.cut();
        Hook::Have(Arc::new(store))
    }
    async fn open_watches(&self) -> Hook<usize> {
        Hook::Have(self.0.open_watches())
    }
}

clustering_testkit::conformance_tests!(Faulty(MemoryStore::new()));
