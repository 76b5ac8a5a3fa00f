use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Follow, InFlight, Machine, Output, Purpose, Timers, follow::Want, history};
use crate::{
    config::{Backoff, Laggards, RETRY},
    event::{Blocked, Event, Laggard, MassFailure, StoreCall},
    keyspace::Keyspace,
    name::NodeName,
    record::{
        Departure, DepartureRecord, ReadinessOutcome, ReadinessRecord, SettledRecord, StableRecord, decode,
        encode,
    },
    store::{Batch, Change, Entry, Guard, LeaseId, Revision, Snapshot, StoreError, Txn},
    time::Timestamp,
    view::View,
};

/// How long a deleted acknowledgement may take to come back, or its node to be gone, before it counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(1);

/// Judging whether the newest version is stable. Only the leader does, and only it watches `{ns}/ready/`.
///
/// An acknowledgement counts if it says yes to the newest version, lives under the lease that its node's record bore in
/// that version's view, and that record still stands. The two prefixes are watched apart and not ordered with each
/// other, so acknowledgements are kept as they are and judged again whenever either side changes. It is enough that all
/// count at once: an acknowledgement is deleted in the same revision in which its record ends, so while the one stands
/// in the log of `ready/` the other stood too.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Consistency {
    pub(crate) follow: Follow,
    pub(crate) confirm: InFlight,
    pub(crate) evict: InFlight,
    /// Whom this leader last set out to remove.
    evicting: Option<NodeName>,
    /// Mass failure, as last counted. No nodes are evicted while it lasts.
    mass_failure: Option<MassFailure>,
    acknowledgements: BTreeMap<NodeName, Acknowledged>,
    /// Up to where the acknowledgements were folded.
    revision: Revision,
    /// Who is missing, if it is known for the version written at that revision.
    judged: Option<Revision>,
    missing: BTreeSet<NodeName>,
    /// Names to look at again, or all of them.
    touched: BTreeSet<NodeName>,
    touched_all: bool,
    /// Since when this leader waits for that version.
    since: Timestamp,
    /// Since when nobody is missing.
    complete: Option<Timestamp>,
    /// When to name the laggards next, and how often they were named.
    report: Option<(Timestamp, u32)>,
    /// Acknowledgements of the newest version that were deleted or overwritten by others while their record stood, and
    /// when.
    lost: BTreeMap<NodeName, Timestamp>,
    /// Whether one of those has been missing for too long.
    lacks: Option<NodeName>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Acknowledged {
    modified: Revision,
    lease: Option<LeaseId>,
    record: Option<ReadinessRecord>,
}

impl Consistency {
    pub(crate) fn new(keyspace: &Keyspace) -> Self {
        Consistency {
            follow: Follow::new(keyspace.ready_prefix().clone()),
            confirm: InFlight::default(),
            evict: InFlight::default(),
            evicting: None,
            mass_failure: None,
            acknowledgements: BTreeMap::new(),
            revision: Revision::ZERO,
            judged: None,
            missing: BTreeSet::new(),
            touched: BTreeSet::new(),
            touched_all: false,
            since: Timestamp::ZERO,
            complete: None,
            report: None,
            lost: BTreeMap::new(),
            lacks: None,
        }
    }

    /// Returns the mass failure that keeps this leader from evicting nodes, if there is one.
    pub(crate) fn mass_failure(&self) -> Option<MassFailure> {
        self.mass_failure
    }

    /// How many are missing at the version of that revision, if it is known.
    pub(crate) fn missing(&self, version: Revision) -> Option<usize> {
        (self.judged == Some(version)).then_some(self.missing.len())
    }

    /// That node's record changed.
    pub(crate) fn touch(&mut self, name: &NodeName) {
        if self.judged.is_some() {
            self.touched.insert(name.clone());
        }
    }

    /// That node put its record again: the eviction that was guarded by the older one does not happen.
    pub(crate) fn spared(&mut self, name: &NodeName) {
        self.evicting.take_if(|evicting| evicting == name);
    }

    /// Everything may have changed.
    pub(crate) fn rejudge(&mut self) {
        self.touched_all = true;
    }

