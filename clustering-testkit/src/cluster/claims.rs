//! Claims of one life of a process to keys (P12): the slots that its node reports as held, and the keys that its
//! service reports to work on. Both are recorded in the node's journal, where the checker of P12 compares them with the
//! claims of other processes. Work is also compared with the node's own holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};

use clustering_core::{
    Clustering,
    slots::{Slot, SlotCount},
};

use super::gate::{Gate, Kept};
use crate::history::{Journal, Moment, Observation};

/// Time for which work may continue after its hold has become void: tokio's timers fire up to 1 ms late.
const SLACK: Duration = Duration::from_millis(2);

/// Guard of a process that works on a key, from [`Process::working_on`](super::Process::working_on). The work ends when
/// the guard is dropped.
#[must_use = "the work ends when the guard is dropped"]
pub struct Working {
    gate: Arc<Gate>,
    number: u64,
    key: String,
}

impl Working {
    /// Returns the key.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.gate.end_work(self.number);
    }
}

impl fmt::Debug for Working {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Working")
            .field("process", &self.gate.home.name)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// Claims of one life of a process.
#[derive(Default)]
pub(super) struct Claims {
    /// Number of slots of the node that was started last, if it is exclusive.
    slots: Option<SlotCount>,
    leases: Leases,
    /// Slots that the node holds, with the lease under which it acquired them.
    held: BTreeMap<Slot, u64>,
    /// Work in progress.
    works: BTreeMap<u64, Work>,
    /// Number of work items that have begun so far.
    begun: u64,
}

/// Work on one key.
struct Work {
    key: String,
    /// The slot, if the work is on a whole slot.
    slot: Option<Slot>,
    /// Journal of the node under which the work began.
    journal: Journal,
    lease: Option<u64>,
    began: Moment,
    activity: Activity,
    /// Time since which the work has had no valid hold, with the reason.
    unheld: Option<Unheld>,
    is_reported: bool,
}

struct Unheld {
    since: Moment,
    reason: String,
}

/// Activity of a work item.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Activity {
    Active,
    /// The work does not count: the process is paused, or the test has ended its lease.
    Frozen,
    /// The process was resumed at this time. The work counts as active from that time on, unless it ends at once.
    Resumed(Moment),
}

/// Leases of the process's nodes, according to the journal.
#[derive(Default)]
struct Leases {
    /// Number of entries of the current journal that were read.
    read: usize,
    /// Time at which all holds under a lease are void.
    void: BTreeMap<u64, Moment>,
    /// The lease that was granted last.
    last: Option<u64>,
    /// A lease that the test has ended, in breach of the store's contract.
    excused: Option<u64>,
}

impl Leases {
    /// Reads the new entries of the journal.
    fn follow(&mut self, kept: &Kept) {
        let entries = kept.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in &entries[self.read..] {
            match &entry.observation {
                Observation::Granted { lease, sent, ttl } => {
                    self.void.insert(*lease, *sent + *ttl);
                    self.last = Some(*lease);
                }
                Observation::Renewed { lease, sent, left } => {
                    let void = self.void.entry(*lease).or_default();
                    *void = (*void).max(*sent + *left);
                }
                _ => {}
            }
        }
        self.read = entries.len();
    }

    fn void(&self, lease: u64) -> Moment {
        self.void.get(&lease).copied().unwrap_or_default()
    }

    fn is_excused(&self, lease: Option<u64>) -> bool {
        lease.is_some() && lease == self.excused
    }
}

/// The slots that a node reports.
struct Said {
    /// Slots that the node holds. Their holds may be void, which the caller must decide by the lease.
    held: BTreeSet<Slot>,
    /// Lost slots with holds that may be outstanding.
    in_use: BTreeSet<Slot>,
}

impl Said {
    /// Reads the slots of a process's node. Does not ask the hold table of a paused node: that would wake tasks that
    /// wait for the loss of an expired hold, although no code runs in a paused process.
    fn by(node: Option<&Clustering>, is_paused: bool) -> Self {
        let mut said = Said { held: BTreeSet::new(), in_use: BTreeSet::new() };
        let Some(node) = node else { return said };
        if let Some(holdings) = &node.status().get().holdings {
            said.held.extend(holdings.held.keys());
            said.in_use.extend(holdings.in_use.iter());
        }
        if !is_paused {
            said.held.extend(node.held_slots().iter());
        }
        said
    }

    fn has(&self, slot: Slot) -> bool {
        self.held.contains(&slot) || self.in_use.contains(&slot)
    }
}

