//! Keeping the slots of absent nodes for a while (P12).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    facts::Facts,
    log::Resync,
    outbox::Outbox,
    session::{Epoch, Session, SessionChange, SessionEnd},
    timers::Timers,
};
use crate::{
    config::{MAX_TTL, RETRY},
    event::{Event, LostReason, MassFailure, MassFailureKind},
    fold::Changed,
    name::NodeName,
    node::Node,
    record::{Cause, Departure, VersionRecord},
    time::Timestamp,
    view::View,
};

/// Decides which absent nodes keep their slots, and until when. A kept slot has no owner until the node is back. Slots
/// are kept
///
/// - during the restart grace of a node, which its last record or its departure record contains, and
/// - after a *mass loss*, if the sessions of so many owners ended at about the same time that a common cause is likely,
///   such as an outage of the store. Most of these nodes are back within seconds.
///
/// Every node follows the departures and the names in version records, so that each can continue as the next leader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Keeping {
    epoch: Epoch,
    /// True if the last session was lost and the next one has not begun.
    has_lost_session: bool,
    /// Time at which this session began, if the previous session was lost.
    rejoined: Option<Timestamp>,
    /// Departed owners of slots, and the times until which their slots are kept. A time in the past remains until a
    /// version moves the slots.
    deadlines: BTreeMap<NodeName, Timestamp>,
    /// Owners of slots whose sessions ended a short time ago, and when this node saw that.
    ended: BTreeMap<NodeName, Timestamp>,
    /// The mass loss that this leader reported.
    mass_loss: Option<MassFailure>,
}

impl Keeping {
    /// Returns the mass loss that this node has reported as leader, while it lasts.
    pub(crate) fn mass_loss(&self) -> Option<MassFailure> {
        self.mass_loss
    }

    /// Returns the absent nodes that keep their slots, with the remaining times.
    pub(crate) fn kept(&self, facts: &Facts) -> BTreeMap<NodeName, Duration> {
        let is_kept = |(name, deadline): &(&NodeName, &Timestamp)| {
            facts.fold.node(name).is_none() && facts.now < **deadline && may_keep(facts, name)
        };
        let kept = self.deadlines.iter().filter(is_kept);
        kept.map(|(name, deadline)| (name.clone(), deadline.since(facts.now))).collect()
    }

    /// Returns the nodes outside of the view that keep their slots. A node that is already back counts too: the next
    /// version will contain it.
    pub(crate) fn kept_in(&self, facts: &Facts, view: &View) -> BTreeSet<NodeName> {
        let is_kept = |(name, deadline): &(&NodeName, &Timestamp)| {
            let is_back = facts.fold.node(name).is_some();
            view.get(name).is_none() && (is_back || facts.now < **deadline) && may_keep(facts, name)
        };
        self.deadlines.iter().filter(is_kept).map(|(name, _)| name.clone()).collect()
    }

    /// Returns the nodes that the newest version lists as kept and that did not come back in time, as causes of the
    /// next version.
    pub(crate) fn not_back(&self, facts: &Facts) -> Vec<Cause> {
        let is_over = |name: &&NodeName| {
            let is_late = self.deadlines.get(*name).is_some_and(|deadline| facts.now >= *deadline);
            is_late && facts.fold.node(name).is_none() && may_keep(facts, name)
        };
        let listed = version(facts).into_iter().flat_map(|record| record.kept.keys());
        listed.filter(is_over).cloned().map(Cause::NotBack).collect()
    }

    pub(crate) fn timers(&self, session: &Session, facts: &Facts, is_leading: bool, timers: &mut Timers) {
        if is_leading {
            self.deadlines.values().for_each(|deadline| timers.at(*deadline));
            let window = window(session, facts);
            self.ended.values().for_each(|since| timers.at(*since + window));
        }
    }

    /// Handles a snapshot of the log. If the version has changed, the times start again, because departures and
    /// returns may have been missed.
    pub(crate) fn on_resync(&mut self, resync: &Resync) {
        if resync.rewound || resync.changes.contains(&Changed::Version) {
            self.deadlines.clear();
        }
        if resync.rewound {
            self.ended.clear();
        }
    }

    /// Handles a change of the log.
    pub(crate) fn on_change(&mut self, facts: &Facts, change: &Changed) {
        match change {
            _ if facts.config.exclusive.is_none() => {}
            Changed::Down(node, how, grace) => self.on_departure(facts, node, *how, *grace),
            Changed::Version => self.on_version(facts),
            _ => {}
        }
    }

    fn on_departure(&mut self, facts: &Facts, node: &Node, how: Departure, grace: Duration) {
        let name = &node.name;
        self.deadlines.remove(name);
        self.ended.remove(name);
        if !is_owner(facts, name) {
            return;
        }
        // Without a grace, the deadline passes at once. If the departure was committed, the deadline is recorded all
        // the same: a version may follow whose publisher knew only of an earlier departure of this node, with a grace,
        // and that version must not make the slots wait. If the session ended, no deadline is recorded, because the
        // publisher of the next version may know more: a gap in the log hides how the node departed, and after an
        // outage the leader waits for every node whose session ends.
        if how != Departure::Ended || !grace.is_zero() {
            self.deadlines.insert(name.clone(), facts.now + grace);
        }
        if how == Departure::Ended {
            self.ended.insert(name.clone(), facts.now);
        }
    }

