//! Arbitrary values under the cluster's keys. The machine must never panic or loop, must keep folding, and two machines
//! that read the same log must agree on it.

use std::time::Duration;

use bytes::Bytes;
use proptest::{collection::vec, prelude::*, sample::select};

use super::{
    bench::{Bench, ms},
    model::Store,
};
use crate::{
    config::{Backoff, Config, CrashDetection, Laggards},
    event::Evidence,
    fuzz::{cases, key, value},
    keyspace::Keyspace,
    machine::{Identity, Input, Machine, Output, Phase, RequestId, Token},
    name::{Namespace, NodeName, NodeUri},
    node::{Endpoint, Metadata, ProcessId},
    outcome::Outcome,
    slots::{SlotCount, SlotSet},
    store::{Key, Lease, Revision, Txn},
    time::Timestamp,
    version::IdGenerator,
};

/// Maximum number of inputs that a process may need within a step. A process that needs more is in a busy loop.
const MAX_INPUTS: usize = 5_000;

#[derive(Clone, Debug)]
enum Step {
    /// Another client writes a key.
    Put(String, Bytes),
    Delete(String),
    /// This many milliseconds pass, and all wake-ups within that time happen.
    Pass(u64),
    /// The store is compacted, so that watches that lag behind end.
    Gap,
    /// The node with this number is told, wrongly, that the process of the other one is gone.
    Report(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (key(), value()).prop_map(|(key, value)| Step::Put(key, value)),
        2 => key().prop_map(Step::Delete),
        3 => (0..20_000u64).prop_map(Step::Pass),
        1 => Just(Step::Gap),
        1 => (0..2usize).prop_map(Step::Report),
    ];
    vec(step, 1..40)
}

/// Returns the endpoint of a node's process that was started with that seed.
fn endpoint(name: &str, seed: u128) -> Endpoint {
    Endpoint { address: format!("{name}:1"), process: ProcessId::from_u128(seed) }
}

/// A machine on a store that answers every call immediately.
struct Process {
    name: String,
    machine: Machine,
    watches: Vec<(Token, Key, Revision)>,
    inputs: usize,
    /// True if callbacks and health checks fail.
    callbacks_fail: bool,
}

impl Process {
    fn with(name: &str, seed: u128, config: Config) -> Self {
        let identity = Identity {
            name: NodeName::parse(name).expect("a name"),
            uri: NodeUri::parse(&format!("http://{name}")).expect("a URI"),
            metadata: Metadata::new(),
            endpoint: config.crash_detection.is_some().then(|| endpoint(name, seed)),
        };
        let keys = Keyspace::new(Namespace::parse("c").expect("a namespace"));
        let machine = Machine::node(keys, identity, config, IdGenerator::new(0, Timestamp::ZERO, seed));
        Process { name: name.to_owned(), machine, watches: Vec::new(), inputs: 0, callbacks_fail: false }
    }

