//! Evicting nodes that keep a version from becoming stable (P8).

use std::time::Duration;

use super::{
    acknowledgements::is_as_published, consistency::Consistency, election::Election, facts::Facts, formation,
    in_flight::InFlight, log::Resync, outbox::Outbox, output::Purpose, timers::Timers, token::Token,
};
use crate::{
    config::Laggards,
    event::{Event, MassFailure, MassFailureKind},
    fold::Changed,
    name::NodeName,
    record::{Departure, DepartureRecord},
    store::{Guard, Revision, StoreError, Txn},
    time::Timestamp,
};

/// Evicts laggards one after the other, if [`Config::laggards`](crate::Config::laggards) says so, unless too many nodes
/// are late at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Eviction {
    evict: InFlight,
    /// The node that this leader last tried to evict.
    evicting: Option<NodeName>,
    /// The mass failure as last counted. No nodes are evicted while it lasts.
    mass_failure: Option<MassFailure>,
}

impl Eviction {
    /// Returns the mass failure that keeps this leader from evicting nodes, if there is one.
    pub(crate) fn mass_failure(&self) -> Option<MassFailure> {
        self.mass_failure
    }

    pub(crate) fn fails_to_evict(&self, facts: &Facts) -> bool {
        self.evict.is_failing(facts)
    }

    pub(crate) fn timers(&self, facts: &Facts, consistency: &Consistency, timers: &mut Timers) {
        timers.maybe(self.evict.due(facts));
        timers.maybe(
            due(facts, consistency)
                .filter(|_| consistency.laggards(facts).is_some_and(|missing| !missing.is_empty())),
        );
    }

    /// Handles a snapshot of the log. After a rewind, departures are those of another history.
    pub(crate) fn on_resync(&mut self, resync: &Resync) {
        if resync.rewound {
            self.evicting = None;
        }
    }

    /// Handles a change of the log. The eviction is over if the node is gone, or if it has put its record again, which
    /// makes the eviction fail.
    pub(crate) fn on_change(&mut self, change: &Changed, out: &mut Outbox) {
        match change {
            Changed::Renewed(node) => {
                self.evicting.take_if(|evicting| *evicting == node.name);
            }
            Changed::Down(node, how, _) => {
                if let Some(name) = self.evicting.take_if(|evicting| *evicting == node.name)
                    && *how == Departure::Evicted
                {
                    out.emit(Event::Evicted { name });
                }
            }
            _ => {}
        }
    }

    /// Evicts a laggard if that is due. If this node is the only laggard, it gives up the lead, so that the next leader
    /// can evict it.
    pub(crate) fn reconcile(
        &mut self,
        facts: &Facts,
        election: &mut Election,
        consistency: &Consistency,
        out: &mut Outbox,
    ) {
        if election.leading().is_none() {
            self.end_mass_failure(out);
            *self = Eviction::default();
            return;
        }
        let Laggards::Evict { .. } = facts.config.laggards else { return };
        // While a version waits for further nodes, evictions would not make it stable.
        if facts.fold.is_stable() || formation::waits_for_nodes(facts).is_some() {
            return self.end_mass_failure(out);
        }
        let is_due = due(facts, consistency).is_some_and(|due| facts.now >= due);
        let Some(laggards) = consistency.laggards(facts).filter(|_| is_due) else { return };
        // A node whose record has changed is not a laggard of this version. The next version takes the change into
        // account.
        let laggards: Vec<&NodeName> = laggards.iter().filter(|name| is_as_published(facts, name)).collect();
        if self.is_mass_failure(facts, laggards.len(), out) || !self.evict.is_free(facts) {
            return;
        }
        if election.active_term(facts.now).is_none() {
            return;
        }
        match laggards.iter().find(|name| Some(**name) != facts.name()) {
            Some(name) => self.evict(facts, election, name, out),
            None if !laggards.is_empty() => election.step_down(facts, out),
            None => {}
        }
    }

    fn evict(&mut self, facts: &Facts, election: &Election, name: &NodeName, out: &mut Outbox) {
        let (Some(term), Some(node)) = (election.active_term(facts.now), facts.fold.node(name)) else {
            return;
        };
        let keys = facts.keys();
        let record = keys.node_key(name);
        let txn = Txn::new()
            .guard(Guard::created_at(keys.election_key().clone(), term.revision()))
            .guard(Guard::modified_at(record.clone(), node.modified))
            .delete(record)
            .delete(keys.readiness_key(name));
        let txn = DepartureRecord::add_to(txn, keys, node, Departure::Evicted, Duration::ZERO);
        self.evict.sent(facts, out.commit(Purpose::Evict, txn, facts.now));
        self.evicting = Some(name.clone());
    }

    /// Returns true if there are too many laggards for evictions.
    fn is_mass_failure(&mut self, facts: &Facts, failing: usize, out: &mut Outbox) -> bool {
        let Some(view) = facts.fold.newest() else { return false };
        let failure =
            MassFailure { version: view.version(), kind: MassFailureKind::Late, failing, nodes: view.len() };
        if failing * 100 <= failure.nodes * usize::from(facts.config.mass_failure_percent) {
            self.end_mass_failure(out);
            return false;
        }
        if self.mass_failure.replace(failure).is_none() {
            out.emit(Event::MassFailure(failure));
        }
        true
    }

    fn end_mass_failure(&mut self, out: &mut Outbox) {
        if self.mass_failure.take().is_some() {
            out.emit(Event::MassFailureOver { kind: MassFailureKind::Late });
        }
    }

    /// Handles the reply to a commit. Returns false if it is no longer awaited.
    #[must_use]
    pub(crate) fn on_committed(
        &mut self,
        facts: &Facts,
        token: Token,
        result: &Result<Revision, StoreError>,
    ) -> bool {
        self.evict.take(facts, token, result)
    }
}

/// Returns the time after which laggards are evicted.
fn due(facts: &Facts, consistency: &Consistency) -> Option<Timestamp> {
    let Laggards::Evict { after } = facts.config.laggards else { return None };
    Some(consistency.since()? + after)
}
