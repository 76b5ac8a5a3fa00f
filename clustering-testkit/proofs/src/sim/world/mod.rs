//! Simulated world in virtual time: processes with real machines, a store, and the network between them.

mod callbacks;
mod calls;
mod calm;
mod crashes;
mod holds;
mod process;
pub(crate) mod render;
mod troubles;
mod watches;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use clustering_core::{
    Config, Event, Evidence, HealthChecks, Keyspace, Laggards, LostReason, NameConflict, Namespace, NodeName,
    NodeUri, Outcome, ProcessId, StopReason,
    machine::{Identity, Input, Machine, Output, Purpose, RequestId, Token},
    node::{Metadata, WEIGHT},
    slots::Slot,
    store::{LeaseId, Revision},
    time::Timestamp,
    version::IdGenerator,
};
use clustering_testkit::{
    history::{Life, Moment, Observation},
    random::Random,
};

use self::{
    calls::Call,
    crashes::Reports,
    holds::{Hold, Holder},
    process::{Claim, Process},
};
use super::{
    Fault, Kind, Reached, Seat, Simulation, Store, Tamper,
    book::Book,
    checks::{self, p6_claims::Reigns, p11_health::Owed, p12_fence::Fence},
    queue::Queue,
    swarm::Swarm,
};

/// Namespace of the cluster.
const NAMESPACE: &str = "c";

/// Future events.
enum Due {
    /// A fault of the plan begins.
    Fault(usize),
    /// A fault of the plan begins at the node, after a commit has triggered it.
    Sprung { place: usize, node: usize },
    /// A fault ends.
    Over { kind: Kind, process: usize, life: u32 },
    /// A process is started, if it is not running.
    Start { process: usize },
    /// The user stops the node.
    Stop { process: usize, life: u32 },
    /// The user writes as leader, if the node claims to lead.
    Write { process: usize, life: u32 },
    /// The user commits as owner of a slot, if the node holds a slot.
    WriteAsOwner { process: usize, life: u32 },
    /// The user registers the node again.
    Register { process: usize, life: u32 },
    /// The machine is woken at the time that it asked for.
    Wake { process: usize, life: u32 },
    /// A call reaches the store.
    Arrive(Box<Call>),
    /// The reply to a call, or its timeout, reaches the process.
    Reply { call: Box<Call>, input: Input },
    /// Changes of the store reach a watch of the process.
    Deliver { process: usize, life: u32, token: Token },
    /// A watch breaks.
    Break { process: usize, life: u32, token: Token },
    /// The process reconnects to a store of another era.
    Reconnect { process: usize, life: u32 },
    /// The user drops a hold.
    Drop { process: usize, life: u32, hold: Hold },
    /// The process is told that a process that it watches is gone.
    Gone { process: usize, life: u32, gone: ProcessId, evidence: Evidence },
    /// The runtime reports about holds.
    Report { process: usize, life: u32, input: Input },
    /// A callback returns.
    Ended { process: usize, life: u32, token: Token, outcome: Outcome },
}

type Placed = (usize, Revision, [Option<NodeName>; checks::p1_placement::KEYS.len()]);

pub(super) struct World<'a> {
    setup: &'a Simulation,
    plan: Vec<Fault>,
    /// Faults of the plan that have not been triggered by a commit yet.
    in_wait: Vec<usize>,
    swarm: Swarm,
    now: Moment,
    random: Random,
    store: Store,
    keys: Keyspace,
    queue: Queue<Due>,
    processes: Vec<Process>,
    /// Owner of each lease as process and life, at the index of the lease's number.
    owners: Vec<(usize, u32)>,
    reigns: Reigns,
    /// The processes that may work on each slot, according to their own knowledge.
    holders: BTreeMap<Slot, Vec<Holder>>,
    /// Leases of the exclusive sessions, according to the log.
    witnesses: BTreeSet<LeaseId>,
    /// Number of holds that were taken.
    holds: u64,
    /// False after a restore of the store, which P12 does not cover.
    judges_holds: bool,
    fence: Fence,
    reports: Reports,
    /// Owners of some keys, by the era and revision of the version.
    placed: Option<Placed>,
    outage_until: Moment,
    stormy: bool,
    requests: u64,
    outputs: Vec<Output>,
    tamper: Option<Box<dyn Tamper>>,
    pub(super) book: Book,
    /// Time from the end of the storm until the cluster was stable.
    pub(super) settled_after: std::time::Duration,
}

