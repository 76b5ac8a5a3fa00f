use std::{fmt, num::ParseIntError, str::FromStr, time::Duration};

/// The ID of a lease. A store never uses the same ID for another lease (contract rule 4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(u64);

impl LeaseId {
    /// Creates a lease ID from its number.
    pub const fn new(number: u64) -> Self {
        LeaseId(number)
    }

    /// Returns the ID as a number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Formats the ID in hexadecimal, as `etcdctl lease list` does.
impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl FromStr for LeaseId {
    type Err = ParseIntError;

    /// Parses an ID in hexadecimal, as [`Display`](fmt::Display) formats it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(LeaseId)
    }
}

impl fmt::Debug for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeaseId({self})")
    }
}

/// A lease as the store granted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The ID of the lease.
    pub id: LeaseId,
    /// Lifetime of the lease without a renewal, as granted by the store. It may be longer than requested.
    pub ttl: Duration,
}
