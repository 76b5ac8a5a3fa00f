use std::{panic::resume_unwind, sync::Arc};

use tokio::{
    sync::Semaphore,
    task::{JoinError, JoinSet, yield_now},
};

/// What the tasks gave, once all have finished. A violation that one of them found is raised here.
pub(super) async fn finish<T: 'static>(mut tasks: JoinSet<T>) -> Vec<T> {
    let mut all = Vec::new();
    while let Some(one) = tasks.join_next().await {
        all.push(outcome(one));
    }
    all
}

/// What a task gave. A violation that it found is raised here.
pub(super) fn outcome<T>(task: Result<T, JoinError>) -> T {
    match task {
        Ok(given) => given,
        Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
        Err(error) => panic!("a task of the suite was cancelled: {error}"),
    }
}

/// Lets other tasks run, for a number of turns that varies with `turn`. With the same number everywhere tasks march in
/// step on a runtime of one thread, and what would happen between two steps of one never meets those of another.
pub(super) async fn stagger(turn: usize) {
    for _ in 0..(turn.wrapping_mul(0x9e37_79b9) >> 7) % 4 {
        yield_now().await;
    }
}

/// A moment that several tasks wait for, to begin in the order in which they came. Tokio's `Barrier` lets them go in an
/// order that it draws, and no run would be like the other.
#[derive(Clone)]
pub(super) struct Start(Arc<Semaphore>);

impl Start {
    pub(super) fn new() -> Self {
        Start(Arc::new(Semaphore::new(0)))
    }

    pub(super) async fn wait(&self) {
        // There never is a permit: it waits for the end of the semaphore.
        let _ = self.0.acquire().await;
    }

    pub(super) fn go(&self) {
        self.0.close();
    }
}
