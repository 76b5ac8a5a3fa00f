use std::{collections::BTreeMap, fmt, ops::RangeInclusive, time::Duration};

use clustering_core::store::ErrorKind;

use super::Call;
use crate::{history::Moment, random::Random};

/// Probabilities of random faults, and the seed for them. See
/// [`FaultyStore::by_chance`](super::FaultyStore::by_chance).
///
/// Probabilities are per thousand calls or, for watches, per thousand batches that they would yield. The fault of the
/// n-th call of a kind depends only on the seed, the kind and n, and not on other calls. The faults therefore stay the
/// same when other parts of a test change.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "chances do nothing until a store is given them"]
pub struct Chances {
    seed: u64,
    calls: Vec<Call>,
    fail: u64,
    lose_reply: u64,
    late: u64,
    delay: u64,
    delays: RangeInclusive<Duration>,
    break_watch: u64,
    compact_watch: u64,
}

impl Chances {
    /// Creates chances without any faults, for calls of all kinds.
    pub fn new(seed: u64) -> Self {
        Chances {
            seed,
            calls: Call::ALL.to_vec(),
            fail: 0,
            lose_reply: 0,
            late: 0,
            delay: 0,
            delays: Duration::ZERO..=Duration::ZERO,
            break_watch: 0,
            compact_watch: 0,
        }
    }

    /// Creates chances of a bad network: a tenth of the calls fail in some way, and a third are slow.
    pub fn bad_network(seed: u64) -> Self {
        let ms = Duration::from_millis;
        Chances::new(seed)
            .fail(40)
            .lose_replies(40)
            .late_commits(20)
            .delay(300, ms(1)..=ms(800))
            .break_watches(30)
            .compact_watches(10)
    }

    /// Restricts faults to calls of these kinds.
    pub fn only(mut self, calls: impl IntoIterator<Item = Call>) -> Self {
        self.calls = calls.into_iter().collect();
        self
    }

    /// Sets how many of a thousand calls fail with [`ErrorKind::Unreachable`] without reaching the store.
    pub fn fail(mut self, per_thousand: u64) -> Self {
        self.fail = per_thousand;
        self
    }

    /// Sets how many of a thousand calls take effect but lose their reply and fail with [`ErrorKind::OutcomeUnknown`].
    pub fn lose_replies(mut self, per_thousand: u64) -> Self {
        self.lose_reply = per_thousand;
        self
    }

    /// Sets how many of a thousand commits fail with [`ErrorKind::OutcomeUnknown`] but reach the store later, after a
    /// delay of up to the longest [delay](Self::delay). Other commits may overtake them.
    pub fn late_commits(mut self, per_thousand: u64) -> Self {
        self.late = per_thousand;
        self
    }

    /// Sets how many of a thousand calls, and how many of a thousand replies, are delayed by a time from the range
    /// `times`.
    pub fn delay(mut self, per_thousand: u64, times: RangeInclusive<Duration>) -> Self {
        (self.delay, self.delays) = (per_thousand, times);
        self
    }

    /// Sets how many of a thousand batches a watch replaces by its end with `Disconnected`.
    pub fn break_watches(mut self, per_thousand: u64) -> Self {
        self.break_watch = per_thousand;
        self
    }

    /// Sets how many of a thousand batches a watch replaces by its end with `Compacted`.
    pub fn compact_watches(mut self, per_thousand: u64) -> Self {
        self.compact_watch = per_thousand;
        self
    }

    /// Returns the delays and the fault of the n-th call of a kind.
    fn fate(&self, call: Call, n: u64) -> Fate {
        if !self.calls.contains(&call) {
            return Fate::default();
        }
        let mut random = self.stream(call as u64, n);
        let there = self.draw_delay(&mut random);
        let back = self.draw_delay(&mut random);
        let drawn = random.below(1000);
        let fault = if drawn < self.fail {
            Some(Met::Failed(ErrorKind::Unreachable))
        } else if drawn < self.fail + self.lose_reply {
            Some(Met::ReplyLost)
        } else if drawn < self.fail + self.lose_reply + self.late && call == Call::Commit {
            let most = micros(*self.delays.end()).max(1_000);
            Some(Met::Late(Duration::from_micros(random.between(1_000, most))))
        } else {
            None
        };
        Fate { there, back, fault }
    }