    /// A node whose acknowledgement was deleted while its record stood, for longer than an expiry takes to show. The
    /// node does not know, and will not acknowledge that version again.
    pub(crate) fn lacks_acknowledgement(&self) -> Option<&NodeName> {
        self.lacks.as_ref()
    }

    /// What that node said of the version: in the session of its cut, and after it was cut. A label may be written
    /// twice, by hand; revisions are not.
    fn answer(&self, name: &NodeName, view: &View) -> Option<&ReadinessRecord> {
        let acknowledged = self.acknowledgements.get(name)?;
        let same_session = view.get(name).is_some_and(|node| node.lease == acknowledged.lease);
        let of_this_cut = same_session && acknowledged.modified > view.revision();
        acknowledged.record.as_ref().filter(|record| of_this_cut && record.version == view.version())
    }
}

impl Machine {
    pub(super) fn consistency_timers(&self, timers: &mut Timers) {
        if self.election.leading().is_none() {
            return;
        }
        timers.maybe(self.consistency.follow.wakeup());
        timers.maybe(self.consistency.confirm.due(self.fold.revision()));
        timers.maybe(self.consistency.evict.due(self.fold.revision()));
        timers.maybe(self.consistency.lost.values().min().map(|since| *since + LOST_AFTER));
        if !self.consistency.missing.is_empty() {
            timers.maybe(self.consistency.report.map(|(at, _)| at));
            if let Laggards::Evict { after } = self.config.laggards {
                timers.at(self.consistency.since + after);
            }
        }
    }

    pub(super) fn reconcile_consistency(&mut self, now: Timestamp) {
        if self.is_ending() {
            return;
        }
        if self.election.leading().is_none() {
            return match self.election.campaign.is_under_way(self.fold.revision()) {
                true => self.expect_acknowledgements(now),
                false => self.stop_consistency(),
            };
        }
        self.consistency.follow.start(now);
        self.follow_acknowledgements(now);
        self.judge(now);
        self.note_lost(now);
        self.confirm(now);
        self.name_laggards(now);
        self.evict_laggards(now);
    }

    /// This node does not lead: whatever it knew of the others' acknowledgements will be out of date.
    pub(super) fn stop_consistency(&mut self) {
        if let Some(token) = self.consistency.follow.stop() {
            self.outputs.push_back(Output::Unwatch { token });
        }
        self.end_mass_failure();
        self.consistency = Consistency::new(self.fold.keyspace());
    }

    /// This node may lead in a moment: acknowledgements of the version that its election writes come right after that.
    /// Who watches before they do need not look for those that came meanwhile, which takes a store far longer.
    fn expect_acknowledgements(&mut self, now: Timestamp) {
        if self.consistency.follow.start_watching(now) {
            self.consistency.revision = self.fold.revision();
        }
        self.follow_acknowledgements(now);
    }

    fn follow_acknowledgements(&mut self, now: Timestamp) {
        let Some(want) = self.consistency.follow.due(now) else { return };
        let token = self.token();
        let (prefix, timeout) = (self.consistency.follow.prefix().clone(), self.call_timeout());
        self.outputs.push_back(match want {
            Want::Read => Output::Read { token, prefix, timeout },
            Want::Watch => Output::Watch { token, prefix, after: self.consistency.revision, timeout },
        });
        self.consistency.follow.sent(want, token);
    }

    pub(super) fn on_acknowledgements_read(&mut self, now: Timestamp, result: Result<Snapshot, StoreError>) {
        let snapshot = match result {
            Ok(snapshot) => snapshot,
            Err(error) => {
                self.consistency.follow.read_failed(now, &RETRY);
                self.failing.failed(now, StoreCall::FollowAcknowledgements, &error);
                return self.report_refusal(&error);
            }
        };
        self.consistency.follow.read(now);
        let before: Vec<NodeName> = self.consistency.acknowledgements.keys().cloned().collect();
        let counted: Vec<NodeName> = before.into_iter().filter(|name| self.counts(name)).collect();
        let before = std::mem::take(&mut self.consistency.acknowledgements);
        self.consistency.revision = snapshot.revision;
        for entry in &snapshot.entries {
            self.acknowledged(entry);
        }
        // Deleted or overwritten while nobody watched; or lost by a store that was restored to a moment when the log stood
        // as it does, and older acknowledgements.
        let modified = |all: &BTreeMap<NodeName, Acknowledged>, name: &NodeName| {
            all.get(name).map(|acknowledged| acknowledged.modified)
        };
        for name in counted {
            let older = modified(&self.consistency.acknowledgements, &name) < modified(&before, &name);
            if older || !self.is_own_word(&name) {
                self.consistency.lost.entry(name).or_insert(now);
            }
        }
        self.consistency.rejudge();
    }

