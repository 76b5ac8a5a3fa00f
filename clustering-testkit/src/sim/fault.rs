use std::{fmt, time::Duration};

use super::Simulation;
use crate::{history::Moment, random::Random};

/// What goes wrong with a node, with its network or with the store; or what users ask for meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The process dies, and is started again after a while.
    Crash,
    /// The node stops in good order, and is started again after a while.
    Leave,
    /// Several nodes leave or crash within a moment, and come back within another.
    Burst,
    /// The process is frozen. What comes for it meanwhile arrives all at once when it goes on.
    Pause,
    /// Renewals and their replies take long.
    SlowRenewals,
    /// Renewals get lost, or their replies do.
    LostRenewals,
    /// The store ends the node's lease before its time, against the contract.
    EarlyExpiry,
    /// The store answers nobody.
    Outage,
    /// The store does not answer this node.
    Partition,
    /// Calls take effect, and their replies get lost.
    LostReplies,
    /// Calls and replies take long, and overtake each other.
    SlowCalls,
    /// Watches lag behind.
    WatchLag,
    /// The node's watches break, and may be resumed.
    WatchBreak,
    /// The node's watches break, and what they owe is compacted away.
    WatchGap,
    /// The node's clock runs too fast or too slow from now on.
    Drift,
    /// The wall clock jumps. The process, which reads it when it is started, is started again.
    WallJump,
    /// Another instance is started under the node's name.
    Twin,
    /// Stabilize takes long.
    SlowStabilize,
    /// Stabilize says no.
    RefusingStabilize,
    /// Stabilize panics.
    PanickingStabilize,
    /// Stabilize does not return.
    StuckStabilize,
    /// Somebody deletes keys of the cluster by hand.
    HandDelete,
    /// The store is restored from a backup.
    Rewind,
    /// The user asks for a new version.
    Ask,
    /// The user changes the node's metadata.
    Update,
    /// The user makes the node give up the lead.
    Resign,
    /// The user gives the node's place up, and takes it again after a while.
    Unregister,
    /// The user writes as leader.
    Fence,
    /// Health checks fail.
    FailingHealth,
    /// Health checks do not return.
    HangingHealth,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 30] = [
        Kind::Crash,
        Kind::Leave,
        Kind::Burst,
        Kind::Pause,
        Kind::SlowRenewals,
        Kind::LostRenewals,
        Kind::EarlyExpiry,
        Kind::Outage,
        Kind::Partition,
        Kind::LostReplies,
        Kind::SlowCalls,
        Kind::WatchLag,
        Kind::WatchBreak,
        Kind::WatchGap,
        Kind::Drift,
        Kind::WallJump,
        Kind::Twin,
        Kind::SlowStabilize,
        Kind::RefusingStabilize,
        Kind::PanickingStabilize,
        Kind::StuckStabilize,
        Kind::HandDelete,
        Kind::Rewind,
        Kind::Ask,
        Kind::Update,
        Kind::Resign,
        Kind::Unregister,
        Kind::Fence,
        Kind::FailingHealth,
        Kind::HangingHealth,
    ];

    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Crash => "crash",
            Kind::Leave => "leave",
            Kind::Burst => "burst of leaves and joins",
            Kind::Pause => "pause",
            Kind::SlowRenewals => "slow renewals",
            Kind::LostRenewals => "lost renewals",
            Kind::EarlyExpiry => "early expiry",
            Kind::Outage => "store outage",
            Kind::Partition => "partition",
            Kind::LostReplies => "lost replies",
            Kind::SlowCalls => "slow calls",
            Kind::WatchLag => "watch lag",
            Kind::WatchBreak => "watch break",
            Kind::WatchGap => "watch break with compaction",
            Kind::Drift => "clock drift",
            Kind::WallJump => "wall clock jump",
            Kind::Twin => "second instance",
            Kind::SlowStabilize => "slow stabilize",
            Kind::RefusingStabilize => "refusing stabilize",
            Kind::PanickingStabilize => "panicking stabilize",
            Kind::StuckStabilize => "stuck stabilize",
            Kind::HandDelete => "deletion by hand",
            Kind::Rewind => "restored backup",
            Kind::Ask => "ask",
            Kind::Update => "update",
            Kind::Resign => "resign",
            Kind::Unregister => "unregister",
            Kind::Fence => "fenced write",
            Kind::FailingHealth => "failing health",
            Kind::HangingHealth => "hanging health check",
        }
    }

    /// How often it comes, compared with others.
    const fn weight(self) -> u64 {
        match self {
            Kind::Rewind => 1,
            Kind::Burst | Kind::EarlyExpiry | Kind::Outage | Kind::Twin | Kind::HandDelete => 4,
            Kind::Crash | Kind::Pause | Kind::LostReplies | Kind::SlowCalls | Kind::WatchLag => 10,
            Kind::Fence => 12,
            _ => 6,
        }
    }

    /// For how many milliseconds it lasts, from and to.
    const fn lasts(self) -> (u64, u64) {
        match self {
            Kind::Pause | Kind::Outage | Kind::Partition => (100, 9_000),
            Kind::Crash | Kind::Leave | Kind::Burst | Kind::WallJump | Kind::Unregister => (1, 8_000),
            Kind::Twin => (500, 12_000),
            Kind::StuckStabilize | Kind::HangingHealth => (1_000, 20_000),
            Kind::EarlyExpiry | Kind::HandDelete | Kind::Rewind | Kind::WatchBreak | Kind::WatchGap => (0, 0),
            Kind::Drift | Kind::Ask | Kind::Update | Kind::Resign | Kind::Fence => (0, 0),
            _ => (500, 10_000),
        }
    }
}

