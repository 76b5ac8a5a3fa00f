//! Snapshots of the machine's knowledge, for its users.

use std::{collections::BTreeMap, sync::Arc};

use super::{Identity, Machine, facts::Intent, failing::FailingCall, health::Health};
use crate::{
    config::Config,
    event::{Blocked, MassFailure, StopReason},
    fold::Fold,
    keyspace::Keyspace,
    name::{Incarnation, NodeName},
    node::Node,
    slots::{Slot, SlotSet},
    store::{LeaseId, Revision},
    time::Timestamp,
    version::{Term, Version},
    view::View,
};

/// Phase in the life of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// The node only follows the log.
    Observing,
    /// The node is not a member yet, or lost its membership, and is about to join.
    Joining,
    /// The node's record is in the log.
    Member,
    /// The node is leaving.
    Leaving,
    /// The node has ended.
    Stopped(StopReason),
}

/// Snapshot of a node's knowledge of itself and of its cluster.
///
/// A snapshot does not change, so an old one may be out of date. For answers that depend on the current time, use the
/// methods of [`Clustering`](crate::Clustering), which check the clock at each call:
/// [`is_leader`](crate::Clustering::is_leader), [`owns`](crate::Clustering::owns),
/// [`is_member`](crate::Clustering::is_member), [`is_stable`](crate::Clustering::is_stable).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Phase in the life of the node.
    pub phase: Phase,
    /// Health of the process, by its own check.
    pub health: Health,
    /// True if the node was registered in the log and its session was live.
    pub member: bool,
    /// The node's session, with its deadline as of the snapshot.
    pub session: Option<SessionStatus>,
    /// The leader.
    pub leader: Option<Leader>,
    /// The term under which this node was allowed to act as leader.
    pub active_term: Option<Term>,
    /// This node's leadership, with its deadline as of the snapshot.
    pub leadership: Option<Leadership>,
    /// The view of the newest version, if it is known.
    pub newest: Option<View>,
    /// The view of the version that this node acknowledged in its current session.
    pub acknowledged: Option<View>,
    /// The newest version that was recorded as stable, whether or not newer ones were published since.
    pub stable: Option<Version>,
    /// True if the *cluster* is stable: the log is up to date, the newest version is recorded as stable, and no other
    /// version is due. No version is due while the nodes present are exactly those of its view, under the same
    /// sessions, there is a leader, and no newer version has been requested. A [`Report`](crate::report::Report) uses
    /// the same definition.
    ///
    /// [`is_stable`](Self::is_stable) also requires that this node is part of it.
    pub consistent: bool,
    /// The slots that this node holds (P12); `None` on a node that is not exclusive.
    pub holdings: Option<Holdings>,
    /// On the leader: the nodes that have kept the newest version from becoming stable for a while, or the minimum size
    /// that it waits for.
    pub blocked: Option<Blocked>,
    /// On the leader: the mass failure during which it keeps slots for lost nodes, or evicts no nodes. If both happen
    /// at once, the loss.
    pub mass_failure: Option<MassFailure>,
    /// Time at which the store stopped answering; `None` while it answers. While it is set, all other fields may be out
    /// of date.
    pub stale_since: Option<Timestamp>,
    /// Store calls that this node needs and that have kept failing for at least
    /// [`Config::warn_after`](crate::Config::warn_after).
    pub failing: Vec<FailingCall>,
    /// True once the log has been read. Before that, nothing is known about the cluster.
    pub synced: bool,
    /// The revision up to which the log was folded.
    pub revision: Revision,
}

/// The session of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionStatus {
    /// Incarnation of the node.
    pub incarnation: Incarnation,
    /// Deadline of the session, by the node's own clock. Each renewal moves it.
    pub until: Timestamp,
}

/// The slots that an exclusive node holds, and the time until which it holds them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holdings {
    /// The lease under which the slots are held; `None` without a session. After a session ended in order, it is the
    /// lease that is kept until everything is released.
    pub lease: Option<LeaseId>,
    /// The slots that this node holds. The value is the fencing token: the revision of the version under which the slot
    /// was acquired.
    pub held: Arc<BTreeMap<Slot, Revision>>,
    /// Time until which holds are given out, by the node's own clock. Outstanding holds are lost at that time unless a
    /// renewal succeeds first. Each renewal moves this time.
    pub until: Timestamp,
    /// Time after which all holds of this lease are void, by the node's own clock. Each renewal moves this time.
    pub void: Timestamp,
    /// Slots that this node lost and whose holds are not dropped yet.
    pub in_use: SlotSet,
    /// True while the `release` callback has not succeeded for all slots that were lost.
    pub releasing: bool,
}

