//! The conformance suite on `MemoryStore`: on its own, in an `Arc`, in a `Box`, in real time, and on several threads.

use std::{sync::Arc, time::Duration};

use clustering_core::store::{CoordinationStore, Revision};
use clustering_memory::MemoryStore;
use clustering_testkit::conformance::{Bounds, Clock, Harness, Hook, Line};

/// Harness for one store, with a choice of handle type and clock.
struct Memory<F> {
    store: MemoryStore,
    clock: Clock,
    handle: F,
}

impl<F: Fn(MemoryStore) -> Arc<dyn CoordinationStore>> Memory<F> {
    fn new(clock: Clock, handle: F) -> Self {
        Memory { store: MemoryStore::new(), clock, handle }
    }
}

impl<F> Harness for Memory<F>
where
    F: Fn(MemoryStore) -> Arc<dyn CoordinationStore> + Send + Sync + 'static,
{
    fn bounds(&self) -> Bounds {
        let clock = self.clock;
        let smallest_ttl = Duration::from_secs(1);
        match clock {
            // The slack is the resolution of tokio's timer.
            Clock::Paused => Bounds {
                clock,
                smallest_ttl,
                expiry_slack: Duration::from_millis(1),
                watch_lag: Duration::from_millis(1),
                call_timeout: Duration::from_secs(1),
            },
            // The store is just as prompt, but a machine that is busy with other tests is not.
            Clock::Real => Bounds {
                clock,
                // Long enough that a stall of the machine does not outlast a lease that a check still needs.
                smallest_ttl: 2 * smallest_ttl,
                expiry_slack: Duration::from_secs(1),
                watch_lag: Duration::from_secs(10),
                call_timeout: Duration::from_secs(10),
            },
        }
    }

    async fn open(&self) -> Arc<dyn CoordinationStore> {
        (self.handle)(self.store.clone())
    }

    async fn compact(&self, revision: Revision) {
        self.store.compact(revision);
    }

    async fn unreachable(&self) -> Hook<Arc<dyn CoordinationStore>> {
        Hook::Absent("an in-process store is always reachable")
    }

    async fn line(&self) -> Hook<Line> {
        Hook::Absent("an in-process store has no connections")
    }

    async fn open_watches(&self) -> Hook<usize> {
        Hook::Have(self.store.open_watches())
    }
}

mod bare {
    use super::*;
    clustering_testkit::conformance_tests!(Memory::new(Clock::Paused, |store| Arc::new(store)));
}

mod shared {
    use super::*;
    clustering_testkit::conformance_tests!(Memory::new(Clock::Paused, |store| {
        let shared: Arc<dyn CoordinationStore> = Arc::new(store);
        Arc::new(shared)
    }));
}

mod boxed {
    use super::*;
    clustering_testkit::conformance_tests!(Memory::new(Clock::Paused, |store| {
        let boxed: Box<dyn CoordinationStore> = Box::new(store);
        Arc::new(boxed)
    }));
}

mod in_real_time {
    use super::*;
    clustering_testkit::conformance_tests!(Memory::new(Clock::Real, |store| Arc::new(store)));
}

/// Runs the tasks of a check in parallel. On one thread, the calls of this store never wait and so never interleave.
mod on_several_threads {
    use super::*;

    macro_rules! several_threads {
        ($($check:ident)*) => {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $check() {
                clustering_testkit::conformance::$check(&Memory::new(Clock::Real, |store| Arc::new(store))).await;
            }
        )*};
    }

    several_threads! {
        rule_01_commits_are_atomic
        rule_02_reads_see_one_revision
        rule_03_watches_yield_every_change
        rule_04_lease_keys_vanish_together
        rule_09_dropping_frees
    }
}