/// One fault of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When it begins.
    pub at: Moment,
    /// What it is.
    pub kind: Kind,
    /// Which node it is about, by number; of no matter to those that are about the store.
    pub node: usize,
    /// How long it lasts, if it does.
    pub lasts: Duration,
    /// Whatever else there is to be chosen, as a number.
    pub choice: u64,
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
        Ok(())
    }
}

/// The faults of a seed, in the order of their times.
///
/// Each seed has some kinds and not others, often or seldom: where everything goes wrong all the time, nothing gets far
/// enough for the rare states.
pub(super) fn plan(setup: &Simulation, seed: u64) -> Vec<Fault> {
    let mut random = Random::stream(seed, 1);
    let mut bag: Vec<(Kind, u64)> = Vec::new();
    for kind in setup.kinds() {
        let (in_it, share) = (random.percent(60), random.between(1, 4));
        if in_it || setup.kinds().len() == 1 {
            bag.push((*kind, kind.weight() * share));
        }
    }
    // A read cannot tell that the store was restored, only a watch can. A node whose watch ended with a compaction, and
    // whose store was restored before it read a snapshot, would take the new history for the old: a limit of the contract.
    if bag.iter().any(|(kind, _)| *kind == Kind::Rewind) {
        bag.retain(|(kind, _)| *kind != Kind::WatchGap);
    }
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
        let kind = chosen.map_or(bag[0].0, |(kind, _)| *kind);
        let node = random.below(setup.nodes as u64) as usize;
        let (least, most) = kind.lasts();
        // Short ones are as likely as long ones by their order of magnitude.
        let lasts = if random.percent(50) {
            random.ms(least, most)
        } else {
            random.ms(least, least + (most - least) / 8)
        };
        plan.push(Fault { at, kind, node, lasts, choice: random.next() });
        at = at + random.ms(0, 2 * gap);
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_follows_from_its_seed_and_stays_within_the_storm() {
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
    fn only_what_is_chosen_is_planned() {
        let setup = Simulation::new().only([Kind::Pause]);
        assert!((0..20).all(|seed| plan(&setup, seed).iter().all(|fault| fault.kind == Kind::Pause)));
        assert!(plan(&Simulation::new().only([]), 1).is_empty());
    }

    #[test]
    fn every_kind_stands_in_the_list_in_its_place() {
        for (place, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place, "{kind:?}");
        }
    }
}
