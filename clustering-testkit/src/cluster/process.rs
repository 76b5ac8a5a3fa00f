use std::{fmt, future::Future, sync::Arc};

use clustering_core::{Builder, Clustering};
use tokio::task::JoinHandle;

use super::{
    gate::{Gate, spawn_in},
    shared::Verdicts,
};
use crate::{faulty::FaultyStore, history::Observation};

/// What one process of a [`TestCluster`](super::TestCluster) is given to start its service with.
///
/// Whatever the service starts by way of a node, its callbacks among it, belongs to the process: it stands still while the
/// process is paused, and is gone when it crashes. A task that the service spawns by itself does not; spawn it with
/// [`spawn`](Self::spawn), or let the factory's own future do the work.
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
    /// The name of the process, and of its node unless the service gives it another: `n0`, `n1` and so on.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Its own line to the store that all share: what the service's node is to be built on.
    pub fn store(&self) -> FaultyStore {
        self.line.clone()
    }

    /// A builder of a node on that store, with namespace, name and URI, for tests that need no service around it.
    pub fn builder(&self) -> Builder {
        Clustering::builder(self.store())
            .namespace(&self.namespace)
            .name(&self.name)
            .uri(format!("http://{}:80", self.name))
    }

    /// Spawns a task that belongs to this process: paused with it, gone with it.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        spawn_in(&self.gate, future)
    }

    /// Takes something down in the node's journal, for the timeline of a test that fails.
    pub fn note(&self, text: impl Into<String>) {
        self.observe(Observation::Note { text: text.into() });
    }

    /// Takes something down in the node's journal by which the promises are judged: that of a fenced write, which P5 is
    /// judged by if its key is under [`Ledger::FENCED`](crate::history::Ledger::FENCED).
    pub fn observe(&self, observation: Observation) {
        if let Some(journal) = self.gate.journal() {
            journal.note(observation);
        }
    }

    /// Says that the service broke a promise of its own: the test fails with that at its next
    /// [`check`](super::TestCluster::check), and the timeline shows when it was.
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
