//! Holding slots, and letting go of them (P12).

use std::{collections::BTreeMap, sync::Arc};

use super::{
    facts::Facts,
    membership::Membership,
    outbox::Outbox,
    output::SlotChange,
    session::{Epoch, Session, SessionChange, SessionEnd},
    timers::Timers,
    token::Token,
};
use crate::{
    event::{Event, LostReason},
    fold::Changed,
    outcome::Outcome,
    slots::{Slot, SlotSet},
    store::{LeaseId, Revision},
    time::Timestamp,
    view::View,
};

/// The slots that this node holds, and those that it has lost and not let go of yet.
///
/// ```text
///   stabilize begins      stabilize succeeds         a version, or the end of the session, takes the slot away
///        loaded ──────────────▶ held ──────────────────▶ lost: its holds end, `release` runs ──────▶ let go
/// ```
///
/// Three rules keep two nodes from holding a slot at once:
///
/// - *Narrow*: when the node folds a version, it loses every slot that the version does not assign to it, at once. The
///   set of held slots is never recomputed from an older version.
/// - *Acquire*: the node acquires slots only when `stabilize` has succeeded for the newest version, and only after
///   every node that lost slots in that version has released them.
/// - *Let go*: the node acknowledges the release of its slots, and revokes its lease, only when no hold of a lost slot
///   is outstanding and `release` has succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Ownership {
    epoch: Epoch,
    /// Lease of the session in which the slots below were acquired.
    lease: Option<LeaseId>,
    /// The slots that the node holds, each with its fencing token: the revision of the version under which it was
    /// acquired.
    held: Arc<BTreeMap<Slot, Revision>>,
    /// Slots for which `stabilize` has begun since they were last lost. Includes all held slots.
    loaded: SlotSet,
    /// Slots that the node gains if the running `stabilize` succeeds. `release` is not called for them until that run
    /// has ended.
    loading: SlotSet,
    /// Lost slots whose holds may be outstanding.
    retractions: Vec<Retraction>,
    release: Release,
    /// True if the slow release was reported.
    reported_slow: bool,
    /// True if the last event reported that no holds are given out because a renewal is late.
    suspended: bool,
}

/// A request to the runtime to end the holds of lost slots.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Retraction {
    token: Token,
    lease: LeaseId,
    /// Time at which the slots were lost.
    since: Timestamp,
    /// Slots with outstanding holds.
    in_use: SlotSet,
    /// True once the runtime has reported which slots are in use.
    is_reported: bool,
}

/// Calls of the user's `release`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Release {
    /// Lost slots that no successful call has covered, without those of the running call.
    due: Vec<Loss>,
    /// Lease under which the slots were lost.
    lease: Option<LeaseId>,
    running: Option<Running>,
    /// Number of calls that failed in a row.
    failures: u32,
    /// Reason why the last call failed.
    refused: Option<String>,
    /// Time of the next call after a failure.
    again: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Running {
    token: Token,
    loss: Loss,
}

/// A non-empty set of slots that were lost.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Loss {
    slots: SlotSet,
    /// Time at which the first of these slots was lost.
    since: Timestamp,
}

impl Release {
    /// Removes and returns the due slots, except those in `except`.
    fn take_due(&mut self, except: &SlotSet) -> Option<Loss> {
        let mut taken: Option<Loss> = None;
        for loss in &mut self.due {
            let slots = loss.slots.difference(except);
            loss.slots = loss.slots.difference(&slots);
            if !slots.is_empty() {
                let others = taken.take().unwrap_or(Loss { slots: SlotSet::default(), since: loss.since });
                taken = Some(Loss { slots: others.slots.union(&slots), since: others.since.min(loss.since) });
            }
        }
        self.due.retain(|loss| !loss.slots.is_empty());
        taken
    }
}

impl Ownership {
    /// Returns the slots that the node holds, with their fencing tokens.
    pub(crate) fn held(&self) -> &Arc<BTreeMap<Slot, Revision>> {
        &self.held
    }

    /// True if the node holds the slot and acquired it under that version.
    pub(crate) fn holds(&self, slot: Slot, acquired: Revision) -> bool {
        self.held.get(&slot) == Some(&acquired)
    }