/// Splits batches that are delivered together, so that tampers see each of them separately.
fn apart(input: Input) -> Vec<Input> {
    match input {
        Input::Batches { token, batches } => {
            batches.into_iter().map(|batch| Input::Batch { token, batch }).collect()
        }
        input => vec![input],
    }
}

/// Recombines inputs that [`apart`] has split, if possible.
fn at_once(inputs: Vec<Input>) -> Vec<Input> {
    let [Input::Batch { token, .. }, _, ..] = inputs[..] else { return inputs };
    let batch = |input: &Input| match input {
        Input::Batch { batch, .. } => Some(batch.clone()),
        _ => None,
    };
    match inputs.iter().map(batch).collect() {
        Some(batches) => vec![Input::Batches { token, batches }],
        None => inputs,
    }
}

impl<'a> World<'a> {
    pub(super) fn new(setup: &'a Simulation, seed: u64, plan: Vec<Fault>, tell: bool) -> Self {
        let mut world = World {
            setup,
            plan,
            in_wait: Vec::new(),
            swarm: Swarm::draw(seed),
            now: Moment::default(),
            random: Random::stream(seed, 2),
            store: Store::default(),
            keys: Keyspace::new(Namespace::parse(NAMESPACE).expect("the namespace is valid")),
            queue: Queue::new(),
            processes: Vec::new(),
            owners: vec![(usize::MAX, 0)],
            reigns: Reigns::default(),
            holders: BTreeMap::new(),
            witnesses: BTreeSet::new(),
            holds: 0,
            judges_holds: true,
            fence: Fence::default(),
            reports: Reports::default(),
            placed: None,
            outage_until: Moment::default(),
            stormy: true,
            requests: 0,
            outputs: Vec::new(),
            tamper: setup.tamper.as_ref().map(|make| make()),
            book: Book::new(NAMESPACE, tell),
            settled_after: Duration::ZERO,
        };
        world.book.stir(&seed);
        for number in 0..setup.nodes {
            let name = NodeName::parse(&format!("n{number}")).expect("the name is valid");
            let mut process = Process::new(name, None, Random::stream(seed, 10 + number as u64));
            process.wall = process.random.below(world.swarm.wall_spread + 1);
            world.processes.push(process);
            let at = world.now + world.random.ms(0, 2_000);
            world.queue.push(at, Due::Start { process: number });
        }
        for (place, fault) in world.plan.iter().enumerate() {
            world.queue.push(fault.at, Due::Fault(place));
        }
        world
    }

    /// Runs the storm and the calm after it.
    pub(super) fn run(&mut self) {
        self.run_until(Moment::default() + self.setup.storm);
        self.settle();
    }

    fn run_until(&mut self, end: Moment) {
        while !self.book.is_broken() {
            let next = self.queue.next_at().filter(|at| *at <= end);
            let expiry = self.store.next_expiry().filter(|at| *at <= end);
            match (next, expiry) {
                (None, None) => break,
                (next, Some(at)) if next.is_none_or(|next| at <= next) => {
                    self.now = self.now.max(at);
                    self.expire();
                }
                _ => {
                    let Some((at, due)) = self.queue.pop() else { break };
                    self.now = self.now.max(at);
                    self.happen(due);
                }
            }
        }
        self.now = self.now.max(end);
    }

