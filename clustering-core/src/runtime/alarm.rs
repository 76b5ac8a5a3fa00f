use tokio::time::{Instant, sleep_until};

#[cfg(any(target_os = "linux", target_os = "android"))]
use super::boottime::BoottimeTimer;
use super::clock::{Clock, Suspends};
use crate::time::Timestamp;

/// Wakes a driver at its deadlines, even if the machine was suspended in between.
///
/// Tokio's timers stop during a suspend and then run for the remaining time. Therefore a timer that counts suspends
/// runs beside them. On systems without such a timer, the driver wakes late by the length of the suspend.
#[derive(Debug)]
pub(crate) struct Alarm {
    clock: Clock,
    resume: Resume,
}

/// Source of the wake-up after a suspend.
#[derive(Debug)]
enum Resume {
    Unnoticed,
    /// The system's timer, which starts with the first wait. Its thread takes longer to start than a call takes to be
    /// sent, so it must not delay the node's first calls.
    NotStarted,
    #[cfg(any(target_os = "linux", target_os = "android"))]
    Timer(BoottimeTimer),
    #[cfg(feature = "test-util")]
    Simulated(tokio::sync::watch::Receiver<std::time::Duration>),
}

impl Alarm {
    /// Creates an alarm with tokio's timer alone, which does not count suspends.
    pub(crate) fn plain(clock: Clock) -> Self {
        Alarm { clock, resume: Resume::Unnoticed }
    }

    /// Creates an alarm that also has a timer that counts suspends, if the system has one.
    pub(crate) fn new(clock: Clock) -> Self {
        let resume = match clock.suspends() {
            // Real timers must not wake a test under paused time, or the test would not be deterministic.
            Suspends::System if is_paused() => Resume::Unnoticed,
            Suspends::System => Resume::NotStarted,
            #[cfg(feature = "test-util")]
            Suspends::Simulated(simulated) => Resume::Simulated(simulated.resumed()),
        };
        Alarm { clock, resume }
    }

    /// Waits until `time`, or forever if it is `None`. Cancel safe.
    pub(crate) async fn wait_until(&mut self, time: Option<Timestamp>) {
        let Some(time) = time else { return std::future::pending().await };
        loop {
            let resumed = self.resume.resumed(&self.clock, time);
            tokio::select! {
                biased;
                () = sleep_until(self.clock.instant(time)) => return,
                () = resumed => {}
            }
            if self.clock.now() >= time {
                return;
            }
        }
    }
}

impl Resume {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn system() -> Self {
        match BoottimeTimer::start() {
            Ok(timer) => Resume::Timer(timer),
            Err(error) => {
                tracing::debug!(target: "clustering", %error, "cannot create a timer that counts suspends; after a suspend, this node wakes late");
                Resume::Unnoticed
            }
        }
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn system() -> Self {
        Resume::Unnoticed
    }

    /// Waits until the machine may have been resumed after `time`.
    async fn resumed(&mut self, _clock: &Clock, _time: Timestamp) {
        if matches!(self, Resume::NotStarted) {
            *self = Resume::system();
        }
        match self {
            Resume::Unnoticed | Resume::NotStarted => std::future::pending().await,
            #[cfg(any(target_os = "linux", target_os = "android"))]
            Resume::Timer(timer) => timer.wait_until(_clock, _time).await,
            #[cfg(feature = "test-util")]
            Resume::Simulated(resumed) => {
                if resumed.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

/// True if tokio's time is paused, as in some tests.
fn is_paused() -> bool {
    let (tokio, started) = (Instant::now(), std::time::Instant::now());
    while std::time::Instant::now() == started {}
    Instant::now() == tokio
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_system_timer_is_used_under_paused_time() {
        assert!(is_paused());
        assert!(matches!(Alarm::new(Clock::start()).resume, Resume::Unnoticed));
    }

    #[tokio::test]
    async fn real_time_is_not_mistaken_for_paused_time() {
        for _ in 0..1_000 {
            assert!(!is_paused());
        }
    }
}
