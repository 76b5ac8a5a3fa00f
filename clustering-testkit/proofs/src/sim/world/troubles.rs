use clustering_core::{
    NameConflict, Term,
    machine::{Input, Purpose},
    node::{Metadata, WEIGHT},
    store::{Key, Revision, Txn},
};
use clustering_testkit::{history::Ledger, random::Random};

use super::{Due, World, calls::By, process::Process};
use crate::sim::{Fault, Kind};

/// Injection of faults.
impl World<'_> {
    /// Begins a fault of the plan, or arms it if a commit triggers it.
    pub(super) fn strike(&mut self, place: usize) {
        if !self.stormy {
            return;
        }
        match self.plan[place].upon {
            Some(_) => self.in_wait.push(place),
            None => self.begin(place, self.plan[place].node),
        }
    }

    /// Triggers the faults that wait for such a commit. Returns true if the commit itself must be delayed.
    pub(super) fn spring(&mut self, process: usize, purpose: Purpose, done: bool) -> bool {
        if !self.stormy || self.in_wait.is_empty() {
            return false;
        }
        let plan = &self.plan;
        let springs = |place: &mut usize| {
            plan[*place].upon.is_some_and(|upon| upon.purpose == purpose && upon.done == done)
        };
        let sprung: Vec<usize> = self.in_wait.extract_if(.., springs).collect();
        let mut held = false;
        for place in sprung {
            let fault = &self.plan[place];
            held |= !done && fault.upon.is_some_and(|upon| upon.holds);
            let its_node = fault.upon.is_some_and(|upon| upon.its_node) && process < self.setup.nodes;
            let node = if its_node { process } else { fault.node };
            if fault.kind == Kind::HeldCommit && !done {
                self.book.counts.fault(Kind::HeldCommit);
                held = true;
            } else {
                let most = if fault.choice.is_multiple_of(4) { 100 } else { 2 };
                let at = self.now + Random::stream(fault.choice, 1).ms(0, most);
                self.queue.push(at, Due::Sprung { place, node });
            }
        }
        held
    }

    /// Starts a fault at the node.
    pub(super) fn begin(&mut self, place: usize, node: usize) {
        if !self.stormy {
            return;
        }
        let fault = Fault { node, ..self.plan[place].clone() };
        let (choice, end) = (fault.choice, self.now + fault.lasts);
        self.book.counts.fault(fault.kind);
        self.book.stir(&(place, fault.choice));
        self.book.tell(self.now, "fault", || fault.to_string().trim_start().to_owned());
        match fault.kind {
            Kind::Crash => {
                self.kill(node);
                self.queue.push(end, Due::Start { process: node });
            }
            Kind::Leave => {
                self.ask_to_stop(node);
                self.queue.push(end, Due::Start { process: node });
            }
            Kind::Burst => self.burst(choice, end),
            Kind::Pause if self.processes[node].is_awake() => {
                let this = &mut self.processes[node];
                this.frozen = true;
                this.frozen_at = this.clock.at(self.now);
                let life = self.processes[node].life;
                self.queue.push(end, Due::Over { kind: Kind::Pause, process: node, life });
            }
            Kind::Pause => {}
            Kind::EarlyExpiry => self.expire_early(node),
            Kind::Outage => {
                self.outage_until = self.outage_until.max(end);
                for process in 0..self.processes.len() {
                    self.break_some_watches(process, 30);
                }
            }
            Kind::Partition => {
                self.processes[node].open_window(Kind::Partition, end, choice);
                self.break_some_watches(node, 50);
            }
            Kind::WatchBreak => self.break_some_watches(node, 70),
            Kind::WatchGap => {
                self.break_some_watches(node, 100);
                self.store.compact();
            }
            Kind::Drift => {
                // On the slowest clock, two thirds of the TTL are still shorter than the TTL on the store's clock.
                let rate = 800_000 + choice % 450_001;
                let now = self.now;
                let this = &mut self.processes[node];
                this.rate = rate;
                this.clock.set_rate(now, rate);
                self.look_at(node);
            }
            Kind::WallJump => {
                self.processes[node].wall = choice % 7_200_000;
                self.kill(node);
                self.queue.push(end, Due::Start { process: node });
            }
            Kind::Twin => self.start_twin(node, choice, fault.lasts),
            Kind::HandDelete => self.delete_by_hand(node, choice),
            Kind::Rewind => self.rewind(choice),
            Kind::Cordon => {
                self.cordon(node);
                let life = self.processes[node].life;
                self.queue.push(end, Due::Over { kind: Kind::Cordon, process: node, life });
            }
            Kind::Drain => self.drain(node),
            Kind::FalseAlarm if !self.swarm.trusts => self.refuse_connections(node),
            Kind::FalseAlarm => {}
            Kind::OwnerCommit => {
                (0..self.processes.len()).for_each(|process| self.write_as_owner(process));
            }
            Kind::StuckStabilize | Kind::StuckRelease | Kind::HangingHealth | Kind::Deaf => {
                self.processes[node].open_window(fault.kind, end, choice);
                let life = self.processes[node].life;
                self.queue.push(end, Due::Over { kind: fault.kind, process: node, life });
            }
            Kind::SlowRenewals
            | Kind::LostRenewals
            | Kind::LostReplies
            | Kind::SlowCalls
            | Kind::HeldCommit
            | Kind::WatchLag
            | Kind::SlowStabilize
            | Kind::SlowRelease
            | Kind::RefusingRelease
            | Kind::LeakedHold
            | Kind::RefusingStabilize
            | Kind::PanickingStabilize
            | Kind::FailingHealth => self.processes[node].open_window(fault.kind, end, choice),
            Kind::RequestVersion | Kind::Update | Kind::Resign | Kind::Unregister | Kind::LeaderCommit => {
                self.wish(fault.kind, node, choice, end);
            }
        }
    }

    /// Ends a fault.
    pub(super) fn over(&mut self, kind: Kind, process: usize) {
        match kind {
            Kind::Pause => {
                let now = self.now;
                let counts = self.tamper.as_ref().is_none_or(|tamper| tamper.counts_suspends());
                let this = &mut self.processes[process];
                this.frozen = false;
                if !counts {
                    this.clock.stood_still(now, this.frozen_at);
                }
                if let Some(check) = &mut this.checking {
                    check.since = this.clock.at(now);
                }
                let mut held = std::mem::take(&mut this.held);
                // All delayed events are available at once, and the order in which they are handled is random.
                if this.random.percent(50) && held.len() > 1 {
                    let place = this.random.below(held.len() as u64) as usize;
                    held.rotate_left(place);
                }
                let in_order = |due: &Due| {
                    matches!(due, Due::Deliver { .. } | Due::Break { .. } | Due::Reconnect { .. })
                };
                held.sort_by_key(in_order);
                held.into_iter().for_each(|due| self.queue.push(self.now, due));
                self.book.tell(self.now, &self.processes[process].label, || "resumes".to_owned());
                // The user queries the node before it has received any input.
                self.look_at(process);
            }
            Kind::StuckRelease => self.unstick_release(process),
            Kind::Deaf => self.hear(process),
            Kind::Cordon => self.uncordon(process),
            _ => self.unstick(process),
        }
    }

    fn ask_to_stop(&mut self, process: usize) {
        if self.processes[process].is_up() {
            let life = self.processes[process].life;
            self.queue.push(self.now, Due::Stop { process, life });
        }
    }

    fn burst(&mut self, choice: u64, back: clustering_testkit::history::Moment) {
        let mut random = Random::stream(choice, 0);
        for process in 0..self.setup.nodes {
            if random.percent(50) {
                let life = self.processes[process].life;
                if random.percent(50) {
                    self.kill(process);
                } else {
                    self.queue.push(self.now + random.ms(0, 500), Due::Stop { process, life });
                }
                self.queue.push(back + random.ms(0, 500), Due::Start { process });
            }
        }
    }

    fn expire_early(&mut self, node: usize) {
        let Some(lease) = self.processes[node].lease.map(|held| held.id) else { return };
        let before = self.store.revision();
        self.betray(node, lease);
        if self.store.end(lease).is_ok() {
            self.book.tell(self.now, "store", || format!("lease {lease} is ended early"));
            self.committed(before, By::Hand);
        }
    }

    fn break_some_watches(&mut self, process: usize, chance: u64) {
        let this = &mut self.processes[process];
        let life = this.life;
        for token in this.watches.iter().map(|watch| watch.token).collect::<Vec<_>>() {
            if this.random.percent(chance) {
                let at = self.now + this.random.ms(0, 50);
                self.queue.push(at, Due::Break { process, life, token });
            }
        }
    }

    fn start_twin(&mut self, node: usize, choice: u64, lasts: std::time::Duration) {
        let policy = match choice % 4 {
            0 => NameConflict::Wait,
            1 => NameConflict::Fail,
            _ => NameConflict::TakeOver,
        };
        let name = self.processes[node].name.clone();
        let random = Random::stream(choice, self.processes.len() as u64);
        let process = self.processes.len();
        self.processes.push(Process::new(name, Some(policy), random));
        self.start(process);
        let (at, life) = (self.now + lasts, self.processes[process].life);
        self.queue.push(at, Due::Stop { process, life });
    }

    /// Changes keys as an operator does.
    fn operate(&mut self, txn: &Txn) {
        let before = self.store.revision();
        let changed = self.store.commit(txn);
        debug_assert!(changed.is_ok(), "the commit has no guards");
        self.committed(before, By::Hand);
    }

    fn cordon(&mut self, node: usize) {
        let key = self.keys.cordon_key(&self.processes[node].name);
        self.operate(&Txn::new().put(key, "{}", None));
    }

    fn uncordon(&mut self, node: usize) {
        let key = self.keys.cordon_key(&self.processes[node].name);
        self.operate(&Txn::new().delete(key));
    }

    /// Lifts all cordons.
    pub(super) fn uncordon_all(&mut self) {
        (0..self.setup.nodes).for_each(|node| self.uncordon(node));
    }

    /// Asks the node's current incarnation to leave, if there is one.
    fn drain(&mut self, node: usize) {
        let name = self.processes[node].name.clone();
        let Some(entry) = self.store.get(&self.keys.node_key(&name)) else { return };
        let record: serde_json::Value = serde_json::from_slice(&entry.value).unwrap_or_default();
        let value = serde_json::json!({ "incarnation": record["incarnation"], "by": "operator" });
        let (key, lease) = (self.keys.drain_key(&name), entry.lease);
        self.operate(&Txn::new().put(key, value.to_string(), lease));
    }

    /// Lets the node's watches deliver the events that they have held back.
    fn hear(&mut self, process: usize) {
        let open = self.processes[process].watches.iter().filter(|watch| watch.open);
        for token in open.map(|watch| watch.token).collect::<Vec<_>>() {
            self.come(process, token);
        }
    }

    /// Deletes keys as an operator might do.
    fn delete_by_hand(&mut self, node: usize, choice: u64) {
        let (keys, name) = (&self.keys, &self.processes[node].name);
        let txn = match choice % 8 {
            0 | 1 => Txn::new().delete(keys.election_key().clone()),
            // A record must be deleted together with its acknowledgement.
            2 | 3 => Txn::new().delete(keys.node_key(name)).delete(keys.readiness_key(name)),
            4 => Txn::new().delete(keys.readiness_key(name)),
            5 => Txn::new().delete(keys.version_key().clone()),
            6 => Txn::new().delete(keys.stable_key().clone()),
            _ => Txn::new().delete(keys.request_key().clone()),
        };
        let before = self.store.revision();
        let deleted = self.store.commit(&txn);
        debug_assert!(deleted.is_ok(), "the commit has no guards");
        self.committed(before, By::Hand);
    }

    /// Restores the store from a backup that is some revisions old.
    fn rewind(&mut self, choice: u64) {
        // Most rewinds are so short that the log is unchanged and only acknowledgements are lost.
        let by = match choice % 8 {
            0..4 => choice / 8 % 4,
            4..7 => choice / 8 % 40,
            _ => choice / 8 % 300,
        };
        self.stop_judging_holds();
        let revision = Revision::new(self.store.revision().get().saturating_sub(1 + by));
        self.store.rewind(self.now, revision);
        self.book.tell(self.now, "store", || format!("is restored to revision {revision}"));
        self.book.rewind(self.now, self.store.history());
        let leader: Option<(Term, _)> =
            self.store.get(self.keys.election_key()).map(|entry| (Term::new(entry.created), entry.lease));
        self.reigns.rewind(leader);
        for process in 0..self.processes.len() {
            let this = &mut self.processes[process];
            let (at, life) = (self.now + this.random.ms(0, 300), this.life);
            self.queue.push(at, Due::Reconnect { process, life });
        }
    }

    /// Makes a request to the node, as a user would.
    fn wish(&mut self, kind: Kind, process: usize, choice: u64, end: clustering_testkit::history::Moment) {
        if !self.processes[process].is_awake() {
            return;
        }
        let id = self.request();
        match kind {
            Kind::RequestVersion => self.handle(process, Input::RequestVersion { id, why: None }),
            Kind::Update => {
                let mut metadata = Metadata::from([("at".to_owned(), choice.to_string())]);
                if choice % 100 < self.swarm.weighted {
                    metadata.insert(WEIGHT.to_owned(), (choice / 100 % 5).to_string());
                }
                self.handle(process, Input::Update { id, metadata });
            }
            Kind::Resign => {
                // Resigns the current leader, if there is one.
                let leads = |this: &Process| {
                    this.is_awake() && this.claim.is_some_and(|claim| self.now < claim.until)
                };
                let process = self.processes.iter().position(leads).unwrap_or(process);
                self.handle(process, Input::Resign { id });
            }
            Kind::Unregister => {
                self.handle(process, Input::Unregister { id });
                let life = self.processes[process].life;
                self.queue.push(end, Due::Register { process, life });
            }
            _ => (0..self.processes.len()).for_each(|process| self.write_as_leader(process)),
        }
    }

    /// Lets the user write as leader, if the node claims to lead.
    pub(super) fn write_as_leader(&mut self, process: usize) {
        let this = &self.processes[process];
        let Some(claim) = this.claim.filter(|claim| this.is_awake() && self.now < claim.until) else {
            return;
        };
        let (id, term) = (self.request(), claim.term);
        let named = format!("w{}", id.0);
        let key = Key::from(format!("{}/{}k{}", self.keys.namespace(), Ledger::LEADER_COMMITS, id.0 % 3));
        let value = format!(r#"{{"id": "{named}", "term": {term}}}"#);
        self.processes[process].asked.push((id, named, term));
        self.handle(process, Input::CommitAsLeader { id, txn: Txn::new().put(key, value, None) });
    }
}
