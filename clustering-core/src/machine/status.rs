use super::{FailingCall, Health, Intent, Machine};
use crate::{
    event::{Blocked, MassFailure, StopReason},
    name::{Incarnation, NodeName},
    store::Revision,
    time::Timestamp,
    version::{Term, Version},
    view::View,
};

/// Where a node is in its life.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// It only follows the log.
    Observing,
    /// It has no place in the log yet, or lost it, and is about to get one.
    Joining,
    /// It stands in the log.
    Member,
    /// It is giving its place up.
    Leaving,
    /// It has ended.
    Stopped(StopReason),
}

/// All that a node knows of itself and the cluster, as one value. Deadlines, never flags that were true once.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Where the node is in its life.
    pub phase: Phase,
    /// Whether the process is well, by its own check.
    pub health: Health,
    /// Its session.
    pub session: Option<SessionStatus>,
    /// Who leads.
    pub leader: Option<Leader>,
    /// Until when this node may act as leader.
    pub leadership: Option<Leadership>,
    /// The view of the newest version, if it is known.
    pub newest: Option<View>,
    /// The view of the version that this node acknowledged in its present session.
    pub acknowledged: Option<View>,
    /// The newest version that was recorded as stable, whether or not newer ones were published since.
    pub stable: Option<Version>,
    /// Whether the newest version is recorded as stable.
    pub consistent: bool,
    /// On the leader: who has kept the newest version from becoming stable for a while.
    pub blocked: Option<Blocked>,
    /// On the leader: the failure of so many nodes at once that it evicts nobody.
    pub mass_failure: Option<MassFailure>,
    /// Since when the store has not answered: all of this is the last that was known.
    pub stale_since: Option<Timestamp>,
    /// Calls to the store that this node needs and that have failed for at least
    /// [`Config::warn_after`](crate::Config::warn_after). Empty if there are none.
    pub failing: Vec<FailingCall>,
    /// Whether the log was read: before that nothing is known of the cluster.
    pub synced: bool,
    /// The revision up to which the log was folded.
    pub revision: Revision,
}

/// A session: the node's place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionStatus {
    /// The life of the node under its name.
    pub incarnation: Incarnation,
    /// After that moment the place may be gone, unless a renewal succeeds before.
    pub until: Timestamp,
}

/// Who leads.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leader {
    /// Its name; `None` if the election key cannot be read.
    pub name: Option<NodeName>,
    /// Its term.
    pub term: Term,
}

/// The right to act as leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leadership {
    /// The term.
    pub term: Term,
    /// After that moment it is over, unless a renewal succeeds before.
    pub until: Timestamp,
}

impl Machine {
    /// What the node knows at `now`. Costs the same however many nodes there are, save for naming laggards.
    pub fn status(&self, now: Timestamp) -> Status {
        let member = self.membership.is_member();
        let phase = match &self.intent {
            Intent::Observe => Phase::Observing,
            Intent::Register if member => Phase::Member,
            Intent::Register => Phase::Joining,
            Intent::Stop { .. } => Phase::Leaving,
            Intent::Stopped { reason } => Phase::Stopped(reason.clone()),
        };
        let session = self.session.held().filter(|_| member).and_then(|held| {
            let incarnation = self.membership.incarnation()?.clone();
            Some(SessionStatus { incarnation, until: held.deadline() })
        });
        let leader = self.fold.leader().map(|leader| Leader {
            name: leader.record.as_ref().map(|record| record.node.clone()),
            term: Term::new(leader.created),
        });
        Status {
            phase,
            health: self.health(),
            session,
            leader,
            leadership: self.leadership().map(|(term, until)| Leadership { term, until }),
            newest: self.fold.newest().cloned(),
            acknowledged: self.acknowledgement.acknowledged().cloned(),
            stable: self.fold.stable().and_then(|stable| stable.record.as_ref()).map(|record| record.version),
            consistent: self.fold.is_stable(),
            blocked: self.blocked(now),
            mass_failure: self.consistency.mass_failure(),
            stale_since: self.contact.away_since(),
            failing: self.failing.reported(),
            synced: self.log.follow.is_synced(),
            revision: self.fold.revision(),
        }
    }
}
