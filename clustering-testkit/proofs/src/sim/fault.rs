use std::{fmt, time::Duration};

use clustering_core::machine::Purpose;
use clustering_testkit::{history::Moment, random::Random};

use super::{
    Simulation,
    swarm::{Exclusivity, Swarm},
};
use crate::named::named;

named! {
    /// Faults of a node, of its network or of the store, and requests of users.
    pub enum Kind {
        /// The process dies and is restarted after a while.
        Crash = "crash",
        /// The node stops gracefully and is restarted after a while.
        Leave = "leave",
        /// Several nodes leave or crash at about the same time, and return at about the same time.
        Burst = "burst of leaves and joins",
        /// The process is frozen. Everything that arrives in the meantime is handled at once when it resumes.
        Pause = "pause",
        /// Renewals and their replies are slow.
        SlowRenewals = "slow renewals",
        /// Renewals or their replies are lost.
        LostRenewals = "lost renewals",
        /// The store ends the node's lease too early, which violates the contract.
        EarlyExpiry = "early expiry",
        /// The store answers no node.
        Outage = "store outage",
        /// The store does not answer this node.
        Partition = "partition",
        /// Calls take effect, but their replies are lost.
        LostReplies = "lost replies",
        /// Calls and replies are slow and overtake each other.
        SlowCalls = "slow calls",
        /// A commit of the node is delayed in transit.
        HeldCommit = "held commit",
        /// Watches deliver late.
        WatchLag = "watch lag",
        /// The node's watches break and may be resumed.
        WatchBreak = "watch break",
        /// The node's watches break, and the changes that they have not delivered are compacted.
        WatchGap = "watch break with compaction",
        /// The node's clock runs too fast or too slow from then on.
        Drift = "clock drift",
        /// The wall clock jumps. The process is restarted, because it reads the wall clock only when it starts.
        WallJump = "wall clock jump",
        /// A second instance is started under the node's name.
        Twin = "second instance",
        /// The stabilize callback is slow.
        SlowStabilize = "slow stabilize",
        /// The stabilize callback refuses.
        RefusingStabilize = "refusing stabilize",
        /// The stabilize callback panics.
        PanickingStabilize = "panicking stabilize",
        /// The stabilize callback does not return.
        StuckStabilize = "stuck stabilize",
        /// An operator deletes keys of the cluster by hand.
        HandDelete = "deletion by hand",
        /// The store is restored from a backup.
        Rewind = "restored backup",
        /// Calls of the node succeed, but its watches yield nothing.
        Deaf = "deaf watches",
        /// The user keeps the holds that it takes for a long time.
        LeakedHold = "leaked hold",
        /// The release callback is slow.
        SlowRelease = "slow release",
        /// The release callback refuses.
        RefusingRelease = "refusing release",
        /// The release callback does not return.
        StuckRelease = "stuck release",
        /// The users of all nodes commit as owners of slots.
        OwnerCommit = "owner commit",
        /// An operator cordons the node, which then must not own slots, and lifts the cordon after a while.
        Cordon = "cordon",
        /// An operator asks the node to leave.
        Drain = "drain",
        /// The user requests a new version.
        RequestVersion = "version request",
        /// The user changes the node's metadata.
        Update = "metadata update",
        /// The user makes the leader resign.
        Resign = "resign",
        /// The user unregisters the node and registers it again after a while.
        Unregister = "unregister",
        /// The user of each node that claims to lead writes as leader.
        LeaderCommit = "leader commit",
        /// The node's health checks fail.
        FailingHealth = "failing health",
        /// The node's health checks do not return.
        HangingHealth = "hanging health check",
        /// Something refuses connections to the process, although it is alive.
        FalseAlarm = "false alarm",
    }
}

impl Kind {
    /// True if the fault concerns only exclusive nodes.
    const fn is_of_holds(self) -> bool {
        matches!(
            self,
            Kind::LeakedHold
                | Kind::SlowRelease
                | Kind::RefusingRelease
                | Kind::StuckRelease
                | Kind::OwnerCommit
        )
    }

    /// Returns the relative frequency of this kind.
    const fn weight(self) -> u64 {
        match self {
            Kind::Rewind => 2,
            Kind::Burst | Kind::EarlyExpiry | Kind::Outage | Kind::Twin | Kind::HandDelete => 4,
            Kind::Crash | Kind::Pause | Kind::LostReplies | Kind::SlowCalls | Kind::WatchLag => 10,
            Kind::LeakedHold => 10,
            Kind::LeaderCommit | Kind::OwnerCommit => 12,
            _ => 6,
        }
    }

