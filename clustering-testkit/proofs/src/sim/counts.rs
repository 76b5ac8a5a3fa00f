use std::ops::AddAssign;

use super::Kind;
use crate::named::named;

named! {
    /// A state or transition that is worth reaching.
    pub enum Reached {
        /// Somebody was elected.
        Election = "elections",
        /// A version was published.
        Version = "versions",
        /// A version was recorded as stable.
        Stable = "stable versions",
        /// `on_stable` ran.
        OnStable = "on_stable calls",
        /// A version was published while the one before it was not stable yet.
        SupersededBarrier = "superseded barriers",
        /// A stabilize that ran was superseded.
        SupersededRun = "superseded stabilizes",
        /// A stabilize said no, or panicked.
        RefusedRun = "refused stabilizes",
        /// A stabilize was ended because it took too long.
        AbortedRun = "aborted stabilizes",
        /// A node lost its session.
        SessionLost = "sessions lost",
        /// A node joined again by itself.
        Rejoin = "rejoins",
        /// A node was removed, by hand or as a laggard.
        Removed = "removals",
        /// A node found its name held, and waited.
        NameHeld = "names held",
        /// A node ended because its name was taken, or taken over.
        NameLost = "names lost",
        /// A leader's deadline passed without a renewal.
        Suspended = "leaders suspended",
        /// A renewal came in time after all.
        Resumed = "leaders resumed",
        /// While one node says that it leads, another one does in truth.
        StaleLeader = "stale leaders",
        /// A leader's write was refused by its guards.
        LeaderRefused = "leaders' writes refused",
        /// Any other commit was refused by its guards.
        Refused = "other commits refused",
        /// A call took effect after its caller had given up on it.
        LateEffect = "late effects",
        /// A call took effect, and its reply was lost.
        LostReply = "lost replies",
        /// A lease expired because nobody renewed it.
        Expired = "leases expired",
        /// A laggard was evicted.
        Evicted = "evictions",
        /// A leader named who blocks a version.
        Blocked = "blocked versions",
        /// A node became unhealthy.
        Unhealthy = "nodes fallen ill",
        /// A node became healthy again, or was so at first.
        Healthy = "nodes found healthy",
        /// A node read a snapshot because changes were compacted.
        Resync = "resyncs",
        /// A node found the store put back to an older state.
        Rewound = "rewinds seen",
        /// A write under a term was done.
        FencedDone = "fenced writes done",
        /// A write under a term was refused, or nobody led.
        FencedRefused = "fenced writes refused",
    }
}

/// How often what was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    faults: [u64; Kind::ALL.len()],
    reached: [u64; Reached::ALL.len()],
    /// Inputs that machines took.
    pub inputs: u64,
    /// Revisions that the store made.
    pub revisions: u64,
}

impl Default for Counts {
    fn default() -> Self {
        Counts { faults: [0; Kind::ALL.len()], reached: [0; Reached::ALL.len()], inputs: 0, revisions: 0 }
    }
}

impl Counts {
    /// How often such a fault occurred.
    pub fn faults(&self, kind: Kind) -> u64 {
        self.faults[kind as usize]
    }

    /// How often that was reached.
    pub fn reached(&self, what: Reached) -> u64 {
        self.reached[what as usize]
    }

    pub(super) fn fault(&mut self, kind: Kind) {
        self.faults[kind as usize] += 1;
    }

    pub(super) fn note(&mut self, what: Reached) {
        self.reached[what as usize] += 1;
    }
}

impl AddAssign<&Counts> for Counts {
    fn add_assign(&mut self, other: &Counts) {
        let add =
            |sum: &mut [u64], more: &[u64]| sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        add(&mut self.faults, &other.faults);
        add(&mut self.reached, &other.reached);
        self.inputs += other.inputs;
        self.revisions += other.revisions;
    }
}
