use std::{
    future::Future,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use thiserror::Error;
use tokio::time::{Instant, timeout_at};

/// Guard against a connection that died silently: it is still open, but nothing arrives on it any more, for example
/// because a firewall has dropped its state.
///
/// Callers give up their calls early: a node does so after a sixth of its TTL. A time limit that starts with each
/// call is then never reached, and all calls on the dead connection fail. This guard therefore measures from the
/// first call that was not answered, over all calls since, whether their callers still wait or have dropped them.
///
/// Keep one guard for each connection. Use a new connection once [`is_silent`](Self::is_silent) is true, and run each
/// call within [`answered`](Self::answered). If a connection only receives notifications, make a call on it from time
/// to time: otherwise a dead connection looks like a quiet one.
///
/// ```
/// # use std::{future::{pending, ready}, time::Duration};
/// use clustering_core::store::Liveness;
/// # use tokio::time::timeout;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let guard = Liveness::new(Duration::from_secs(2));
/// assert_eq!(guard.answered(ready("a reply")).await, Ok("a reply"));
/// // From now on nothing is answered, and each caller gives up after half a second.
/// for _ in 0..4 {
///     assert!(!guard.is_silent());
///     let _ = timeout(Duration::from_millis(500), guard.answered(pending::<&str>())).await;
/// }
/// assert!(guard.is_silent(), "the connection has to be replaced");
/// # }
/// ```
#[derive(Debug)]
pub struct Liveness {
    limit: Duration,
    /// Time of the first call since the last answer that was not answered itself.
    unanswered: Mutex<Option<Instant>>,
}

/// Error: nothing has arrived on the connection for too long. The call was sent, and whether the store received it is
/// not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the connection has not answered for {0:?}")]
pub struct Silent(pub Duration);

impl Liveness {
    /// Creates the guard of a new connection, which counts as dead once it has not answered for `limit`.
    ///
    /// The limit should be a few times what a slow call takes, and well below the TTLs that nodes use: a node has to
    /// renew its lease on the next connection.
    pub fn new(limit: Duration) -> Self {
        Liveness { limit, unanswered: Mutex::new(None) }
    }

    /// True if the connection counts as dead, so that no call should be sent on it.
    pub fn is_silent(&self) -> bool {
        self.with(|unanswered| unanswered.is_some_and(|since| since.elapsed() >= self.limit))
    }

    /// Runs a call on the connection. If the future is dropped before the call is answered, the silence continues to
    /// count.
    ///
    /// # Errors
    ///
    /// [`Silent`] as soon as the connection counts as dead.
    pub async fn answered<T>(&self, call: impl Future<Output = T>) -> Result<T, Silent> {
        let mut call = std::pin::pin!(call);
        loop {
            let since = self.with(|unanswered| *unanswered.get_or_insert_with(Instant::now));
            match timeout_at(since + self.limit, &mut call).await {
                Ok(answer) => {
                    self.heard();
                    return Ok(answer);
                }
                Err(_) if self.is_silent() => return Err(Silent(self.limit)),
                // Another call was answered in the meantime.
                Err(_) => {}
            }
        }
    }

    /// Records that something arrived on the connection: the answer to any call, or a notification.
    pub fn heard(&self) {
        self.with(|unanswered| *unanswered = None);
    }

    fn with<R>(&self, work: impl FnOnce(&mut Option<Instant>) -> R) -> R {
        work(&mut self.unanswered.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::time::{sleep, timeout};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(2);
    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn silence_is_measured_across_calls_that_were_given_up() {
        let guard = Liveness::new(LIMIT);
        for _ in 0..3 {
            assert!(!guard.is_silent());
            let given_up = timeout(LIMIT / 3 + Duration::from_millis(1), guard.answered(pending::<()>()));
            given_up.await.map(|answer| answer.unwrap_err()).ok();
        }
        assert!(guard.is_silent());
        assert_eq!(guard.answered(pending::<()>()).await, Err(Silent(LIMIT)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_fails_as_soon_as_the_connection_counts_as_dead() {
        let guard = Liveness::new(LIMIT);
        let began = Instant::now();
        let _ = timeout(SECOND, guard.answered(pending::<()>())).await;
        assert_eq!(guard.answered(pending::<()>()).await, Err(Silent(LIMIT)));
        assert_eq!(began.elapsed(), LIMIT, "the time of the first call counts");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_ends_the_silence_for_all_calls() {
        let guard = Liveness::new(LIMIT);
        let slow = guard.answered(sleep(3 * LIMIT / 2));
        let others = async {
            for _ in 0..3 {
                sleep(SECOND).await;
                guard.answered(ready(())).await.unwrap();
            }
        };
        assert_eq!(tokio::join!(slow, others).0, Ok(()), "a slow call on a connection that answers others");
        assert!(!guard.is_silent());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_calls_is_not_silent() {
        let guard = Liveness::new(LIMIT);
        guard.answered(ready(())).await.unwrap();
        sleep(2 * LIMIT).await;
        assert!(!guard.is_silent());
        let _ = timeout(SECOND, guard.answered(pending::<()>())).await;
        guard.heard();
        sleep(2 * LIMIT).await;
        assert!(!guard.is_silent(), "a notification is a sign of life, too");
    }
}
