//! Pauses between attempts.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// Exponential backoff with jitter, so that clients that lost the same server at the same moment do not all return at
/// the same moment.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    /// Creates a backoff whose pauses are at most `first`, then double up to `longest`.
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Backoff { next: first, longest }
    }

    /// Returns the pause before the next attempt: between half of the current limit and all of it.
    pub(crate) fn pause(&mut self) -> Duration {
        let limit = self.next;
        self.next = (2 * limit).min(self.longest);
        jittered(limit)
    }
}

/// Returns a random duration between half of `limit` and all of it.
pub(crate) fn jittered(limit: Duration) -> Duration {
    // The standard library seeds each `RandomState` differently.
    let random = RandomState::new().hash_one(0) as f64 / u64::MAX as f64;
    limit / 2 + (limit / 2).mul_f64(random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_are_random() {
        let ms = Duration::from_millis;
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..50 {
            let mut backoff = Backoff::new(ms(100), ms(300));
            for limit in [100, 200, 300, 300] {
                let pause = backoff.pause();
                assert!((ms(limit / 2)..=ms(limit)).contains(&pause), "{pause:?} with a limit of {limit} ms");
                seen.insert(pause);
            }
        }
        assert!(seen.len() > 100, "only {} different pauses", seen.len());
    }
}
