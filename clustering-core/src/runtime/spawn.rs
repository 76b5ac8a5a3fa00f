use std::future::Future;

use tokio::{runtime::Handle, task::JoinHandle};
use tokio_util::task::AbortOnDropHandle;

/// Spawns a task of a node. In tests, the task belongs to the simulated [process](super::process) that spawns it.
pub(super) fn spawn_task<F>(runtime: &Handle, future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    #[cfg(feature = "test-util")]
    if let Some(process) = super::process::current() {
        let (task, process) = super::process::spawn_on(runtime, process, future);
        process.spawned(task.abort_handle());
        return task;
    }
    runtime.spawn(future)
}

/// Like [`spawn_task`], for a task that holds sockets and does nothing else. It ends when it is dropped.
pub(super) fn spawn_sockets<F>(runtime: &Handle, future: F) -> AbortOnDropHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    #[cfg(feature = "test-util")]
    if let Some(process) = super::process::current() {
        let (task, process) = super::process::spawn_on(runtime, process, future);
        process.spawned_sockets(task.abort_handle());
        return AbortOnDropHandle::new(task);
    }
    AbortOnDropHandle::new(runtime.spawn(future))
}
