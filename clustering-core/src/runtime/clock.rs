use std::time::Duration;

use tokio::time::Instant;

use crate::time::Timestamp;

/// A suspend shorter than this is not one: it is the noise of reading two clocks one after the other.
const NOISE: Duration = Duration::from_millis(100);

/// The node's clock: tokio's, plus the time that the machine spent suspended.
///
/// [`std::time::Instant`] stands still on Linux while the machine sleeps, and a lease in the store does not. So what
/// `CLOCK_BOOTTIME` counts beyond `CLOCK_MONOTONIC` is added (P6). Under tokio's paused time it is the paused time, and
/// tests stay deterministic. On systems without these clocks nothing is added.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    origin: Instant,
    at_start: Duration,
    suspends: Suspends,
}

/// Source of the time for which the machine has been suspended.
#[derive(Clone, Debug, Default)]
pub(crate) enum Suspends {
    /// The operating system.
    #[default]
    System,
    /// A test.
    #[cfg(feature = "test-util")]
    Simulated(SimulatedSuspends),
}

/// Simulated system suspends for tests: time jumps for the nodes whose builders were given this value.
#[cfg(feature = "test-util")]
#[derive(Clone, Debug, Default)]
pub struct SimulatedSuspends(std::sync::Arc<tokio::sync::watch::Sender<Duration>>);

#[cfg(feature = "test-util")]
impl SimulatedSuspends {
    /// Returns a machine that has never been suspended.
    pub fn new() -> Self {
        Self::default()
    }

    /// Suspends the machine for that long and resumes it: the clock jumps, tokio's timers do not, and timers that count
    /// suspends fire.
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

    /// For how long the machine has been suspended since the clock was started.
    fn slept(&self) -> Duration {
        slept(self.at_start, self.suspends.so_far())
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::ZERO + self.origin.elapsed() + self.slept()
    }

    /// When tokio's timer has to fire for something that is due at that time.
    pub(crate) fn instant(&self, time: Timestamp) -> Instant {
        let after = time.since(Timestamp::ZERO).saturating_sub(self.slept());
        // Tokio's timers end within some thirty years. The limit counts from now, since a process may run for longer.
        self.origin + after.min(self.origin.elapsed() + Duration::from_secs(60 * 60 * 24 * 365))
    }
}

fn slept(at_start: Duration, now: Duration) -> Duration {
    let slept = now.saturating_sub(at_start);
    if slept < NOISE { Duration::ZERO } else { slept }
}

/// For how long the machine has been suspended since it booted.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn suspended() -> Duration {
    suspended_by(rustix::time::clock_gettime)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn suspended_by(read: impl Fn(rustix::time::ClockId) -> rustix::time::Timespec) -> Duration {
    use rustix::time::ClockId;

    let since_boot = |id| Duration::try_from(read(id)).unwrap_or_default();
    // In this order the difference is too small by the time between the two, never too large.
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
    async fn it_is_the_paused_time_in_tests() {
        let clock = Clock::start();
        assert_eq!(clock.now(), Timestamp::ZERO);
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(clock.now(), Timestamp::ZERO + Duration::from_secs(7));
        assert_eq!(clock.instant(clock.now()), Instant::now());
    }

    #[tokio::test(start_paused = true)]
    async fn timers_lie_ahead_in_a_process_that_has_run_for_years() {
        let clock = Clock::start();
        for _ in 0..3 {
            tokio::time::advance(Duration::from_secs(60 * 60 * 24 * 300)).await;
            let soon = clock.now() + Duration::from_secs(5);
            assert_eq!(clock.instant(soon), Instant::now() + Duration::from_secs(5));
        }
    }

    #[test]
    fn a_suspend_counts_and_the_noise_of_two_readings_does_not() {
        let boot = Duration::from_secs(500);
        let slept = |now: Duration| super::slept(boot, now);
        assert_eq!(slept(boot + Duration::from_secs(3600)), Duration::from_secs(3600));
        assert_eq!(slept(boot + Duration::from_millis(99)), Duration::ZERO);
        assert_eq!(slept(boot - Duration::from_millis(1)), Duration::ZERO);
    }

    /// `CLOCK_BOOTTIME` cannot be stepped, so the two clocks are read from the test.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[test]
    fn p6_a_suspend_is_what_the_clock_since_boot_counts_beyond_the_monotonic_one() {
        use rustix::time::{ClockId, Timespec};

        let suspended = suspended_by(|id| {
            let tv_sec = match id {
                ClockId::Boottime => 5_000,
                ClockId::Monotonic => 1_400,
                other => panic!("{other:?} is neither"),
            };
            Timespec { tv_sec, tv_nsec: 0 }
        });
        assert_eq!(suspended, Duration::from_secs(3_600));
    }

    #[test]
    fn what_this_machine_slept_does_not_change_while_it_is_awake() {
        let first = suspended();
        for _ in 0..1000 {
            assert_eq!(super::slept(first, suspended()), Duration::ZERO);
        }
    }
}
