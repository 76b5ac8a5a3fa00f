//! Judging whether the newest version is stable (P4, P8).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    acknowledgements::{self, Acknowledgements, StoredAcknowledgement, is_as_published},
    election::Election,
    facts::Facts,
    formation,
    in_flight::InFlight,
    log::Log,
    outbox::Outbox,
    output::Purpose,
    timers::Timers,
    token::Token,
    versions,
};
use crate::{
    config::Backoff,
    event::{Blocked, Event, Holder, Laggard},
    fold::Changed,
    name::NodeName,
    record::{ReleasedRecord, SettledRecord, StableRecord, encode},
    store::{Guard, Revision, StoreError, Txn},
    time::Timestamp,
    view::View,
};

/// Time for which a deleted acknowledgement may be missing before it counts as lost: the node may write it again, or
/// may have departed, which the log will show.
const LOST_AFTER: Duration = Duration::from_secs(1);

/// On the leader, determines which nodes have not acknowledged the newest version, records the version as stable when
/// all have, and reports the nodes that are late.
///
/// A version with hand-over has two phases. First, all nodes that lose slots release them. Then the leader *permits*
/// the new owners to acquire the slots, and all nodes become ready. A session outside of the version that may still
/// hold slots also delays the permit; no node counts as late during that time.
///
/// An acknowledgement counts if it accepts the newest version, under the lease that the node's record has in the
/// version's view, and if that record has not changed. It is enough that all count at once: an acknowledgement is
/// deleted in the same revision in which its record ends, so as long as the record is in the log, the acknowledgement
/// existed too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Consistency {
    permit: InFlight,
    confirm: InFlight,
    judgement: Option<Judgement>,
    /// True if all nodes have to be judged again.
    is_outdated: bool,
    /// Nodes whose acknowledgement of the newest version was deleted, or overwritten by others, although their record
    /// had not changed, and the time at which that was seen.
    lost: BTreeMap<NodeName, Timestamp>,
    /// The first of these nodes whose acknowledgement has been missing for too long. The node does not know about it,
    /// and will not acknowledge that version again.
    unacknowledged: Option<NodeName>,
}

/// The nodes that have not acknowledged a version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Judgement {
    /// Revision that published the version.
    version: Revision,
    /// Time at which this node saw the version.
    since: Timestamp,
    /// The nodes that are not ready.
    missing: BTreeSet<NodeName>,
    /// The nodes that have not released the slots that they lose. Empty once the version is released, and if it has no
    /// hand-over.
    unreleased: BTreeSet<NodeName>,
    /// Time at which this node saw that the version was released.
    released: Option<Timestamp>,
    /// Time at which all nodes had acknowledged the version.
    complete: Option<Timestamp>,
    /// Time of the next report of late nodes, and the number of reports so far.
    report: (Timestamp, u32),
}

impl Consistency {
    /// Returns the nodes that have not acknowledged the newest version, once they are known.
    pub(crate) fn missing(&self, facts: &Facts) -> Option<&BTreeSet<NodeName>> {
        let newest = facts.fold.newest()?.revision();
        self.judgement
            .as_ref()
            .filter(|judgement| judgement.version == newest)
            .map(|judgement| &judgement.missing)
    }

    /// Returns the nodes that the newest version waits for in its current phase, once they are known. No node is late
    /// while the version only waits for a session outside of it.
    pub(crate) fn laggards(&self, facts: &Facts) -> Option<&BTreeSet<NodeName>> {
        let missing = self.missing(facts)?;
        let judgement = self.judgement.as_ref()?;
        match is_in_release(facts) {
            true => Some(&judgement.unreleased),
            false => Some(missing),
        }
    }

    /// Returns the time at which this node saw the current phase of the newest version begin, once the leader has
    /// judged the version.
    pub(crate) fn since(&self) -> Option<Timestamp> {
        self.judgement.as_ref().map(Judgement::phase_since)
    }

