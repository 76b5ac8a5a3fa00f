//! Pauses between tries.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// Pauses that grow, each of another length for everybody: those who lost the same server at the same moment should not
/// all come back to it at the same moment.
#[derive(Debug)]
pub(crate) struct Pace {
    next: Duration,
    longest: Duration,
}

impl Pace {
    /// The first pause is at most `first` long, and each at most twice as long as the one before, up to `longest`.
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Pace { next: first, longest }
    }

    /// How long to wait before the next try: between half and all of what is due.
    pub(crate) fn pause(&mut self) -> Duration {
        let due = self.next;
        self.next = (2 * due).min(self.longest);
        about(due)
    }
}

/// A time between half of that and all of it, by chance.
pub(crate) fn about(due: Duration) -> Duration {
    // Each state has keys of its own.
    let chance = RandomState::new().hash_one(0) as f64 / u64::MAX as f64;
    due / 2 + (due / 2).mul_f64(chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest_and_are_left_to_chance() {
        let ms = Duration::from_millis;
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..50 {
            let mut pace = Pace::new(ms(100), ms(300));
            for due in [100, 200, 300, 300] {
                let pause = pace.pause();
                assert!((ms(due / 2)..=ms(due)).contains(&pause), "{pause:?} where {due} ms are due");
                seen.insert(pause);
            }
        }
        assert!(seen.len() > 100, "{} lengths", seen.len());
    }
}