    /// Gives the machine an input, and executes all that follows from it without time passing.
    fn input(&mut self, store: &mut Store, now: Timestamp, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            self.inputs += 1;
            assert!(self.inputs < MAX_INPUTS, "the machine does not settle");
            self.machine.handle(now, input);
            while let Some(output) = self.machine.poll_output() {
                inputs.extend(self.execute(store, now, output));
            }
        }
    }

    fn execute(&mut self, store: &mut Store, now: Timestamp, output: Output) -> Option<Input> {
        Some(match output {
            Output::Grant { token, ttl, .. } => Input::Granted { token, result: Ok(store.grant(now, ttl)) },
            Output::Renew { token, lease, .. } => Input::Renewed { token, result: store.renew(now, lease) },
            Output::Revoke { token, lease, .. } => Input::Revoked { token, result: store.revoke(lease) },
            Output::Read { token, prefix, .. } => Input::Read { token, result: Ok(store.read(&prefix)) },
            Output::Commit { token, txn, .. } => Input::Committed { token, result: store.commit(&txn) },
            Output::Watch { token, prefix, after, .. } => {
                self.watches.push((token, prefix, after));
                Input::WatchOpened { token, result: Ok(()) }
            }
            Output::Unwatch { token } => {
                self.watches.retain(|(open, ..)| *open != token);
                return None;
            }
            Output::Stabilize { token, .. } if self.callbacks_fail => {
                Input::Stabilized { token, outcome: Outcome::refused("not yet") }
            }
            Output::CheckHealth { token } if self.callbacks_fail => {
                Input::HealthReported { token, result: Err("sick".to_owned()) }
            }
            Output::Stabilize { token, .. } => Input::Stabilized { token, outcome: Outcome::Ready },
            Output::Retract { token, slots } if self.callbacks_fail => {
                Input::Retracted { token, in_use: slots }
            }
            Output::Retract { token, .. } => Input::Retracted { token, in_use: SlotSet::default() },
            Output::Release { token, .. } if self.callbacks_fail => {
                Input::Released { token, outcome: Outcome::refused("not yet") }
            }
            Output::Release { token, .. } => Input::Released { token, outcome: Outcome::Ready },
            Output::Announce { token, .. } => Input::Announced { token, result: Ok(()) },
            Output::CheckHealth { token } => Input::HealthReported { token, result: Ok(()) },
            _ => return None,
        })
    }

    /// True if the process watches the log, so that it knows all of it once everything was delivered.
    fn watches_log(&self) -> bool {
        let log = self.machine.keyspace().view_prefix();
        self.watches.iter().any(|(_, prefix, _)| prefix == log)
    }

    /// Delivers one pending batch, or the end of a watch. Returns true if there was one.
    fn deliver(&mut self, store: &mut Store, now: Timestamp) -> bool {
        for place in 0..self.watches.len() {
            let (token, prefix, seen) = self.watches[place].clone();
            let input = match store.changes(&prefix, seen) {
                Ok(batches) => match batches.into_iter().next() {
                    None => continue,
                    Some(batch) => {
                        self.watches[place].2 = batch.revision;
                        Input::Batch { token, batch }
                    }
                },
                Err(end) => {
                    self.watches.remove(place);
                    Input::WatchEnded { token, end }
                }
            };
            self.input(store, now, input);
            return true;
        }
        false
    }
}

/// Two machines that share a store.
struct Pair {
    config: Config,
    store: Store,
    now: Timestamp,
    processes: [Process; 2],
    last_seed: u128,
}

impl Pair {
    fn with(config: &Config) -> Self {
        let processes = [("a", 1), ("b", 2)].map(|(name, seed)| Process::with(name, seed, config.clone()));
        let mut pair = Pair {
            config: config.clone(),
            store: Store::default(),
            now: Timestamp::ZERO + ms(1_000),
            processes,
            last_seed: 2,
        };
        for process in &mut pair.processes {
            process.input(&mut pair.store, pair.now, Input::Tick);
        }
        pair
    }

    /// Delivers all pending changes.
    fn deliver_all(&mut self) {
        let Pair { store, now, processes: [a, b], .. } = self;
        while a.deliver(store, *now) | b.deliver(store, *now) {}
    }

    fn pass(&mut self, time: std::time::Duration) {
        let end = self.now + time;
        loop {
            self.deliver_all();
            let wakeups = self.processes.iter().filter_map(|process| process.machine.next_wakeup());
            let Some(at) = wakeups.min().filter(|at| *at <= end) else { break };
            // Overdue wake-ups happen now.
            self.now = self.now.max(at);
            self.store.expire(self.now);
            for process in &mut self.processes {
                if process.machine.next_wakeup().is_some_and(|at| at <= self.now) {
                    process.input(&mut self.store, self.now, Input::Tick);
                }
            }
        }
        self.now = end;
    }

    /// Runs up to this many wake-ups. Very short configured times would otherwise keep this running forever.
    fn next_wakeups(&mut self, most: usize) {
        for _ in 0..most {
            self.deliver_all();
            let wakeups = self.processes.iter().filter_map(|process| process.machine.next_wakeup());
            let Some(at) = wakeups.min() else { return };
            self.jump(at.since(self.now));
        }
    }

