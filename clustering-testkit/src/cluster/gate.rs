use std::{
    any::Any,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use clustering_core::{
    Builder, Clustering, NodeName, WeakClustering,
    runtime::process::{self, Process},
};
use tokio::task::AbortHandle;

use super::{claims::Claims, shared::Verdicts};
use crate::{
    faulty::FaultyStore,
    history::{Clock, Entry, Journal},
};

/// Properties of a test process that are the same in all its lives.
pub(super) struct Home {
    /// Namespace in which the process's node is observed and recorded in a journal.
    pub(super) namespace: String,
    /// Name of the process, given to a node that the service does not name itself.
    pub(super) name: String,
    pub(super) index: usize,
    /// Connection to the store.
    pub(super) line: FaultyStore,
    pub(super) clock: Clock,
    pub(super) verdicts: Arc<Verdicts>,
    /// Wakes all tasks that wait for a change of the cluster.
    pub(super) changed: Arc<dyn Fn() + Send + Sync>,
}

/// One life of a test process: decides if its tasks may run, and holds its node and journals.
pub(super) struct Gate {
    pub(super) home: Home,
    /// Number of this life, unique among all processes of the cluster.
    life: u64,
    seed: u64,
    state: Mutex<State>,
    /// Keys that the process works on, and slots that its node holds (P12).
    pub(super) claims: Mutex<Claims>,
}

#[derive(Default)]
struct State {
    may: May,
    waiting: Vec<Waker>,
    /// Number of attempts to poll a task.
    polls: u64,
    tasks: Vec<AbortHandle>,
    /// Tasks that hold sockets, which a kill closes.
    sockets: Vec<AbortHandle>,
    node: Option<WeakClustering>,
    journals: Vec<Kept>,
    journal: Option<Journal>,
}

/// Entries that the journal of one of the process's nodes has recorded so far.
pub(super) type Kept = Arc<Mutex<Vec<Entry>>>;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum May {
    #[default]
    Run,
    /// Paused: tasks are not polled until the process is resumed.
    Pause,
    /// Killed: tasks are never polled again.
    Dead,
}

impl Gate {
    pub(super) fn new(home: Home, life: u64, seed: u64) -> Arc<Self> {
        Arc::new(Gate { home, life, seed, state: Mutex::default(), claims: Mutex::default() })
    }

    /// Returns the life of a test process in which the calling code runs.
    pub(super) fn current() -> Option<Arc<Self>> {
        let process: Arc<dyn Any + Send + Sync> = process::current()?;
        process.downcast().ok()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn pause(&self) {
        let mut state = self.state();
        if state.may == May::Run {
            state.may = May::Pause;
            drop(state);
            self.freeze_work();
        }
    }

    pub(super) fn resume(&self) {
        let woken = {
            let mut state = self.state();
            if state.may != May::Pause {
                return;
            }
            state.may = May::Run;
            mem::take(&mut state.waiting)
        };
        self.resume_work();
        woken.into_iter().for_each(Waker::wake);
    }

    /// True if the process was not killed.
    pub(super) fn is_alive(&self) -> bool {
        self.state().may != May::Dead
    }

    /// Returns the number of attempts to poll a task of the process.
    pub(super) fn polls(&self) -> u64 {
        self.state().polls
    }

    pub(super) fn is_paused(&self) -> bool {
        self.state().may == May::Pause
    }

    /// Kills the process: its tasks are never polled again. They are not dropped until the gate is, because dropping a
    /// task runs code, and a killed process runs none.
    pub(super) fn kill(&self) {
        let (journal, waiting) = {
            let mut state = self.state();
            state.may = May::Dead;
            state.sockets.drain(..).for_each(|task| task.abort());
            (state.journal.clone(), mem::take(&mut state.waiting))
        };
        drop(waiting);
        if let Some(journal) = journal {
            journal.kill();
        }
    }

    /// Returns the node that was started last in this life, unless it has ended or the service has dropped its handle.
    pub(super) fn node(&self) -> Option<Clustering> {
        self.state().node.as_ref()?.upgrade()
    }

    /// Returns the name of the node that was started last in this life.
    pub(super) fn node_name(&self) -> Option<NodeName> {
        self.state().journal.as_ref().map(|journal| journal.node().clone())
    }

    pub(super) fn journal(&self) -> Option<Journal> {
        self.state().journal.clone()
    }

    /// Returns the journal entries of the node that was started last in this life.
    pub(super) fn kept(&self) -> Option<Kept> {
        self.state().journals.last().cloned()
    }

    pub(super) fn journals(&self) -> Vec<Kept> {
        self.state().journals.clone()
    }
}

impl Process for Gate {
    fn starting(&self, builder: Builder) -> Builder {
        let builder = if builder.name_given().is_some() { builder } else { builder.name(&self.home.name) };
        // Two lives must not generate the same incarnations, so a seed set by the service is replaced.
        let builder = builder.seed(self.seed);
        let name = builder.name_given().map(NodeName::parse);
        let Some(Ok(name)) = name.filter(|_| builder.namespace_given() == self.home.namespace) else {
            return builder;
        };
        let number = self.state().journals.len();
        let again = if number == 0 { String::new() } else { format!(".{number}") };
        let life = format!("{}{again}", self.life);
        // Sockets do not follow the paused clock, so virtual time could pass the TTL before a broken connection is
        // noticed.
        let builder = builder.configure(|config| config.crash_detection = None);
        self.begin_claims(builder.slots_given());
        let (journal, kept) = Journal::in_memory(name, life, self.home.clock.clone());
        {
            let mut state = self.state();
            state.journals.push(kept);
            state.journal = Some(journal.clone());
        }
        journal.attach_to(builder.map_store(|store| journal.store(store)))
    }

    fn started(&self, node: &Clustering) {
        if node.namespace().as_str() == self.home.namespace {
            self.state().node = Some(node.downgrade());
            if let Some(gate) = Gate::current() {
                gate.watch_claims(node);
            }
            (self.home.changed)();
        }
    }

    fn poll_running(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state();
        state.polls += 1;
        match state.may {
            May::Run => Poll::Ready(()),
            May::Pause => {
                if !state.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                    state.waiting.push(context.waker().clone());
                }
                Poll::Pending
            }
            May::Dead => Poll::Pending,
        }
    }

    fn spawned(&self, task: AbortHandle) {
        let mut state = self.state();
        state.tasks.retain(|task| !task.is_finished());
        state.tasks.push(task);
    }

    fn spawned_sockets(&self, task: AbortHandle) {
        let mut state = self.state();
        state.sockets.retain(|task| !task.is_finished());
        match state.may {
            May::Dead => task.abort(),
            May::Run | May::Pause => state.sockets.push(task),
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        end(&mut self.state());
    }
}

/// Aborts the tasks of a gate when the cluster is dropped. The tasks hold the gate, so it would otherwise never be
/// dropped.
pub(super) fn end_tasks(gate: &Gate) {
    end(&mut gate.state());
}

fn end(state: &mut State) {
    state.may = May::Dead;
    let State { tasks, sockets, .. } = state;
    tasks.drain(..).chain(sockets.drain(..)).for_each(|task| task.abort());
}

/// Spawns a task that belongs to the process of this gate.
pub(super) fn spawn_in<F>(gate: &Arc<Gate>, future: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    process::spawn(gate.clone(), future)
}
