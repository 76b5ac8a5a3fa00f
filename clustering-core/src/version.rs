//! Versions and terms, and the generator of their ULIDs.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use ulid::Ulid;

use crate::{store::Revision, time::Timestamp};

/// The label of a cluster version: the ULID under which a view was published.
///
/// Labels are for display and for sorting by people. Safety never depends on them, because revisions order all changes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version(Ulid);

/// Milliseconds from 1970 to the year 10000, where the dates of RFC 3339 end.
const YEAR_10000: u64 = 253_402_300_800_000;

/// A string that is not a version.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not a version: expected a ULID, 26 characters such as 01ARZ3NDEKTSV4RRFFQ69G5FAV")]
pub struct InvalidVersion(String);

impl Version {
    /// Creates a version from the bits of a ULID.
    pub const fn from_u128(bits: u128) -> Self {
        Version(Ulid(bits))
    }

    /// Returns the time in the label, in milliseconds since 1970: the wall clock time of its publisher, or later if an
    /// earlier label was ahead of that clock. It is only for display, and must not be used for ordering or measuring. A
    /// label that was written by hand can have any time, up to the year 10889; see
    /// [`is_plausible`](Self::is_plausible).
    pub fn minted_ms(self) -> u64 {
        self.0.timestamp_ms()
    }

    /// True if the time in the label can be formatted as a date, which means that it is before the year 10000.
    pub fn is_plausible(self) -> bool {
        self.minted_ms() < YEAR_10000
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buffer = [0; ulid::ULID_LEN];
        f.pad(self.0.array_to_str(&mut buffer))
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Version {
    type Err = InvalidVersion;
    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        Ulid::from_string(text).map(Version).map_err(|_| InvalidVersion(text.chars().take(80).collect()))
    }
}

impl TryFrom<String> for Version {
    type Error = InvalidVersion;
    fn try_from(text: String) -> Result<Self, InvalidVersion> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> String {
        version.to_string()
    }
}

/// The term of a leader: the revision at which it created the election key. Terms serve as fencing tokens.
///
/// A later leader has a larger term. A system that accepts writes from leaders keeps the largest term that it has
/// seen and refuses smaller ones, so that a deposed leader cannot write (P5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Term(Revision);

impl Term {
    /// Creates the term that began at `revision`.
    pub const fn new(revision: Revision) -> Self {
        Term(revision)
    }

    /// Returns the revision at which the election key was created.
    pub const fn revision(self) -> Revision {
        self.0
    }

    /// Returns the term as a number, to be passed to other systems as a fencing token.
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Generates ULIDs and jitter deterministically, from a seed and the time of each input.
///
/// The wall clock is read only once, to create the generator. After that, the time in ULIDs advances with the machine's
/// own time, so jumps of the wall clock have no effect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdGenerator {
    epoch_ms: u64,
    origin: Timestamp,
    seed: u128,
    draws: u64,
}

impl IdGenerator {
    /// Creates a generator. `wall_ms` is the wall clock time at `now`, in milliseconds since 1970; `seed` is the
    /// source of its randomness.
    pub fn new(wall_ms: u64, now: Timestamp, seed: u128) -> Self {
        IdGenerator { epoch_ms: wall_ms, origin: now, seed, draws: 0 }
    }