    pub(super) fn on_acknowledgements(&mut self, now: Timestamp, batch: &Batch) {
        self.consistency.follow.yielded();
        if batch.revision <= self.consistency.revision {
            return;
        }
        self.consistency.revision = batch.revision;
        for change in &*batch.changes {
            match change {
                Change::Put(entry) => {
                    let before =
                        self.fold.keyspace().acknowledger(&entry.key).filter(|name| self.counts(name));
                    self.acknowledged(entry);
                    // The node itself writes under its lease, and what can be read. Anything else was put over its
                    // acknowledgement by somebody who is not the node, and is as good as a deletion.
                    if let Some(name) = before
                        && !self.is_own_word(&name)
                    {
                        self.consistency.lost.insert(name, now);
                    }
                }
                Change::Delete(key) => {
                    let Some(name) = self.fold.keyspace().acknowledger(key) else { continue };
                    let counted = self.counts(&name);
                    self.consistency.acknowledgements.remove(&name);
                    if counted {
                        self.consistency.lost.insert(name.clone(), now);
                    }
                    self.consistency.touch(&name);
                }
            }
        }
    }

    fn acknowledged(&mut self, entry: &Entry) {
        let Some(name) = self.fold.keyspace().acknowledger(&entry.key) else {
            let reason = "its last part is no node's name".to_owned();
            return self.emit(Event::Malformed { key: entry.key.clone(), reason });
        };
        let record = decode(&entry.value)
            .map_err(|reason| self.emit(Event::Malformed { key: entry.key.clone(), reason }))
            .ok();
        self.consistency.lost.remove(&name);
        self.consistency.touch(&name);
        let acknowledged = Acknowledged { modified: entry.modified, lease: entry.lease, record };
        self.consistency.acknowledgements.insert(name, acknowledged);
    }

    /// Whether that node's acknowledgement of the newest version counts now.
    fn counts(&self, name: &NodeName) -> bool {
        let Some(view) = self.fold.newest() else { return false };
        let answer = self.consistency.answer(name, view);
        let ready = answer.is_some_and(|record| record.outcome == ReadinessOutcome::Ready);
        ready && self.stands_as_cut(name)
    }

    /// Whether that node's record stands as it stood when the newest version was cut.
    fn stands_as_cut(&self, name: &NodeName) -> bool {
        let cut = self.fold.newest().and_then(|view| view.get(name));
        cut.is_some_and(|cut| self.fold.node(name).is_some_and(|node| node.modified == cut.modified))
    }

    /// Whether what stands as that node's acknowledgement was written by its session in the newest view.
    fn is_own_word(&self, name: &NodeName) -> bool {
        let cut = self.fold.newest().and_then(|view| view.get(name));
        let acknowledged = self.consistency.acknowledgements.get(name);
        acknowledged.is_some_and(|acknowledged| {
            acknowledged.record.is_some() && cut.is_some_and(|cut| cut.lease == acknowledged.lease)
        })
    }

    /// Judges who is missing.
    fn judge(&mut self, now: Timestamp) {
        self.find_missing(now);
        let complete = self.consistency.judged.is_some() && self.consistency.missing.is_empty();
        self.consistency.complete = complete.then(|| self.consistency.complete.unwrap_or(now));
    }

