//! Time as the state machine sees it: a [`Timestamp`] that is passed in with every input.

use std::{
    fmt,
    ops::{Add, Sub},
    time::Duration,
};

/// A point in time, in nanoseconds since an origin that differs from node to node. Timestamps of different nodes are
/// never compared.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The origin of the node's clock.
    pub const ZERO: Timestamp = Timestamp(0);
    /// The largest timestamp, used for deadlines that never come.
    pub const NEVER: Timestamp = Timestamp(u64::MAX);

    /// Creates the timestamp `nanos` nanoseconds after the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Timestamp(nanos)
    }

    /// Returns the nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Returns the time elapsed since `earlier`, or zero if `earlier` is in the future.
    pub const fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;
    fn add(self, duration: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Timestamp;
    fn sub(self, duration: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Timestamp::NEVER => f.write_str("never"),
            Timestamp(nanos) => write!(f, "{:?}", Duration::from_nanos(nanos)),
        }
    }
}
