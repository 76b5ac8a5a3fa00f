use super::state::State;
use crate::named::named;

named! {
    /// Situations that a suite of models must reach to be meaningful.
    pub enum Reached {
        /// A version with all nodes is recorded as stable.
        Stable = "a stable version of all nodes",
        /// `on_stable` is running.
        OnStable = "on_stable runs",
        /// A version is published while the one before it is not stable.
        SupersededBarrier = "a superseded barrier",
        /// A running stabilize is superseded.
        SupersededRun = "a superseded stabilize",
        /// A node claims to lead under a term that has ended.
        StaleLeader = "a stale leader",
        /// The lead passes to another node.
        Takeover = "another leader",
        /// A guard refuses a leader's record of a stable version.
        ConfirmRefused = "a refused confirm",
        /// A guard refuses another write of a leader.
        LeaderRefused = "a refused write of a leader",
        /// A guard refuses a campaign.
        CandidateRefused = "a refused campaign",
        /// A guard refuses an acknowledgement.
        AcknowledgementRefused = "a refused acknowledgement",
        /// A commit takes effect after its caller has given up on it.
        LateEffect = "a commit that takes effect late",
        /// A node reads a snapshot again after a gap.
        Resync = "a resync",
        /// A node loses its session.
        SessionLost = "a lost session",
        /// A node rejoins by itself after losing its session.
        Rejoin = "a rejoin",
        /// A process finds that its name is still held by its predecessor.
        NameHeld = "a name that is held",
        /// A leader's deadline passes, and it must not act.
        Suspended = "a suspended leader",
        /// A suspended leader may act again.
        Resumed = "a resumed leader",
        /// A stabilize refuses.
        RefusedRun = "a refused stabilize",
        /// A node acquires a slot.
        Acquired = "an acquired slot",
        /// A user works on a slot that its node has lost.
        HeldByUser = "a hold of a lost slot",
        /// A guard refuses a commit of an owner.
        OwnerRefused = "a refused commit of an owner",
        /// A node is removed because its process was reported as gone.
        Crashed = "a removal of a crashed node",
        /// A node learns that it was removed as crashed although it is alive.
        FalseAlarm = "a false alarm",
    }
}

impl Reached {
    pub(super) const fn bit(self) -> u32 {
        1 << self as u32
    }

    /// True if `state` is an instance of this situation.
    pub(super) fn shows(self, state: &State) -> bool {
        let era = state.shared.ledger.present();
        match self {
            Reached::Stable => {
                era.is_stable() && era.newest().is_some_and(|newest| newest.cut.len() == state.nodes.len())
            }
            Reached::OnStable => state.nodes.iter().any(|node| !node.announcing.is_empty()),
            Reached::StaleLeader => {
                let standing = era.reign().map(|reign| reign.term);
                state.nodes.iter().any(|node| {
                    node.claim.is_some_and(|(term, until)| node.now < until && Some(term) != standing)
                })
            }
            Reached::Takeover => {
                let mut leaders = era.reigns().iter().map(|reign| &reign.leader);
                let first = leaders.next();
                leaders.any(|leader| Some(leader) != first)
            }
            Reached::HeldByUser => state
                .nodes
                .iter()
                .any(|node| node.machine.is_some() && !node.claims().is_subset(&node.held())),
            // The step itself records these.
            _ => state.reached & self.bit() != 0,
        }
    }
}
