//! Limits the attempts to connect to a member that cannot be reached.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::{
    backoff::Backoff,
    failure::{Failure, FailureKind},
};

/// First and longest pause between two attempts to connect.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(1);

/// Circuit breaker of a member. While connections can be made it admits every call. After a failed attempt it admits
/// one call at a time, with growing pauses, however many calls wait. When one of them reaches the member, all are
/// admitted again.
#[derive(Default)]
pub(crate) struct CircuitBreaker {
    tripped: Mutex<Option<Tripped>>,
    recovered: Notify,
}

/// State while no connection can be made.
struct Tripped {
    /// Time from which the next attempt is admitted.
    next: Instant,
    backoff: Backoff,
    /// Failure of the last attempt.
    failure: (FailureKind, String),
}

impl CircuitBreaker {
    /// True if a call would be admitted without waiting.
    pub(crate) fn admits_now(&self) -> bool {
        self.tripped().as_ref().is_none_or(|tripped| tripped.next <= Instant::now())
    }

    /// True while no connection to the member can be made.
    pub(crate) fn is_tripped(&self) -> bool {
        self.tripped().is_some()
    }

    /// Waits until the call is admitted.
    ///
    /// # Errors
    ///
    /// The failure of the last attempt, at once, if the call cannot be admitted before `latest`.
    pub(crate) async fn admit(&self, latest: Instant) -> Result<(), Failure> {
        loop {
            let now = Instant::now();
            // Created before the state is read, so that no notification is missed.
            let recovered = self.recovered.notified();
            let next = match &mut *self.tripped() {
                None => return Ok(()),
                Some(Tripped { next, failure: (kind, message), .. }) if now.max(*next) > latest => {
                    return Err(Failure::new(*kind, message.clone()));
                }
                Some(tripped) if tripped.next <= now => {
                    tripped.next = now + tripped.backoff.pause();
                    return Ok(());
                }
                Some(tripped) => tripped.next,
            };
            tokio::select! {
                () = recovered => {}
                () = sleep_until(next) => {}
            }
        }
    }

    /// Records that no connection could be made.
    pub(crate) fn trip(&self, failure: &Failure) {
        let failure = (failure.kind, failure.message.clone());
        match &mut *self.tripped() {
            Some(tripped) => tripped.failure = failure,
            untripped => {
                let mut backoff = Backoff::new(FIRST, LONGEST);
                *untripped = Some(Tripped { next: Instant::now() + backoff.pause(), backoff, failure });
            }
        }
    }

    /// Records that the member was reached, and admits all waiting calls.
    pub(crate) fn reset(&self) {
        if self.tripped().take().is_some() {
            self.recovered.notify_waiters();
        }
    }

    fn tripped(&self) -> MutexGuard<'_, Option<Tripped>> {
        self.tripped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{task::JoinSet, time::timeout};

    use super::*;

    fn failure() -> Failure {
        Failure::new(FailureKind::NotSent, "refused")
    }

    /// Returns the number of admitted attempts within that time, if every attempt fails.
    async fn attempts(callers: usize, within: Duration) -> usize {
        let breaker = Arc::new(CircuitBreaker::default());
        breaker.trip(&failure());
        let mut all = JoinSet::new();
        for _ in 0..callers {
            let breaker = breaker.clone();
            all.spawn(async move {
                let (mut attempts, began) = (0, Instant::now());
                while began.elapsed() < within {
                    if breaker.admit(began + within).await.is_err() {
                        break;
                    }
                    attempts += 1;
                    // Virtual time does not pass in a loop that never waits.
                    assert!(attempts < 1_000, "the circuit breaker admits every call");
                    breaker.trip(&failure());
                }
                attempts
            });
        }
        all.join_all().await.into_iter().sum()
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_attempts_does_not_depend_on_the_number_of_callers() {
        for callers in [1, 100] {
            let attempts = attempts(callers, Duration::from_secs(60)).await;
            assert!((60..=125).contains(&attempts), "{attempts} attempts of {callers} callers in a minute");
        }
        let soon = attempts(1, Duration::from_millis(400)).await;
        assert!((2..=4).contains(&soon), "{soon} attempts within 400 ms");
    }

    #[tokio::test(start_paused = true)]
    async fn all_waiting_calls_are_admitted_when_one_reaches_the_member() {
        let breaker = Arc::new(CircuitBreaker::default());
        breaker.admit(Instant::now()).await.unwrap();
        breaker.trip(&failure());
        assert!(!breaker.admits_now());
        let mut waiting = JoinSet::new();
        for _ in 0..100 {
            let breaker = breaker.clone();
            waiting.spawn(async move { breaker.admit(Instant::now() + Duration::from_secs(1)).await });
        }
        // The first call is admitted, and its result is still unknown.
        waiting.join_next().await.unwrap().unwrap().unwrap();
        assert!(
            timeout(Duration::from_millis(10), waiting.join_next()).await.is_err(),
            "the others must wait"
        );
        let reset = Instant::now();
        breaker.reset();
        assert!(waiting.join_all().await.iter().all(Result::is_ok));
        assert_eq!(reset.elapsed(), Duration::ZERO);
        assert!(breaker.admits_now());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_cannot_wait_for_the_next_attempt_fails_at_once_with_the_last_failure() {
        let breaker = CircuitBreaker::default();
        breaker.trip(&failure());
        let began = Instant::now();
        let refused = breaker.admit(began + Duration::from_millis(40)).await.unwrap_err();
        assert_eq!((refused.kind, &*refused.message), (FailureKind::NotSent, "refused"));
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
