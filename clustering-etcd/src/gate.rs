//! Who may try a member to which no connection can be made, and when.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::{
    failure::{Failure, Outcome},
    pace::Pace,
};

/// How long a member is left alone after a connection to it failed: at first, and in the end.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(1);

/// Stands before a member. Open as long as connections to it can be made. Otherwise it lets one call through now and then,
/// however many want to, and all when that one finds the member there.
#[derive(Default)]
pub(crate) struct Gate {
    closed: Mutex<Option<Closed>>,
    opened: Notify,
}

struct Closed {
    /// When the next one may try.
    next: Instant,
    pace: Pace,
    /// Why the last one failed.
    why: (Outcome, String),
}

impl Gate {
    /// Whether somebody who wants through need not wait.
    pub(crate) fn is_free(&self) -> bool {
        self.closed().as_ref().is_none_or(|closed| closed.next <= Instant::now())
    }

    /// True while no connection to the member can be made.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed().is_some()
    }

    /// Waits for one's turn, which comes by `latest` or not at all.
    ///
    /// # Errors
    ///
    /// Why the last one failed.
    pub(crate) async fn pass(&self, latest: Instant) -> Result<(), Failure> {
        loop {
            let now = Instant::now();
            // Hears from here on.
            let opened = self.opened.notified();
            let next = match &mut *self.closed() {
                None => return Ok(()),
                Some(Closed { next, why: (outcome, why), .. }) if now.max(*next) > latest => {
                    return Err(Failure::new(*outcome, why.clone()));
                }
                Some(closed) if closed.next <= now => {
                    closed.next = now + closed.pace.pause();
                    return Ok(());
                }
                Some(closed) => closed.next,
            };
            tokio::select! {
                () = opened => {}
                () = sleep_until(next) => {}
            }
        }
    }

    /// No connection could be made.
    pub(crate) fn close(&self, failure: &Failure) {
        let why = (failure.outcome, failure.message.clone());
        match &mut *self.closed() {
            Some(closed) => closed.why = why,
            open => {
                let mut pace = Pace::new(FIRST, LONGEST);
                *open = Some(Closed { next: Instant::now() + pace.pause(), pace, why });
            }
        }
    }

    /// The member is there.
    pub(crate) fn open(&self) {
        if self.closed().take().is_some() {
            self.opened.notify_waiters();
        }
    }

    fn closed(&self) -> MutexGuard<'_, Option<Closed>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{task::JoinSet, time::timeout};

    use super::*;

    fn failure() -> Failure {
        Failure::new(Outcome::NeverArrived, "refused")
    }

    /// How many get through a closed gate in that time, all of whom fail.
    async fn tried(callers: usize, within: Duration) -> usize {
        let gate = Arc::new(Gate::default());
        gate.close(&failure());
        let mut all = JoinSet::new();
        for _ in 0..callers {
            let gate = gate.clone();
            all.spawn(async move {
                let (mut tries, began) = (0, Instant::now());
                while began.elapsed() < within {
                    if gate.pass(began + within).await.is_err() {
                        break;
                    }
                    tries += 1;
                    // Where nobody waits no time passes.
                    assert!(tries < 1_000, "it lets everybody through");
                    gate.close(&failure());
                }
                tries
            });
        }
        all.join_all().await.into_iter().sum()
    }

    #[tokio::test(start_paused = true)]
    async fn one_now_and_then_however_many_want_to() {
        for callers in [1, 100] {
            let tries = tried(callers, Duration::from_secs(60)).await;
            assert!((60..=125).contains(&tries), "{tries} tries of {callers} in a minute");
        }
        let soon = tried(1, Duration::from_millis(400)).await;
        assert!((2..=4).contains(&soon), "{soon} tries within 400 ms");
    }

    #[tokio::test(start_paused = true)]
    async fn all_go_through_when_one_finds_it_there() {
        let gate = Arc::new(Gate::default());
        gate.pass(Instant::now()).await.unwrap();
        gate.close(&failure());
        assert!(!gate.is_free());
        let mut waiting = JoinSet::new();
        for _ in 0..100 {
            let gate = gate.clone();
            waiting.spawn(async move { gate.pass(Instant::now() + Duration::from_secs(1)).await });
        }
        // The first of them does not come back.
        waiting.join_next().await.unwrap().unwrap().unwrap();
        assert!(timeout(Duration::from_millis(10), waiting.join_next()).await.is_err(), "the others wait");
        let opened = Instant::now();
        gate.open();
        assert!(waiting.join_all().await.iter().all(Result::is_ok));
        assert_eq!(opened.elapsed(), Duration::ZERO);
        assert!(gate.is_free());
    }

    #[tokio::test(start_paused = true)]
    async fn who_cannot_wait_for_his_turn_is_told_why() {
        let gate = Gate::default();
        gate.close(&failure());
        let began = Instant::now();
        let told = gate.pass(began + Duration::from_millis(40)).await.unwrap_err();
        assert_eq!((told.outcome, &*told.message), (Outcome::NeverArrived, "refused"));
        assert_eq!(began.elapsed(), Duration::ZERO, "at once");
    }
}