    /// Returns the shortest and the longest duration in milliseconds.
    const fn lasts(self) -> (u64, u64) {
        match self {
            Kind::Pause | Kind::Outage | Kind::Partition => (100, 9_000),
            Kind::Crash | Kind::Leave | Kind::Burst | Kind::WallJump | Kind::Unregister => (1, 8_000),
            Kind::Twin => (500, 12_000),
            Kind::StuckStabilize | Kind::StuckRelease | Kind::HangingHealth => (1_000, 20_000),
            Kind::Deaf => (1_000, 40_000),
            Kind::EarlyExpiry | Kind::HandDelete | Kind::Rewind | Kind::WatchBreak | Kind::WatchGap => (0, 0),
            Kind::OwnerCommit | Kind::Drain | Kind::FalseAlarm => (0, 0),
            Kind::Drift | Kind::RequestVersion | Kind::Update | Kind::Resign | Kind::LeaderCommit => (0, 0),
            _ => (500, 10_000),
        }
    }
}

/// A fault of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Time at which the fault begins.
    pub at: Moment,
    /// Kind of the fault.
    pub kind: Kind,
    /// Number of the affected node. Ignored by faults of the store.
    pub node: usize,
    /// Duration of the fault. Zero for faults that have none.
    pub lasts: Duration,
    /// Random number for all other choices.
    pub choice: u64,
    /// Commit that triggers the fault, at `at` or later. If `None`, the fault begins at `at`.
    pub upon: Option<Upon>,
}

/// The kind of commit that triggers a fault, just after the commit was sent or took effect.
///
/// Most states in which a protocol can go wrong last only for a moment. Faults at random times hardly ever hit them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upon {
    /// The purpose of the commit.
    pub purpose: Purpose,
    /// True to trigger once the commit took effect; false to trigger once it was sent.
    pub done: bool,
    /// True if the fault affects the committing node instead of the planned node.
    pub its_node: bool,
    /// True if a commit that was sent is delayed in transit, so that the fault comes first.
    pub holds: bool,
}

impl fmt::Display for Upon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = if self.done { "done" } else { "sent" };
        write!(f, "upon the next {} {when}", self.purpose)?;
        let whom = if self.its_node { ", to its node" } else { "" };
        let holds = if self.holds { ", which is delayed" } else { "" };
        write!(f, "{whom}{holds}")
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>14}  {}", self.at, self.kind.name())?;
        if !matches!(self.kind, Kind::Outage | Kind::Rewind | Kind::HandDelete) {
            write!(f, " n{}", self.node)?;
        }
        if !self.lasts.is_zero() {
            write!(f, " for {:?}", self.lasts)?;
        }
        self.upon.map_or(Ok(()), |upon| write!(f, " {upon}"))
    }
}

/// Purposes of the commits that trigger faults. Purposes that should be chosen more often occur more than once.
const PURPOSES: [Purpose; 19] = [
    Purpose::Rewrite,
    Purpose::Elect,
    Purpose::Acknowledge,
    Purpose::Acknowledge,
    Purpose::Confirm,
    Purpose::Join,
    Purpose::TakeOver,
    Purpose::Rewrite,
    Purpose::Elect,
    Purpose::Publish,
    Purpose::Acknowledge,
    Purpose::Confirm,
    Purpose::Evict,
    Purpose::Resign,
    Purpose::Leave,
    Purpose::LeaderCommit,
    Purpose::Permit,
    Purpose::OwnerCommit,
    Purpose::RemoveCrashed,
];

/// Faults that change the stored state while a commit is in transit or just after it.
const MEDDLERS: [Kind; 18] = [
    Kind::Leave,
    Kind::Pause,
    Kind::EarlyExpiry,
    Kind::LostReplies,
    Kind::SlowCalls,
    Kind::HeldCommit,
    Kind::WatchBreak,
    Kind::WatchGap,
    Kind::Twin,
    Kind::HandDelete,
    Kind::Rewind,
    Kind::RequestVersion,
    Kind::Update,
    Kind::Resign,
    Kind::Deaf,
    Kind::Drain,
    Kind::Crash,
    Kind::FalseAlarm,
];

