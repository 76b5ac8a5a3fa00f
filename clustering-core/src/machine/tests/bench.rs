use std::{collections::BTreeMap, time::Duration};

use super::{
    invariants::Invariants,
    model::{self, Store},
    render::Names,
};
use crate::{
    config::{Config, CrashDetection, Laggards},
    keyspace::Keyspace,
    machine::{Identity, Input, Machine, Output, Token},
    name::{Namespace, NodeName, NodeUri},
    node::{Endpoint, Metadata, ProcessId},
    outcome::Outcome,
    slots::{SlotCount, SlotSet},
    store::{Batch, Entry, ErrorKind, Key, Lease, LeaseId, Revision, StoreError, WatchEnd},
    time::Timestamp,
    version::IdGenerator,
};

/// Wall clock of the tests in milliseconds, a moment in 2023. ULIDs are created from it.
const WALL: u64 = 1_700_000_000_000;

pub(super) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(super) fn name(name: &str) -> NodeName {
    NodeName::parse(name).unwrap()
}

/// Returns the endpoint of the process with this name.
pub(super) fn endpoint(process: &str) -> Endpoint {
    Endpoint { address: format!("{process}:1"), process: self::process(process) }
}

/// Returns the identity of the process with this name.
pub(super) fn process(name: &str) -> ProcessId {
    ProcessId::from_u128(name.bytes().fold(0, |bits, byte| bits << 8 | u128::from(byte)))
}

/// Runs a test with several seeds and reports the seed that fails. By default these are the seeds below `default`; an
/// environment variable, such as `WORLD_SEEDS=2000..9000`, chooses others.
pub(super) fn for_seeds(variable: &str, default: u64, run: impl Fn(u64) + std::panic::RefUnwindSafe) {
    let chosen = std::env::var(variable).ok();
    let bound = |text: &str| text.parse::<u64>().expect("first..last");
    let range = chosen.as_deref().and_then(|seeds| seeds.split_once(".."));
    for seed in range.map_or(0..default, |(first, last)| bound(first)..bound(last)) {
        let run = std::panic::catch_unwind(|| run(seed));
        assert!(run.is_ok(), "seed {seed} failed; to repeat it, set {variable}={seed}..{}", seed + 1);
    }
}

/// A harness for one machine and a store. Other nodes exist only as writes to that store.
///
/// Nothing happens by itself: a call of the machine stays open until the test answers it ([`ok`](Bench::ok),
/// [`fail`](Bench::fail), [`lose`](Bench::lose)), and the machine sees changes of the store when the test delivers
/// them. Actions of other nodes are delivered at once, except within [`unseen`](Bench::unseen).
#[derive(Clone)]
pub(super) struct Bench {
    pub(super) machine: Machine,
    pub(super) now: Timestamp,
    pub(super) store: Store,
    pub(super) keys: Keyspace,
    /// Store calls and callbacks that have not ended.
    pub(super) open: Vec<Output>,
    watches: Vec<Watch>,
    /// Outputs since the last check.
    pub(super) outputs: Vec<Output>,
    pub(super) names: Names,
    invariants: Invariants,
    /// The log's entries, as far as they were delivered to the machine.
    pub(super) seen: BTreeMap<Key, Entry>,
    /// Leases of the other nodes.
    pub(super) others: BTreeMap<String, LeaseId>,
    pub(super) other_ids: IdGenerator,
    /// True while actions of other nodes are not delivered to the machine.
    pub(super) hidden: bool,
    /// Priority in the records that other nodes put from now on.
    pub(super) priority: Option<u32>,
}

#[derive(Clone)]
struct Watch {
    token: Token,
    prefix: Key,
    seen: Revision,
    open: bool,
}

/// Builds states.
impl Bench {
    /// Returns a node with this name that has not received any input yet.
    pub(super) fn node(name: &str) -> Self {
        Bench::node_with(name, |_| {})
    }

    pub(super) fn node_with(name: &str, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        change(&mut config);
        config.validate().unwrap();
        let identity = Identity {
            name: self::name(name),
            uri: NodeUri::parse(&format!("http://{name}")).unwrap(),
            metadata: Metadata::new(),
            endpoint: config.crash_detection.is_some().then(|| endpoint(name)),
        };
        let ids = IdGenerator::new(WALL, Timestamp::ZERO, 7);
        Bench::of(Machine::node(keyspace(), identity, config, ids))
    }

