use std::{fmt, future::Future, sync::Arc};

use clustering_core::{Builder, Clustering, slots::Slot};
use tokio::task::JoinHandle;

use super::{
    claims::Working,
    gate::{Gate, spawn_in},
};
use crate::{faulty::FaultyStore, history::Observation};

/// Handle to one process of a [`TestCluster`](super::TestCluster), given to the factory to start its service with.
///
/// Everything that a node of the service runs, including its callbacks, belongs to the process: it is frozen while the
/// process is paused and gone when the process crashes. Tasks that the service spawns itself don't belong to the
/// process, unless they are spawned with [`spawn`](Self::spawn). The future that the factory returns belongs to it.
/// All code that belongs to a process can get this handle with [`Process::current`].
#[derive(Clone)]
pub struct Process {
    pub(super) gate: Arc<Gate>,
}

impl Process {
    /// Returns the process in which the calling code runs; `None` outside of a [`TestCluster`](super::TestCluster), and
    /// in tasks that were spawned with `tokio::spawn`.
    ///
    /// With it, code deep inside a service can report to the test without being given a handle:
    ///
    /// ```
    /// # use clustering_testkit::cluster::Process;
    /// async fn count(meter: &str) {
    ///     // In a service, this line is under #[cfg(test)], or under a feature if tests in tests/*.rs use it.
    ///     let _working = Process::current().map(|process| process.working_on(meter));
    ///     // ...
    /// }
    /// ```
    pub fn current() -> Option<Self> {
        Gate::current().map(|gate| Process { gate })
    }

    /// Returns the name of the process (`n0`, `n1` and so on), which is also the name of its node unless the service
    /// sets another.
    pub fn name(&self) -> &str {
        &self.gate.home.name
    }

    /// Returns the number of the process, starting at 0.
    pub fn index(&self) -> usize {
        self.gate.home.index
    }

    /// Returns the process's own connection to the shared store. The service must build its node on it.
    pub fn store(&self) -> FaultyStore {
        self.gate.home.line.clone()
    }

    /// Returns a builder for a node on that store, with namespace, name and URI set, for tests that need no service
    /// around the node.
    pub fn builder(&self) -> Builder {
        Clustering::builder(self.store())
            .namespace(&self.gate.home.namespace)
            .name(self.name())
            .uri(format!("http://{}:80", self.name()))
    }

    /// Spawns a task that belongs to this process: it is paused and killed together with the process.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        spawn_in(&self.gate, future)
    }

    /// Reports that this process works on a key that only one process may work on at a time (P12). The work counts
    /// until the returned guard is dropped or the process is killed. Create the guard where the work begins, and drop
    /// it where the work can have no further effect.
    ///
    /// The next [`check`](super::TestCluster::check) fails, with the key, the processes and the times,
    ///
    /// - if two processes work on the key at the same time, or
    /// - if the node is [exclusive](Builder::exclusive), and the process works on the key without a
    ///   [hold](Clustering::hold) of it, or longer than the hold is [valid](clustering_core::Hold::is_valid).
    ///
    /// A paused process works on nothing. If a hold becomes void during the pause, the service must notice that at once
    /// when the process is resumed: it must drop the guard before any time passes, and create no new guard.
    ///
    /// ```
    /// # use clustering_testkit::cluster::{Failure, TestCluster};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Failure> {
    /// let cluster = TestCluster::start(2, |process| async move {
    ///     let node = process.builder().exclusive(8).start().await?;
    ///     let worker = node.clone();
    ///     process.clone().spawn(async move {
    ///         while let Ok(hold) = worker.wait_hold("meter-1").await {
    ///             let _working = process.working_on("meter-1");
    ///             // Count pulses ...
    ///             hold.lost().await;
    ///         }
    ///     });
    ///     Ok::<_, clustering_core::StartError>(node)
    /// })
    /// .await?;
    /// cluster.wait_stable().await?;
    /// cluster.stop("n0").await?;
    /// cluster.settle().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn working_on(&self, key: impl Into<String>) -> Working {
        self.gate.begin_work(key.into(), None)
    }

    /// Like [`working_on`](Self::working_on), for all keys of a slot.
    pub fn working_on_slot(&self, slot: Slot) -> Working {
        self.gate.begin_work(format!("slot {slot}"), Some(slot))
    }

    /// Adds a note to the node's journal. It appears in the timeline of a failed test.
    pub fn note(&self, text: impl Into<String>) {
        self.observe(Observation::Note { text: text.into() });
    }

    /// Records an observation in the node's journal. This is meant for [`Observation::LeaderCommit`], which the check
    /// of P5 uses if the written key is under [`Ledger::LEADER_COMMITS`](crate::history::Ledger::LEADER_COMMITS).
    pub fn observe(&self, observation: Observation) {
        if let Some(journal) = self.gate.journal() {
            journal.note(observation);
        }
    }

    /// Reports that the service broke a promise of its own. The next [`check`](super::TestCluster::check) fails with
    /// this message, and the timeline shows when it happened.
    pub fn violates(&self, what: impl Into<String>) {
        let what = what.into();
        self.note(format!("VIOLATES: {what}"));
        self.gate.home.verdicts.violated(format!("{}: {what}", self.name()));
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("name", &self.name()).finish_non_exhaustive()
    }
}
