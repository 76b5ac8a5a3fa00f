use super::state::State;
use crate::named::named;

named! {
    /// A state or a step that is worth reaching: a model that does not is not worth much.
    pub enum Reached {
        /// A version of all nodes is recorded as stable.
        Stable = "a stable version of all nodes",
        /// `on_stable` runs.
        OnStable = "on_stable runs",
        /// A version is published while the one before it is not stable.
        SupersededBarrier = "a superseded barrier",
        /// A stabilize that runs is superseded.
        SupersededRun = "a superseded stabilize",
        /// A node says that it leads under a term that has ended.
        StaleLeader = "a stale leader",
        /// After one led, another does.
        Takeover = "another leader",
        /// A leader's record that a version is stable is refused by a guard.
        ConfirmRefused = "a refused confirm",
        /// Another write of a leader is refused by a guard.
        LeaderRefused = "a refused write of a leader",
        /// A campaign is refused by a guard.
        CandidateRefused = "a refused campaign",
        /// An acknowledgement is refused by a guard.
        AcknowledgementRefused = "a refused acknowledgement",
        /// A commit takes effect after its caller gave up on it.
        LateEffect = "a commit that takes effect late",
        /// A node reads a snapshot again after a gap.
        Resync = "a resync",
        /// A node loses its session.
        SessionLost = "a lost session",
        /// A node is a member again, by itself.
        Rejoin = "a rejoin",
        /// A process finds its name held by the one before it.
        NameHeld = "a name that is held",
        /// A leader's deadline passes.
        Suspended = "a suspended leader",
        /// It may act again.
        Resumed = "a resumed leader",
        /// A stabilize says no.
        RefusedRun = "a refused stabilize",
    }
}

impl Reached {
    pub(super) const fn bit(self) -> u32 {
        1 << self as u32
    }

    /// Whether that state shows it.
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
            // These are seen by the step.
            _ => state.reached & self.bit() != 0,
        }
    }
}
