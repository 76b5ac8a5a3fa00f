use std::{fmt, time::Duration};

/// The name of a lease. Never used again by its store (contract rule 4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(u64);

impl LeaseId {
    /// The lease of that number.
    pub const fn new(number: u64) -> Self {
        LeaseId(number)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// In hexadecimal, as `etcdctl lease list` shows it.
impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
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
    /// Its name.
    pub id: LeaseId,
    /// How long it lives without a renewal: what the store really gave, which may be more than was asked for.
    pub ttl: Duration,
}