    /// Lets this time pass in one step, then wakes all machines.
    fn jump(&mut self, time: Duration) {
        self.now = self.now + time;
        self.store.expire(self.now);
        for process in &mut self.processes {
            process.inputs = 0;
            process.input(&mut self.store, self.now, Input::Tick);
        }
        self.deliver_all();
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Put(key, value) => {
                let txn = Txn::new().put(key.clone(), value.clone(), None);
                // The store refuses invalid keys.
                let _ = self.store.commit(&txn);
                self.deliver_all();
            }
            Step::Delete(key) => {
                let _ = self.store.commit(&Txn::new().delete(key.clone()));
                self.deliver_all();
            }
            Step::Pass(millis) => self.pass(ms(*millis)),
            Step::Gap => {
                self.store.compact();
                self.deliver_all();
            }
            Step::Report(place) => {
                let gone = self.processes[1 - place].machine.identity().and_then(|it| it.endpoint.as_ref());
                if let Some(process) = gone.map(|endpoint| endpoint.process) {
                    let input = Input::ProcessGone { process, evidence: Evidence::Refused };
                    self.processes[*place].input(&mut self.store, self.now, input);
                    self.deliver_all();
                }
            }
        }
        for process in &mut self.processes {
            process.inputs = 0;
            // A process whose name was taken over has stopped. It is restarted.
            if let Phase::Stopped(_) = process.machine.status(self.now).phase {
                self.last_seed += 1;
                *process = Process::with(&process.name, self.last_seed, self.config.clone());
                process.input(&mut self.store, self.now, Input::Tick);
            }
        }
        self.deliver_all();
    }
}

type Set = fn(&mut Config, Duration);

/// All durations and numbers of a configuration.
const FIELDS: [(&str, Set); 15] = [
    ("ttl", |config, time| config.ttl = time),
    ("renew_every", |config, time| config.renew_every = Some(time)),
    ("leadership", |config, time| config.leadership = Some(time)),
    ("call_timeout", |config, time| config.call_timeout = Some(time)),
    ("stabilize_retry", |config, time| config.stabilize_retry = Backoff::new(time, time)),
    ("stabilize_timeout", |config, time| config.stabilize_timeout = Some(time)),
    ("on_stable_timeout", |config, time| config.on_stable_timeout = Some(time)),
    ("warn_after", |config, time| config.warn_after = time),
    ("laggards", |config, time| config.laggards = Laggards::Evict { after: time }),
    ("publish_gap", |config, time| config.publish_gap = Backoff::new(time, time)),
    ("health.interval", |config, time| config.health.get_or_insert_default().interval = time),
    ("health.deadline", |config, time| config.health.get_or_insert_default().deadline = time),
    ("health.failures", |config, time| {
        config.health.get_or_insert_default().failures = u32::try_from(time.as_nanos()).unwrap_or(u32::MAX);
    }),
    ("stop_timeout", |config, time| config.stop_timeout = Some(time)),
    ("release_timeout", |config, time| config.release_timeout = Some(time)),
];

const EXTREMES: [Duration; 9] = [
    Duration::ZERO,
    Duration::from_nanos(1),
    Duration::from_millis(1),
    Duration::from_secs(1),
    Duration::from_secs(7),
    Duration::from_secs(24 * 60 * 60),
    Duration::from_nanos(u64::MAX),
    Duration::from_secs(u64::MAX),
    Duration::MAX,
];

/// Returns a configuration in which all times are used.
fn exclusive() -> Config {
    Config { exclusive: SlotCount::new(4).ok(), has_release: true, ..Config::default() }
}

