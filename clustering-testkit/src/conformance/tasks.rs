use std::panic::resume_unwind;

use tokio::task::{JoinError, JoinSet};

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