    fn draw_delay(&self, random: &mut Random) -> Duration {
        let (drawn, least, most) = (random.below(1000), *self.delays.start(), *self.delays.end());
        let delay = Duration::from_micros(random.between(micros(least), micros(most.max(least))));
        if drawn < self.delay { delay } else { Duration::ZERO }
    }

    /// Returns the fault with which a watch ends instead of yielding the n-th batch of the store, if any.
    fn watch_end(&self, n: u64) -> Option<Met> {
        if !self.calls.contains(&Call::Watch) {
            return None;
        }
        let drawn = self.stream(Call::ALL.len() as u64, n).below(1000);
        if drawn < self.break_watch {
            Some(Met::WatchBroken)
        } else if drawn < self.break_watch + self.compact_watch {
            Some(Met::WatchCompacted)
        } else {
            None
        }
    }

    fn stream(&self, kind: u64, n: u64) -> Random {
        Random::stream(self.seed, kind << 48 | n)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Delays and fault of one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fate {
    pub(super) there: Duration,
    pub(super) back: Duration,
    pub(super) fault: Option<Met>,
}

/// A random fault that occurred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Met {
    /// The call failed without reaching the store.
    Failed(ErrorKind),
    /// The call took effect, but its reply was lost.
    ReplyLost,
    /// The commit reached the store after this delay, with its outcome unknown to the caller.
    Late(Duration),
    /// A watch was disconnected.
    WatchBroken,
    /// A watch ended as if changes that it owed had been compacted.
    WatchCompacted,
}

impl fmt::Display for Met {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Met::Failed(kind) => write!(f, "failed: {kind:?}"),
            Met::ReplyLost => f.write_str("reply lost"),
            Met::Late(delay) => write!(f, "late by {delay:?}"),
            Met::WatchBroken => f.write_str("watch disconnected"),
            Met::WatchCompacted => f.write_str("watch compacted"),
        }
    }
}

/// Record of a random fault that occurred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChanceRecord {
    /// Time on tokio's clock, measured from the call to [`by_chance`](super::FaultyStore::by_chance).
    pub at: Moment,
    /// Kind of the affected call, or [`Call::Watch`] if the fault ended an open watch.
    pub call: Call,
    /// The fault.
    pub met: Met,
}

/// Random faults of a store: their probabilities, counters and record.
#[derive(Debug, Default)]
pub(super) struct Lot {
    drawn: Option<(Chances, crate::history::Clock)>,
    calls: BTreeMap<Call, u64>,
    batches: u64,
    met: Vec<ChanceRecord>,
}

impl Lot {
    pub(super) fn begin(&mut self, chances: Chances) {
        *self = Lot { drawn: Some((chances, crate::history::Clock::tokio())), ..Lot::default() };
    }

    pub(super) fn end(&mut self) {
        self.drawn = None;
    }

    pub(super) fn fate(&mut self, call: Call) -> Fate {
        let Some((chances, clock)) = &self.drawn else { return Fate::default() };
        let n = self.calls.entry(call).or_default();
        *n += 1;
        let fate = chances.fate(call, *n);
        if let Some(met) = fate.fault {
            self.met.push(ChanceRecord { at: clock.now(), call, met });
        }
        fate
    }

    pub(super) fn watch_end(&mut self) -> Option<Met> {
        let (chances, clock) = self.drawn.as_ref()?;
        self.batches += 1;
        let met = chances.watch_end(self.batches)?;
        self.met.push(ChanceRecord { at: clock.now(), call: Call::Watch, met });
        Some(met)
    }

    pub(super) fn met(&self) -> Vec<ChanceRecord> {
        self.met.clone()
    }
}