    /// True if slots are being handed over, and the hand-over can make progress: the version is not stable, and it
    /// waits for a node that still has its session, and not for further nodes.
    pub(crate) fn hands_over(&self, facts: &Facts) -> bool {
        let has_handover = facts.fold.newest().is_some_and(View::has_handover);
        if !has_handover || facts.fold.is_stable() || formation::waits_for_nodes(facts).is_some() {
            return false;
        }
        let Some(judgement) = self.judgement.as_ref().filter(|_| self.missing(facts).is_some()) else {
            return true;
        };
        judgement.unreleased.iter().all(|name| is_as_published(facts, name))
            && judgement.missing.iter().any(|name| is_as_published(facts, name))
    }

    /// Returns a node whose acknowledgement was lost for good.
    pub(crate) fn unacknowledged(&self) -> Option<&NodeName> {
        self.unacknowledged.as_ref()
    }

    pub(crate) fn fails_to_permit(&self, facts: &Facts) -> bool {
        self.permit.is_failing(facts)
    }

    pub(crate) fn fails_to_confirm(&self, facts: &Facts) -> bool {
        self.confirm.is_failing(facts)
    }

    /// Returns what keeps the newest version from becoming stable, if that has taken too long: nodes of the version, or
    /// that it has too few.
    pub(crate) fn blocked(
        &self,
        facts: &Facts,
        acknowledgements: &Acknowledgements,
        now: Timestamp,
    ) -> Option<Blocked> {
        let (view, judgement) = (facts.fold.newest()?, self.judgement.as_ref()?);
        let since = now.since(judgement.since);
        let late = now.since(judgement.phase_since());
        let waits_for_nodes = formation::waits_for_nodes(facts);
        // A node may lose its acknowledgement after the version became stable. A stable version is not blocked.
        let is_incomplete = !judgement.missing.is_empty() || waits_for_nodes.is_some();
        let is_blocked = is_incomplete && !facts.fold.is_stable();
        if !is_blocked || late < facts.config.warn_after {
            return None;
        }
        let laggard =
            |name: &NodeName| Laggard { name: name.clone(), refused: acknowledgements.refusal(name, view) };
        let releasing = is_in_release(facts);
        let laggards = if releasing { &judgement.unreleased } else { &judgement.missing };
        let laggards: Vec<Laggard> = laggards.iter().map(laggard).collect();
        let holders = if releasing { holders(facts) } else { Vec::new() };
        // Otherwise the version waits only for a commit of this node.
        let is_known = !laggards.is_empty() || !holders.is_empty() || waits_for_nodes.is_some();
        let version = view.version();
        is_known.then_some(Blocked { version, since, laggards, holders, releasing, waits_for_nodes })
    }

    pub(crate) fn timers(&self, facts: &Facts, timers: &mut Timers) {
        timers.maybe(self.permit.due(facts));
        timers.maybe(self.confirm.due(facts));
        timers.maybe(self.lost.values().min().map(|since| *since + LOST_AFTER));
        let is_incomplete = |judgement: &&Judgement| {
            !judgement.missing.is_empty() || formation::waits_for_nodes(facts).is_some()
        };
        if let Some(judgement) = self.judgement.as_ref().filter(is_incomplete) {
            timers.at(judgement.report.0);
        }
    }

    /// Handles a snapshot of the log.
    pub(crate) fn on_resync(&mut self) {
        self.is_outdated = true;
    }

    /// Handles a change of the log.
    pub(crate) fn on_change(&mut self, facts: &Facts, acknowledgements: &Acknowledgements, change: &Changed) {
        if let Changed::Up(node) | Changed::Renewed(node) | Changed::Down(node, ..) = change {
            self.judge_node(facts, acknowledgements, &node.name);
        }
    }

