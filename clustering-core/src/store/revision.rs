use std::fmt;

use serde::{Deserialize, Serialize};

/// A point in the store's history. Every commit that changes something gets a larger revision (contract rule 1).
///
/// Versions, terms and acknowledgements are ordered by revision, never by wall-clock time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(u64);

impl Revision {
    /// The revision of an empty store, before the first change. In a guard, a creation or modification revision of zero
    /// means that the key is absent.
    pub const ZERO: Revision = Revision(0);

    /// Creates a revision from its number.
    pub const fn new(number: u64) -> Self {
        Revision(number)
    }

    /// Returns the revision as a number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns the next revision.
    #[must_use]
    pub const fn next(self) -> Self {
        Revision(self.0 + 1)
    }
}

impl From<u64> for Revision {
    fn from(number: u64) -> Self {
        Revision(number)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