/// The leader of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leader {
    /// Name of the leader; `None` if the election key cannot be decoded.
    pub name: Option<NodeName>,
    /// Term of the leader.
    pub term: Term,
}

/// The right to act as leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leadership {
    /// The term.
    pub term: Term,
    /// Deadline of the leadership, by the node's own clock. Each renewal moves it.
    pub until: Timestamp,
}

impl Machine {
    /// Returns what the node knows at `now`. The cost does not depend on the number of nodes, except for naming
    /// laggards.
    pub fn status(&self, now: Timestamp) -> Status {
        let Machine { facts, session, membership, election, out, .. } = self;
        let fold = &facts.fold;
        let session = session.held().and_then(|held| {
            let incarnation = membership.incarnation()?.clone();
            Some(SessionStatus { incarnation, until: held.deadline() })
        });
        let leader = fold.leader().map(|leader| Leader {
            name: leader.record.as_ref().map(|record| record.node.clone()),
            term: Term::new(leader.created),
        });
        let away_since = out.contact.away_since();
        Status {
            phase: self.phase(),
            health: self.health.health(facts),
            member: session.as_ref().is_some_and(|session| now < session.until),
            session,
            leader,
            active_term: election.active_term(now),
            leadership: election.leadership().map(|(term, until)| Leadership { term, until }),
            newest: fold.newest().cloned(),
            acknowledged: self.acknowledgement.acknowledged().cloned(),
            stable: fold.stable().and_then(|stable| stable.record.as_ref()).map(|record| record.version),
            consistent: self.log.is_open() && away_since.is_none() && fold.is_settled(),
            holdings: facts.config.exclusive.map(|_| self.holdings()),
            blocked: self.consistency.blocked(facts, &self.acknowledgements, now),
            mass_failure: self.keeping.mass_loss().or(self.eviction.mass_failure()),
            stale_since: away_since,
            failing: out.failing.reported(),
            synced: self.log.is_synced(),
            revision: fold.revision(),
        }
    }

    fn holdings(&self) -> Holdings {
        let times = self.session.hold_times();
        Holdings {
            lease: times.map(|times| times.lease),
            held: self.ownership.held().clone(),
            until: times.map_or(Timestamp::ZERO, |times| times.until),
            void: times.map_or(Timestamp::ZERO, |times| times.void),
            in_use: self.ownership.in_use(),
            releasing: self.ownership.is_releasing(),
        }
    }

    fn phase(&self) -> Phase {
        match &self.facts.intent {
            Intent::Observe => Phase::Observing,
            Intent::Register if self.membership.is_member() => Phase::Member,
            Intent::Register => Phase::Joining,
            Intent::Stop { .. } => Phase::Leaving,
            Intent::Stopped { reason } => Phase::Stopped(reason.clone()),
        }
    }

    /// Returns the nodes that are present now, sorted by name, whether or not a version contains them yet.
    pub fn present(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.facts.fold.present()
    }

    /// Returns the number of nodes that are present.
    pub fn present_count(&self) -> usize {
        self.facts.fold.present_count()
    }

    /// Returns the node with that name, if it is present.
    pub fn node_named(&self, name: &NodeName) -> Option<&Arc<Node>> {
        self.facts.fold.node(name)
    }

    /// True if, as far as the node knows, the store contains none of its keys any more: its leases were revoked, have
    /// expired, or never held a key.
    pub fn is_given_back(&self) -> bool {
        self.session.shows_nothing(self.facts.now)
    }

    /// Returns the view of the newest version, if it is known.
    pub fn newest(&self) -> Option<&View> {
        self.facts.fold.newest()
    }

    /// Returns the number of nodes of the newest version that have not acknowledged it. Only the leader knows it, after
    /// it has read the acknowledgements.
    pub fn unready(&self) -> Option<usize> {
        let missing = self.consistency.missing(&self.facts).filter(|_| self.election.leading().is_some());
        missing.map(|missing| missing.len())
    }