    /// Handles changed acknowledgements.
    ///
    /// A node writes its acknowledgement under its lease, and well-formed. Anything else was put over it by another
    /// client, which has the same effect as deleting it.
    pub(crate) fn on_acknowledgements(
        &mut self,
        facts: &Facts,
        acknowledgements: &Acknowledgements,
        changed: &[acknowledgements::Changed],
    ) {
        for acknowledgements::Changed { name, before } in changed {
            let counted =
                before.as_ref().is_some_and(|acknowledgement| acknowledgement.releases(facts, name));
            let now = acknowledgements.get(name);
            if now.is_some() {
                self.lost.remove(name);
            }
            if counted && !now.is_some_and(|acknowledgement| acknowledgement.is_own(facts, name)) {
                self.lost.insert(name.clone(), facts.now);
            }
            self.judge_node(facts, acknowledgements, name);
        }
    }

    /// Handles a snapshot of the acknowledgements, which has replaced those in `before`.
    ///
    /// An acknowledgement is lost if it was deleted or overwritten while it was not watched, or if the store was
    /// restored to a moment when the log was the same, but the acknowledgements were older.
    pub(crate) fn on_acknowledgements_read(
        &mut self,
        facts: &Facts,
        acknowledgements: &Acknowledgements,
        before: &BTreeMap<NodeName, StoredAcknowledgement>,
    ) {
        self.lost.retain(|name, _| acknowledgements.get(name).is_none());
        for (name, before) in
            before.iter().filter(|(name, acknowledgement)| acknowledgement.releases(facts, name))
        {
            let now = acknowledgements.get(name);
            let is_older = now.is_none_or(|now| now.modified < before.modified);
            if is_older || !now.is_some_and(|now| now.is_own(facts, name)) {
                self.lost.entry(name.clone()).or_insert(facts.now);
            }
        }
        self.is_outdated = true;
    }

    pub(crate) fn reconcile(
        &mut self,
        facts: &Facts,
        log: &Log,
        election: &Election,
        acknowledgements: &Acknowledgements,
        out: &mut Outbox,
    ) {
        if election.leading().is_none() {
            *self = Consistency::default();
            return;
        }
        self.judge(facts, log, acknowledgements);
        self.find_lost(facts);
        self.permit(facts, election, acknowledgements, out);
        self.confirm(facts, election, acknowledgements, out);
        self.report_laggards(facts, acknowledgements, out);
    }

    /// Judges all nodes, if the version is new or if any of them may have changed. Otherwise each node was judged when
    /// it changed.
    fn judge(&mut self, facts: &Facts, log: &Log, acknowledgements: &Acknowledgements) {
        let Some(view) = facts.fold.newest() else {
            self.judgement = None;
            return;
        };
        if !acknowledgements.is_synced() {
            return;
        }
        let is_new = self.judgement.as_ref().is_none_or(|judgement| judgement.version != view.revision());
        if is_new {
            let since = log.version_at().unwrap_or(facts.now);
            let report = (since + facts.config.warn_after, 0);
            self.judgement = Some(Judgement {
                version: view.revision(),
                since,
                missing: BTreeSet::new(),
                unreleased: BTreeSet::new(),
                released: None,
                complete: None,
                report,
            });
            self.lost.clear();
            self.unacknowledged = None;
        }
        let Some(judgement) = &mut self.judgement else { return };
        if std::mem::take(&mut self.is_outdated) || is_new {
            let names = view.iter().map(|node| &node.name);
            judgement.missing = names.filter(|name| !acknowledgements.counts(facts, name)).cloned().collect();
            judgement.unreleased = losers(facts, view);
            judgement.unreleased.retain(|name| !acknowledgements.releases(facts, name));
        }
        if facts.fold.is_released() && judgement.released.is_none() {
            judgement.released = Some(facts.now);
            judgement.unreleased.clear();
            judgement.report = (facts.now + facts.config.warn_after, 0);
        }
        let complete = judgement.complete.unwrap_or(facts.now);
        judgement.complete = judgement.missing.is_empty().then_some(complete);
    }

