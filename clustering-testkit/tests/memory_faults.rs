//! The fault suite on `MemoryStore`.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use clustering_core::store::{CoordinationStore, Revision};
use clustering_memory::{Backup, MemoryStore};
use clustering_testkit::{
    conformance::{Bounds, Clock, Hook},
    faults::{Faults, Line},
    faulty::FaultyStore,
};

/// A memory store behind a server that can fail.
struct Memory {
    store: MemoryStore,
    server: FaultyStore,
    backup: Mutex<Option<Backup>>,
}

impl Memory {
    async fn start() -> Self {
        let store = MemoryStore::new();
        Memory { server: FaultyStore::new(store.clone()), store, backup: Mutex::default() }
    }
}

impl Faults for Memory {
    fn bounds(&self) -> Bounds {
        Bounds {
            clock: Clock::Paused,
            smallest_ttl: Duration::from_secs(1),
            expiry_slack: Duration::from_millis(1),
            watch_lag: Duration::from_millis(1),
            call_timeout: Duration::from_secs(1),
        }
    }
    async fn open(&self, line: &Line) -> Arc<dyn CoordinationStore> {
        Arc::new(line.wrap(self.server.clone()))
    }
    async fn kill(&self) {
        self.server.cut();
    }
    async fn start(&self) {
        self.server.heal();
    }
    async fn pause(&self) {
        self.server.hang();
    }
    async fn resume(&self) {
        self.server.heal();
    }
    async fn compact(&self, revision: Revision) -> Hook<()> {
        self.store.compact(revision);
        Hook::Have(())
    }
    async fn backup(&self) -> Hook<()> {
        *self.backup.lock().unwrap() = Some(self.store.backup());
        Hook::Have(())
    }
    async fn restore(&self) {
        self.store.restore(self.backup.lock().unwrap().as_ref().unwrap());
    }
}

clustering_testkit::fault_tests!(Memory::start());
