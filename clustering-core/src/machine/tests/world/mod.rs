//! Several machines on one store, under virtual time and random faults: calls are slow, calls and replies are lost,
//! watches break, processes freeze, crash and restart, and operators interfere. After a while the faults cease, and
//! then every node must be a member and the newest version stable. The seed alone determines a run.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

mod calls;
mod crashes;
mod faults;
mod holds;
mod promises;

use self::{
    calls::{refusal, token_of},
    crashes::Detection,
    holds::{Exclusivity, Hold, Holds},
};
use super::{
    bench::{for_seeds, ms, name, secs},
    model::Store,
};
use crate::{
    config::{Config, Laggards, NameConflict},
    keyspace::Keyspace,
    machine::{Identity, Input, Machine, Output, Phase, Token},
    name::{Namespace, NodeName, NodeUri},
    node::{Endpoint, Metadata, Node},
    outcome::Outcome,
    slots::Slot,
    store::{Key, Revision, StoreError, WatchEnd},
    time::Timestamp,
    version::{IdGenerator, Version},
};

const STORM: Duration = secs(40);
const CALM: Duration = secs(400);
const TTL: Duration = secs(5);

#[test]
fn p1_to_p8_hold_under_faults_and_the_cluster_becomes_stable_afterwards() {
    for_seeds("WORLD_SEEDS", 150, |seed| World::new(seed).run());
}

/// An event that is due later.
enum Due {
    Wake {
        process: usize,
        generation: u64,
    },
    /// A call reaches the store.
    Arrive {
        process: usize,
        generation: u64,
        call: Output,
    },
    /// A reply, or a timeout in its place, reaches the process.
    Reply {
        process: usize,
        generation: u64,
        token: Option<Token>,
        input: Input,
    },
    /// Pending changes of a watch reach the process.
    Pump {
        process: usize,
        generation: u64,
        token: Token,
    },
    /// The user of a process drops a hold.
    Drop {
        process: usize,
        generation: u64,
        hold: Hold,
    },
    /// The result of a callback, or a report about holds.
    Report {
        process: usize,
        generation: u64,
        input: Input,
    },
    Fault,
}

struct Process {
    name: NodeName,
    /// Number of times that the process has died.
    generation: u64,
    machine: Option<Machine>,
    frozen_until: Timestamp,
    /// Time until which no watch yields anything, although calls succeed.
    deaf_until: Timestamp,
    wake_at: Option<Timestamp>,
    /// Calls that have not been answered yet.
    waiting: BTreeSet<Token>,
    watches: Vec<Watch>,
    /// The endpoints of the processes that it watches.
    watched: Vec<Endpoint>,
    stabilizing: Option<Token>,
    announcing: Option<Token>,
    releasing: Option<Token>,
    holds: Holds,
    newest: Revision,
    handled: u64,
}

struct Watch {
    token: Token,
    prefix: Key,
    seen: Revision,
}

