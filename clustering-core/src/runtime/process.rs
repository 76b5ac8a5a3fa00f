//! Simulated operating-system processes for tests (feature `test-util`).
//!
//! A test that runs several nodes in one process cannot send `kill -9` or SIGSTOP to one of them. Instead, it runs the
//! code that starts a node [within] a [`Process`]. The node's tasks, and all tasks spawned by them, then belong to that
//! process: they run only while the process lets them, and the process can abort them. The code under test does not
//! need to know about this.
//!
//! `clustering-testkit` provides such a process for tests of services (`TestCluster`).

use std::{
    any::Any,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    runtime::Handle,
    task::{AbortHandle, JoinHandle},
};

use super::{Builder, Clustering};

tokio::task_local! {
    static PROCESS: Arc<dyn Process>;
}

/// A simulated process in which nodes run. See the [module documentation](self).
///
/// `Arc<dyn Process>` converts to `Arc<dyn Any + Send + Sync>`, so that a test tool can recognize its own processes.
pub trait Process: Any + Send + Sync {
    /// Called before a node starts in the process. The returned builder is started instead of the given one.
    fn starting(&self, builder: Builder) -> Builder {
        builder
    }

    /// Called after a node has started in the process.
    fn started(&self, _node: &Clustering) {}

    /// Returns `Ready` if the process's tasks may run now. Otherwise the task is woken when they may.
    fn poll_running(&self, context: &mut Context<'_>) -> Poll<()>;

    /// Called for each task spawned in the process. The end of the process has to abort it.
    fn spawned(&self, task: AbortHandle);

    /// Called for each task that holds sockets and does nothing else. The end of the process has to abort it at once,
    /// because the kernel closes the sockets of a process that ends, even if none of its code runs any more. The
    /// default is [`spawned`](Self::spawned).
    fn spawned_sockets(&self, task: AbortHandle) {
        self.spawned(task);
    }
}

/// Returns the process in which the calling code runs, if any.
pub fn current() -> Option<Arc<dyn Process>> {
    PROCESS.try_with(Arc::clone).ok()
}

/// Runs a future in the process: it is polled only while the process's tasks may run, with the process as the [current]
/// one.
pub async fn within<F: Future>(process: Arc<dyn Process>, future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|context| {
        std::task::ready!(process.poll_running(context));
        poll(&process, future.as_mut(), context)
    })
    .await
}

fn poll<F: Future>(
    process: &Arc<dyn Process>,
    future: Pin<&mut F>,
    context: &mut Context<'_>,
) -> Poll<F::Output> {
    PROCESS.sync_scope(process.clone(), || future.poll(context))
}

/// Spawns a task that belongs to the process.
///
/// # Panics
///
/// Panics outside of a tokio runtime.
pub fn spawn<F>(process: Arc<dyn Process>, future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let (task, process) = spawn_on(&Handle::current(), process, future);
    process.spawned(task.abort_handle());
    task
}

/// Spawns a task that is polled within the process. The caller must then pass the task to [`Process::spawned`].
pub(super) fn spawn_on<F>(
    runtime: &Handle,
    process: Arc<dyn Process>,
    future: F,
) -> (JoinHandle<F::Output>, Arc<dyn Process>)
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    (runtime.spawn(within(process.clone(), future)), process)
}