/// Draws the faults of a seed, in the order of their times.
///
/// Each seed has only some of the kinds, some of them often and some rarely. If everything failed all the time, no run
/// would get far enough to reach rare states.
pub(super) fn plan(setup: &Simulation, seed: u64) -> Vec<Fault> {
    let mut random = Random::stream(seed, 1);
    let mut bag: Vec<(Kind, u64)> = Vec::new();
    for kind in setup.kinds() {
        let (in_it, share) = (random.percent(60), random.between(1, 4));
        if in_it || setup.kinds().len() == 1 {
            bag.push((*kind, kind.weight() * share));
        }
    }
    // A read does not reveal that the store was restored, only a watch does. Consider a node whose watch ended with a
    // compaction, and whose store is restored before the node reads a snapshot: it would take the new history for the
    // old one. That is a limit of the contract.
    if bag.iter().any(|(kind, _)| *kind == Kind::Rewind) {
        bag.retain(|(kind, _)| *kind != Kind::WatchGap);
    }
    if bag.len() > 1 {
        // Outstanding holds are valid for the whole TTL by the clock of their process, so P12 requires that clocks run
        // at the same rate.
        let is_exclusive = Swarm::draw(seed).exclusivity != Exclusivity::Nobody;
        bag.retain(|(kind, _)| if is_exclusive { *kind != Kind::Drift } else { !kind.is_of_holds() });
    }
    if Swarm::draw(seed).trusts && bag.len() > 1 {
        // A node that trusts refused connections may revoke the lease of a process that is alive.
        bag.retain(|(kind, _)| *kind != Kind::FalseAlarm);
    }
    // Some kinds occur far more often than the rest.
    for _ in 0..random.below(3).min(bag.len() as u64) {
        let favourite = random.below(bag.len() as u64) as usize;
        bag[favourite].1 *= 5;
    }
    let waits = [0, 0, 30, 70][random.below(4) as usize];
    let purposes = [(); 3].map(|()| PURPOSES[random.below(PURPOSES.len() as u64) as usize]);
    let meddlers: Vec<Kind> =
        MEDDLERS.into_iter().filter(|meddler| bag.iter().any(|(kind, _)| kind == meddler)).collect();
    let total: u64 = bag.iter().map(|(_, weight)| weight).sum();
    let gap = random.between(300, 3_000);
    let mut plan = Vec::new();
    let mut at = Moment::default() + random.ms(0, 3_000);
    while total > 0 && at < Moment::default() + setup.storm {
        let mut ticket = random.below(total);
        let chosen = bag.iter().find(|(_, weight)| {
            let here = ticket < *weight;
            ticket = ticket.saturating_sub(*weight);
            here
        });
        let mut kind = chosen.map_or(bag[0].0, |(kind, _)| *kind);
        let upon = random.percent(waits).then(|| Upon {
            purpose: purposes[random.below(3) as usize],
            done: random.percent(40),
            its_node: random.percent(50),
            holds: random.percent(50),
        });
        if upon.is_some() && !meddlers.is_empty() {
            kind = meddlers[random.below(meddlers.len() as u64) as usize];
        }
        let node = random.below(setup.nodes as u64) as usize;
        let (least, most) = kind.lasts();
        // Half of the faults are short.
        let lasts = if random.percent(50) {
            random.ms(least, most)
        } else {
            random.ms(least, least + (most - least) / 8)
        };
        let choice = random.next_u64();
        plan.push(Fault { at, kind, node, lasts, choice, upon });
        at = at + random.ms(0, 2 * gap);
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_determined_by_its_seed_and_stays_within_the_storm() {
        let setup = Simulation::new();
        let first = plan(&setup, 7);
        assert_eq!(first, plan(&setup, 7));
        assert_ne!(first, plan(&setup, 8));
        assert!(first.is_sorted_by_key(|fault| fault.at));
        assert!(
            first.iter().all(|fault| fault.at < Moment::default() + setup.storm && fault.node < setup.nodes)
        );
    }

    #[test]
    fn the_plan_has_only_faults_of_the_chosen_kinds() {
        let setup = Simulation::new().only([Kind::Pause]);
        assert!((0..20).all(|seed| plan(&setup, seed).iter().all(|fault| fault.kind == Kind::Pause)));
        assert!(plan(&Simulation::new().only([]), 1).is_empty());
    }
}
