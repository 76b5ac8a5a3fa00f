use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use clustering_core::store::StoreError;
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::time::Instant;

use crate::random::spread;

/// Pause after the first failed attempt to connect. It doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

type Attempt<T> = Shared<BoxFuture<'static, Result<Arc<T>, StoreError>>>;

/// A connection that is opened on first use, and replaced once it is no longer usable.
///
/// All callers share one attempt, which continues if they give up: nodes with a short TTL wait for less time than a
/// connection may take.
pub(crate) struct Link<T> {
    connect: Box<dyn Fn() -> BoxFuture<'static, Result<T, StoreError>> + Send + Sync>,
    is_usable: fn(&T) -> bool,
    state: Arc<Mutex<State<T>>>,
}

struct State<T> {
    session: Option<Arc<T>>,
    attempt: Option<Attempt<T>>,
    failed: Option<Failed>,
}

/// The last attempt failed. Until the pause is over, calls fail at once with the same error.
struct Failed {
    error: StoreError,
    pause: Duration,
    until: Instant,
}

impl<T: Send + Sync + 'static> Link<T> {
    pub(crate) fn new<F>(is_usable: fn(&T) -> bool, connect: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let state = State { session: None, attempt: None, failed: None };
        Link { connect: Box::new(move || connect().boxed()), is_usable, state: Arc::new(Mutex::new(state)) }
    }

    /// Returns a usable connection.
    ///
    /// # Errors
    ///
    /// The reason why no connection could be made. Nothing was sent.
    pub(crate) async fn session(&self) -> Result<Arc<T>, StoreError> {
        let attempt = {
            let mut state = lock(&self.state);
            if let Some(session) = state.session.as_ref().filter(|session| (self.is_usable)(session)) {
                return Ok(session.clone());
            }
            state.session = None;
            // An attempt that is still registered has not stored its result: its runtime may have ended.
            match state.attempt.as_ref().filter(|attempt| attempt.peek().is_none()) {
                Some(attempt) => attempt.clone(),
                None => {
                    if let Some(failed) = state.failed.as_ref().filter(|failed| Instant::now() < failed.until)
                    {
                        return Err(failed.error.clone());
                    }
                    let attempt = self.attempt();
                    state.attempt = Some(attempt.clone());
                    attempt
                }
            }
        };
        attempt.await
    }

    /// Starts to connect in a task of its own.
    fn attempt(&self) -> Attempt<T> {
        let (connecting, state) = ((self.connect)(), Arc::downgrade(&self.state));
        let task = tokio::spawn(async move {
            let result = connecting.await.map(Arc::new);
            if let Some(state) = state.upgrade() {
                lock(&state).finish(&result);
            }
            result
        });
        let ended = |joined: Result<_, _>| {
            joined.unwrap_or_else(|_| {
                Err(StoreError::unreachable("the runtime that was opening the connection has ended"))
            })
        };
        task.map(ended).boxed().shared()
    }
}

impl<T> State<T> {
    fn finish(&mut self, result: &Result<Arc<T>, StoreError>) {
        self.attempt = None;
        match result {
            Ok(session) => {
                self.session = Some(session.clone());
                self.failed = None;
            }
            Err(error) => {
                let pause =
                    self.failed.as_ref().map_or(FIRST_PAUSE, |failed| failed.pause * 2).min(LONGEST_PAUSE);
                let until = Instant::now() + spread(pause);
                self.failed = Some(Failed { error: error.clone(), pause, until });
            }
        }
    }
}

fn lock<T>(state: &Mutex<State<T>>) -> std::sync::MutexGuard<'_, State<T>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use tokio::time::{advance, sleep, timeout};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Number of attempts, and whether they succeed.
    #[derive(Clone, Default)]
    struct Server(Arc<(AtomicUsize, AtomicBool)>);

    impl Server {
        fn attempts(&self) -> usize {
            self.0.0.load(Ordering::SeqCst)
        }

        /// Returns a link whose connections take a second, and are flags that tell if they are usable.
        fn link(&self) -> Link<AtomicBool> {
            let server = self.clone();
            Link::new(
                |session| session.load(Ordering::SeqCst),
                move || {
                    let server = server.clone();
                    async move {
                        server.0.0.fetch_add(1, Ordering::SeqCst);
                        sleep(SECOND).await;
                        match server.0.1.load(Ordering::SeqCst) {
                            true => Ok(AtomicBool::new(true)),
                            false => Err(StoreError::unreachable("down")),
                        }
                    }
                },
            )
        }

        fn is_up(&self, is_up: bool) {
            self.0.1.store(is_up, Ordering::SeqCst);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_callers_share_one_attempt_that_continues_if_they_give_up() {
        let server = Server::default();
        server.is_up(true);
        let link = server.link();
        for _ in 0..3 {
            assert!(timeout(SECOND / 5, link.session()).await.is_err());
        }
        let (one, other) = tokio::join!(link.session(), link.session());
        assert!(Arc::ptr_eq(&one.unwrap(), &other.unwrap()));
        assert_eq!(server.attempts(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_can_no_longer_be_used_is_replaced() {
        let server = Server::default();
        server.is_up(true);
        let link = server.link();
        let first = link.session().await.unwrap();
        assert!(Arc::ptr_eq(&first, &link.session().await.unwrap()));
        first.store(false, Ordering::SeqCst);
        assert!(!Arc::ptr_eq(&first, &link.session().await.unwrap()));
        assert_eq!(server.attempts(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_failure_calls_fail_at_once_until_the_pause_is_over() {
        let server = Server::default();
        let link = server.link();
        link.session().await.unwrap_err();
        assert_eq!(link.session().await.unwrap_err().to_string(), "the store cannot be reached: down");
        assert_eq!(server.attempts(), 1);
        server.is_up(true);
        advance(FIRST_PAUSE).await;
        link.session().await.unwrap();
        assert_eq!(server.attempts(), 2);
    }

    #[test]
    fn an_attempt_whose_runtime_ended_is_repeated_in_another() {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let server = Server::default();
        server.is_up(true);
        let link = server.link();
        assert!(runtime().block_on(async { timeout(SECOND / 10, link.session()).await.is_err() }));
        let next = runtime();
        // The first call learns that the attempt is over.
        let _ = next.block_on(link.session());
        next.block_on(link.session()).unwrap();
        assert_eq!(server.attempts(), 2);
    }
}