impl Claims {
    /// Returns the reason why a work item has no valid hold, and the time since which it has none; `None` if its hold
    /// is valid.
    fn unheld(&self, work: &Work, said: &Said, now: Moment) -> Option<Unheld> {
        let slots = self.slots?;
        let slot = work.slot.unwrap_or_else(|| slots.slot_of(&work.key));
        if self.leases.is_excused(work.lease) {
            return None;
        }
        let Some(void) = work.lease.map(|lease| self.leases.void(lease)) else {
            let reason = "the process has no session".to_owned();
            return Some(Unheld { since: work.began, reason });
        };
        if now >= void {
            let reason = format!("its hold has been void since {void} s");
            return Some(Unheld { since: void.max(work.began), reason });
        }
        (!said.has(slot))
            .then(|| Unheld { since: now, reason: format!("the process has no hold of slot {slot}") })
    }

    /// Judges one work item. Returns a message the first time that the item has had no valid hold for longer than
    /// `slack`.
    fn judge(&mut self, number: u64, said: &Said, now: Moment, slack: Duration) -> Option<String> {
        let work = self.works.get(&number)?;
        let unheld = self.unheld(work, said, now);
        let work = self.works.get_mut(&number)?;
        let Some(unheld) = unheld else {
            work.unheld = None;
            return None;
        };
        let Unheld { since, reason } = work.unheld.get_or_insert(unheld);
        let resumed = match work.activity {
            Activity::Frozen => return None,
            Activity::Resumed(at) => at,
            Activity::Active => Moment::default(),
        };
        if now < (*since).max(resumed) + slack || work.is_reported {
            return None;
        }
        work.is_reported = true;
        let (node, life) = (work.journal.node(), work.journal.life());
        Some(format!("{node}#{life} has worked on {} since {} s, but {reason}", work.key, work.began))
    }

    /// True if an active work on the key is recorded.
    fn is_active(&self, key: &str) -> bool {
        self.works.values().any(|work| work.activity == Activity::Active && work.key == key)
    }

    /// Records that a work item is active since `at`.
    fn activate(&mut self, number: u64, at: Moment) {
        let Some(work) = self.works.get(&number) else { return };
        if !self.is_active(&work.key) {
            work.journal.note_at(at, Observation::Holds { key: work.key.clone(), until: None });
        }
        if let Some(work) = self.works.get_mut(&number) {
            work.activity = Activity::Active;
        }
    }

    /// Records that a work item is no longer active.
    fn deactivate(&mut self, number: u64, activity: Activity) {
        let Some(work) = self.works.get_mut(&number) else { return };
        let was_active = std::mem::replace(&mut work.activity, activity) == Activity::Active;
        let (key, journal) = (work.key.clone(), work.journal.clone());
        if was_active && !self.is_active(&key) {
            journal.note(Observation::LetGo { key });
        }
    }

    /// Activates work that continues although its process was resumed some time ago.
    fn thaw(&mut self, now: Moment) {
        let lasting = self.works.iter().filter_map(|(number, work)| match work.activity {
            Activity::Resumed(at) if now > at + SLACK => Some((*number, at)),
            _ => None,
        });
        let lasting: Vec<_> = lasting.collect();
        for (number, at) in lasting {
            self.activate(number, at);
        }
    }

    /// Records changes of the slots that the node holds. Holds that may be outstanding also count until they are void.
    fn record_slots(&mut self, said: &Said, now: Moment, journal: &Journal) {
        let acquired = said.held.iter().filter_map(|slot| Some((*slot, self.leases.last?)));
        let outstanding = said.in_use.iter().filter_map(|slot| Some((*slot, *self.held.get(slot)?)));
        let counts = |(_, lease): &(Slot, u64)| {
            now < self.leases.void(*lease) && !self.leases.is_excused(Some(*lease))
        };
        let held = acquired.chain(outstanding).filter(counts).collect();
        let before = std::mem::replace(&mut self.held, held);
        for (slot, lease) in before.iter().filter(|(slot, _)| !self.held.contains_key(slot)) {
            let at = self.leases.void(*lease).min(now);
            journal.note_at(at, Observation::LetGo { key: name_of(*slot) });
        }
        for slot in self.held.keys().filter(|slot| !before.contains_key(slot)) {
            journal.note_at(now, Observation::Holds { key: name_of(*slot), until: None });
        }
    }
}

/// Returns the key under which the claim to a slot is recorded. It must differ from the service's own keys.
fn name_of(slot: Slot) -> String {
    format!("[slot {slot}]")
}

