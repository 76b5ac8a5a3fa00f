use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::SmallRng};

use crate::arguments::Settings;

/// Kinds of faults of the nodes, their connections and the store, and manual changes in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Kill,
    Pause,
    Leave,
    Burst,
    Twin,
    Cut,
    Hang,
    HangAnswers,
    LoseAnswer,
    Refuse,
    KillMember,
    PauseMember,
    MoveStoreLeader,
    LoseQuorum,
    Compact,
    RevokeLease,
    DeleteLeader,
    DeleteNode,
    DeleteReady,
    DeleteVersion,
    DeleteStable,
    Ask,
}

/// The nodes that are exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exclusive {
    All,
    /// Some lives of some nodes are not, until all faults have ended.
    Mixed,
    None,
}

impl Exclusive {
    pub(crate) const NAMED: [(&'static str, Exclusive); 3] =
        [("all", Exclusive::All), ("mixed", Exclusive::Mixed), ("none", Exclusive::None)];

    /// Draws from the seed. Most of the time, all nodes are exclusive.
    pub(crate) fn drawn(seed: u64) -> Self {
        match SmallRng::seed_from_u64(!seed).random_range(0..10) {
            0..6 => Exclusive::All,
            6..8 => Exclusive::Mixed,
            _ => Exclusive::None,
        }
    }
}

/// Target of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Node(usize),
    /// The node that leads when the fault begins.
    Leader,
}

/// A planned fault.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    /// Time from the start of the storm until the fault begins.
    pub(crate) at: Duration,
    pub(crate) kind: Kind,
    pub(crate) target: Target,
    /// Duration of the fault. Zero if it is instantaneous.
    pub(crate) lasts: Duration,
    /// Random bits for all other choices.
    pub(crate) choice: u64,
}

impl Kind {
    pub(crate) const ALL: [Kind; 22] = [
        Kind::Kill,
        Kind::Pause,
        Kind::Leave,
        Kind::Burst,
        Kind::Twin,
        Kind::Cut,
        Kind::Hang,
        Kind::HangAnswers,
        Kind::LoseAnswer,
        Kind::Refuse,
        Kind::KillMember,
        Kind::PauseMember,
        Kind::MoveStoreLeader,
        Kind::LoseQuorum,
        Kind::Compact,
        Kind::RevokeLease,
        Kind::DeleteLeader,
        Kind::DeleteNode,
        Kind::DeleteReady,
        Kind::DeleteVersion,
        Kind::DeleteStable,
        Kind::Ask,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Kind::Kill => "node killed",
            Kind::Pause => "node paused",
            Kind::Leave => "node leaves",
            Kind::Burst => "burst of leaves and joins",
            Kind::Twin => "second instance",
            Kind::Cut => "connections cut",
            Kind::Hang => "connections hang",
            Kind::HangAnswers => "answers hang",
            Kind::LoseAnswer => "answer to a leader's write lost",
            Kind::Refuse => "connections between nodes refused",
            Kind::KillMember => "member of the store killed",
            Kind::PauseMember => "member of the store paused",
            Kind::MoveStoreLeader => "leader of the store moved",
            Kind::LoseQuorum => "quorum of the store lost",
            Kind::Compact => "compaction",
            Kind::RevokeLease => "lease revoked by hand",
            Kind::DeleteLeader => "leader key deleted by hand",
            Kind::DeleteNode => "node deleted by hand",
            Kind::DeleteReady => "acknowledgement deleted by hand",
            Kind::DeleteVersion => "version deleted by hand",
            Kind::DeleteStable => "stable deleted by hand",
            Kind::Ask => "version asked for by hand",
        }
    }

    const fn weight(self) -> u32 {
        match self {
            Kind::Kill | Kind::Pause => 10,
            Kind::Leave | Kind::Cut | Kind::Hang | Kind::HangAnswers | Kind::LoseAnswer => 6,
            Kind::KillMember | Kind::PauseMember => 5,
            Kind::Twin | Kind::RevokeLease | Kind::Compact | Kind::Ask | Kind::Refuse => 4,
            Kind::Burst | Kind::DeleteLeader | Kind::DeleteNode => 3,
            _ => 2,
        }
    }

    /// Returns the maximum duration in TTLs.
    const fn lasts(self) -> f64 {
        match self {
            Kind::Pause | Kind::Cut | Kind::Hang | Kind::HangAnswers | Kind::Twin => 2.5,
            Kind::Kill | Kind::Leave | Kind::Burst => 2.0,
            Kind::KillMember | Kind::PauseMember | Kind::LoseQuorum => 2.0,
            // Ends early with the first write.
            Kind::LoseAnswer | Kind::Refuse => 1.0,
            _ => 0.0,
        }
    }
}

/// Plans the faults of a seed, in order of time. The average time between faults differs from seed to seed.
pub(crate) fn plan(settings: &Settings) -> Vec<Fault> {
    let mut random = SmallRng::seed_from_u64(settings.seed);
    let total: u32 = settings.only.iter().map(|kind| kind.weight()).sum();
    let gap = random.random_range(0.5..2.0);
    let mut at = Duration::from_millis(random.random_range(0..2_000));
    let mut plan = Vec::new();
    while at < settings.time {
        let mut ticket = random.random_range(0..total);
        let drawn = settings.only.iter().copied().find(|kind| {
            let here = ticket < kind.weight();
            ticket = ticket.saturating_sub(kind.weight());
            here
        });
        let kind = match drawn.unwrap_or(settings.only[0]) {
            // P12 does not hold if somebody revokes the lease of a live node, so the node is deleted instead.
            Kind::RevokeLease if settings.exclusive != Exclusive::None => Kind::DeleteNode,
            kind => kind,
        };
        let target = match random.random_bool(0.4) {
            true => Target::Leader,
            false => Target::Node(random.random_range(0..settings.nodes)),
        };
        // Half of the faults last at most a fifth of the maximum.
        let most = if random.random_bool(0.5) { kind.lasts() } else { kind.lasts() / 5.0 };
        let lasts = settings.ttl.mul_f64(most * random.random_range(0.05..=1.0));
        plan.push(Fault { at, kind, target, lasts, choice: random.random() });
        at += Duration::from_secs_f64(gap * random.random_range(0.0..2.0));
    }
    plan
}
