use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use clustering_core::runtime::process::{self, Process};
use tokio::task::AbortHandle;

/// Pauses and ends the tasks of a node that shares its runtime with the suite, as all nodes do under tokio's paused
/// clock.
#[derive(Default)]
pub(super) struct Gate(Mutex<State>);

#[derive(Default)]
struct State {
    is_shut: bool,
    waiting: Vec<Waker>,
    tasks: Vec<AbortHandle>,
}

impl Gate {
    pub(super) fn spawn(self: &Arc<Self>, future: impl Future<Output = ()> + Send + 'static) {
        process::spawn(self.clone(), future);
    }

    /// Stops polling the tasks.
    pub(super) fn shut(&self) {
        self.state().is_shut = true;
    }

    pub(super) fn open(&self) {
        let waiting = {
            let mut state = self.state();
            state.is_shut = false;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Ends all tasks for good.
    pub(super) fn end(&self) {
        self.shut();
        let tasks = std::mem::take(&mut self.state().tasks);
        tasks.iter().for_each(AbortHandle::abort);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process for Gate {
    fn poll_running(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if !state.is_shut {
            return Poll::Ready(());
        }
        if !state.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            state.waiting.push(context.waker().clone());
        }
        Poll::Pending
    }

    fn spawned(&self, task: AbortHandle) {
        self.state().tasks.push(task);
    }
}
