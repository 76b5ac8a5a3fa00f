//! Random numbers for tests that must be reproducible: [`Random`].

use std::time::Duration;

/// A small random number generator (splitmix64). A seed always gives the same numbers, on every platform and in every
/// version of this crate.
///
/// ```
/// use clustering_testkit::random::Random;
///
/// let mut random = Random::stream(7, 0);
/// assert!(random.between(2, 6) >= 2);
/// assert_eq!(Random::stream(7, 1).next_u64(), Random::stream(7, 1).next_u64());
/// ```
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Returns one of many independent streams of a seed.
    pub fn stream(seed: u64, stream: u64) -> Self {
        let mut random = Random(seed ^ stream.wrapping_mul(0xd6e8_feb8_6659_fd93));
        random.next_u64();
        Random(random.next_u64())
    }

    /// Returns the next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number from 0 to `bound`, exclusive, or 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Returns a number from `least` to `most`, inclusive.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// Returns true with a probability of `chance` percent.
    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// Returns a duration from `least` to `most` milliseconds, with a resolution of one microsecond.
    pub fn ms(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_micros(self.between(least * 1000, most * 1000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_a_seed_are_independent_and_reproducible() {
        let draw = |seed, stream| {
            let mut random = Random::stream(seed, stream);
            [random.next_u64(), random.next_u64()]
        };
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
        assert_ne!(draw(1, 2)[0], draw(1, 2)[1]);
    }

    #[test]
    fn numbers_cover_exactly_their_range() {
        let mut random = Random::stream(3, 0);
        let mut seen = [false; 5];
        for _ in 0..500 {
            seen[random.between(2, 6) as usize - 2] = true;
        }
        assert_eq!(seen, [true; 5]);
        assert_eq!(random.below(0), 0);
        assert!((0..100).all(|_| random.percent(100) && !random.percent(0)));
    }
}