    fn happen(&mut self, due: Due) {
        let whose = match &due {
            Due::Fault(place) => return self.strike(*place),
            Due::Sprung { place, node } => return self.begin(*place, *node),
            Due::Start { process } => return self.start(*process),
            Due::Arrive(_) => None,
            Due::Reply { call, .. } => Some((call.process, call.life)),
            Due::Over { process, life, .. }
            | Due::Stop { process, life }
            | Due::Register { process, life }
            | Due::Write { process, life }
            | Due::Wake { process, life }
            | Due::Deliver { process, life, .. }
            | Due::Break { process, life, .. }
            | Due::Reconnect { process, life }
            | Due::Drop { process, life, .. }
            | Due::WriteAsOwner { process, life }
            | Due::Report { process, life, .. }
            | Due::Gone { process, life, .. }
            | Due::Ended { process, life, .. } => Some((*process, *life)),
        };
        if let Some((process, life)) = whose {
            let this = &mut self.processes[process];
            if this.life != life || !this.is_up() {
                return;
            }
            let thaws = matches!(due, Due::Over { kind: Kind::Pause, .. });
            if this.frozen && !thaws {
                return this.held.push(due);
            }
        }
        match due {
            Due::Fault(_) | Due::Sprung { .. } | Due::Start { .. } => {}
            Due::Over { kind, process, .. } => self.over(kind, process),
            Due::Stop { process, .. } => {
                let keep = self.restart_grace(process);
                self.handle(process, Input::Stop { keep });
            }
            Due::Write { process, .. } => self.write_as_leader(process),
            Due::Register { process, .. } => {
                let id = self.request();
                self.handle(process, Input::Register { id });
            }
            Due::Wake { process, .. } => {
                // Other wakeups are out of date, because the machine has asked for another time since.
                if self.processes[process].wake_at.take_if(|at| *at <= self.now).is_some() {
                    self.handle(process, Input::Tick);
                }
            }
            // Calls that were sent by a dead process may still arrive.
            Due::Arrive(call) => self.arrive(call),
            Due::Reply { call, input } => self.reply(*call, input),
            Due::Deliver { process, token, .. } => self.deliver(process, token),
            Due::Break { process, token, .. } => self.break_watch(process, token),
            Due::Reconnect { process, .. } => self.reconnect(process),
            Due::Drop { process, hold, .. } => self.drop_hold(process, hold),
            Due::WriteAsOwner { process, .. } => self.write_as_owner(process),
            Due::Report { process, input, .. } => self.handle(process, input),
            Due::Gone { process, gone, evidence, .. } => self.gone(process, gone, evidence),
            Due::Ended { process, token, outcome, .. } => self.callback_ended(process, token, outcome),
        }
    }