    /// Judges one node again, unless all will be judged.
    fn judge_node(&mut self, facts: &Facts, acknowledgements: &Acknowledgements, name: &NodeName) {
        let Some(judgement) = &mut self.judgement else { return };
        let Some(view) = facts.fold.newest() else { return };
        if judgement.version != view.revision() {
            return;
        }
        if view.get(name).is_some() && !acknowledgements.counts(facts, name) {
            judgement.missing.insert(name.clone());
        } else {
            judgement.missing.remove(name);
        }
        if acknowledgements.releases(facts, name) {
            judgement.unreleased.remove(name);
        } else if is_in_release(facts) && must_release(facts, view, name) {
            judgement.unreleased.insert(name.clone());
        }
    }

    /// Finds acknowledgements that were deleted by hand. The acknowledgement of a node whose session ends is deleted
    /// too, and its record shows that a moment earlier or later, since the two are watched separately.
    fn find_lost(&mut self, facts: &Facts) {
        self.lost.retain(|name, _| is_as_published(facts, name));
        // An acknowledgement that is lost after the version was recorded as stable is of no interest.
        let is_due = |since: &Timestamp| !facts.fold.is_stable() && facts.now.since(*since) >= LOST_AFTER;
        let overdue = self.lost.iter().find(|(_, since)| is_due(since));
        self.unacknowledged = overdue.map(|(name, _)| name.clone());
    }

    /// Records that the slots of the newest version may be acquired: all nodes that lose slots have released them, and
    /// no session outside of the version can still hold one.
    fn permit(
        &mut self,
        facts: &Facts,
        election: &Election,
        acknowledgements: &Acknowledgements,
        out: &mut Outbox,
    ) {
        let is_complete = self.missing(facts).is_some()
            && self.judgement.as_ref().is_some_and(|judgement| judgement.unreleased.is_empty())
            && facts.fold.standing().len() == 0;
        if !is_in_release(facts)
            || !is_complete
            || !acknowledgements.is_whole()
            || !self.permit.is_free(facts)
        {
            return;
        }
        let (Some(term), Some(view)) = (election.active_term(facts.now), facts.fold.newest()) else { return };
        let keys = facts.keys();
        let released = keys.released_key().clone();
        let seen = facts.fold.released().map_or(Revision::ZERO, |released| released.modified);
        let record = ReleasedRecord { version: view.version(), term };
        let txn = Txn::new()
            .guard(Guard::created_at(keys.election_key().clone(), term.revision()))
            .guard(Guard::modified_at(keys.version_key().clone(), view.revision()))
            .guard(Guard::modified_at(released.clone(), seen))
            .put(released, encode(&record), None);
        self.permit.sent(facts, out.commit(Purpose::Permit, txn, facts.now));
    }

    /// Records that the newest version is stable.
    fn confirm(
        &mut self,
        facts: &Facts,
        election: &Election,
        acknowledgements: &Acknowledgements,
        out: &mut Outbox,
    ) {
        let is_complete = self.missing(facts).is_some_and(BTreeSet::is_empty)
            && !facts.fold.is_stable()
            && !is_in_release(facts)
            && formation::waits_for_nodes(facts).is_none();
        // After the watch of the acknowledgements broke, those known before may no longer exist, if the store was
        // restored. They are not used until a new snapshot was read.
        if !is_complete || !acknowledgements.is_whole() || !self.confirm.is_free(facts) {
            return;
        }
        let (Some(term), Some(view)) = (election.active_term(facts.now), facts.fold.newest()) else { return };
        let Some(judgement) = &self.judgement else { return };
        let keys = facts.keys();
        let stable = keys.stable_key().clone();
        let seen = facts.fold.stable().map_or(Revision::ZERO, |stable| stable.modified);
        let record = StableRecord { version: view.version(), term: Some(term), nodes: Some(view.len()) };
        let txn = Txn::new()
            .guard(Guard::created_at(keys.election_key().clone(), term.revision()))
            .guard(Guard::modified_at(keys.version_key().clone(), view.revision()))
            .guard(Guard::modified_at(stable.clone(), seen))
            .put(stable, encode(&record), None);
        let txn = versions::put_settled(txn, facts, term, judgement.settled(facts, view, acknowledgements));
        self.confirm.sent(facts, out.commit(Purpose::Confirm, txn, facts.now));
    }