/// Runs two nodes through joins, refusals, updates, departures and stops, with jumps of time in between.
fn exercise(config: &Config) {
    let mut pair = Pair::with(config);
    let id = |number| RequestId(number);
    let zone = || Metadata::from([("zone".to_owned(), "b".to_owned())]);
    let inputs = [
        Input::RequestVersion { id: id(1), why: None },
        Input::Update { id: id(2), metadata: zone() },
        Input::Unregister { id: id(3) },
        Input::Register { id: id(4) },
        Input::Resign { id: id(5) },
        Input::Stop { keep: Duration::ZERO },
    ];
    let leaps = [1, 20, 60, 3_600, 86_400, u64::MAX].map(Duration::from_secs);
    for (round, (input, leap)) in inputs.into_iter().zip(leaps).enumerate() {
        for (place, process) in pair.processes.iter_mut().enumerate() {
            process.callbacks_fail = (round + place) % 3 == 1;
        }
        pair.next_wakeups(30);
        let Pair { store, now, processes, .. } = &mut pair;
        for process in processes {
            process.inputs = 0;
            process.input(store, *now, input.clone());
        }
        pair.next_wakeups(30);
        pair.jump(leap);
    }
    for process in &pair.processes {
        let _ = process.machine.status(Timestamp::NEVER);
    }
}

/// Sets each field to each extreme value, which must either be refused or work.
#[test]
fn an_extreme_time_is_refused_with_the_name_of_its_field_or_works() {
    for (field, set) in FIELDS {
        for time in EXTREMES {
            let mut config = exclusive();
            set(&mut config, time);
            match config.validate() {
                Ok(()) => exercise(&config),
                // Other fields are checked against the TTL, and may be refused instead.
                Err(error) => assert!(error.field == field || field == "ttl", "{field} of {time:?}: {error}"),
            }
        }
    }
}

/// A store may grant a longer TTL than requested.
#[test]
fn a_node_works_with_the_longest_possible_ttl() {
    let mut a = Bench::node("a");
    a.tick();
    let Output::Grant { token, ttl, .. } = a.take("grant") else { unreachable!() };
    let lease = a.store.grant(a.now, ttl);
    a.input(Input::Granted { token, result: Ok(Lease { ttl: Duration::MAX, ..lease }) });
    a.answer_all();
    let mut a = a.leading().stable();
    a.wait(Duration::from_secs(86_400 * 365));
    assert!(a.is_leader());
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn fuzz_p1_p8_nodes_survive_garbage_and_agree(steps in steps(), is_exclusive in any::<bool>()) {
        let exclusive = SlotCount::new(4).ok().filter(|_| is_exclusive);
        let crash_detection = Some(CrashDetection::default());
        let config = Config { exclusive, has_release: true, crash_detection, ..Config::default() };
        let mut pair = Pair::with(&config);
        pair.pass(ms(5_000));
        for step in &steps {
            pair.step(step);
            if !pair.processes.iter().all(Process::watches_log) {
                // A process that missed changes repeatedly waits before it reads a snapshot.
                continue;
            }
            let [a, b] = pair.processes.each_ref().map(|process| process.machine.status(pair.now));
            // Both have read the whole log and agree on it, except that one of them may have missed a version's view.
            prop_assert_eq!(&a.leader, &b.leader);
            prop_assert_eq!(a.stable, b.stable);
            if let (Some(a), Some(b)) = (&a.newest, &b.newest) {
                prop_assert_eq!(a.version(), b.version());
                prop_assert_eq!(a.nodes(), b.nodes());
            }
        }
        // An operator deletes all keys of other clients, after which the cluster recovers.
        let snapshot = pair.store.read(&Key::from("c/"));
        for entry in snapshot.entries.iter().filter(|entry| entry.lease.is_none()) {
            pair.step(&Step::Delete(entry.key.to_string()));
        }
        // A node whose record was deleted rejoins after at most ten minutes.
        pair.pass(ms(900_000));
        let [a, b] = pair.processes.each_ref().map(|process| process.machine.status(pair.now));
        prop_assert!(a.consistent && b.consistent, "not stable: {a:?} {b:?}");
        prop_assert_eq!(a.newest.map(|view| view.len()), Some(2));
    }

    /// No accepted combination of extreme times makes a node panic.
    #[test]
    fn fuzz_accepted_times_work(changes in vec((0..FIELDS.len(), select(EXTREMES.to_vec())), 1..6)) {
        let mut config = exclusive();
        for (field, time) in changes {
            let mut changed = config.clone();
            FIELDS[field].1(&mut changed, time);
            if changed.validate().is_ok() {
                config = changed;
            }
        }
        exercise(&config);
    }
}