    /// Returns the lost slots that are still in use.
    pub(crate) fn in_use(&self) -> SlotSet {
        self.retractions.iter().fold(SlotSet::default(), |all, retraction| all.union(&retraction.in_use))
    }

    /// True if `release` has not succeeded yet for all lost slots.
    pub(crate) fn is_releasing(&self) -> bool {
        self.release.running.is_some() || !self.release.due.is_empty()
    }

    /// True while a call of `release` runs.
    pub(crate) fn is_running(&self) -> bool {
        self.release.running.is_some()
    }

    /// True if the node has let go of everything that it lost.
    pub(crate) fn has_let_go(&self) -> bool {
        self.retractions.is_empty() && !self.is_releasing()
    }

    /// Returns the time of the earliest loss among the slots that the node has not let go of.
    fn since(&self) -> Option<Timestamp> {
        let Release { due, running, .. } = &self.release;
        let retracted = self.retractions.iter().map(|retraction| retraction.since);
        let unreleased = due.iter().chain(running.as_ref().map(|running| &running.loss));
        retracted.chain(unreleased.map(|loss| loss.since)).min()
    }

    /// Restarts the time limit for letting go of slots.
    fn restart_time(&mut self, now: Timestamp) {
        self.retractions.iter_mut().for_each(|retraction| retraction.since = now);
        let Release { due, running, .. } = &mut self.release;
        let unreleased = due.iter_mut().chain(running.as_mut().map(|running| &mut running.loss));
        unreleased.for_each(|loss| loss.since = now);
    }

    /// Returns the time until which the node waits for the release of its lost slots.
    pub(crate) fn patience(&self, facts: &Facts) -> Timestamp {
        let limit = facts.config.release_timeout;
        limit.map_or(Timestamp::NEVER, |limit| self.since().map_or(facts.now, |since| since + limit))
    }

    /// True once it is known which lost slots are in use.
    pub(crate) fn is_reported(&self) -> bool {
        self.retractions.iter().all(|retraction| retraction.is_reported)
    }

    /// True if the node may run `stabilize` for that view: it has let go of the slots that it lost, and the slots that
    /// it would gain are released.
    pub(crate) fn may_stabilize(&self, facts: &Facts, view: &View) -> bool {
        if facts.config.exclusive.is_none() {
            return true;
        }
        let may_acquire = !view.has_handover() || facts.fold.is_released() || !self.gains(view);
        self.has_let_go() && may_acquire
    }

