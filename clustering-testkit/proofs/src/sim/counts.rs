use std::ops::AddAssign;

use super::Kind;
use crate::named::named;

named! {
    /// A state or transition that runs should reach.
    pub enum Reached {
        /// A node was elected.
        Election = "elections",
        /// A version was published.
        Version = "versions",
        /// A version was recorded as stable.
        Stable = "stable versions",
        /// `on_stable` ran.
        OnStable = "on_stable calls",
        /// A version was published while the one before it was not stable yet.
        SupersededBarrier = "superseded barriers",
        /// A running stabilize was superseded.
        SupersededRun = "superseded stabilizes",
        /// A stabilize refused or panicked.
        RefusedRun = "refused stabilizes",
        /// A stabilize was aborted because it took too long.
        AbortedRun = "aborted stabilizes",
        /// A node lost its session.
        SessionLost = "sessions lost",
        /// A node rejoined by itself.
        Rejoin = "rejoins",
        /// A node was removed, by hand or as a laggard.
        Removed = "removals",
        /// A node found its name held by another instance, and waited.
        NameHeld = "names held",
        /// A node ended because its name was held by another instance, or was taken over.
        NameLost = "names lost",
        /// A leader's deadline passed without a renewal.
        Suspended = "leaders suspended",
        /// A leader could act again because a renewal succeeded after all.
        Resumed = "leaders resumed",
        /// A node claimed to lead while another node was the leader.
        StaleLeader = "stale leaders",
        /// A leader's write was refused by its guards.
        LeaderRefused = "leaders' writes refused",
        /// A commit of any other kind was refused by its guards.
        Refused = "other commits refused",
        /// A call took effect after its caller had given up on it.
        LateEffect = "late effects",
        /// A call took effect, but its reply was lost.
        LostReply = "lost replies",
        /// A lease expired because it was not renewed.
        Expired = "leases expired",
        /// A laggard was evicted.
        Evicted = "evictions",
        /// A leader reported which nodes block a version.
        Blocked = "blocked versions",
        /// A node became unhealthy.
        Unhealthy = "nodes found unhealthy",
        /// A node became healthy, possibly for the first time.
        Healthy = "nodes found healthy",
        /// A node read a snapshot because changes were compacted.
        Resync = "resyncs",
        /// A node noticed that the store was restored to an older state.
        Rewound = "rewinds seen",
        /// A leader commit succeeded.
        LeaderCommitDone = "leader commits done",
        /// A node acquired slots.
        Acquired = "acquisitions",
        /// A release refused.
        RefusedRelease = "refused releases",
        /// A node was slow to let go of slots.
        SlowRelease = "slow releases",
        /// A leader ended the session of a process that does not follow the log.
        Reclaimed = "reclaimed sessions",
        /// A node gave out no holds because its renewals were late.
        HoldsSuspended = "holds suspended",
        /// An owner commit succeeded.
        OwnerCommitDone = "owner commits done",
        /// An owner commit was refused, or the node did not hold the slot.
        OwnerCommitRefused = "owner commits refused",
        /// A node left because it could not release its slots in time.
        ReleaseTimeout = "release timeouts",
        /// A leader commit was refused, or the node was not the leader.
        LeaderCommitRefused = "leader commits refused",
        /// A node was removed because its process was reported as gone.
        Crashed = "removals of crashed nodes",
        /// A node learned that it was removed as crashed although it is alive.
        FalseAlarm = "false alarms noticed",
        /// A node revoked the lease of a process that is gone.
        LeaseRevoked = "leases of crashed nodes revoked",
    }
}

/// Number of occurrences of each kind of fault and of each state or transition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    faults: [u64; Kind::ALL.len()],
    reached: [u64; Reached::ALL.len()],
    /// Number of inputs that machines handled.
    pub inputs: u64,
    /// Number of revisions that the store committed.
    pub revisions: u64,
}

impl Default for Counts {
    fn default() -> Self {
        Counts { faults: [0; Kind::ALL.len()], reached: [0; Reached::ALL.len()], inputs: 0, revisions: 0 }
    }
}

impl Counts {
    /// Returns how often faults of this kind occurred.
    pub fn faults(&self, kind: Kind) -> u64 {
        self.faults[kind as usize]
    }

    /// Returns how often this state or transition was reached.
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