    /// Reports the nodes that are late: first after `warn_after`, then at intervals that double.
    fn report_laggards(&mut self, facts: &Facts, acknowledgements: &Acknowledgements, out: &mut Outbox) {
        let is_due = |judgement: &Judgement| facts.now >= judgement.report.0;
        if !self.judgement.as_ref().is_some_and(is_due) {
            return;
        }
        let blocked = self.blocked(facts, acknowledgements, facts.now);
        let warn_after = facts.config.warn_after;
        if let Some(Judgement { report: (at, times), .. }) = &mut self.judgement {
            *times += u32::from(blocked.is_some());
            *at = facts.now + Backoff::new(warn_after, warn_after.saturating_mul(32)).after(*times);
        }
        if let Some(blocked) = blocked {
            out.emit(Event::Blocked(blocked));
        }
    }

    /// Handles the reply to a commit. Returns false if it is no longer awaited.
    #[must_use]
    pub(crate) fn on_committed(
        &mut self,
        facts: &Facts,
        purpose: Purpose,
        token: Token,
        result: &Result<Revision, StoreError>,
    ) -> bool {
        match purpose {
            Purpose::Permit => self.permit.take(facts, token, result),
            _ => self.confirm.take(facts, token, result),
        }
    }
}

/// True if slots are handed over in the newest version and are not released yet.
fn is_in_release(facts: &Facts) -> bool {
    facts.fold.newest().is_some_and(View::has_handover) && !facts.fold.is_released()
}

/// Returns the nodes that must release slots before the slots of that view may be acquired: after a stable version the
/// nodes that lose slots, otherwise all nodes.
fn losers(facts: &Facts, view: &View) -> BTreeSet<NodeName> {
    if !is_in_release(facts) {
        return BTreeSet::new();
    }
    match facts.fold.previous().filter(|_| view.is_clean_start()) {
        Some(previous) => view.losers(previous),
        None => view.iter().map(|node| node.name.clone()).collect(),
    }
}

/// True if that node must release slots before the slots of that view may be acquired.
fn must_release(facts: &Facts, view: &View, name: &NodeName) -> bool {
    if view.get(name).is_none() {
        return false;
    }
    match facts.fold.previous().filter(|_| view.is_clean_start()) {
        Some(previous) => view.loses(name, previous),
        None => true,
    }
}

/// Returns the sessions outside of the newest version that may still hold slots.
fn holders(facts: &Facts) -> Vec<Holder> {
    let holds = facts.fold.holds();
    let holder = |lease| holds.get(&lease).map(|witness| Holder::new(lease, witness));
    facts.fold.standing().filter_map(holder).collect()
}

impl Judgement {
    /// Returns the time at which this node saw the current phase of the version begin.
    fn phase_since(&self) -> Timestamp {
        self.released.unwrap_or(self.since)
    }

    /// Describes for the history how the version became stable.
    fn settled(&self, facts: &Facts, view: &View, acknowledgements: &Acknowledgements) -> SettledRecord {
        let modified =
            |name: &NodeName| acknowledgements.get(name).map(|acknowledgement| acknowledgement.modified);
        let last = view.iter().map(|node| &node.name).max_by_key(|name| modified(name));
        let complete = self.complete.unwrap_or(facts.now);
        SettledRecord {
            after_ms: facts.now.since(self.since).as_millis() as u64,
            nodes: view.len(),
            last: last.cloned(),
            last_after_ms: complete.since(self.since).as_millis() as u64,
        }
    }
}
