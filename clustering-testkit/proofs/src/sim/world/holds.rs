use std::{collections::BTreeMap, mem, time::Duration};

use clustering_core::{
    Config, Event, Outcome, View,
    machine::{Holdings, Input, Machine, Output, Purpose, Token},
    node::WEIGHT,
    slots::{Slot, SlotCount, SlotSet},
    store::{Batch, Change, Key, LeaseId, Revision, Txn},
    time::Timestamp,
};
use clustering_testkit::history::{Entry, Life, Moment, Observation};

use super::{Due, World};
use crate::sim::{
    Kind, Reached,
    checks::{p12_fence::Acquired, p12_releases, p12_starvation},
    swarm::Exclusivity,
};

/// A hold that the user of a process keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hold {
    number: u64,
    pub(super) slot: Slot,
    lease: LeaseId,
    /// The fencing token.
    token: Revision,
}

/// The table of holds of a process, which simulates the runtime's table, and the state of the process's user.
#[derive(Debug, Default)]
pub(super) struct Holds {
    /// True if the process is exclusive.
    pub(super) exclusive: bool,
    pub(super) has_release: bool,
    /// True if the node has no time limit and waits until its holds are dropped.
    waits: bool,
    outstanding: Vec<Hold>,
    /// Open calls of the runtime, each with the holds that it reports about.
    retractions: Vec<(Token, Vec<Hold>)>,
    /// Time after which the holds of each lease are void.
    void: Vec<(LeaseId, Timestamp)>,
    /// The running `release`.
    releasing: Option<Releasing>,
    /// Lost slots for which no `release` has succeeded.
    unreleased: SlotSet,
    holdings: Option<Holdings>,
    /// Lease that the store ended too early. Holds under this lease are not judged.
    betrayed: Option<LeaseId>,
    /// True if the claims must be recomputed.
    is_outdated: bool,
}

#[derive(Debug)]
struct Releasing {
    token: Token,
    slots: SlotSet,
    stuck: bool,
}

/// A process that may work on a slot, according to its own knowledge.
#[derive(Debug)]
pub(super) struct Holder {
    process: usize,
    number: u32,
    life: Life,
    /// Time until which the process may work on the slot.
    until: Moment,
}

impl Holds {
    fn void(&self, lease: LeaseId) -> Timestamp {
        let known = self.void.iter().find(|(known, _)| *known == lease);
        known.map_or(Timestamp::ZERO, |(_, void)| *void)
    }

    /// Updates the table from the machine's status. Returns true if anything has changed.
    fn learn(&mut self, holdings: Holdings) -> bool {
        if self.holdings.as_ref() == Some(&holdings) {
            return false;
        }
        if let Some(lease) = holdings.lease {
            self.void.retain(|(known, _)| *known != lease);
            self.void.push((lease, holdings.void));
        }
        self.holdings = Some(holdings);
        self.is_outdated = true;
        true
    }

    /// Returns the slots on which the user may work, each with the time limit for the work.
    fn claims(&self) -> BTreeMap<Slot, Timestamp> {
        let mut claims = BTreeMap::new();
        let mut claim = |slot: Slot, lease: LeaseId, until: Timestamp| {
            if self.betrayed != Some(lease) {
                let known = claims.entry(slot).or_insert(until);
                *known = until.max(*known);
            }
        };
        if let Some(holdings) = &self.holdings
            && let Some(lease) = holdings.lease
        {
            holdings.held.keys().for_each(|slot| claim(*slot, lease, holdings.until));
        }
        self.outstanding.iter().for_each(|hold| claim(hold.slot, hold.lease, self.void(hold.lease)));
        claims
    }

    /// Returns the slots of the valid holds that are outstanding.
    fn in_use(&self, now: Timestamp) -> SlotSet {
        let valid = self.outstanding.iter().filter(|hold| now < self.void(hold.lease));
        valid.map(|hold| hold.slot).collect()
    }

    /// Returns the slots of the valid holds that were retracted and are outstanding.
    fn retracted(&self, now: Timestamp) -> SlotSet {
        let holds = self.retractions.iter().flat_map(|(_, holds)| holds);
        holds.filter(|hold| now < self.void(hold.lease)).map(|hold| hold.slot).collect()
    }
}

