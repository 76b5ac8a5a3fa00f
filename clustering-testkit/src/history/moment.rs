use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

/// A moment on a clock that all who write a history share, in nanoseconds since an origin of that clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(u64);

impl Moment {
    /// That many nanoseconds after the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Moment(nanos)
    }

    /// That long after the origin.
    pub fn after_origin(since: Duration) -> Self {
        Moment(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long `earlier` was past at this moment; zero if it was still to come.
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

/// What tells a history's time.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Moment + Send + Sync>);

impl Clock {
    /// The time since the machine booted, its suspends included: the same for all processes of one machine, and not
    /// stopped by anything that stops a process.
    pub fn boot() -> Self {
        Clock(Arc::new(|| Moment::after_origin(since_boot())))
    }

    /// Tokio's time since this call: the virtual one where that is paused. Clones share the origin.
    pub fn tokio() -> Self {
        let origin = tokio::time::Instant::now();
        Clock(Arc::new(move || Moment::after_origin(origin.elapsed())))
    }

    /// Any other, such as a simulator's.
    pub fn of(now: impl Fn() -> Moment + Send + Sync + 'static) -> Self {
        Clock(Arc::new(now))
    }

    /// The time now.
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

/// Elsewhere no clock is shared by processes and never set: the wall clock comes closest.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn since_boot() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}