    /// Returns a node that detects crashes.
    pub(super) fn watching(name: &str) -> Self {
        Bench::node_with(name, |config| config.crash_detection = Some(CrashDetection::default()))
    }

    /// Returns an exclusive node that detects crashes, and that trusts refused connections if `trust_refused`.
    pub(super) fn watching_exclusively(name: &str, trust_refused: bool) -> Self {
        Bench::exclusive_with(name, |config| {
            config.crash_detection = Some(CrashDetection { trust_refused, ..CrashDetection::default() });
        })
    }

    /// Returns an exclusive node of a cluster with four slots.
    pub(super) fn exclusive(name: &str) -> Self {
        Bench::exclusive_with(name, |_| {})
    }

    pub(super) fn exclusive_with(name: &str, change: impl FnOnce(&mut Config)) -> Self {
        Bench::node_with(name, |config| {
            config.exclusive = SlotCount::new(4).ok();
            change(config);
        })
    }

    /// Returns a node that, as leader, evicts nodes that have not acknowledged a version for 10 s.
    pub(super) fn evicting(name: &str) -> Self {
        Bench::node_with(name, |config| config.laggards = Laggards::Evict { after: secs(10) })
    }

    pub(super) fn observer() -> Self {
        Bench::of(Machine::observer(
            keyspace(),
            Config::default(),
            IdGenerator::new(WALL, Timestamp::ZERO, 7),
        ))
    }

    fn of(machine: Machine) -> Self {
        Bench {
            machine,
            now: Timestamp::ZERO + secs(100),
            store: Store::default(),
            keys: keyspace(),
            open: Vec::new(),
            watches: Vec::new(),
            outputs: Vec::new(),
            names: Names::default(),
            invariants: Invariants::default(),
            seen: BTreeMap::new(),
            others: BTreeMap::new(),
            other_ids: IdGenerator::new(WALL, Timestamp::ZERO, 99),
            hidden: false,
            priority: Some(100),
        }
    }

    /// Adds other nodes to the log. They have a higher priority than the machine's node, so that it does not campaign
    /// before them.
    pub(super) fn with(mut self, others: &[&str]) -> Self {
        self.priority = Some(200);
        for other in others {
            self.joins(other);
        }
        self.priority = Some(100);
        self.skip();
        self
    }

    /// Makes another node the leader, which publishes a version.
    pub(super) fn led_by(mut self, leader: &str) -> Self {
        self.elects(leader);
        self.skip();
        self
    }

    /// Lets the node join: answers all calls that this needs.
    pub(super) fn joined(mut self) -> Self {
        self.tick();
        self.answer_all();
        self.skip();
        self
    }

    /// Lets the node, which must be first in the ranking of candidates, become leader. Nothing is acknowledged yet.
    pub(super) fn leading(mut self) -> Self {
        self.answer_all();
        assert!(self.status().leadership.is_some(), "the node does not lead: {:?}", self.status());
        self.skip();
        self
    }

    /// Lets the node acknowledge the newest version.
    pub(super) fn acknowledged(mut self) -> Self {
        self.stabilized(Outcome::Ready);
        self.answer_all();
        self.skip();
        self
    }

    /// Makes the newest version stable: all nodes acknowledge it, and this node, the leader, records it. `on_stable`
    /// has ended.
    pub(super) fn stable(mut self) -> Self {
        self = self.acknowledged();
        for other in self.others.keys().cloned().collect::<Vec<_>>() {
            self.acknowledges(&other);
        }
        self.answer_all();
        self.announced();
        let status = self.status();
        assert_eq!(
            status.stable,
            status.newest.as_ref().map(|view| view.version()),
            "the version is not recorded as stable: {status:?}"
        );
        self.skip();
        self
    }

    /// Lets another exclusive node join, become ready at a stable version, and then be evicted by this node's
    /// cluster. Its lease lives on.
    pub(super) fn with_evicted(mut self, other: &str) -> Self {
        self.joins_exclusively(other, 4);
        self.answer_all();
        self.retracted(&[]);
        self.stabilized(Outcome::Ready);
        self.answer_all();
        self.acknowledges(other);
        self.answer_all();
        self.announced();
        self = self.after(secs(2));
        self.evicts(other);
        self.answer_all();
        self
    }