/// Simulates the users of all processes, who take and drop holds, and checks P12.
impl World<'_> {
    /// Makes a process exclusive, if this run calls for it.
    pub(super) fn make_exclusive(&mut self, process: usize, config: &mut Config) {
        let swarm = &self.swarm;
        let random = &mut self.processes[process].random;
        let exclusive = match swarm.exclusivity {
            Exclusivity::Nobody => false,
            Exclusivity::Some => random.percent(if self.stormy { swarm.mixed } else { swarm.rolled_out }),
            Exclusivity::Everybody => true,
        };
        let has_release = exclusive && random.percent(50);
        let waits = exclusive && random.percent(10);
        if exclusive {
            config.exclusive = SlotCount::new(swarm.slots).ok();
            config.has_release = has_release;
            config.release_timeout = (!waits).then(|| random.ms(2_000, 15_000));
            config.stop_timeout = Some(random.ms(1_000, 10_000));
        }
        config.restart_grace = self.restart_grace(process);
        self.processes[process].holds = Holds { exclusive, has_release, waits, ..Holds::default() };
    }

    /// Returns the time for which the slots of a process wait for it after it has stopped or crashed.
    pub(super) fn restart_grace(&mut self, process: usize) -> Duration {
        let random = &mut self.processes[process].random;
        match random.percent(self.swarm.restarts) {
            true => random.ms(100, 20_000),
            false => Duration::ZERO,
        }
    }

    pub(super) fn is_exclusive(&self, process: usize) -> bool {
        self.processes[process].holds.exclusive
    }

    /// Updates the table of holds after an input, before outputs are executed.
    pub(super) fn follow_holdings(&mut self, process: usize) {
        let this = &mut self.processes[process];
        let Some(machine) = this.machine.as_ref().filter(|_| this.holds.exclusive) else { return };
        let Some(holdings) = machine.status(this.clock.at(self.now)).holdings else { return };
        if this.holds.learn(holdings) {
            self.note_acquisitions(process);
        }
    }

    /// P12. Checks the fencing tokens of slots that a process has acquired.
    fn note_acquisitions(&mut self, process: usize) {
        let this = &self.processes[process];
        let Some(holdings) = &this.holds.holdings else { return };
        let view = this.machine.as_ref().and_then(Machine::newest);
        let newest = view.map(View::revision);
        let is_new = holdings.held.values().any(|token| Some(*token) == newest);
        let is_witnessed = |lease: LeaseId| self.witnesses.contains(&lease);
        let lacking = view.filter(|_| is_new).and_then(|view| {
            view.iter().find(|node| !node.lease.is_some_and(is_witnessed)).map(|node| node.name.clone())
        });
        if let Some(name) = lacking {
            self.book.fail(format!(
                "P12, acquired without hand-over: {} acquires slots in a version with {}, which is not exclusive",
                this.label, name
            ));
            return;
        }
        for (slot, token) in holdings.held.iter() {
            let acquired = Acquired { process, life: this.life, token: *token };
            let result = self.fence.acquire(*slot, acquired, &this.label);
            self.book.check(result);
        }
    }

    /// Records which sessions are exclusive.
    pub(super) fn note_witnesses(&mut self, batch: &Batch) {
        let prefix = format!("{}holds/", self.keys.view_prefix());
        let is_witness = |change: &&Change| change.key().starts_with(prefix.as_str());
        for change in batch.changes.iter().filter(is_witness) {
            if let Change::Put(entry) = change {
                self.witnesses.extend(entry.lease);
            }
        }
    }

    /// Lets the user take a hold at random times.
    pub(super) fn use_holds(&mut self, process: usize) {
        let this = &mut self.processes[process];
        let Some(Holdings { lease: Some(lease), held, until, .. }) = &this.holds.holdings else { return };
        if held.is_empty() || this.clock.at(self.now) >= *until || !this.random.percent(15) {
            return;
        }
        let place = this.random.below(held.len() as u64) as usize;
        let Some((slot, token)) = held.iter().nth(place) else { return };
        self.holds += 1;
        let hold = Hold { number: self.holds, slot: *slot, lease: *lease, token: *token };
        this.holds.outstanding.push(hold);
        this.holds.is_outdated = true;
        let time = if this.window(Kind::LeakedHold, self.now).is_some() {
            this.random.ms(5_000, 1_000_000)
        } else if this.random.percent(5) {
            this.random.ms(0, 1_500)
        } else {
            this.random.ms(0, 400)
        };
        let (life, writes) = (this.life, this.random.percent(5));
        self.queue.push(self.now + time, Due::Drop { process, life, hold });
        if writes {
            self.queue.push(self.now + time / 2, Due::WriteAsOwner { process, life });
        }
    }

    /// Lets the user drop a hold.
    pub(super) fn drop_hold(&mut self, process: usize, hold: Hold) {
        let holds = &mut self.processes[process].holds;
        holds.outstanding.retain(|other| *other != hold);
        holds.is_outdated = true;
        let mut reports = Vec::new();
        holds.retractions.retain_mut(|(token, waiting)| {
            let before = waiting.len();
            waiting.retain(|other| *other != hold);
            if waiting.len() < before {
                reports.push((*token, waiting.iter().map(|hold| hold.slot).collect::<SlotSet>()));
            }
            !waiting.is_empty()
        });
        self.look_at_holds(process);
        for (token, in_use) in reports {
            self.handle(process, Input::Retracted { token, in_use });
        }
    }

    /// Lets the user drop all holds, if the node would otherwise wait forever.
    pub(super) fn drop_patient_holds(&mut self, process: usize) {
        let holds = &self.processes[process].holds;
        if holds.waits {
            let outstanding = holds.outstanding.clone();
            outstanding.into_iter().for_each(|hold| self.drop_hold(process, hold));
        }
    }

    /// Reports which of the slots are in use, and lets the holds end.
    pub(super) fn retract(&mut self, process: usize, token: Token, slots: &SlotSet) {
        let this = &mut self.processes[process];
        let now = this.clock.at(self.now);
        let holds = &mut this.holds;
        let concerns = |hold: &&Hold| slots.contains(hold.slot) && now < holds.void(hold.lease);
        let waiting: Vec<Hold> = holds.outstanding.iter().filter(concerns).copied().collect();
        let in_use = waiting.iter().map(|hold| hold.slot).collect();
        if !waiting.is_empty() {
            holds.retractions.push((token, waiting));
        }
        let (life, input) = (this.life, Input::Retracted { token, in_use });
        self.queue.push(self.now, Due::Report { process, life, input });
    }

    /// Runs the user's `release`.
    pub(super) fn release(&mut self, process: usize, token: Token, slots: SlotSet) {
        let now = self.now;
        let this = &mut self.processes[process];
        let stuck = this.window(Kind::StuckRelease, now).is_some();
        if this.holds.releasing.is_some() {
            let who = &this.label;
            self.book.fail(format!("P12, two releases: {who} runs two releases at a time"));
            return;
        }
        this.holds.releasing = Some(Releasing { token, slots, stuck });
        if stuck {
            return;
        }
        let mut time = if this.random.percent(5) { this.random.ms(50, 1_000) } else { this.random.ms(0, 20) };
        if let Some(choice) = this.window(Kind::SlowRelease, now) {
            time += this.random.ms(100, 200 + choice % 6_000);
        }
        let refuses = this.window(Kind::RefusingRelease, now).is_some();
        let outcome = if refuses { Outcome::refused("not now") } else { Outcome::Ready };
        let life = this.life;
        self.queue.push(now + time, Due::Ended { process, life, token, outcome });
    }

    /// Lets a `release` that is stuck return.
    pub(super) fn unstick_release(&mut self, process: usize) {
        let this = &mut self.processes[process];
        let Some(run) = this.holds.releasing.as_mut().filter(|run| run.stuck) else { return };
        run.stuck = false;
        let (life, token) = (this.life, run.token);
        self.queue.push(self.now, Due::Ended { process, life, token, outcome: Outcome::Ready });
    }

    /// Handles the end of the running `release`. Returns false if the token is that of another callback.
    pub(super) fn release_ended(&mut self, process: usize, token: Token, outcome: &Outcome) -> bool {
        let holds = &mut self.processes[process].holds;
        let Some(run) = holds.releasing.take_if(|run| run.token == token) else { return false };
        if *outcome == Outcome::Ready {
            holds.unreleased = holds.unreleased.difference(&run.slots);
        }
        self.handle(process, Input::Released { token, outcome: outcome.clone() });
        true
    }

    /// Handles an event about slots.
    pub(super) fn slot_event(&mut self, process: usize, event: &Event) {
        match event {
            Event::SlotsLost { slots } => {
                let holds = &mut self.processes[process].holds;
                if holds.has_release {
                    holds.unreleased = holds.unreleased.union(slots);
                }
            }
            Event::SlotsAcquired { .. } => self.book.counts.note(Reached::Acquired),
            Event::ReleaseRefused { .. } => self.book.counts.note(Reached::RefusedRelease),
            Event::ReleaseSlow { .. } => self.book.counts.note(Reached::SlowRelease),
            Event::Reclaiming { .. } => self.book.counts.note(Reached::Reclaimed),
            Event::HoldsSuspended => self.book.counts.note(Reached::HoldsSuspended),
            _ => {}
        }
    }

    /// P12. Checks that a node acknowledges a version only after it has let go of the slots that the version takes from
    /// it.
    pub(super) fn look_at_acknowledgement(&mut self, process: usize, txn: &Txn) {
        let this = &self.processes[process];
        let Some(machine) = this.machine.as_ref().filter(|_| this.holds.exclusive) else { return };
        let now = this.clock.at(self.now);
        let kept = p12_releases::Kept {
            unreleased: &this.holds.unreleased,
            in_use: this.holds.in_use(now),
            retracted: this.holds.retracted(now),
        };
        let result = p12_releases::check(&this.label, machine, txn, &kept);
        self.book.check(result);
    }

    /// P12. Checks that no version is published only because of joins while slots are handed over.
    pub(super) fn look_at_publication(&mut self, process: usize, output: &Output) {
        let this = &self.processes[process];
        if let (Output::Commit { purpose: Purpose::Publish, txn, .. }, Some(machine)) =
            (output, &this.machine)
        {
            let since = this.clock.at(self.now).since(this.seen_version_at);
            let result = p12_starvation::check(&this.label, machine, since, txn);
            self.book.check(result);
        }
    }

    /// Updates the observations of which process holds which slot (P12).
    pub(super) fn look_at_holds(&mut self, process: usize) {
        if !mem::take(&mut self.processes[process].holds.is_outdated) || !self.judges_holds {
            return;
        }
        let this = &self.processes[process];
        let (number, now) = (this.life, self.now);
        let claims = this.holds.claims().into_iter();
        let mut claims: BTreeMap<Slot, Moment> =
            claims.map(|(slot, until)| (slot, this.clock.when(until))).filter(|(_, at)| now < *at).collect();
        for (slot, holders) in &mut self.holders {
            let own = |holder: &Holder| (holder.process, holder.number) == (process, number);
            let Some(place) = holders.iter().position(own) else { continue };
            match claims.get(slot) {
                // Extend the time if it has not passed. Otherwise the process begins to hold the slot again.
                Some(until) if now < holders[place].until => {
                    holders[place].until = *until;
                    claims.remove(slot);
                }
                _ => {
                    let holder = holders.remove(place);
                    let entry = let_go(&self.processes[process], &holder, *slot, now);
                    self.book.entry(&entry);
                }
            }
        }
        for (slot, until) in claims {
            self.begin_to_hold(process, slot, until);
        }
    }

    /// Records that a process begins to hold a slot. First ends the claims of holders whose time is over.
    fn begin_to_hold(&mut self, process: usize, slot: Slot, until: Moment) {
        let now = self.now;
        let holders = self.holders.entry(slot).or_default();
        for holder in holders.extract_if(.., |holder| holder.until <= now) {
            let entry = let_go(&self.processes[holder.process], &holder, slot, now);
            self.book.entry(&entry);
        }
        let this = &self.processes[process];
        let holder = Holder { process, number: this.life, life: this.label.clone(), until };
        let observation = Observation::Holds { key: key(slot), until: None };
        let entry = Entry { at: now, node: this.name.clone(), life: holder.life.clone(), observation };
        holders.push(holder);
        self.book.entry(&entry);
    }

    /// Handles a killed process, which no longer holds anything.
    pub(super) fn forget_holder(&mut self, process: usize) {
        let number = self.processes[process].life;
        let now = self.now;
        for (slot, holders) in &mut self.holders {
            let own = |holder: &mut Holder| (holder.process, holder.number) == (process, number);
            for holder in holders.extract_if(.., own) {
                let entry = let_go(&self.processes[process], &holder, *slot, now);
                self.book.entry(&entry);
            }
        }
    }

    /// Handles a node that has ended although its process continues: its outstanding holds stay valid until they are
    /// void.
    pub(super) fn abandon_holds(&mut self, process: usize) {
        let holds = &mut self.processes[process].holds;
        if let Some(holdings) = &mut holds.holdings {
            holdings.held = Default::default();
        }
        holds.is_outdated = true;
        self.look_at_holds(process);
    }

    /// Handles the end of a lease that the store ends too early.
    pub(super) fn betray(&mut self, process: usize, lease: LeaseId) {
        let holds = &mut self.processes[process].holds;
        holds.betrayed = Some(lease);
        holds.is_outdated = true;
        self.look_at_holds(process);
    }

    /// Stops judging which process holds which slot, because the store was restored.
    pub(super) fn stop_judging_holds(&mut self) {
        self.judges_holds = false;
        self.fence.stop();
    }

    /// Lets the user commit as owner, either under one of its holds or under a slot that the node holds at the moment.
    pub(super) fn write_as_owner(&mut self, process: usize) {
        let this = &mut self.processes[process];
        if !this.is_awake() || !this.holds.exclusive {
            return;
        }
        let held = this.holds.holdings.iter().flat_map(|holdings| holdings.held.iter());
        let mut choices: Vec<(Slot, Revision)> = held.map(|(slot, token)| (*slot, *token)).collect();
        choices.extend(this.holds.outstanding.iter().map(|hold| (hold.slot, hold.token)));
        if choices.is_empty() {
            return;
        }
        let (slot, acquired) = choices[this.random.below(choices.len() as u64) as usize];
        let id = self.request();
        let key = Key::from(format!("{}/owned/{}", self.keys.namespace(), slot.number()));
        let value = format!(r#"{{"id": {}, "acquired": {acquired}}}"#, id.0);
        let txn = Txn::new().put(key, value, None);
        self.processes[process].owner_commits.push((id, slot));
        self.handle(process, Input::CommitAsOwner { id, slot, acquired, txn });
    }

    /// P12. Checks a commit of an owner that the store has accepted.
    pub(super) fn check_owner_commit(&mut self, (process, life): (usize, u32), txn: &Txn) {
        let prefix = format!("{}/owned/", self.keys.namespace());
        let number =
            txn.operations().iter().find_map(|operation| operation.key().strip_prefix(prefix.as_str()));
        let slot = SlotCount::new(self.swarm.slots).ok().and_then(|count| count.slot(number?.parse().ok()?));
        let Some(slot) = slot else { return };
        self.book.counts.note(Reached::OwnerCommitDone);
        let result = self.fence.check_commit(slot, (process, life));
        self.book.check(result);
    }

    /// True if every slot is held by its owner, or if no version can have hand-over because not all nodes are
    /// exclusive.
    pub(super) fn are_slots_held(&self) -> bool {
        let nodes = &self.processes[..self.setup.nodes];
        if !nodes.iter().all(|process| process.holds.exclusive) {
            return true;
        }
        let are_held = nodes.iter().all(|process| {
            let Some(machine) = &process.machine else { return false };
            let now = process.clock.at(self.now);
            let (Some(view), Some(holdings)) = (machine.newest(), machine.status(now).holdings) else {
                return false;
            };
            let held: SlotSet = holdings.held.keys().copied().collect();
            view.has_handover() && held == view.slots_of(&process.name) && now < holdings.until
        });
        are_held && self.are_slots_assigned()
    }

    /// True if every slot has an owner, unless no node may own slots, and nodes with equal weights own equally many
    /// slots.
    fn are_slots_assigned(&self) -> bool {
        let Some(view) = self.processes[0].machine.as_ref().and_then(|machine| machine.newest()) else {
            return false;
        };
        let Some(count) = view.slot_count() else { return false };
        let is_weighted = view.iter().any(|node| node.metadata.contains_key(WEIGHT));
        let numbers = || view.iter().map(|node| view.slots_of(&node.name).len());
        let all: usize = numbers().sum();
        let is_even = numbers().max().unwrap_or_default() <= numbers().min().unwrap_or_default() + 1;
        let are_owned = all == usize::from(count.get()) || is_weighted && all == 0;
        are_owned && (is_weighted || is_even)
    }
}

fn key(slot: Slot) -> String {
    format!("slot-{}", slot.number())
}

fn let_go(process: &super::Process, holder: &Holder, slot: Slot, now: Moment) -> Entry {
    let observation = Observation::LetGo { key: key(slot) };
    Entry { at: now, node: process.name.clone(), life: holder.life.clone(), observation }
}
