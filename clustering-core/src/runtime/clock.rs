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
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
    suspended: Duration,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Clock { origin: Instant::now(), suspended: suspended() }
    }

    /// For how long the machine has been suspended since the clock was started.
    fn slept(&self) -> Duration {
        slept(self.suspended, suspended())
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::ZERO + self.origin.elapsed() + self.slept()
    }

    /// When tokio's timer has to fire for something that is due at that time.
    pub(crate) fn instant(&self, time: Timestamp) -> Instant {
        let after = time.since(Timestamp::ZERO).saturating_sub(self.slept());
        // Tokio's timers end within some thirty years.
        self.origin + after.min(Duration::from_secs(60 * 60 * 24 * 365))
    }
}

fn slept(at_start: Duration, now: Duration) -> Duration {
    let slept = now.saturating_sub(at_start);
    if slept < NOISE { Duration::ZERO } else { slept }
}

/// For how long the machine has been suspended since it booted.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn suspended() -> Duration {
    use rustix::time::{ClockId, clock_gettime};

    let since_boot = |id| Duration::try_from(clock_gettime(id)).unwrap_or_default();
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

    #[test]
    fn a_suspend_counts_and_the_noise_of_two_readings_does_not() {
        let boot = Duration::from_secs(500);
        let slept = |now: Duration| super::slept(boot, now);
        assert_eq!(slept(boot + Duration::from_secs(3600)), Duration::from_secs(3600));
        assert_eq!(slept(boot + Duration::from_millis(99)), Duration::ZERO);
        assert_eq!(slept(boot - Duration::from_millis(1)), Duration::ZERO);
    }

    #[test]
    fn what_this_machine_slept_does_not_change_while_it_is_awake() {
        let first = suspended();
        for _ in 0..1000 {
            assert_eq!(super::slept(first, suspended()), Duration::ZERO);
        }
    }
}
