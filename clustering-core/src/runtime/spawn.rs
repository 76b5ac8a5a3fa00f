use std::future::Future;

use tokio::{runtime::Handle, task::JoinHandle};

/// Spawns a task of a node. In tests, the task belongs to the simulated [process](super::process) that spawns it.
pub(super) fn spawn_task<F>(runtime: &Handle, future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    #[cfg(feature = "test-util")]
    if let Some(process) = super::process::current() {
        return super::process::spawn_on(runtime, process, future);
    }
    runtime.spawn(future)
}