    fn request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(self.requests)
    }

    /// Starts a process, if it is not running.
    fn start(&mut self, number: usize) {
        let ttl = self.setup.ttl;
        if self.processes[number].is_up() {
            return;
        }
        let mut config = Config::default();
        self.make_exclusive(number, &mut config);
        self.processes[number].life += 1;
        let endpoint = self.detect_crashes(number, &mut config);
        let process = &mut self.processes[number];
        process.endpoint.clone_from(&endpoint);
        let life = process.life;
        let random = &mut process.random;
        config.ttl = ttl;
        config.warn_after = ttl;
        let swarm = &self.swarm;
        config.name_conflict = process.twin.unwrap_or(match random.below(100) {
            draw if draw < swarm.take_over => NameConflict::TakeOver,
            draw if draw < swarm.take_over + swarm.fail => NameConflict::Fail,
            _ => NameConflict::Wait,
        });
        if random.percent(swarm.evict) {
            config.laggards = Laggards::Evict { after: random.ms(1_000, ttl.as_millis() as u64 + 5_000) };
        }
        if random.percent(swarm.stabilize_timeout) {
            config.stabilize_timeout = Some(ttl + random.ms(0, 4_000));
        }
        if random.percent(swarm.health) {
            let times = (ttl / 3 + random.ms(0, 2_000), ttl / 5 + random.ms(0, 1_000));
            let failures = 1 + random.below(3) as u32;
            config.health = Some(HealthChecks { interval: times.0, deadline: times.1, failures });
        }
        config.min_nodes = Some(swarm.min_nodes.min(self.setup.nodes) as u32);
        if swarm.prioritized > 0 && random.percent(swarm.prioritized) {
            config.priority = [0, 1, 100, 200][random.below(4) as usize];
        }
        process.checks = config.health;
        config.validate().expect("the configuration is valid");
        let takes_over = config.name_conflict == NameConflict::TakeOver;
        // Each second instance has its own number.
        let kind = if process.twin.is_some() { format!("t{number}.") } else { String::new() };
        let name = process.name.clone();
        let mut metadata = Metadata::new();
        if random.percent(swarm.weighted) {
            metadata.insert(WEIGHT.to_owned(), random.below(5).to_string());
        }
        let identity = Identity {
            uri: NodeUri::parse(&format!("http://{name}/{kind}{life}")).expect("the URI is valid"),
            name,
            metadata,
            endpoint,
        };
        // Each life starts at another time of its clock.
        let shows = Timestamp::from_nanos(random.between(1_000_000_000, 1_000_000_000_000));
        let mint_seed = u128::from(random.next_u64()) << 64 | u128::from(random.next_u64());
        process.clock = super::clock::DriftingClock::new(self.now, shows);
        process.clock.set_rate(self.now, process.rate);
        process.label = Life::from(format!("{}#{kind}{life}", process.name));
        let wall = process.wall_ms(self.now);
        let ids = IdGenerator::new(wall, shows, mint_seed);
        process.machine = Some(Machine::node(self.keys.clone(), identity, config, ids));
        process.era = self.store.era();
        process.seen_in = [process.era; 2];
        self.book.tell(self.now, &self.processes[number].label, || "starts".to_owned());
        self.observe(number, Observation::Started { leadership: None, takes_over });
        if let Some(HealthChecks { interval, deadline, failures }) = self.processes[number].checks {
            self.observe(number, Observation::ChecksHealth { interval, deadline, failures });
        }
        self.handle(number, Input::Tick);
    }

    /// Ends a process as `kill -9` does.
    fn kill(&mut self, process: usize) {
        if self.processes[process].is_up() {
            self.book.tell(self.now, &self.processes[process].label, || "is killed".to_owned());
            self.observe(process, Observation::Killed);
            self.forget_holder(process);
            self.break_connections(process);
            self.processes[process].end();
        }
    }

    fn observe(&mut self, process: usize, observation: Observation) {
        let this = &self.processes[process];
        self.book.observe(self.now, &this.name, &this.label, observation);
    }

    /// Passes an input to a process and checks its reaction.
    fn handle(&mut self, process: usize, input: Input) {
        if !self.processes[process].is_up() {
            return;
        }
        match self.tamper.take() {
            None => self.feed(process, input),
            Some(mut tamper) => {
                let inputs = apart(input).into_iter();
                let falsify = |seat: Seat<'_>| inputs.flat_map(|input| tamper.input(&seat, input)).collect();
                let inputs = self.seat(process).map_or_else(Vec::new, falsify);
                self.tamper = Some(tamper);
                at_once(inputs).into_iter().for_each(|input| self.feed(process, input));
            }
        }
        self.look_at_holds(process);
        self.check_rest(process);
        self.look_at(process);
        self.look_at_status(process);
        self.commit_past(process);
    }

    fn seat(&self, process: usize) -> Option<Seat<'_>> {
        let this = &self.processes[process];
        let machine = this.machine.as_ref()?;
        Some(Seat {
            node: process,
            life: this.life,
            now: this.clock.at(self.now),
            wall_ms: this.wall_ms(self.now),
            machine,
            store: &self.store,
        })
    }

    fn feed(&mut self, process: usize, input: Input) {
        let this = &mut self.processes[process];
        let Some(machine) = &mut this.machine else { return };
        if let (Input::Committed { token, .. }, Some(owed)) = (&input, &mut this.owes) {
            owed.leaving.take_if(|leaving| leaving == token);
        }
        this.handled += 1;
        self.book.counts.inputs += 1;
        self.book.stir(&(self.now, process));
        self.book.tell(self.now, &this.label, || render::input(&input));
        machine.handle(this.clock.at(self.now), input);
        let mut outputs = std::mem::take(&mut self.outputs);
        outputs.extend(std::iter::from_fn(|| machine.poll_output()));
        if self.is_exclusive(process) {
            // The runtime publishes the status before it executes outputs, and users may act in between.
            self.follow_holdings(process);
            self.use_holds(process);
        }
        for output in outputs.drain(..) {
            let Some(mut tamper) = self.tamper.take() else {
                self.carry_out(process, output);
                continue;
            };
            let falsified = self.seat(process).map_or_else(Vec::new, |seat| tamper.output(&seat, output));
            self.tamper = Some(tamper);
            falsified.into_iter().for_each(|output| self.carry_out(process, output));
        }
        self.outputs = outputs;
    }

    fn carry_out(&mut self, process: usize, output: Output) {
        if !self.processes[process].is_up() {
            return;
        }
        self.book.stir(&output);
        if let Output::Commit { purpose: Purpose::Publish | Purpose::Elect, txn, .. } = &output
            && let Some(machine) = &self.processes[process].machine
        {
            let result = checks::causes::unacknowledged(machine, txn);
            self.book.check(result);
            self.look_at_publication(process, &output);
        }
        if self.book.is_told()
            && let Some(line) = render::output(&output)
        {
            self.book.tell(self.now, &self.processes[process].label, || line);
        }
        match output {
            Output::WatchProcesses { endpoints } => self.watch_processes(process, endpoints),
            Output::Event(event) => self.event(process, &event),
            Output::Stabilize { token, view, attempt, .. } => self.stabilize(process, token, &view, attempt),
            Output::Announce { token, view, term } => self.announce(process, token, &view, term),
            Output::CheckHealth { token } => self.check_health(process, token),
            Output::Supersede { token } => self.supersede(process, token),
            Output::Abort { token, reason } => self.abort(process, token, reason),
            Output::Reply { id, reply } => self.answered(process, id, reply),
            Output::Retract { token, slots } => self.retract(process, token, &slots),
            Output::Release { token, slots, .. } => self.release(process, token, slots),
            Output::Unwatch { token } => {
                self.processes[process].watches.retain(|watch| watch.token != token);
            }
            Output::Stopped { reason } => self.stopped(process, &reason),
            call => {
                if let Output::Commit { purpose, txn, .. } = &call {
                    self.look_at_endpoint(process, *purpose, txn);
                    if *purpose == Purpose::Acknowledge {
                        self.look_at_acknowledgement(process, txn);
                    }
                }
                let owes = &mut self.processes[process].owes;
                match (&call, &mut *owes) {
                    (Output::Revoke { lease, .. }, Some(owed)) if owed.lease == *lease => *owes = None,
                    (Output::Commit { token, purpose: Purpose::Leave, .. }, Some(owed)) => {
                        owed.leaving = Some(*token);
                    }
                    _ => {}
                }
                self.call(process, call);
            }
        }
    }

    fn event(&mut self, process: usize, event: &Event) {
        let this = &self.processes[process];
        self.book.event(self.now, &this.name, &this.label, event);
        match event {
            Event::VersionPublished { version, .. } => {
                let this = &mut self.processes[process];
                this.seen_label = Some(*version);
                this.seen_version_at = this.clock.at(self.now);
                if let Some(newest) = this.machine.as_ref().and_then(Machine::newest) {
                    let result = checks::p1_newest_views::check(newest, self.book.ledger());
                    self.book.check(result);
                }
                self.look_at_placement(process);
            }
            Event::FalselyRemoved { .. } => self.processes[process].knows_false_alarm = true,
            Event::LeaderChanged { term, .. } => self.processes[process].told_leader = *term,
            Event::SessionLost { reason: LostReason::Unhealthy } => {
                let this = &mut self.processes[process];
                // An exclusive node keeps its lease until it has let go of its slots.
                let lease = this.lease.filter(|_| !this.holds.exclusive);
                this.owes = lease.map(|held| Owed { lease: held.id, leaving: None });
            }
            Event::SessionLost { reason: LostReason::Removed } => self.book.counts.note(Reached::Removed),
            Event::SessionLost { reason: LostReason::ReleaseTimeout } => {
                self.book.counts.note(Reached::ReleaseTimeout);
            }
            event => self.slot_event(process, event),
        }
    }

    /// Handles a node that has ended.
    fn stopped(&mut self, process: usize, reason: &StopReason) {
        self.abandon_holds(process);
        if !matches!(reason, StopReason::Asked | StopReason::Drained { .. }) {
            self.book.counts.note(Reached::NameLost);
        }
        let this = &mut self.processes[process];
        this.end();
        if this.twin.is_none() && this.returns {
            let wait = this.random.ms(500, 3_000);
            self.queue.push(self.now + wait, Due::Start { process });
        }
    }

    /// Checks that no machine asks to be woken immediately after an input.
    fn check_rest(&mut self, process: usize) {
        let this = &self.processes[process];
        let local = this.clock.at(self.now);
        let wakeup = this.machine.as_ref().and_then(Machine::next_wakeup);
        if wakeup.is_some_and(|at| at <= local) {
            let who = &this.label;
            self.book.fail(format!(
                "busy loop: {who} asks to be woken at {wakeup:?}, but it is already {local:?}"
            ));
        }
    }

    /// Updates the wakeup and the claims of a process, after an input or a change of its clock.
    fn look_at(&mut self, process: usize) {
        let (now, this) = (self.now, &mut self.processes[process]);
        let Some(machine) = &this.machine else { return };
        if let Some(at) = machine.next_wakeup().map(|at| this.clock.when(at).max(now))
            && this.wake_at != Some(at)
        {
            this.wake_at = Some(at);
            self.queue.push(at, Due::Wake { process, life: this.life });
        }
        self.look_at_claim(process);
        self.look_at_health(process);
    }

    /// P11. Checks that a leader's health check does not hang, and that an unhealthy node does not keep its lease. A
    /// frozen process claims nothing, even if its clock changes.
    fn look_at_health(&mut self, process: usize) {
        let this = &self.processes[process];
        let claims = !this.frozen && this.claim.is_some_and(|claim| self.now < claim.until);
        let mut result = checks::p11_health::gave_back(&this.label, this.owes);
        if let (Some(checks), Some(check), true) = (this.checks, &this.checking, claims) {
            let hangs_for = this.clock.at(self.now).since(check.since);
            result = result.and(checks::p11_health::hangs(&this.label, hangs_for, checks));
        }
        self.book.check(result);
    }

    /// Checks a machine's status after an input.
    fn look_at_status(&mut self, process: usize) {
        let this = &self.processes[process];
        let Some(machine) = &this.machine else { return };
        let local = this.clock.at(self.now);
        let mut status = machine.status(local);
        if let Some(mut tamper) = self.tamper.take() {
            let told = status.acknowledged.take();
            status.acknowledged = self.seat(process).and_then(|seat| tamper.acknowledged(&seat, told));
            self.tamper = Some(tamper);
        }
        let this = &self.processes[process];
        let mut result = checks::p10_news::check(&this.label, &status, this.told_leader);
        let acknowledged = checks::p4_announcements::acknowledged(&this.label, &status);
        result = result.and(acknowledged);
        if this.announcing.is_none() {
            let ledger = self.book.ledger();
            let forgotten =
                checks::p4_announcements::forgotten(&this.label, (&status, local), this.announced, ledger);
            result = result.and(forgotten);
        }
        self.book.check(result);
    }

    /// P1. Checks that a node assigns keys as the version's view in the log does.
    fn look_at_placement(&mut self, process: usize) {
        let Some(view) = self.processes[process].machine.as_ref().and_then(Machine::newest).cloned() else {
            return;
        };
        let placed = self
            .placed
            .as_ref()
            .is_some_and(|(era, revision, _)| (*era, *revision) == (self.store.era(), view.revision()));
        if !placed {
            let Some(published) = self.book.ledger().published_at(view.version(), view.revision()) else {
                return;
            };
            // The log assigns the slots of a version with hand-over. All nodes must agree with the first node that
            // reports them.
            let owners = match view.has_handover() {
                true => checks::p1_placement::KEYS.map(|key| view.find(key).map(|node| node.name.clone())),
                false => checks::p1_placement::owners(&published.cut),
            };
            self.placed = Some((self.store.era(), view.revision(), owners));
        }
        let mut tamper = self.tamper.take();
        let owner = |key: &str| match &mut tamper {
            Some(tamper) => self.seat(process).and_then(|seat| tamper.owner(&seat, &view, key)),
            None => view.find(key).map(|node| node.name.clone()),
        };
        let owners = checks::p1_placement::KEYS.map(owner);
        self.tamper = tamper;
        if let Some((.., right)) = self.placed.as_ref().filter(|(.., right)| *right != owners) {
            let who = &self.processes[process].label;
            let version = view.version();
            self.book.fail(format!(
                "P1, placement differs from the log: {who} assigns {owners:?} at {version}, but the log yields {right:?}"
            ));
        }
    }

    /// P6. Checks that a node's claim to lead agrees with the replies that it received.
    fn look_at_claim(&mut self, process: usize) {
        let this = &self.processes[process];
        let Some(machine) = &this.machine else { return };
        let local = this.clock.at(self.now);
        let mut told = machine.status(local).leadership;
        if let Some(mut tamper) = self.tamper.take() {
            told = self.seat(process).and_then(|seat| tamper.leadership(&seat, told));
            self.tamper = Some(tamper);
        }
        let this = &mut self.processes[process];
        let before = this.claim;
        this.claim = told.map(|leadership| Claim {
            term: leadership.term,
            era: this.seen_in[0],
            lease: this.lease.map(|held| held.id),
            until: this.clock.when(leadership.until),
        });
        let (claim, clock_is_true) = (this.claim, this.clock.is_true());
        if claim == before {
            return;
        }
        let deadline = this.lease.map(|held| held.acts_until);
        if let Some(leadership) = told
            && deadline.is_none_or(|deadline| leadership.until > deadline)
        {
            let who = this.label.clone();
            self.book.fail(format!(
                "P6, deadline too late: {who} claims term {} until {:?} on its clock, but the last renewal that it knows to \
                 have succeeded allows it until {deadline:?}",
                leadership.term, leadership.until
            ));
        }
        if let Some(claim) = claim.filter(|claim| self.now < claim.until) {
            if clock_is_true {
                let (term, until) = (Some(claim.term), Some(claim.until));
                self.observe(process, Observation::AskedLeader { term, until });
            }
            self.check_claim(claim);
        }
    }

    /// P6. Checks the claim against the ends of terms.
    fn check_claim(&mut self, claim: Claim) {
        if self.now < claim.until && claim.era == self.store.era() {
            let result = self.reigns.check(claim.term, claim.until);
            self.book.check(result);
        }
    }

    /// Checks all claims again after a term began or ended.
    fn check_claims(&mut self) {
        for process in 0..self.processes.len() {
            let Some(claim) = self.processes[process].claim.filter(|claim| self.now < claim.until) else {
                continue;
            };
            self.check_claim(claim);
            if self.reigns.present() == Some(claim.term) {
                continue;
            }
            // The process does not know yet. Half of the time, its user writes.
            self.book.counts.note(Reached::StaleLeader);
            let this = &mut self.processes[process];
            if this.random.percent(50) {
                let (at, life) = (self.now + this.random.ms(0, 2), this.life);
                self.queue.push(at, Due::Write { process, life });
            }
        }
    }

    fn is_own(&self, process: usize, life: u32) -> impl Fn(LeaseId) -> bool {
        move |lease| self.owners.get(lease.get() as usize) == Some(&(process, life))
    }
}
