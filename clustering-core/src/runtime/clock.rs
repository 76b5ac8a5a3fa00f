use std::time::Duration;

use tokio::time::Instant;

use crate::time::Timestamp;

/// Differences up to this are noise from reading two clocks one after the other, and not suspends.
const NOISE: Duration = Duration::from_millis(100);

/// The node's clock: tokio's clock plus the time for which the machine was suspended.
///
/// On Linux, [`std::time::Instant`] stops during a suspend, while the lease in the store keeps running out. Therefore
/// the difference between `CLOCK_BOOTTIME` and `CLOCK_MONOTONIC` is added (P6). Under tokio's paused time the clock
/// follows the paused time, so tests are deterministic. On systems without these clocks nothing is added.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    origin: Instant,
    at_start: Duration,
    suspends: Suspends,
}

/// Source of the time for which the machine has been suspended.
#[derive(Clone, Debug, Default)]
pub(crate) enum Suspends {
    /// The operating system's clocks.
    #[default]
    System,
    /// A value set by a test.
    #[cfg(feature = "test-util")]
    Simulated(SimulatedSuspends),
}

/// Simulated suspends of the machine, for tests. They affect the nodes whose builders were given this value.
#[cfg(feature = "test-util")]
#[derive(Clone, Debug, Default)]
pub struct SimulatedSuspends(std::sync::Arc<tokio::sync::watch::Sender<Duration>>);

#[cfg(feature = "test-util")]
impl SimulatedSuspends {
    /// Returns a machine that has never been suspended.
    pub fn new() -> Self {
        Self::default()
    }

    /// Simulates a suspend of this duration: the clock jumps, tokio's timers do not, and timers that count suspends
    /// fire.
    pub fn suspend(&self, time: Duration) {
        self.0.send_modify(|suspended| *suspended += time);
    }

    pub(super) fn resumed(&self) -> tokio::sync::watch::Receiver<Duration> {
        self.0.subscribe()
    }
}

impl Suspends {
    fn so_far(&self) -> Duration {
        match self {
            Suspends::System => suspended(),
            #[cfg(feature = "test-util")]
            Suspends::Simulated(simulated) => *simulated.0.borrow(),
        }
    }
}

impl Clock {
    pub(crate) fn start() -> Self {
        Clock::with(Suspends::System)
    }

    pub(crate) fn with(suspends: Suspends) -> Self {
        Clock { origin: Instant::now(), at_start: suspends.so_far(), suspends }
    }

    pub(super) fn suspends(&self) -> &Suspends {
        &self.suspends
    }

    /// Returns the time for which the machine has been suspended since the clock was started.
    fn slept(&self) -> Duration {
        slept(self.at_start, self.suspends.so_far())
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::ZERO + self.origin.elapsed() + self.slept()
    }

    /// Converts a timestamp to the instant at which tokio's timer has to fire for it.
    pub(crate) fn instant(&self, time: Timestamp) -> Instant {
        let after = time.since(Timestamp::ZERO).saturating_sub(self.slept());
        // Tokio's timers cannot be set decades ahead, so the delay is limited to a year from now.
        self.origin + after.min(self.origin.elapsed() + Duration::from_secs(60 * 60 * 24 * 365))
    }
}

fn slept(at_start: Duration, now: Duration) -> Duration {
    let slept = now.saturating_sub(at_start);
    if slept < NOISE { Duration::ZERO } else { slept }
}

/// Returns the time for which the machine has been suspended since it booted.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn suspended() -> Duration {
    suspended_by(rustix::time::clock_gettime)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn suspended_by(read: impl Fn(rustix::time::ClockId) -> rustix::time::Timespec) -> Duration {
    use rustix::time::ClockId;

    let since_boot = |id| Duration::try_from(read(id)).unwrap_or_default();
    // Reading the clocks in this order makes the difference slightly too small, never too large.
    let boot = since_boot(ClockId::Boottime);
    boot.saturating_sub(since_boot(ClockId::Monotonic))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn suspended() -> Duration {
    Duration::ZERO
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_clock_follows_paused_time() {
        let clock = Clock::start();
        assert_eq!(clock.now(), Timestamp::ZERO);
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(clock.now(), Timestamp::ZERO + Duration::from_secs(7));
        assert_eq!(clock.instant(clock.now()), Instant::now());
    }

    #[tokio::test(start_paused = true)]
    async fn deadlines_are_still_reached_in_a_process_that_has_run_for_years() {
        let clock = Clock::start();
        for _ in 0..3 {
            tokio::time::advance(Duration::from_secs(60 * 60 * 24 * 300)).await;
            let soon = clock.now() + Duration::from_secs(5);
            assert_eq!(clock.instant(soon), Instant::now() + Duration::from_secs(5));
        }
    }

    #[test]
    fn a_suspend_counts_and_noise_between_two_readings_does_not() {
        let boot = Duration::from_secs(500);
        let slept = |now: Duration| super::slept(boot, now);
        assert_eq!(slept(boot + Duration::from_secs(3600)), Duration::from_secs(3600));
        assert_eq!(slept(boot + Duration::from_millis(99)), Duration::ZERO);
        assert_eq!(slept(boot - Duration::from_millis(1)), Duration::ZERO);
    }

    /// `CLOCK_BOOTTIME` cannot be set, so the test supplies the readings of both clocks.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[test]
    fn p6_suspended_time_is_the_difference_between_boottime_and_monotonic_clock() {
        use rustix::time::{ClockId, Timespec};

        let suspended = suspended_by(|id| {
            let tv_sec = match id {
                ClockId::Boottime => 5_000,
                ClockId::Monotonic => 1_400,
                other => panic!("unexpected clock {other:?}"),
            };
            Timespec { tv_sec, tv_nsec: 0 }
        });
        assert_eq!(suspended, Duration::from_secs(3_600));
    }

    #[test]
    fn no_suspend_is_detected_while_the_machine_is_awake() {
        let first = suspended();
        for _ in 0..1000 {
            assert_eq!(super::slept(first, suspended()), Duration::ZERO);
        }
    }
}
