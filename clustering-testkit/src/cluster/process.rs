use std::{fmt, future::Future, sync::Arc};

use clustering_core::{Builder, Clustering};
use tokio::task::JoinHandle;

use super::{
    gate::{Gate, spawn_in},
    shared::Verdicts,
};
use crate::{faulty::FaultyStore, history::Observation};

/// Handle to one process of a [`TestCluster`](super::TestCluster), given to the factory to start its service with.
///
/// Everything that a node of the service runs, including its callbacks, belongs to the process: it is frozen while the
/// process is paused and gone when the process crashes. Tasks that the service spawns itself don't belong to the
/// process, unless they are spawned with [`spawn`](Self::spawn). The future that the factory returns belongs to it.
#[derive(Clone)]
pub struct Process {
    pub(super) name: String,
    pub(super) index: usize,
    pub(super) namespace: String,
    pub(super) line: FaultyStore,
    pub(super) gate: Arc<Gate>,
    pub(super) verdicts: Arc<Verdicts>,
}

impl Process {
    /// Returns the name of the process (`n0`, `n1` and so on), which is also the name of its node unless the service
    /// sets another.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the number of the process, starting at 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Returns the process's own connection to the shared store. The service must build its node on it.
    pub fn store(&self) -> FaultyStore {
        self.line.clone()
    }

    /// Returns a builder for a node on that store, with namespace, name and URI set, for tests that need no service
    /// around the node.
    pub fn builder(&self) -> Builder {
        Clustering::builder(self.store())
            .namespace(&self.namespace)
            .name(&self.name)
            .uri(format!("http://{}:80", self.name))
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

    /// Adds a note to the node's journal. It appears in the timeline of a failed test.
    pub fn note(&self, text: impl Into<String>) {
        self.observe(Observation::Note { text: text.into() });
    }

    /// Records an observation in the node's journal. This is meant for [`Observation::LeaderCommit`], which the check of
    /// P5 uses if the written key is under [`Ledger::LEADER_COMMITS`](crate::history::Ledger::LEADER_COMMITS).
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
        self.verdicts.violated(format!("{}: {what}", self.name));
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("name", &self.name).finish_non_exhaustive()
    }
}