    /// Lets this much time pass without any change.
    pub(super) fn after(mut self, calm: Duration) -> Self {
        self.wait(calm);
        self.skip();
        self
    }
}

fn keyspace() -> Keyspace {
    Keyspace::new(Namespace::parse("c").unwrap())
}

/// Answers of the store and of the callbacks.
impl Bench {
    /// Gives the machine an input at the current time, and checks the invariants.
    pub(super) fn input(&mut self, input: Input) {
        let before = self.machine.clone();
        self.machine.handle(self.now, input.clone());
        let outputs: Vec<Output> = std::iter::from_fn(|| self.machine.poll_output()).collect();
        self.names.learn(&outputs);
        Invariants::check(self, &before, &input, &outputs);
        for output in &outputs {
            match output {
                Output::Watch { token, prefix, after, .. } => {
                    let twice = self.watches.iter().any(|watch| watch.prefix == *prefix);
                    assert!(
                        !twice,
                        "a leak: {prefix} is watched again, but the first watch was never dropped"
                    );
                    self.watches.push(Watch {
                        token: *token,
                        prefix: prefix.clone(),
                        seen: *after,
                        open: false,
                    });
                }
                Output::Unwatch { token } => self.watches.retain(|watch| watch.token != *token),
                Output::Supersede { .. } | Output::Abort { .. } | Output::Event(_) => {}
                Output::Reply { .. } | Output::Stopped { .. } | Output::WatchProcesses { .. } => {}
                call => self.open.push(call.clone()),
            }
        }
        self.outputs.extend(outputs);
    }

    pub(super) fn invariants(&mut self) -> &mut Invariants {
        &mut self.invariants
    }

    pub(super) fn tick(&mut self) {
        self.input(Input::Tick);
    }

    /// Lets time pass, then wakes the machine once.
    pub(super) fn advance(&mut self, by: Duration) {
        self.now = self.now + by;
        self.tick();
    }

