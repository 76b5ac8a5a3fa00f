use std::{panic::resume_unwind, sync::Arc};

use tokio::{
    sync::Semaphore,
    task::{JoinError, JoinSet, yield_now},
};

/// Waits for all tasks and returns their results. Re-raises a violation found by a task.
pub(super) async fn finish<T: 'static>(mut tasks: JoinSet<T>) -> Vec<T> {
    let mut all = Vec::new();
    while let Some(one) = tasks.join_next().await {
        all.push(outcome(one));
    }
    all
}

/// Returns the result of a task. Re-raises a violation that the task found.
pub(super) fn outcome<T>(task: Result<T, JoinError>) -> T {
    match task {
        Ok(given) => given,
        Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
        Err(error) => panic!("a task of the suite was cancelled: {error}"),
    }
}

/// Yields to other tasks a number of times that varies with `turn`. If every task yielded equally often, all tasks
/// would advance in lockstep on a single-threaded runtime, and most interleavings would never occur.
pub(super) async fn stagger(turn: usize) {
    for _ in 0..(turn.wrapping_mul(0x9e37_79b9) >> 7) % 4 {
        yield_now().await;
    }
}

/// Starting signal for several tasks, which then run in the order in which they began to wait. Tokio's `Barrier`
/// releases its tasks in random order, so runs would not be reproducible.
#[derive(Clone)]
pub(super) struct Start(Arc<Semaphore>);

impl Start {
    pub(super) fn new() -> Self {
        Start(Arc::new(Semaphore::new(0)))
    }

    pub(super) async fn wait(&self) {
        // No permit is ever released: this waits until the semaphore is closed.
        let _ = self.0.acquire().await;
    }

    pub(super) fn go(&self) {
        self.0.close();
    }
}
