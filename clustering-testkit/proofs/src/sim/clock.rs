use std::time::Duration;

use clustering_core::time::Timestamp;

use clustering_testkit::history::Moment;

/// The clock of one process: it begins somewhere, and runs at a rate of its own.
#[derive(Clone, Debug)]
pub(super) struct DriftingClock {
    since: Moment,
    shows: Timestamp,
    /// Millionths of a second that it counts in a second.
    rate: u64,
}

const MILLION: u128 = 1_000_000;

impl DriftingClock {
    /// One that shows that time now and runs true.
    pub(super) fn new(since: Moment, shows: Timestamp) -> Self {
        DriftingClock { since, shows, rate: 1_000_000 }
    }

    /// What it shows at that moment.
    pub(super) fn at(&self, moment: Moment) -> Timestamp {
        let passed = moment.since(self.since).as_nanos() * u128::from(self.rate) / MILLION;
        self.shows + Duration::from_nanos(passed as u64)
    }

    /// The first moment at which it shows that time.
    pub(super) fn when(&self, time: Timestamp) -> Moment {
        self.since + self.true_time(time.since(self.shows))
    }

    /// How long it takes until that much has passed on it.
    pub(super) fn true_time(&self, shown: Duration) -> Duration {
        let rate = u128::from(self.rate);
        let nanos = (shown.as_nanos() * MILLION).div_ceil(rate);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// From now on it runs at that rate.
    pub(super) fn set_rate(&mut self, now: Moment, rate: u64) {
        (self.shows, self.since, self.rate) = (self.at(now), now, rate);
    }

    /// Resumes the clock, which was stopped until now, at the time that it showed when it stopped.
    pub(super) fn stood_still(&mut self, now: Moment, shows: Timestamp) {
        (self.shows, self.since) = (shows, now);
    }

    /// Whether it has always run true.
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
    fn it_runs_at_its_rate_and_never_jumps() {
        let mut clock = DriftingClock::new(moment(1000), shown(50));
        assert_eq!(clock.at(moment(3000)), shown(2050));
        clock.set_rate(moment(3000), 1_250_000);
        assert_eq!(clock.at(moment(3000)), shown(2050));
        assert_eq!(clock.at(moment(7000)), shown(7050));
        assert_eq!(clock.true_time(Duration::from_secs(5)), Duration::from_secs(4));
    }

    #[test]
    fn it_shows_a_time_when_it_says_so_and_not_before() {
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