    /// Brings the set of missing nodes up to date: all of them for a new version, else those that were touched.
    fn find_missing(&mut self, now: Timestamp) {
        let Some(view) = self.fold.newest().cloned() else {
            self.consistency.judged = None;
            self.consistency.report = None;
            return;
        };
        if !self.consistency.follow.is_synced() {
            return;
        }
        let touched = std::mem::take(&mut self.consistency.touched);
        let all = std::mem::take(&mut self.consistency.touched_all);
        if self.consistency.judged == Some(view.revision()) && !all {
            for name in touched {
                if view.get(&name).is_some() && !self.counts(&name) {
                    self.consistency.missing.insert(name);
                } else {
                    self.consistency.missing.remove(&name);
                }
            }
            return;
        }
        let missing = view.iter().map(|node| &node.name).filter(|name| !self.counts(name)).cloned().collect();
        self.consistency.missing = missing;
        if self.consistency.judged.replace(view.revision()) == Some(view.revision()) {
            return;
        }
        self.consistency.complete = None;
        self.consistency.lost.clear();
        self.consistency.lacks = None;
        self.consistency.since = self.publication.last().unwrap_or(now);
        self.consistency.report = Some((self.consistency.since + self.config.warn_after, 0));
    }

    /// Whether all acknowledged the newest version, and the log does not say yet that it is stable.
    fn is_unconfirmed(&self) -> bool {
        let newest = self.fold.newest().map(View::revision);
        newest.is_some()
            && self.consistency.judged == newest
            && self.consistency.missing.is_empty()
            && !self.fold.is_stable()
    }

    /// Records that the newest version is stable.
    fn confirm(&mut self, now: Timestamp) {
        let folded = self.fold.revision();
        // What was known before the watch of acknowledgements broke may be gone with a store that was restored: read first.
        let known = self.consistency.follow.is_whole() && self.is_unconfirmed();
        if !known || !self.consistency.confirm.is_free(now, folded) {
            return;
        }
        let (Some(term), Some(view)) = (self.active_term(now), self.fold.newest()) else { return };
        let keys = self.fold.keyspace();
        let stable = keys.stable_key().clone();
        let seen = self.fold.stable().map_or(Revision::ZERO, |stable| stable.modified);
        let record = StableRecord { version: view.version(), term: Some(term), nodes: Some(view.len()) };
        let txn = Txn::new()
            .guard(Guard::created_at(keys.election_key().clone(), term.revision()))
            .guard(Guard::modified_at(keys.version_key().clone(), view.revision()))
            .guard(Guard::modified_at(stable.clone(), seen))
            .put(stable, encode(&record), None);
        let txn = history::put_settled(txn, keys, self.fold.version(), term, self.settled(now, view));
        let token = self.commit(Purpose::Confirm, txn);
        self.consistency.confirm.sent(token, now, folded);
    }

    /// How the newest version became stable, for the history.
    fn settled(&self, now: Timestamp, view: &View) -> SettledRecord {
        let since = self.consistency.since;
        let acknowledged =
            |name: &NodeName| self.consistency.acknowledgements.get(name).map(|one| one.modified);
        let last = view.iter().map(|node| &node.name).max_by_key(|name| acknowledged(name));
        SettledRecord {
            after_ms: now.since(since).as_millis() as u64,
            nodes: view.len(),
            last: last.cloned(),
            last_after_ms: self.consistency.complete.unwrap_or(now).since(since).as_millis() as u64,
        }
    }

    /// Who keeps the newest version from becoming stable, if it has taken longer than it should.
    pub(super) fn blocked(&self, now: Timestamp) -> Option<Blocked> {
        let view = self.fold.newest()?;
        let since = now.since(self.consistency.since);
        // Only a leader keeps that list. Of a version that is stable somebody may be missing since, and the next will tell.
        let missing = !self.consistency.missing.is_empty() && !self.fold.is_stable();
        if !missing || since < self.config.warn_after {
            return None;
        }
        let refused = |name: &NodeName| {
            let answer = self.consistency.answer(name, view)?;
            Some(answer.detail.clone().unwrap_or_else(|| "without a reason".to_owned()))
        };
        let laggard = |name: &NodeName| Laggard { name: name.clone(), refused: refused(name) };
        let laggards = self.consistency.missing.iter().map(laggard).collect();
        Some(Blocked { version: view.version(), since, laggards })
    }