    /// Lets time pass: wakes the machine whenever it asked for it, and lets all renewals succeed.
    pub(super) fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.machine.next_wakeup().filter(|at| *at <= end) {
            self.now = at;
            self.tick();
            while self.is_open("renew") {
                self.ok("renew");
                self.outputs.retain(|output| !matches!(output, Output::Renew { .. }));
            }
        }
        self.now = end;
    }

    /// Lets time pass until a call that starts with `what` is open, and returns how long that took, in steps of 1 ms.
    pub(super) fn wait_for(&mut self, what: &str) -> Duration {
        let since = self.now;
        while !self.is_open(what) {
            self.wait(ms(1));
            assert!(self.now.since(since) < secs(60), "no call {what:?} within a minute");
        }
        self.now.since(since)
    }

    /// True if a call that starts with `what` is open.
    pub(super) fn is_open(&self, what: &str) -> bool {
        self.open.iter().any(|call| self.names.render(call).starts_with(what))
    }

    pub(super) fn take(&mut self, what: &str) -> Output {
        let shown: Vec<String> = self.open.iter().map(|call| self.names.render(call)).collect();
        let place = shown.iter().position(|call| call.starts_with(what));
        self.open.remove(place.unwrap_or_else(|| panic!("no open call {what:?} among {shown:?}")))
    }

    /// Executes the call on the store, and answers it with the store's reply.
    pub(super) fn ok(&mut self, what: &str) {
        if let Some(watch) = self.opening(what) {
            let (prefix, seen) = (watch.prefix.clone(), watch.seen);
            watch.open = true;
            let token = watch.token;
            return match self.store.changes(&prefix, seen) {
                Ok(_) => self.input(Input::WatchOpened { token, result: Ok(()) }),
                Err(end) => self.end_watch(token, end),
            };
        }
        let call = self.take(what);
        let input = self.perform(&call);
        self.answer(input);
    }

    /// Answers the call with an error of this kind, without executing it.
    pub(super) fn fail(&mut self, what: &str, kind: ErrorKind) {
        let error = StoreError::new(kind, "injected by the test");
        if let Some(watch) = self.opening(what) {
            let token = watch.token;
            self.watches.retain(|watch| watch.token != token);
            return self.input(Input::WatchOpened { token, result: Err(error) });
        }
        let call = self.take(what);
        self.answer(refused(&call, error));
    }

    /// Executes the call on the store, but loses the reply.
    pub(super) fn lose(&mut self, what: &str) {
        let call = self.take(what);
        self.perform(&call);
        self.answer(refused(&call, StoreError::outcome_unknown("injected by the test")));
    }

    /// Loses the call before it reaches the store; its outcome is unknown to the machine.
    pub(super) fn drop_call(&mut self, what: &str) {
        self.fail(what, ErrorKind::OutcomeUnknown);
    }

    fn opening(&mut self, what: &str) -> Option<&mut Watch> {
        let keys = self.keys.clone();
        let shown = |watch: &Watch| format!("watch {}", super::render::short(&keys, &watch.prefix));
        self.watches
            .iter_mut()
            .find(|watch| !watch.open && what.starts_with("watch") && shown(watch).starts_with(what))
    }

    /// True if this watch has been requested and is not open yet.
    pub(super) fn is_opening(&mut self, what: &str) -> bool {
        self.opening(what).is_some()
    }

    /// True if a watch of this prefix is open.
    pub(super) fn is_watching(&self, prefix: &str) -> bool {
        let here = |watch: &Watch| super::render::short(&self.keys, &watch.prefix) == prefix;
        self.watches.iter().any(|watch| watch.open && here(watch))
    }

    fn perform(&mut self, call: &Output) -> Input {
        match call.clone() {
            Output::Grant { token, ttl, .. } => {
                Input::Granted { token, result: Ok(self.store.grant(self.now, ttl)) }
            }
            Output::Renew { token, lease, .. } => {
                Input::Renewed { token, result: self.store.renew(self.now, lease) }
            }
            Output::Revoke { token, lease, .. } => Input::Revoked { token, result: self.store.revoke(lease) },
            Output::Read { token, prefix, .. } => Input::Read { token, result: Ok(self.store.read(&prefix)) },
            Output::Commit { token, txn, .. } => Input::Committed { token, result: self.store.commit(&txn) },
            other => panic!("{other:?} is not a store call"),
        }
    }

    /// Answers a call with the given input.
    pub(super) fn answer(&mut self, input: Input) {
        if let Input::Read { token, result: Ok(snapshot) } = &input
            && self.invariants.reads_log(*token)
        {
            self.seen = snapshot.entries.iter().map(|entry| (entry.key.clone(), entry.clone())).collect();
        }
        self.input(input);
    }

    /// Grants the lease with a TTL other than the requested one.
    pub(super) fn grant_with(&mut self, ttl: Duration) {
        let Output::Grant { token, .. } = self.take("grant") else { unreachable!() };
        let lease: Lease = self.store.grant(self.now, ttl);
        self.answer(Input::Granted { token, result: Ok(lease) });
    }

    /// Answers the open renewal with this remaining time.
    pub(super) fn renew_with(&mut self, left: Duration) {
        let Output::Renew { token, .. } = self.take("renew") else { unreachable!() };
        self.answer(Input::Renewed { token, result: Ok(left) });
    }

    /// Delivers all pending changes to the open watches, first to the watch of the log.
    pub(super) fn deliver(&mut self) {
        self.deliver_to("view/");
        self.deliver_to("ready/");
    }

    pub(super) fn deliver_to(&mut self, prefix: &str) {
        while let Some((token, batch)) = self.next_batch(prefix) {
            match batch {
                Ok(batch) => self.batch(token, batch),
                Err(end) => self.end_watch(token, end),
            }
        }
    }

    fn next_batch(&self, prefix: &str) -> Option<(Token, Result<Batch, WatchEnd>)> {
        let of = |watch: &Watch| {
            let pending = self.store.changes(&watch.prefix, watch.seen);
            let next = pending.map(|batches| batches.into_iter().next()).transpose();
            next.map(|batch| (watch.token, batch))
        };
        let here = |watch: &&Watch| super::render::short(&self.keys, &watch.prefix) == prefix;
        self.watches.iter().filter(|watch| watch.open).filter(here).find_map(of)
    }

    pub(super) fn batch(&mut self, token: Token, batch: Batch) {
        if let Some(watch) = self.watches.iter_mut().find(|watch| watch.token == token) {
            watch.seen = batch.revision;
            if watch.prefix == *self.keys.view_prefix() {
                model::apply(&mut self.seen, &batch.changes);
            }
        }
        self.input(Input::Batch { token, batch });
    }

    fn end_watch(&mut self, token: Token, end: WatchEnd) {
        self.watches.retain(|watch| watch.token != token);
        self.input(Input::WatchEnded { token, end });
    }

    pub(super) fn watch_ends(&mut self, prefix: &str, end: WatchEnd) {
        let here = |watch: &&Watch| super::render::short(&self.keys, &watch.prefix) == prefix;
        let token = self.watches.iter().find(here).expect("a watch").token;
        self.end_watch(token, end);
    }

    pub(super) fn disconnects(&mut self, prefix: &str) {
        self.watch_ends(prefix, WatchEnd::Disconnected { reason: "reset".to_owned() });
    }

    /// Answers all open calls and delivers all changes until only callbacks are left.
    pub(super) fn answer_all(&mut self) {
        self.answer_until("nothing");
    }

    /// Answers open calls and delivers changes until a call that starts with `what` is open, or only callbacks are
    /// left.
    pub(super) fn answer_until(&mut self, what: &str) {
        loop {
            self.deliver();
            if self.is_open(what) {
                return;
            }
            let calls = ["grant", "renew", "revoke", "read", "watch"];
            let purposes =
                ["join", "take over", "rewrite", "request", "elect", "publish", "acknowledge", "confirm"];
            let more = [
                "evict",
                "remove crashed",
                "resign",
                "leader commit",
                "leave",
                "permit",
                "reclaim",
                "owner commit",
            ];
            let all = calls.into_iter().chain(purposes).chain(more);
            let Some(next) = all.into_iter().find(|call| self.is_open(call) || self.opening(call).is_some())
            else {
                return;
            };
            self.ok(next);
        }
    }

    pub(super) fn stabilized(&mut self, outcome: Outcome) {
        let Output::Stabilize { token, .. } = self.take("stabilize") else { unreachable!() };
        self.input(Input::Stabilized { token, outcome });
    }

    /// Answers the open health check.
    pub(super) fn health(&mut self, result: Result<(), &str>) {
        let Output::CheckHealth { token } = self.take("check health") else { unreachable!() };
        self.input(Input::HealthReported { token, result: result.map_err(str::to_owned) });
    }

    /// Reports that these slots are still in use, for the newest open retraction. If there are none, it has ended.
    pub(super) fn retracted(&mut self, in_use: &[u16]) {
        let place = self.open.iter().rposition(|call| matches!(call, Output::Retract { .. }));
        let place = place.expect("an open retraction");
        let Output::Retract { token, .. } = self.open[place] else { unreachable!() };
        if in_use.is_empty() {
            self.open.remove(place);
        }
        self.input(Input::Retracted { token, in_use: slots(in_use) });
    }

    pub(super) fn released(&mut self, outcome: Outcome) {
        let Output::Release { token, .. } = self.take("release") else { unreachable!() };
        self.input(Input::Released { token, outcome });
    }

    pub(super) fn announced(&mut self) {
        let Output::Announce { token, .. } = self.take("announce") else { unreachable!() };
        self.input(Input::Announced { token, result: Ok(()) });
    }

    pub(super) fn announce_panics(&mut self, message: &str) {
        let Output::Announce { token, .. } = self.take("announce") else { unreachable!() };
        self.input(Input::Announced { token, result: Err(message.to_owned()) });
    }
}

/// Returns the set of the slots with these numbers.
pub(super) fn slots(numbers: &[u16]) -> SlotSet {
    numbers.iter().filter_map(|number| SlotCount::MAX.slot(*number)).collect()
}

fn refused(call: &Output, error: StoreError) -> Input {
    match *call {
        Output::Grant { token, .. } => Input::Granted { token, result: Err(error) },
        Output::Renew { token, .. } => Input::Renewed { token, result: Err(error) },
        Output::Revoke { token, .. } => Input::Revoked { token, result: Err(error) },
        Output::Read { token, .. } => Input::Read { token, result: Err(error) },
        Output::Commit { token, .. } => Input::Committed { token, result: Err(error) },
        _ => panic!("{call:?} is not a store call"),
    }
}
