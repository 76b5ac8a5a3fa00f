use std::time::Duration;

use clustering_core::time::Timestamp;

use clustering_testkit::history::Moment;

/// Clock of one process, which starts at an arbitrary time and runs at its own rate.
#[derive(Clone, Debug)]
pub(super) struct DriftingClock {
    since: Moment,
    shows: Timestamp,
    /// Microseconds that the clock advances per second.
    rate: u64,
}

const MILLION: u128 = 1_000_000;

impl DriftingClock {
    /// Creates a clock that shows `shows` at `since` and runs at the true rate.
    pub(super) fn new(since: Moment, shows: Timestamp) -> Self {
        DriftingClock { since, shows, rate: 1_000_000 }
    }

    /// Returns the time that the clock shows at `moment`.
    pub(super) fn at(&self, moment: Moment) -> Timestamp {
        let passed = moment.since(self.since).as_nanos() * u128::from(self.rate) / MILLION;
        self.shows + Duration::from_nanos(passed as u64)
    }

    /// Returns the first moment at which the clock shows `time`.
    pub(super) fn when(&self, time: Timestamp) -> Moment {
        self.since + self.true_time(time.since(self.shows))
    }

    /// Returns the true duration after which the clock has advanced by `shown`.
    pub(super) fn true_time(&self, shown: Duration) -> Duration {
        let rate = u128::from(self.rate);
        let nanos = (shown.as_nanos() * MILLION).div_ceil(rate);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Changes the rate from `now` on.
    pub(super) fn set_rate(&mut self, now: Moment, rate: u64) {
        (self.shows, self.since, self.rate) = (self.at(now), now, rate);
    }

    /// Resumes a stopped clock at the time that it showed when it stopped.
    pub(super) fn stood_still(&mut self, now: Moment, shows: Timestamp) {
        (self.shows, self.since) = (shows, now);
    }

    /// True if the clock runs at the true rate.
    pub(super) fn is_true(&self) -> bool {
        self.rate == 1_000_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    fn shown(millis: u64) -> Timestamp {
        Timestamp::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_clock_runs_at_its_rate_and_does_not_jump_when_the_rate_changes() {
        let mut clock = DriftingClock::new(moment(1000), shown(50));
        assert_eq!(clock.at(moment(3000)), shown(2050));
        clock.set_rate(moment(3000), 1_250_000);
        assert_eq!(clock.at(moment(3000)), shown(2050));
        assert_eq!(clock.at(moment(7000)), shown(7050));
        assert_eq!(clock.true_time(Duration::from_secs(5)), Duration::from_secs(4));
    }

    #[test]
    fn when_returns_the_first_moment_that_shows_a_time() {
        for rate in [700_001, 1_000_000, 1_333_333] {
            let mut clock = DriftingClock::new(moment(1000), shown(50));
            clock.set_rate(moment(1000), rate);
            for wanted in [50, 51, 1234, 99_999] {
                let when = clock.when(shown(wanted));
                assert!(clock.at(when) >= shown(wanted), "{rate} {wanted}");
                let before = Moment::from_nanos(when.as_nanos() - 1);
                assert!(wanted == 50 || clock.at(before) < shown(wanted), "{rate} {wanted}");
            }
        }
    }
}
