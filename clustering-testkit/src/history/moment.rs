use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

/// Time on the clock shared by all who write a history, in nanoseconds since the clock's origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(u64);

impl Moment {
    /// Creates a time from the nanoseconds since the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Moment(nanos)
    }

    /// Creates a time from the duration since the origin.
    pub fn after_origin(since: Duration) -> Self {
        Moment(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Returns the nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Returns the duration since `earlier`, or zero if `earlier` is later than this time.
    pub const fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Moment;
    fn add(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:.6}", Duration::from_nanos(self.0).as_secs_f64()))
    }
}

/// Clock of a history.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Moment + Send + Sync>);

impl Clock {
    /// Returns a clock of the time since the machine booted, including suspends. It is the same for all processes of
    /// one machine, and continues while processes are stopped.
    pub fn boot() -> Self {
        Clock(Arc::new(|| Moment::after_origin(since_boot())))
    }

    /// Returns a clock of tokio's time since this call, which is virtual if tokio's clock is paused. Clones share the
    /// origin.
    pub fn tokio() -> Self {
        let origin = tokio::time::Instant::now();
        Clock(Arc::new(move || Moment::after_origin(origin.elapsed())))
    }

    /// Returns a clock that calls `now`, such as a simulator's clock.
    pub fn of(now: impl Fn() -> Moment + Send + Sync + 'static) -> Self {
        Clock(Arc::new(now))
    }

    /// Returns the current time.
    pub fn now(&self) -> Moment {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn since_boot() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

/// Other systems have no clock that all processes share and that is never set. The wall clock comes closest.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn since_boot() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}
