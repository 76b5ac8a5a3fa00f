//! Anything at all under the cluster's keys, while the machine lives its life: it never panics, never loops, and goes on
//! folding; and two machines that read the same see the same.

use std::time::Duration;

use bytes::Bytes;
use proptest::{collection::vec, prelude::*, sample::select};

use super::{
    bench::{Bench, ms},
    model::Store,
};
use crate::{
    config::{Backoff, Config, Laggards},
    fuzz::{cases, key, value},
    keyspace::Keyspace,
    machine::{Identity, Input, Machine, Output, Phase, RequestId, Token},
    name::{Namespace, NodeName, NodeUri},
    node::Metadata,
    outcome::Outcome,
    store::{Key, Lease, Revision, Txn},
    time::Timestamp,
    version::IdGenerator,
};

/// More inputs than any life here needs: a machine that takes more wants to be woken again and again.
const BOUND: usize = 5_000;

#[derive(Clone, Debug)]
enum Step {
    /// Somebody writes something.
    Put(String, Bytes),
    Delete(String),
    /// So much time passes, with all that comes due in it.
    Pass(u64),
    /// The watches break, and what they owe is forgotten.
    Gap,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (key(), value()).prop_map(|(key, value)| Step::Put(key, value)),
        2 => key().prop_map(Step::Delete),
        3 => (0..20_000u64).prop_map(Step::Pass),
        1 => Just(Step::Gap),
    ];
    vec(step, 1..40)
}

/// A machine on a store that answers everything at once.
struct Player {
    name: String,
    machine: Machine,
    watches: Vec<(Token, Key, Revision)>,
    inputs: usize,
    /// Its callbacks fail.
    fails: bool,
}

impl Player {
    fn new(name: &str, seed: u128) -> Self {
        Player::with(name, seed, Config::default())
    }

    fn with(name: &str, seed: u128, config: Config) -> Self {
        let identity = Identity {
            name: NodeName::parse(name).expect("a name"),
            uri: NodeUri::parse(&format!("http://{name}")).expect("a URI"),
            metadata: Metadata::new(),
        };
        let keys = Keyspace::new(Namespace::parse("c").expect("a namespace"));
        let machine = Machine::node(keys, identity, config, IdGenerator::new(0, Timestamp::ZERO, seed));
        Player { name: name.to_owned(), machine, watches: Vec::new(), inputs: 0, fails: false }
    }

    /// One input, and all that follows from it at this moment.
    fn input(&mut self, store: &mut Store, now: Timestamp, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            self.inputs += 1;
            assert!(self.inputs < BOUND, "it does not come to rest");
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
            Output::Stabilize { token, .. } if self.fails => {
                Input::Stabilized { token, outcome: Outcome::refused("not yet") }
            }
            Output::CheckHealth { token } if self.fails => {
                Input::HealthReported { token, result: Err("ill".to_owned()) }
            }
            Output::Stabilize { token, .. } => Input::Stabilized { token, outcome: Outcome::Ready },
            Output::Announce { token, .. } => Input::Announced { token, result: Ok(()) },
            Output::CheckHealth { token } => Input::HealthReported { token, result: Ok(()) },
            _ => return None,
        })
    }

    /// Whether it watches the log: then it has read all there is, once it was delivered.
    fn watches_log(&self) -> bool {
        let log = self.machine.keyspace().view_prefix();
        self.watches.iter().any(|(_, prefix, _)| prefix == log)
    }

    /// Delivers what the watches owe. Returns whether there was anything.
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

/// Two machines over one store.
struct Game {
    store: Store,
    now: Timestamp,
    players: [Player; 2],
    lives: u128,
}

impl Game {
    fn new() -> Self {
        Game::with(&Config::default())
    }

    fn with(config: &Config) -> Self {
        let players = [("a", 1), ("b", 2)].map(|(name, seed)| Player::with(name, seed, config.clone()));
        let mut game = Game { store: Store::default(), now: Timestamp::ZERO + ms(1_000), players, lives: 2 };
        for player in &mut game.players {
            player.input(&mut game.store, game.now, Input::Tick);
        }
        game
    }

    /// Until nobody is owed anything.
    fn rest(&mut self) {
        let Game { store, now, players: [a, b], .. } = self;
        while a.deliver(store, *now) | b.deliver(store, *now) {}
    }

    fn pass(&mut self, time: std::time::Duration) {
        let end = self.now + time;
        loop {
            self.rest();
            let wakeups = self.players.iter().filter_map(|player| player.machine.next_wakeup());
            let Some(at) = wakeups.min().filter(|at| *at <= end) else { break };
            // What is overdue is due now.
            self.now = self.now.max(at);
            self.store.expire(self.now);
            for player in &mut self.players {
                if player.machine.next_wakeup().is_some_and(|at| at <= self.now) {
                    player.input(&mut self.store, self.now, Input::Tick);
                }
            }
        }
        self.now = end;
    }

    /// The next wake-ups, up to this number: with very short times they never end.
    fn creep(&mut self, most: usize) {
        for _ in 0..most {
            self.rest();
            let wakeups = self.players.iter().filter_map(|player| player.machine.next_wakeup());
            let Some(at) = wakeups.min() else { return };
            self.jump(at.since(self.now));
        }
    }