    /// Returns the view for which the node must acknowledge the release of its lost slots. No acknowledgement is needed
    /// if no node waits for it, or if the node gains nothing, because it then becomes ready as soon as `stabilize`
    /// succeeds, unless that `takes_long`.
    pub(crate) fn released<'a>(
        &self,
        facts: &'a Facts,
        membership: &Membership,
        takes_long: bool,
    ) -> Option<&'a View> {
        facts.config.exclusive?;
        let view = membership.target(facts).filter(|view| view.has_handover())?;
        let is_due = !facts.fold.is_released() && self.has_let_go() && (takes_long || self.gains(view));
        (is_due && must_release(facts, view)).then_some(view)
    }

    /// Returns the view whose hand-over this node delays, and the reason, if the node is overdue.
    pub(crate) fn delay<'a>(&self, facts: &'a Facts, membership: &Membership) -> Option<(&'a View, String)> {
        let view = membership.target(facts).filter(|view| view.has_handover())?;
        let is_late = self.reported_slow && self.is_reported() && !self.has_let_go();
        let is_awaited = !facts.fold.is_released() && must_release(facts, view);
        (is_late && is_awaited).then(|| (view, self.obstacle()))
    }

    /// Describes what keeps the node from letting go of its lost slots.
    fn obstacle(&self) -> String {
        let in_use = self.in_use();
        match &self.release.refused {
            _ if !in_use.is_empty() => format!("holds of slots {in_use} were not dropped"),
            Some(reason) => format!("the release callback failed: {reason}"),
            None => "the release callback has not succeeded".to_owned(),
        }
    }

    /// True if the view assigns slots to the node that it does not hold.
    fn gains(&self, view: &View) -> bool {
        view.own_slots().iter().any(|slot| !self.held.contains_key(&slot))
    }

    pub(crate) fn timers(&self, facts: &Facts, session: &Session, timers: &mut Timers) {
        if facts.config.exclusive.is_none() {
            return;
        }
        let times = session.hold_times();
        if !self.release.due.is_empty() && self.release.running.is_none() {
            timers.at(self.release.again);
        }
        if !self.retractions.is_empty() {
            timers.maybe(times.map(|times| times.void));
        }
        if !self.held.is_empty() && !self.suspended {
            timers.maybe(times.map(|times| times.until));
        }
        if let Some(since) = self.since() {
            timers.at(since + facts.config.warn_after);
            timers.maybe(facts.config.release_timeout.map(|limit| since + limit));
        }
    }

    /// Handles a change of the log. Every version narrows the set of held slots, even if the next version follows at
    /// once.
    pub(crate) fn on_change(&mut self, facts: &Facts, change: &Changed, out: &mut Outbox) {
        let (Changed::Version, Some(view)) = (change, facts.fold.newest()) else { return };
        if facts.config.exclusive.is_some() && !view.not_exclusive().is_empty() {
            let (version, nodes) = (view.version(), view.not_exclusive().to_vec());
            out.emit(Event::NotExclusive { version, nodes });
        }
        if !self.loaded.is_empty() {
            self.lose(facts, self.loaded.difference(view.own_slots()), out);
        }
    }

    /// Loses everything when the session ends, and calls `release`.
    pub(crate) fn reconcile(&mut self, facts: &Facts, session: &Session, out: &mut Outbox) {
        if facts.config.exclusive.is_none() {
            return;
        }
        match session.change_since(&mut self.epoch) {
            Some(SessionChange::Ended) => {
                self.lose(facts, self.loaded.clone(), out);
                // Slots that were lost earlier no longer block a version.
                self.restart_time(facts.now);
            }
            Some(SessionChange::Began) => self.lease = session.lease(),
            None => {}
        }
        let is_valid = |retraction: &Retraction| !session.is_void(retraction.lease, facts.now);
        self.retractions.retain(is_valid);
        self.release(facts, session, out);
        self.report_suspension(facts, session, out);
        self.check_time(facts, out);
    }

    /// Loses slots: ends their holds, and schedules a call of `release`.
    fn lose(&mut self, facts: &Facts, lost: SlotSet, out: &mut Outbox) {
        let Some(lease) = self.lease.filter(|_| !lost.is_empty()) else { return };
        self.loaded = self.loaded.difference(&lost);
        let held: SlotSet = lost.iter().filter(|slot| self.held.contains_key(slot)).collect();
        if !held.is_empty() {
            Arc::make_mut(&mut self.held).retain(|slot, _| !held.contains(*slot));
            out.emit(Event::SlotsLost { slots: held.clone() });
            let token = out.retract(held.clone(), facts.now);
            let since = facts.now;
            self.retractions.push(Retraction { token, lease, since, in_use: held, is_reported: false });
        }
        if facts.config.has_release {
            self.release.due.push(Loss { slots: lost, since: facts.now });
            self.release.lease = Some(lease);
        }
    }

    /// Calls `release` if a call is due.
    fn release(&mut self, facts: &Facts, session: &Session, out: &mut Outbox) {
        let Release { lease: Some(lease), running: None, failures, again, .. } = self.release else { return };
        if facts.now < again {
            return;
        }
        let Some(loss) = self.release.take_due(&self.loading) else { return };
        let view = facts.fold.newest().filter(|_| session.held().is_some()).cloned();
        let token = out.release(loss.slots.clone(), lease, view, failures + 1, facts.now);
        self.release.running = Some(Running { token, loss });
    }

    /// Handles the result of a call of `release`.
    pub(crate) fn on_released(&mut self, facts: &Facts, token: Token, outcome: Outcome, out: &mut Outbox) {
        let Some(run) = self.release.running.take_if(|run| run.token == token) else { return };
        let Outcome::Refused { reason } = outcome else {
            (self.release.failures, self.release.refused) = (0, None);
            return;
        };
        self.release.failures += 1;
        self.release.refused = Some(reason.clone());
        let attempt = self.release.failures;
        let retry_in = out.jittered(facts.config.stabilize_retry.after(attempt));
        self.release.again = facts.now + retry_in;
        self.release.due.push(run.loss);
        out.emit(Event::ReleaseRefused { attempt, reason, retry_in });
    }

    /// Handles a report about outstanding holds.
    pub(crate) fn on_retracted(&mut self, token: Token, in_use: SlotSet) {
        let found = self.retractions.iter().position(|retraction| retraction.token == token);
        let Some(place) = found else { return };
        if in_use.is_empty() {
            self.retractions.remove(place);
        } else {
            let retraction = &mut self.retractions[place];
            (retraction.in_use, retraction.is_reported) = (in_use, true);
        }
    }

    /// Reports that no holds are given out because a renewal is late, or that they are given out again.
    fn report_suspension(&mut self, facts: &Facts, session: &Session, out: &mut Outbox) {
        let until = session.hold_times().map(|times| times.until);
        let suspended = !self.held.is_empty() && until.is_some_and(|until| facts.now >= until);
        match (std::mem::replace(&mut self.suspended, suspended), suspended) {
            (false, true) => out.emit(Event::HoldsSuspended),
            (true, false) if !self.held.is_empty() => out.emit(Event::HoldsResumed),
            _ => {}
        }
    }

    /// Ends the session if the node has not let go of lost slots for too long: otherwise one hold that is never dropped
    /// would keep every moving slot from being acquired.
    pub(crate) fn give_up(&mut self, facts: &Facts, session: &mut Session, out: &mut Outbox) {
        if session.held().is_some() && !self.has_let_go() && facts.now >= self.patience(facts) {
            session.end(facts, SessionEnd::Lost(LostReason::ReleaseTimeout), out);
        }
    }

    /// Reports lost slots that the node has not let go of in time.
    fn check_time(&mut self, facts: &Facts, out: &mut Outbox) {
        let waiting = self.since().map(|since| facts.now.since(since));
        let Some(waiting) = waiting.filter(|waiting| *waiting >= facts.config.warn_after) else {
            self.reported_slow = false;
            return;
        };
        if !std::mem::replace(&mut self.reported_slow, true) {
            let (in_use, releasing) = (self.in_use(), self.is_releasing());
            out.emit(Event::ReleaseSlow { in_use, releasing, waiting });
        }
    }

    /// Handles the start of `stabilize` for that view. Returns the change of this node's slots.
    pub(crate) fn load(&mut self, facts: &Facts, view: &View, adapted: Option<&View>) -> Option<SlotChange> {
        facts.config.exclusive?;
        let own = view.own_slots();
        let held: SlotSet = self.held.keys().copied().collect();
        let before = adapted.map(View::own_slots).cloned().unwrap_or_default();
        if !view.has_handover() {
            return Some(SlotChange { kept: held, ..SlotChange::default() });
        }
        self.loaded = self.loaded.union(own);
        let (gained, lost) = (own.difference(&held), before.difference(own));
        self.loading = gained.clone();
        Some(SlotChange { gained, lost, kept: held })
    }

    /// Handles the end of `stabilize`, with any result.
    pub(crate) fn loading_ended(&mut self) {
        self.loading = SlotSet::default();
    }

    /// Acquires the slots that the view gives to this node. The view must be the newest, and `stabilize` must have
    /// succeeded for it.
    pub(crate) fn acquire(&mut self, facts: &Facts, view: &View, out: &mut Outbox) {
        if facts.config.exclusive.is_none() || !view.has_handover() {
            return;
        }
        let gained: SlotSet = view.own_slots().iter().filter(|slot| !self.held.contains_key(slot)).collect();
        if gained.is_empty() {
            return;
        }
        let held = Arc::make_mut(&mut self.held);
        held.extend(gained.iter().map(|slot| (slot, view.revision())));
        out.emit(Event::SlotsAcquired { version: view.version(), slots: gained });
    }
}

/// True if this node must release slots before the slots of that view may be acquired.
///
/// After a stable version, only nodes of that version that lose slots must do so. All of them know that version's cut;
/// a node that does not know the cut joined later.
fn must_release(facts: &Facts, view: &View) -> bool {
    let loses = |previous| facts.name().is_some_and(|name| view.loses(name, previous));
    !view.is_clean_start() || facts.fold.previous().is_some_and(loses)
}
