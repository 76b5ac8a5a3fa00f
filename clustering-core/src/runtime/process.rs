//! What stands for the operating system's process in tests: feature `test-util`, and nothing of it without.
//!
//! A test that runs several nodes in one process has no `kill -9` and no SIGSTOP for one of them. So it runs the code that
//! starts a node [within] a [`Process`] of its own. The node's tasks, and whatever is started in them, then belong
//! to that process: they run only while it lets them, and it can end them. The code that starts the node needs not know.
//!
//! `clustering-testkit` has the process for tests of services (`TestCluster`).

use std::{
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

/// What a node runs in. See the [module's page](self).
pub trait Process: Send + Sync {
    /// A node is about to start in it. What is returned is started: the same builder, or one that was changed.
    fn starting(&self, builder: Builder) -> Builder {
        builder
    }

    /// A node has started in it.
    fn started(&self, _node: &Clustering) {}

    /// Whether its tasks may run now. If not, the task is woken once they may.
    fn poll_running(&self, context: &mut Context<'_>) -> Poll<()>;

    /// A task was spawned in it. What ends the process aborts it.
    fn spawned(&self, task: AbortHandle);
}

/// The process that this code runs in, if it runs in one.
pub fn current() -> Option<Arc<dyn Process>> {
    PROCESS.try_with(Arc::clone).ok()
}

/// Runs a future in that process: polled only while its tasks may run, and with the process as the
/// [current] one.
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

/// Spawns a task that belongs to that process.
///
/// # Panics
///
/// Outside of a tokio runtime.
pub fn spawn<F>(process: Arc<dyn Process>, future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    spawn_on(&Handle::current(), process, future)
}

pub(super) fn spawn_on<F>(runtime: &Handle, process: Arc<dyn Process>, future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let task = runtime.spawn(within(process.clone(), future));
    process.spawned(task.abort_handle());
    task
}