    /// This time passes at once, and then all nodes are woken.
    fn jump(&mut self, time: Duration) {
        self.now = self.now + time;
        self.store.expire(self.now);
        for player in &mut self.players {
            player.inputs = 0;
            player.input(&mut self.store, self.now, Input::Tick);
        }
        self.rest();
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Put(key, value) => {
                let txn = Txn::new().put(key.clone(), value.clone(), None);
                // Keys that no store takes are refused.
                let _ = self.store.commit(&txn);
                self.rest();
            }
            Step::Delete(key) => {
                let _ = self.store.commit(&Txn::new().delete(key.clone()));
                self.rest();
            }
            Step::Pass(millis) => self.pass(ms(*millis)),
            Step::Gap => {
                self.store.compact();
                self.rest();
            }
        }
        for player in &mut self.players {
            player.inputs = 0;
            // One whose name was taken over has ended. It is started again.
            if let Phase::Stopped(_) = player.machine.status(self.now).phase {
                self.lives += 1;
                *player = Player::new(&player.name, self.lives);
                player.input(&mut self.store, self.now, Input::Tick);
            }
        }
        self.rest();
    }
}

type Set = fn(&mut Config, Duration);

/// Every time and number of a configuration.
const FIELDS: [(&str, Set); 14] = [
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
    ("stop_timeout", |config, time| config.stop_timeout = time),
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

/// Joins, refusals, changes, departures, returns and ends, with jumps of time between them.
fn live(config: &Config) {
    let mut game = Game::with(config);
    let id = |number| RequestId(number);
    let zone = || Metadata::from([("zone".to_owned(), "b".to_owned())]);
    let inputs = [
        Input::RequestVersion { id: id(1), why: None },
        Input::Update { id: id(2), metadata: zone() },
        Input::Unregister { id: id(3) },
        Input::Register { id: id(4) },
        Input::Resign { id: id(5) },
        Input::Stop,
    ];
    let leaps = [1, 20, 60, 3_600, 86_400, u64::MAX].map(Duration::from_secs);
    for (round, (input, leap)) in inputs.into_iter().zip(leaps).enumerate() {
        for (place, player) in game.players.iter_mut().enumerate() {
            player.fails = (round + place) % 3 == 1;
        }
        game.creep(30);
        let Game { store, now, players, .. } = &mut game;
        for player in players {
            player.inputs = 0;
            player.input(store, *now, input.clone());
        }
        game.creep(30);
        game.jump(leap);
    }
    for player in &game.players {
        let _ = player.machine.status(Timestamp::NEVER);
    }
}

/// A value is either refused with the name of its field, or works.
#[test]
fn each_extreme_time_is_refused_by_its_field_or_works() {
    for (field, set) in FIELDS {
        for time in EXTREMES {
            let mut config = Config::default();
            set(&mut config, time);
            match config.validate() {
                Ok(()) => live(&config),
                // Other fields are checked against the TTL, and may be refused instead.
                Err(error) => assert!(error.field == field || field == "ttl", "{field} of {time:?}: {error}"),
            }
        }
    }
}

/// A store may grant a longer TTL than requested.
#[test]
fn a_store_that_grants_an_endless_ttl_is_believed_as_far_as_a_node_can_count() {
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
    fn fuzz_p1_p8_no_garbage_stops_the_machine_and_all_see_the_same(steps in steps()) {
        let mut game = Game::new();
        game.pass(ms(5_000));
        for step in &steps {
            game.step(step);
            if !game.players.iter().all(Player::watches_log) {
                // One that missed changes again and again waits before it reads what stands.
                continue;
            }
            let [a, b] = game.players.each_ref().map(|player| player.machine.status(game.now));
            // Both have read all there is. What they know of the log is the same, except a cut that one of them missed.
            prop_assert_eq!(&a.leader, &b.leader);
            prop_assert_eq!(a.stable, b.stable);
            if let (Some(a), Some(b)) = (&a.newest, &b.newest) {
                prop_assert_eq!(a.version(), b.version());
                prop_assert_eq!(a.nodes(), b.nodes());
            }
        }
        // Somebody cleans up: everything that is none of theirs goes, and the cluster is whole again.
        let standing = game.store.read(&Key::from("c/"));
        for entry in standing.entries.iter().filter(|entry| entry.lease.is_none()) {
            game.step(&Step::Delete(entry.key.to_string()));
        }
        // A node that was removed by hand stays away for up to ten minutes. Then its name holds its own record again.
        game.pass(ms(900_000));
        let [a, b] = game.players.each_ref().map(|player| player.machine.status(game.now));
        prop_assert!(a.consistent && b.consistent, "not stable: {a:?} {b:?}");
        prop_assert_eq!(a.newest.map(|view| view.len()), Some(2));
    }

    /// No accepted combination of extreme times makes a node panic.
    #[test]
    fn fuzz_times_that_are_taken_work(changes in vec((0..FIELDS.len(), select(EXTREMES.to_vec())), 1..6)) {
        let mut config = Config::default();
        for (field, time) in changes {
            let mut changed = config.clone();
            FIELDS[field].1(&mut changed, time);
            if changed.validate().is_ok() {
                config = changed;
            }
        }
        live(&config);
    }

}
