use std::future::Future;

use tokio::{runtime::Handle, task::JoinHandle};

/// Spawns a task of a node. In tests it belongs to the [process](super::process) that it is spawned in, if there is one.
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