    /// Returns the keys of the cluster.
    pub fn keyspace(&self) -> &Keyspace {
        self.facts.keys()
    }

    /// Returns the configuration of the node.
    pub(crate) fn config(&self) -> &Config {
        &self.facts.config
    }

    /// Returns the node's replica of the log.
    pub(crate) fn replica(&self) -> &Fold {
        &self.facts.fold
    }

    /// Returns the identity of the node with its newest metadata; `None` for an observer.
    pub fn identity(&self) -> Option<&Identity> {
        self.facts.identity.as_ref()
    }
}

impl Status {
    /// Returns the version that this node acknowledged in its current session.
    pub fn cluster_version(&self) -> Option<Version> {
        self.acknowledged.as_ref().map(View::version)
    }

    /// True if the [cluster was stable](Self::consistent) and this node was part of it: it was in the newest view with
    /// a live session, and knew that it had acknowledged that version.
    pub fn is_stable(&self) -> bool {
        let revision = |view: &Option<View>| view.as_ref().map(View::revision);
        let acknowledged =
            self.acknowledged.is_some() && revision(&self.acknowledged) == revision(&self.newest);
        self.consistent && self.member && self.phase == Phase::Member && acknowledged
    }

    /// Returns the newest version, if this node [was stable](Self::is_stable) at it.
    pub fn stable_version(&self) -> Option<Version> {
        self.newest.as_ref().filter(|_| self.is_stable()).map(View::version)
    }

    /// Returns the newest version, if this node is stable at it and its session is live at `now`.
    pub(crate) fn stable_version_at(&self, now: Timestamp) -> Option<Version> {
        self.stable_version().filter(|_| self.is_member_at(now))
    }

    /// Returns the term under which the node may act as leader at `now`.
    pub(crate) fn term_at(&self, now: Timestamp) -> Option<Term> {
        self.leadership.filter(|leadership| now < leadership.until).map(|leadership| leadership.term)
    }

    /// Returns the acknowledged view, if the session is live at `now`.
    pub(crate) fn acknowledged_at(&self, now: Timestamp) -> Option<&View> {
        self.acknowledged.as_ref().filter(|_| self.is_member_at(now))
    }

    /// True if the session is live at `now`.
    pub(crate) fn is_member_at(&self, now: Timestamp) -> bool {
        self.session.as_ref().is_some_and(|session| now < session.until)
    }

    /// True if a deadline of this snapshot has passed at `now`.
    pub(crate) fn has_lapsed(&self, now: Timestamp) -> bool {
        self.session.is_some() && !self.is_member_at(now)
            || self.leadership.is_some() && self.term_at(now).is_none()
    }

    /// True if `next` contains no change for which watchers must be woken. Ignores deadlines, which move with each
    /// renewal, and [`Blocked::since`], which moves with time.
    pub(crate) fn says_the_same(&self, next: &Status) -> bool {
        let key = |status: &Status| {
            let incarnation = status.session.as_ref().map(|session| session.incarnation.clone());
            (incarnation, status.leadership.map(|leadership| leadership.term))
        };
        let held = |holdings: &Option<Holdings>| {
            holdings.as_ref().map(|holdings| {
                let Holdings { lease, held, until: _, void: _, in_use, releasing } = holdings.clone();
                (lease, held, in_use, releasing)
            })
        };
        let blocked = |status: &Status| {
            status.blocked.clone().map(|blocked| (blocked.version, blocked.laggards, blocked.waits_for_nodes))
        };
        let Status {
            phase,
            health,
            member,
            session: _,
            leader,
            active_term,
            leadership: _,
            newest,
            acknowledged,
            stable,
            consistent,
            holdings,
            blocked: _,
            mass_failure,
            stale_since,
            failing,
            synced,
            revision,
        } = self;
        *phase == next.phase
            && *health == next.health
            && *member == next.member
            && key(self) == key(next)
            && *leader == next.leader
            && *active_term == next.active_term
            && *newest == next.newest
            && *acknowledged == next.acknowledged
            && *stable == next.stable
            && *consistent == next.consistent
            && held(holdings) == held(&next.holdings)
            && blocked(self) == blocked(next)
            && *mass_failure == next.mass_failure
            && *stale_since == next.stale_since
            && *failing == next.failing
            && *synced == next.synced
            && *revision == next.revision
    }
}