    /// Takes over the names in the version record, which another leader may have published.
    fn on_version(&mut self, facts: &Facts) {
        let waits = |name: &NodeName| facts.fold.node(name).is_none() && is_owner(facts, name);
        self.deadlines.retain(|name, _| waits(name));
        let Some(record) = version(facts) else { return };
        for (name, ms) in record.kept.iter().filter(|(name, _)| waits(name)) {
            let remaining = Duration::from_millis(*ms).min(MAX_TTL);
            self.deadlines.entry(name.clone()).or_insert(facts.now + remaining);
        }
    }

    /// Finds out whether there is a mass loss, and reports it on the leader.
    pub(crate) fn reconcile(&mut self, facts: &Facts, session: &Session, is_leading: bool, out: &mut Outbox) {
        self.follow_session(session, facts);
        let window = window(session, facts);
        self.ended.retain(|_, since| facts.now < *since + window);
        let loss = self.count(facts);
        if loss.is_some() || self.was_cut_off(facts, window) {
            self.keep_ended(facts, window);
        }
        let has_absent = self.ended.keys().any(|name| facts.fold.node(name).is_none());
        self.report(loss.filter(|_| is_leading && has_absent), out);
    }

    /// Notes whether the last session was lost because the store did not answer, or forgot the lease.
    fn follow_session(&mut self, session: &Session, facts: &Facts) {
        if let Some(ended) = session.ended() {
            let lost = [LostReason::Expired, LostReason::LeaseGone, LostReason::Rewound];
            self.has_lost_session = lost.map(SessionEnd::Lost).contains(&ended.end);
        }
        if session.change_since(&mut self.epoch) == Some(SessionChange::Began) {
            self.rejoined = std::mem::take(&mut self.has_lost_session).then_some(facts.now);
        }
    }

    /// Returns the mass loss, if more owners of slots have ended than `mass_failure_percent` allows. A single node
    /// does not count as a mass loss, even if it is the only owner.
    fn count(&self, facts: &Facts) -> Option<MassFailure> {
        let version = version(facts).filter(|_| !self.ended.is_empty())?.version;
        let owners = facts.fold.slots()?.record.as_ref()?;
        let failing = self.ended.len();
        let nodes = owners.owners() + self.ended.keys().filter(|name| !owners.has_owner(name)).count();
        let is_mass = failing > 1 && failing * 100 > nodes * usize::from(facts.config.mass_failure_percent);
        is_mass.then_some(MassFailure { version, kind: MassFailureKind::Lost, failing, nodes })
    }

    /// True if this node lost its session a short time ago. Then the store may have been unavailable, and other nodes
    /// whose sessions ended are about to rejoin too, even if only a few are missing so far.
    fn was_cut_off(&self, facts: &Facts, window: Duration) -> bool {
        let is_on = facts.config.mass_failure_percent < 100;
        is_on && self.rejoined.is_some_and(|rejoined| facts.now < rejoined + window * 2)
    }

    fn keep_ended(&mut self, facts: &Facts, window: Duration) {
        for (name, since) in &self.ended {
            if facts.fold.node(name).is_none() && is_owner(facts, name) {
                let deadline = self.deadlines.entry(name.clone()).or_default();
                *deadline = (*deadline).max(*since + window);
            }
        }
    }

    fn report(&mut self, loss: Option<MassFailure>, out: &mut Outbox) {
        match (std::mem::replace(&mut self.mass_loss, loss), loss) {
            (None, Some(failure)) => out.emit(Event::MassFailure(failure)),
            (Some(MassFailure { kind, .. }), None) => out.emit(Event::MassFailureOver { kind }),
            _ => {}
        }
    }
}

/// Returns the window in which ended sessions count as one mass loss, which is also the time for which their slots
/// are kept after it: a TTL, but not less than nodes need to repeat a call that failed during an outage.
fn window(session: &Session, facts: &Facts) -> Duration {
    session.ttl(facts).max(RETRY.max * 2)
}

fn version(facts: &Facts) -> Option<&VersionRecord> {
    facts.fold.version()?.record.as_ref()
}

/// True if the stored assignment gives slots to the node.
fn is_owner(facts: &Facts, name: &NodeName) -> bool {
    let assignment = facts.fold.slots().and_then(|slots| slots.record.as_ref());
    assignment.is_some_and(|assignment| assignment.has_owner(name))
}

/// True if a node may keep its slots while it is absent. An operator ends the wait for a node by cordoning it.
fn may_keep(facts: &Facts, name: &NodeName) -> bool {
    is_owner(facts, name) && !facts.fold.is_cordoned(name)
}