    /// Names the laggards, at first after the time to warn, then in intervals that double.
    fn name_laggards(&mut self, now: Timestamp) {
        let Some((at, times)) = self.consistency.report else { return };
        if now < at {
            return;
        }
        let Some(blocked) = self.blocked(now) else { return };
        let pause =
            Backoff::new(self.config.warn_after, self.config.warn_after.saturating_mul(32)).after(times + 1);
        self.consistency.report = Some((now + pause, times + 1));
        self.emit(Event::Blocked(blocked));
    }

    fn evict_laggards(&mut self, now: Timestamp) {
        let Laggards::Evict { after } = self.config.laggards else { return };
        if self.fold.is_stable() {
            return self.end_mass_failure();
        }
        let folded = self.fold.revision();
        let due = self.consistency.judged.is_some() && now >= self.consistency.since + after;
        if !due || self.is_mass_failure() || !self.consistency.evict.is_free(now, folded) {
            return;
        }
        let (Some(term), Some(identity)) = (self.active_term(now), &self.identity) else { return };
        // Others first. A leader that is the last one missing steps down: the next one will evict it in its turn.
        // Whoever put its record again since, or came back, is no laggard of this version but has its time in the next.
        let other = |name: &&NodeName| **name != identity.name && self.stands_as_cut(name);
        let Some(name) = self.consistency.missing.iter().find(other).cloned() else {
            if self.consistency.missing.contains(&identity.name) && self.stands_as_cut(&identity.name) {
                self.step_down(now, term);
            }
            return;
        };
        let Some(node) = self.fold.node(&name) else { return };
        let keys = self.fold.keyspace();
        let record = keys.node_key(&name);
        let txn = Txn::new()
            .guard(Guard::created_at(keys.election_key().clone(), term.revision()))
            .guard(Guard::modified_at(record.clone(), node.modified))
            .delete(record)
            .delete(keys.readiness_key(&name));
        let txn = DepartureRecord::add_to(txn, keys, node, Departure::Evicted);
        let token = self.commit(Purpose::Evict, txn);
        self.consistency.evict.sent(token, now, folded);
        self.consistency.evicting = Some(name);
    }

    /// Counts the laggards of the newest version, and returns true if there are too many of them for evictions. Nodes
    /// that have gone or whose records have changed are not counted, since the next version takes account of them.
    fn is_mass_failure(&mut self) -> bool {
        let Some(view) = self.fold.newest() else { return false };
        let failing = self.consistency.missing.iter().filter(|name| self.stands_as_cut(name)).count();
        let failure = MassFailure { version: view.version(), failing, nodes: view.len() };
        if failing * 100 <= failure.nodes * usize::from(self.config.mass_failure_percent) {
            self.end_mass_failure();
            return false;
        }
        if self.consistency.mass_failure.replace(failure).is_none() {
            self.emit(Event::MassFailure(failure));
        }
        true
    }

    fn end_mass_failure(&mut self) {
        if self.consistency.mass_failure.take().is_some() {
            self.emit(Event::MassFailureOver);
        }
    }

    /// That node is gone: if this leader was about to remove it, and it was removed, this leader did it.
    pub(super) fn note_evicted(&mut self, name: &NodeName, how: Departure) {
        if let Some(name) = self.consistency.evicting.take_if(|evicting| evicting == name)
            && how == Departure::Evicted
        {
            self.emit(Event::Evicted { name });
        }
    }

    /// Looks after acknowledgements that were deleted. That of a node whose session ended goes a moment before its
    /// record does, or after it: the two are watched apart. One whose record stays was deleted by hand.
    fn note_lost(&mut self, now: Timestamp) {
        let stable = self.fold.is_stable();
        let mut lost = std::mem::take(&mut self.consistency.lost);
        // What is lost after all is stable means nothing, as long as the record of that stands.
        lost.retain(|name, _| self.stands_as_cut(name));
        let overdue = lost.iter().find(|(_, since)| !stable && now.since(**since) >= LOST_AFTER);
        self.consistency.lacks = overdue.map(|(name, _)| name.clone());
        self.consistency.lost = lost;
    }
}
