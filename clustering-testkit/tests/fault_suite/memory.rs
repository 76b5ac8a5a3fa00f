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

use crate::broken::{Broken, Flaw};

/// A memory store behind a server that can fail, with or without a flaw.
pub(crate) struct Memory {
    clock: Clock,
    flaw: Flaw,
    store: MemoryStore,
    server: FaultyStore,
    backup: Mutex<Option<Backup>>,
}

impl Memory {
    pub(crate) async fn start(clock: Clock, flaw: Flaw) -> Self {
        let store = MemoryStore::new();
        Memory { clock, flaw, server: FaultyStore::new(store.clone()), store, backup: Mutex::default() }
    }
}

impl Faults for Memory {
    fn bounds(&self) -> Bounds {
        let slack = match self.clock {
            // The resolution of tokio's timer.
            Clock::Paused => Duration::from_millis(1),
            // The store is just as prompt, but a machine that is busy with other tests is not.
            Clock::Real => Duration::from_secs(2),
        };
        Bounds {
            clock: self.clock,
            smallest_ttl: Duration::from_secs(1),
            expiry_slack: slack,
            watch_lag: slack,
            call_timeout: Duration::from_secs(1),
        }
    }

    async fn open(&self, line: &Line) -> Arc<dyn CoordinationStore> {
        Arc::new(Broken::new(self.flaw, line.wrap(self.server.clone()), self.store.clone()))
    }

    async fn kill(&self) {
        self.server.cut();
    }

    async fn start(&self) {
        self.flaw.at_start(&self.store).await;
        self.server.heal();
    }

    async fn pause(&self) {
        self.server.hang();
    }

    async fn resume(&self) {
        self.flaw.at_resume(&self.store).await;
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