struct World {
    now: Timestamp,
    random: u64,
    store: Store,
    keys: Keyspace,
    due: BTreeMap<(Timestamp, u64), Due>,
    numbered: u64,
    processes: Vec<Process>,
    stormy: bool,
    /// The store is unreachable until this time.
    unreachable_until: Timestamp,
    views: BTreeMap<(Revision, Version), Vec<Arc<Node>>>,
    announced: BTreeSet<(Revision, Version)>,
    exclusivity: Exclusivity,
    detection: Detection,
    /// Holds of processes that have ended, each with the time after which it is void.
    abandoned: Vec<(Slot, Timestamp)>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = World {
            now: Timestamp::ZERO + secs(1),
            random: seed,
            store: Store::default(),
            keys: Keyspace::new(Namespace::parse("c").expect("a namespace")),
            due: BTreeMap::new(),
            numbered: 0,
            processes: Vec::new(),
            stormy: true,
            unreachable_until: Timestamp::ZERO,
            views: BTreeMap::new(),
            announced: BTreeSet::new(),
            exclusivity: Exclusivity::Nobody,
            detection: Detection::default(),
            abandoned: Vec::new(),
        };
        world.exclusivity = match world.below(4) {
            0 => Exclusivity::Nobody,
            1 => Exclusivity::Some,
            _ => Exclusivity::Everybody,
        };
        world.detection.is_on = world.below(3) > 0;
        world.detection.is_trusted = world.below(3) == 0;
        for n in 0..2 + world.below(4) {
            world.processes.push(Process {
                name: name(&format!("n{n}")),
                generation: 0,
                machine: None,
                frozen_until: Timestamp::ZERO,
                deaf_until: Timestamp::ZERO,
                wake_at: None,
                waiting: BTreeSet::new(),
                watches: Vec::new(),
                watched: Vec::new(),
                stabilizing: None,
                announcing: None,
                releasing: None,
                holds: Holds::default(),
                newest: Revision::ZERO,
                handled: 0,
            });
            world.start(n as usize);
        }
        world
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.stormy && self.below(n) == 0
    }

    fn at(&mut self, time: Timestamp, due: Due) {
        self.numbered += 1;
        self.due.insert((time, self.numbered), due);
    }

    /// Returns a random latency, which is mostly short and now and then longer than any timeout.
    fn latency(&mut self) -> Duration {
        if self.one_in(20) { ms(self.below(3_000)) } else { Duration::from_micros(200 + self.below(5_000)) }
    }

    fn run(mut self) {
        let storm = self.now + STORM;
        self.at(self.now + secs(1), Due::Fault);
        self.run_until(storm);
        self.stormy = false;
        self.unreachable_until = self.now;
        for process in &mut self.processes {
            process.frozen_until = self.now;
            process.deaf_until = self.now;
        }
        self.notify_watches();
        let end = self.now + CALM;
        // The cluster must come to rest, with no more writes. Calls still in flight from the storm may disturb it
        // once more.
        loop {
            for process in 0..self.processes.len() {
                match self.processes[process].machine {
                    None => self.start(process),
                    Some(_) => self.request(process, |id| Input::Register { id }),
                }
            }
            let (calm, revision, handled) = (self.is_calm(), self.store.revision, self.handled());
            self.run_until(self.now + secs(10));
            if calm && self.store.revision == revision {
                let per_process = (self.handled() - handled) / self.processes.len() as u64;
                assert!(per_process <= 20, "a busy loop: {per_process} inputs in 10 s");
                return;
            }
            assert!(self.now < end, "P8: the cluster does not become stable\n{}", self.report());
        }
    }

    fn handled(&self) -> u64 {
        self.processes.iter().map(|process| process.handled).sum()
    }

    /// P7, P8: true if all processes are members of the newest version, and know that it is stable.
    fn is_calm(&self) -> bool {
        let names: Vec<&NodeName> = self.processes.iter().map(|process| &process.name).collect();
        let newest = |machine: &Machine| machine.status(self.now).newest;
        let mut views = self.processes.iter().map(|process| process.machine.as_ref().and_then(newest));
        let Some(Some(first)) = views.next() else { return false };
        let whole = first.iter().map(|node| &node.name).eq(names);
        whole
            && views.all(|view| view.is_some_and(|view| view.revision() == first.revision()))
            && self.are_slots_held()
            && self.processes.iter().filter_map(|process| process.machine.as_ref()).all(|machine| {
                let status = machine.status(self.now);
                status.phase == Phase::Member && status.consistent && status.stale_since.is_none()
            })
    }

    fn report(&self) -> String {
        let of = |process: &Process| {
            let status = process.machine.as_ref().map(|machine| machine.status(self.now));
            format!("{} (generation {}): {status:?}", process.name, process.generation)
        };
        self.processes.iter().map(of).collect::<Vec<_>>().join("\n")
    }

    fn run_until(&mut self, end: Timestamp) {
        while let Some(entry) = self.due.first_entry() {
            if entry.key().0 > end {
                break;
            }
            let ((time, _), due) = entry.remove_entry();
            self.now = self.now.max(time);
            self.store.expire(self.now);
            self.run_event(due);
            self.check_leaders();
            self.check_holders();
        }
        self.now = end;
    }

    fn run_event(&mut self, due: Due) {
        let (process, generation) = match &due {
            Due::Wake { process, generation }
            | Due::Pump { process, generation, .. }
            | Due::Drop { process, generation, .. }
            | Due::Report { process, generation, .. } => (*process, *generation),
            Due::Reply { process, generation, .. } | Due::Arrive { process, generation, .. } => {
                (*process, *generation)
            }
            Due::Fault => return self.inject_fault(),
        };
        let alive =
            self.processes[process].generation == generation && self.processes[process].machine.is_some();
        match due {
            // A call may still arrive after its process has died.
            Due::Arrive { call, .. } => self.arrive(process, generation, call),
            _ if !alive => {}
            _ if self.processes[process].frozen_until > self.now => {
                let until = self.processes[process].frozen_until;
                self.at(until, due);
            }
            Due::Wake { .. } => {
                // Other wake-ups are out of date: the machine has asked for another time since.
                if self.processes[process].wake_at.take_if(|at| *at <= self.now).is_some() {
                    self.handle(process, Input::Tick);
                }
            }
            Due::Reply { token: Some(token), input, .. } => {
                if !self.processes[process].waiting.remove(&token) {
                    return;
                }
                match &input {
                    Input::WatchOpened { result: Ok(()), .. } => {
                        self.handle(process, input);
                        self.pump(process, token);
                    }
                    Input::WatchOpened { .. } => {
                        self.processes[process].watches.retain(|watch| watch.token != token);
                        self.handle(process, input);
                    }
                    _ => self.handle(process, input),
                }
            }
            Due::Reply { token: None, input, .. } => {
                let this = &mut self.processes[process];
                match &input {
                    Input::Stabilized { .. } => this.stabilizing = None,
                    _ => this.announcing = None,
                }
                self.handle(process, input);
            }
            Due::Pump { token, .. } => self.pump(process, token),
            Due::Drop { hold, .. } => self.drop_hold(process, hold),
            Due::Report { input, .. } => {
                if matches!(input, Input::Released { .. }) {
                    self.processes[process].releasing = None;
                }
                self.handle(process, input);
            }
            Due::Fault => unreachable!("handled above"),
        }
    }

    fn handle(&mut self, process: usize, input: Input) {
        let now = self.now;
        let Some(machine) = &mut self.processes[process].machine else { return };
        machine.handle(now, input);
        let outputs: Vec<Output> = std::iter::from_fn(|| machine.poll_output()).collect();
        let wakeup = machine.next_wakeup();
        assert!(wakeup.is_none_or(|at| at > now), "a busy loop: the next wake-up is already due");
        self.processes[process].handled += 1;
        self.use_holds(process);
        for output in outputs {
            self.execute(process, output);
        }
        let generation = self.processes[process].generation;
        if let Some(at) = wakeup.filter(|at| self.processes[process].wake_at != Some(*at)) {
            self.processes[process].wake_at = Some(at);
            self.at(at, Due::Wake { process, generation });
        }
    }

    fn execute(&mut self, process: usize, output: Output) {
        let generation = self.processes[process].generation;
        match output {
            Output::Stabilize { token, view, .. } => {
                let this = &mut self.processes[process];
                assert!(this.stabilizing.replace(token).is_none(), "P3: two stabilize at once");
                assert!(view.revision() >= this.newest, "P2: versions go forward");
                this.newest = view.revision();
                let nodes = view.nodes().to_vec();
                let known =
                    self.views.entry((view.revision(), view.version())).or_insert_with(|| Vec::clone(&nodes));
                assert_eq!(*known, nodes, "P1: one view per version");
                let refuses = self.one_in(5);
                let outcome = if refuses { Outcome::refused("no") } else { Outcome::Ready };
                let time = if self.one_in(10) { secs(self.below(8)) } else { ms(self.below(200)) };
                let input = Input::Stabilized { token, outcome };
                self.at(self.now + time, Due::Reply { process, generation, token: None, input });
            }
            Output::Retract { token, slots } => self.retract(process, token, &slots),
            Output::Release { token, .. } => self.release(process, token),
            Output::Announce { token, view, term } => {
                assert!(self.processes[process].announcing.replace(token).is_none(), "P4: two on_stable");
                let version = (view.revision(), view.version());
                assert!(self.announced.insert(version), "P4: on_stable twice for {version:?}");
                let machine = self.processes[process].machine.as_ref().expect("the process has a machine");
                let leadership = machine.status(self.now).leadership.expect("P4: on_stable by the leader");
                assert_eq!(leadership.term, term, "P4: on_stable in its term");
                let time = ms(self.below(500));
                let input = Input::Announced { token, result: Ok(()) };
                self.at(self.now + time, Due::Reply { process, generation, token: None, input });
            }
            Output::Watch { token, ref prefix, after, timeout } => {
                let watch = Watch { token, prefix: prefix.clone(), seen: after };
                self.processes[process].watches.push(watch);
                self.call(process, token, timeout, output);
            }
            Output::Unwatch { token } => {
                self.processes[process].watches.retain(|watch| watch.token != token);
            }
            Output::Grant { token, timeout, .. }
            | Output::Renew { token, timeout, .. }
            | Output::Revoke { token, timeout, .. }
            | Output::Read { token, timeout, .. }
            | Output::Commit { token, timeout, .. } => self.call(process, token, timeout, output),
            Output::Stopped { .. } => {
                self.abandon_holds(process);
                self.kill(process);
            }
            Output::Event(_) => {}
            Output::Supersede { .. } | Output::Abort { .. } | Output::Reply { .. } => {}
            Output::WatchProcesses { endpoints } => self.watch(process, endpoints),
            Output::CheckHealth { .. } => unreachable!("no health checks are configured"),
        }
    }

    /// Sends a call to the store. After the timeout the machine is told that the outcome is unknown.
    fn call(&mut self, process: usize, token: Token, timeout: Duration, call: Output) {
        let generation = self.processes[process].generation;
        self.processes[process].waiting.insert(token);
        let timed_out = refusal(&call, StoreError::outcome_unknown("timeout"));
        self.at(self.now + timeout, Due::Reply { process, generation, token: Some(token), input: timed_out });
        if !self.one_in(30) {
            let time = self.now + self.latency();
            self.at(time, Due::Arrive { process, generation, call });
        }
    }

    fn arrive(&mut self, process: usize, generation: u64, call: Output) {
        let now = self.now;
        let reply = if now < self.unreachable_until {
            refusal(&call, StoreError::unreachable("injected by the test"))
        } else {
            match call.clone() {
                Output::Grant { token, ttl, .. } => {
                    Input::Granted { token, result: Ok(self.store.grant(now, ttl)) }
                }
                Output::Renew { token, lease, .. } => {
                    Input::Renewed { token, result: self.store.renew(now, lease) }
                }
                Output::Revoke { token, lease, .. } => {
                    Input::Revoked { token, result: self.store.revoke(lease) }
                }
                Output::Read { token, prefix, .. } => {
                    Input::Read { token, result: Ok(self.store.read(&prefix)) }
                }
                Output::Watch { token, .. } => Input::WatchOpened { token, result: Ok(()) },
                Output::Commit { token, txn, purpose, .. } => {
                    let result = self.store.commit(&txn);
                    if result.is_ok() {
                        self.check_commit(purpose, &txn);
                    }
                    Input::Committed { token, result }
                }
                other => unreachable!("not a store call: {other:?}"),
            }
        };
        self.notify_watches();
        if !self.one_in(30) {
            let time = now + self.latency();
            let token = token_of(&call);
            self.at(time, Due::Reply { process, generation, token, input: reply });
        }
    }

    /// Schedules the delivery of new changes to all watches.
    fn notify_watches(&mut self) {
        for process in 0..self.processes.len() {
            let generation = self.processes[process].generation;
            let tokens: Vec<Token> =
                self.processes[process].watches.iter().map(|watch| watch.token).collect();
            for token in tokens {
                let time = self.now + self.latency();
                self.at(time, Due::Pump { process, generation, token });
            }
        }
    }

    fn pump(&mut self, process: usize, token: Token) {
        // Changes are delivered only once the watch is open.
        let this = &self.processes[process];
        if this.waiting.contains(&token) || this.deaf_until > self.now {
            return;
        }
        let Some(place) = self.processes[process].watches.iter().position(|watch| watch.token == token)
        else {
            return;
        };
        let watch = &self.processes[process].watches[place];
        match self.store.changes(&watch.prefix, watch.seen) {
            Ok(batches) => {
                for batch in batches {
                    let watches = &mut self.processes[process].watches;
                    let Some(watch) = watches.iter_mut().find(|watch| watch.token == token) else { return };
                    watch.seen = batch.revision;
                    self.handle(process, Input::Batch { token, batch });
                }
            }
            Err(end) => self.end_watch(process, place, end),
        }
    }

    fn end_watch(&mut self, process: usize, place: usize, end: WatchEnd) {
        let token = self.processes[process].watches.remove(place).token;
        if self.processes[process].waiting.remove(&token) {
            let result = Err(StoreError::unreachable("reset"));
            return self.handle(process, Input::WatchOpened { token, result });
        }
        self.handle(process, Input::WatchEnded { token, end });
    }

    fn start(&mut self, process: usize) {
        let mut config = Config { ttl: TTL, ..Config::default() };
        if self.below(3) == 0 {
            config.name_conflict = NameConflict::TakeOver;
        }
        if self.below(3) == 0 {
            config.laggards = Laggards::Evict { after: secs(15) };
        }
        self.make_exclusive(&mut config);
        self.detect_crashes(&mut config);
        config.validate().expect("a valid configuration");
        let this = &self.processes[process];
        let identity = Identity {
            name: this.name.clone(),
            uri: NodeUri::parse(&format!("http://{}-{}", this.name, this.generation)).expect("a URI"),
            metadata: Metadata::new(),
            endpoint: self.endpoint(process),
        };
        // Wall clocks are wrong by up to an hour.
        let wall = 1_700_000_000_000 + self.below(3_600_000);
        let ids = IdGenerator::new(wall, self.now, u128::from(self.below(u64::MAX)));
        let machine = Machine::node(self.keys.clone(), identity, config, ids);
        let this = &mut self.processes[process];
        (this.machine, this.wake_at, this.newest) = (Some(machine), None, Revision::ZERO);
        self.handle(process, Input::Tick);
    }

    fn kill(&mut self, process: usize) {
        let this = &mut self.processes[process];
        this.generation += 1;
        this.machine = None;
        this.waiting.clear();
        this.watches.clear();
        this.watched.clear();
        (this.stabilizing, this.announcing, this.releasing) = (None, None, None);
        this.holds = Holds::default();
    }
}