impl Gate {
    fn claims(&self) -> MutexGuard<'_, Claims> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the claims, after updating their leases from the journal.
    fn followed(&self) -> MutexGuard<'_, Claims> {
        let kept = self.kept();
        let mut claims = self.claims();
        if let Some(kept) = kept {
            claims.leases.follow(&kept);
        }
        claims
    }

    fn said(&self) -> Said {
        Said::by(self.node().as_ref(), self.is_paused())
    }

    /// True if the most recently started node is exclusive.
    pub(super) fn is_exclusive(&self) -> bool {
        self.claims().slots.is_some()
    }

    /// True if the service has reported work on a key.
    pub(super) fn has_worked(&self) -> bool {
        self.claims().begun > 0
    }

    /// Prepares for a new node, with this number of slots if it is exclusive.
    pub(super) fn begin_claims(&self, slots: Option<u16>) {
        let mut claims = self.claims();
        claims.slots = slots.and_then(|slots| SlotCount::new(slots).ok());
        claims.held.clear();
        claims.leases.read = 0;
    }

    /// Excludes all claims under that lease from judgement.
    pub(super) fn excuse_lease(&self, lease: u64) {
        {
            let mut claims = self.followed();
            claims.leases.excused = Some(lease);
            let concerned = |(number, work): (&u64, &Work)| (work.lease == Some(lease)).then_some(*number);
            let numbers: Vec<_> = claims.works.iter().filter_map(concerned).collect();
            for number in numbers {
                claims.deactivate(number, Activity::Frozen);
            }
        }
        self.look_at_claims();
    }

    /// Begins work on a key. Work without a hold is reported at once, because the service had no loss to notice first.
    pub(super) fn begin_work(self: &Arc<Self>, key: String, slot: Option<Slot>) -> Working {
        let Some(journal) = self.journal() else {
            let what = format!("{} works on {key} before it has a node", self.home.name);
            self.home.verdicts.worked_without_hold(what);
            return Working { gate: self.clone(), number: 0, key };
        };
        let said = self.said();
        let (number, message) = {
            let (mut claims, now) = (self.followed(), self.home.clock.now());
            claims.begun += 1;
            let (number, lease) = (claims.begun, claims.leases.last);
            let activity = Activity::Frozen;
            let work = Work {
                key: key.clone(),
                slot,
                journal,
                lease,
                began: now,
                activity,
                unheld: None,
                is_reported: false,
            };
            claims.works.insert(number, work);
            if !claims.leases.is_excused(lease) {
                claims.activate(number, now);
            }
            (number, claims.judge(number, &said, now, Duration::ZERO))
        };
        self.report(message);
        Working { gate: self.clone(), number, key }
    }

    fn end_work(&self, number: u64) {
        // A killed process runs no code. Ignore guards that are dropped later, together with the cluster.
        if !self.is_alive() {
            return;
        }
        let said = self.said();
        let message = {
            let (mut claims, now) = (self.followed(), self.home.clock.now());
            claims.thaw(now);
            let message = claims.judge(number, &said, now, SLACK);
            claims.deactivate(number, Activity::Frozen);
            claims.works.remove(&number);
            message
        };
        self.report(message);
    }

    /// Freezes the work when the process is paused.
    pub(super) fn freeze_work(&self) {
        let mut claims = self.claims();
        claims.thaw(self.home.clock.now());
        let numbers: Vec<_> = claims.works.keys().copied().collect();
        for number in numbers {
            claims.deactivate(number, Activity::Frozen);
        }
    }

    /// Lets the work count again when the process is resumed.
    pub(super) fn resume_work(&self) {
        let (mut claims, now) = (self.claims(), self.home.clock.now());
        let Claims { works, leases, .. } = &mut *claims;
        for work in works.values_mut().filter(|work| !leases.is_excused(work.lease)) {
            work.activity = Activity::Resumed(now);
        }
    }

    /// Records the slots that the node holds now, and judges the work in progress. The slots of a paused node are also
    /// recorded, because its holds end by the clock alone.
    pub(super) fn look_at_claims(&self) {
        let Some(journal) = self.journal().filter(|_| self.is_alive()) else { return };
        let said = self.said();
        let messages: Vec<_> = {
            let (mut claims, now) = (self.followed(), self.home.clock.now());
            claims.thaw(now);
            if claims.slots.is_some() {
                claims.record_slots(&said, now, &journal);
            }
            let numbers: Vec<_> = claims.works.keys().copied().collect();
            numbers.into_iter().map(|number| claims.judge(number, &said, now, SLACK)).collect()
        };
        messages.into_iter().for_each(|message| self.report(message));
    }

    /// Checks the claims whenever the node's status changes. This runs outside of the process, so that it also sees a
    /// paused node.
    pub(super) fn watch_claims(self: &Arc<Self>, node: &Clustering) {
        if self.claims().slots.is_none() {
            return;
        }
        let (gate, mut status) = (Arc::downgrade(self), node.status());
        tokio::spawn(async move {
            while let Some(gate) = gate.upgrade().filter(|gate| gate.is_alive()) {
                gate.look_at_claims();
                drop(gate);
                if status.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    fn report(&self, message: Option<String>) {
        let Some(message) = message else { return };
        if let Some(journal) = self.journal() {
            journal.note(Observation::Note { text: format!("VIOLATES P12: {message}") });
        }
        self.home.verdicts.worked_without_hold(message);
    }
}