    fn draw(&mut self) -> u128 {
        self.draws += 1;
        // Two rounds of splitmix64 over the seed and a counter: distinct for each draw, and well distributed.
        let mix = |mut z: u64| {
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        let step = self.draws.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let low = mix((self.seed as u64).wrapping_add(step));
        let high = mix(((self.seed >> 64) as u64).wrapping_add(step) ^ low);
        (u128::from(high) << 64) | u128::from(low)
    }

    /// Generates a ULID for the time `now`.
    pub fn ulid(&mut self, now: Timestamp) -> Ulid {
        let passed = now.since(self.origin).as_millis() as u64;
        Ulid::from_parts(self.epoch_ms.saturating_add(passed), self.draw())
    }

    /// Generates a version for the time `now` that is greater than `last`, even if `last` was generated by a clock
    /// that is ahead.
    ///
    /// If `last` is ahead, the distance from it is random: two nodes that generate a version after the same one,
    /// before and after a restore of the store, must not use the same label for two views.
    pub fn version(&mut self, now: Timestamp, last: Option<Version>) -> Version {
        let fresh = Version(self.ulid(now));
        match last {
            Some(last) if fresh <= last => {
                let (last, step) = (last.0.0, 1 + (fresh.0.random() >> 16));
                // Only labels that were written by hand can overflow. Revisions order versions, so the label may
                // decrease.
                last.checked_add(step).or(last.checked_add(1)).map_or(fresh, Version::from_u128)
            }
            _ => fresh,
        }
    }

    /// Returns a random number below `bound`, or 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.draw() as u64) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const WALL: u64 = 1_700_000_000_000;

    #[test]
    fn a_new_version_is_larger_than_the_last_one_even_if_the_clock_is_behind() {
        let mut ids = IdGenerator::new(WALL, Timestamp::ZERO, 7);
        let first = ids.version(Timestamp::ZERO, None);
        assert_eq!(first.minted_ms(), WALL);
        let later = ids.version(Timestamp::ZERO + Duration::from_secs(5), Some(first));
        assert_eq!(later.minted_ms(), WALL + 5_000);

        let mut behind = IdGenerator::new(WALL - 3_600_000, Timestamp::ZERO, 8);
        let next = behind.version(Timestamp::ZERO, Some(later));
        assert!(next > later && next.minted_ms() == later.minted_ms());
    }

    #[test]
    fn p1_two_generators_create_different_versions_after_the_same_one() {
        let ahead = IdGenerator::new(WALL + 3_600_000, Timestamp::ZERO, 7).version(Timestamp::ZERO, None);
        let after =
            |seed| IdGenerator::new(WALL, Timestamp::ZERO, seed).version(Timestamp::ZERO, Some(ahead));
        assert!(after(8) > ahead && after(9) > ahead);
        assert_ne!(after(8), after(9));
    }

    #[test]
    fn a_label_after_the_year_9999_is_not_plausible() {
        let at = |ms: u64| Version::from_u128(u128::from(ms) << 80);
        for good in [0, WALL, 253_402_300_799_999] {
            assert!(at(good).is_plausible(), "{good}");
        }
        for bad in ["7Z000000000000000000000000", "7ZZZZZZZZZZZZZZZZZZZZZZZZZ"] {
            assert!(!bad.parse::<Version>().unwrap().is_plausible(), "{bad}");
        }
        assert!(!at(253_402_300_800_000).is_plausible());
    }

    #[test]
    fn a_version_after_the_largest_ulid_starts_again_at_the_clock() {
        let mut ids = IdGenerator::new(WALL, Timestamp::ZERO, 7);
        let last = Version::from_u128(u128::MAX);
        assert_eq!(ids.version(Timestamp::ZERO, Some(last)).minted_ms(), WALL);
    }

    #[test]
    fn equal_seeds_give_equal_ids_and_other_seeds_different_ones() {
        let draw = |seed| {
            let mut ids = IdGenerator::new(WALL, Timestamp::ZERO, seed);
            [ids.ulid(Timestamp::ZERO), ids.ulid(Timestamp::ZERO)]
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert_ne!(draw(1)[0], draw(1)[1]);
        assert_ne!(draw(1), draw(1 << 64));
    }

    #[test]
    fn random_numbers_cover_the_whole_range_below_their_bound() {
        let mut ids = IdGenerator::new(0, Timestamp::ZERO, 3);
        let mut seen = [false; 10];
        for _ in 0..1000 {
            seen[ids.below(10) as usize] = true;
        }
        assert_eq!(seen, [true; 10]);
        assert_eq!(ids.below(0), 0);
    }

    #[test]
    fn versions_are_parsed_and_displayed_as_ulids() {
        let version: Version = "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
        assert_eq!(version.to_string(), "01ARZ3NDEKTSV4RRFFQ69G5FAV");
        assert_eq!(serde_json::to_string(&version).unwrap(), "\"01ARZ3NDEKTSV4RRFFQ69G5FAV\"");
        for bad in ["", "1", "01ARZ3NDEKTSV4RRFFQ69G5FAV0", "81ARZ3NDEKTSV4RRFFQ69G5FA!"] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
    }
}
