//! Random walks of one machine. For any order of replies, delivered changes and actions of other nodes, every step must
//! satisfy the [`invariants`](super::invariants).

use super::bench::{Bench, for_seeds, ms, name};
use crate::{
    config::{CrashDetection, HealthChecks, Laggards, NameConflict},
    event::Evidence,
    machine::{Input, Output, RequestId},
    outcome::Outcome,
    record::decode_node,
    slots::SlotCount,
    store::{ErrorKind, Guard, Revision, Txn, WatchEnd},
};

const OTHERS: [&str; 3] = ["a", "c", "d"];
const KEYS: [&str; 16] = [
    "view/nodes/a",
    "view/nodes/b",
    "view/nodes/c",
    "view/leader",
    "view/version",
    "view/stable",
    "view/request",
    "view/gone",
    "view/slots",
    "view/released",
    "view/holds/2",
    "view/holds/ff",
    "view/cordoned/b",
    "view/drain/b",
    "ready/b",
    "ready/c",
];

struct Walk {
    bench: Bench,
    random: u64,
    requests: u64,
}

#[test]
fn p1_to_p7_and_p12_every_step_of_random_walks_keeps_the_invariants() {
    for_seeds("WALK_SEEDS", 50, |seed| {
        let mut walk = Walk::new(seed);
        for _ in 0..100 {
            walk.step();
        }
    });
}

impl Walk {
    fn new(seed: u64) -> Self {
        let mut walk = Walk { bench: Bench::node("b"), random: seed, requests: 0 };
        let conflict = *walk.one_of(&[NameConflict::Wait, NameConflict::TakeOver, NameConflict::Fail]);
        let (evict, checks) = (walk.below(2) == 0, walk.below(2) == 0);
        let (exclusive, has_release) = (walk.below(3) > 0, walk.below(2) == 0);
        let (detects, trust_refused) = (walk.below(2) == 0, walk.below(2) == 0);
        walk.bench = Bench::node_with("b", |config| {
            config.name_conflict = conflict;
            if evict {
                config.laggards = Laggards::Evict { after: ms(3_000) };
            }
            config.health = checks.then(HealthChecks::default);
            config.exclusive = SlotCount::new(4).ok().filter(|_| exclusive);
            config.has_release = has_release;
            config.release_timeout = Some(ms(8_000));
            let detection = CrashDetection { trust_refused, ..CrashDetection::default() };
            config.crash_detection = Some(detection).filter(|_| detects);
        });
        if walk.below(2) == 0 {
            let mut bench = walk.bench.clone();
            match walk.below(3) {
                0 => bench.joins("a"),
                _ => bench.joins_exclusively("a", 4),
            }
            walk.bench = bench.joined();
        }
        walk
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % bound
    }

    fn one_of<'a, T>(&mut self, these: &'a [T]) -> &'a T {
        &these[self.below(these.len() as u64) as usize]
    }

    fn step(&mut self) {
        match self.below(10) {
            0..3 => self.answer(),
            3 => self.bench.deliver(),
            4 => {
                let prefix = *self.one_of(&["view/", "ready/"]);
                self.bench.deliver_to(prefix);
            }
            5 => self.time_passes(),
            6 => self.watch_ends(),
            7 => self.user(),
            _ => {
                self.bench.hidden = self.below(2) == 0;
                self.other_nodes();
                self.bench.hidden = false;
            }
        }
    }

    /// Ends a random open call or callback, in a random way.
    fn answer(&mut self) {
        if self.below(3) == 0 {
            return self.bench.answer_all();
        }
        let mut calls = vec!["watch view/", "watch ready/"];
        calls.retain(|watch| self.bench.is_opening(watch));
        let open: Vec<String> = self.bench.open_calls();
        calls.extend(open.iter().map(String::as_str));
        if calls.is_empty() {
            return self.bench.tick();
        }
        let call = (*self.one_of(&calls)).to_owned();
        let kinds = [
            ErrorKind::Unreachable,
            ErrorKind::OutcomeUnknown,
            ErrorKind::Busy,
            ErrorKind::Refused,
            ErrorKind::LeaseNotFound,
            ErrorKind::GuardFailed { revision: self.bench.store.revision },
        ];
        let kind = *self.one_of(&kinds);
        match call.as_str() {
            call if call.starts_with("stabilize") && kind == ErrorKind::Busy => {
                self.bench.stabilized(Outcome::refused("no"));
            }
            call if call.starts_with("stabilize") => self.bench.stabilized(Outcome::Ready),
            call if call.starts_with("release") && kind == ErrorKind::Busy => {
                self.bench.released(Outcome::refused("no"));
            }
            call if call.starts_with("release") => self.bench.released(Outcome::Ready),
            call if call.starts_with("retract") => {
                let in_use: &[u16] = if kind == ErrorKind::Busy { &[1] } else { &[] };
                self.bench.retracted(in_use);
            }
            call if call.starts_with("announce") => self.bench.announced(),
            call if call.starts_with("check health") && self.below(3) == 0 => self.bench.health(Err("sick")),
            call if call.starts_with("check health") => self.bench.health(Ok(())),
            call => match self.below(4) {
                0 => self.bench.fail(call, kind),
                1 if !call.starts_with("watch") => self.bench.lose(call),
                _ => self.bench.ok(call),
            },
        }
    }

    fn time_passes(&mut self) {
        let long = self.below(8) == 0;
        let time = ms(self.below(if long { 20_000 } else { 700 }));
        if self.below(2) == 0 { self.bench.wait(time) } else { self.bench.advance(time) }
    }

    fn watch_ends(&mut self) {
        let prefix = *self.one_of(&["view/", "ready/"]);
        if !self.bench.is_watching(prefix) {
            return;
        }
        match self.below(5) {
            0 => {
                self.bench.store.compact();
                let compacted = self.bench.store.revision;
                self.bench.watch_ends(prefix, WatchEnd::Compacted { compacted });
            }
            1 if self.bench.store.revision > Revision::new(6) => {
                let revision = Revision::new(self.bench.store.revision.get() - self.below(5));
                self.bench.store.rewind(revision);
                for prefix in ["view/", "ready/"] {
                    if self.bench.is_watching(prefix) {
                        self.bench.watch_ends(prefix, WatchEnd::Rewound { revision });
                    }
                }
            }
            _ => self.bench.disconnects(prefix),
        }
    }

    fn user(&mut self) {
        self.requests += 1;
        let id = self.requests;
        match self.below(17) {
            14..17 => {
                let process = *self.one_of(&["a", "b", "c", "d", "x"]);
                let evidence = *self.one_of(&[Evidence::Refused, Evidence::Replaced]);
                self.bench.reports(process, evidence);
            }
            12 | 13 => {
                let held = self.bench.status().holdings.map(|holdings| holdings.held).unwrap_or_default();
                if let Some((slot, acquired)) = held.iter().next() {
                    let txn = Txn::new().put("mine", "y", None);
                    let (id, slot, acquired) = (RequestId(id), *slot, *acquired);
                    self.bench.input(Input::CommitAsOwner { id, slot, acquired, txn });
                }
            }
            0..3 => self.bench.update(id, &id.to_string()),
            3..6 => self.bench.request_version(id, "walk"),
            6 => self.bench.resign(id),
            7 => self.bench.commit_as_leader(id, Txn::new().put("mine", "x", None)),
            8 => self.bench.register(id),
            9 => self.bench.unregister(id),
            10 if self.below(4) == 0 => self.bench.stop(),
            _ => self.bench.tick(),
        }
    }

    fn other_nodes(&mut self) {
        let other = *self.one_of(&OTHERS);
        let key = *self.one_of(&KEYS);
        let joined = self.bench.has_session(other);
        let led = self.bench.store.get(self.bench.keys.election_key()).is_some();
        let published = self.bench.has_version();
        match self.below(23) {
            19 if self.bench.is_present(other) => self.bench.crashes(other),
            20 if self.bench.is_present("b") => self.bench.crashes("b"),
            21 if !joined => {
                let process = *self.one_of(&[other, other, "x"]);
                self.bench.joins_watched(other, process);
            }
            22 if !joined => self.bench.joins_watched_exclusively(other),
            14 if published && led => self.bench.permits(),
            15 if joined && published => self.bench.releases(other),
            16 if published => {
                let owners: Vec<&str> = (0..4).map(|_| *self.one_of(&["a", "b", "c"])).collect();
                let clean = self.below(3) == 0;
                self.bench.publishes_slots(&owners, clean);
            }
            17 => {
                let name = *self.one_of(&["b", other]);
                self.bench.put(&format!("view/cordoned/{name}"), "{}");
            }
            18 if !joined => self.bench.joins_exclusively(other, 4),
            0 if joined => self.bench.ends(other),
            12 if joined && self.bench.is_present(other) => self.bench.leaves(other),
            13 if self.bench.is_present(other) => self.bench.evicts(other),
            1 if joined => self.bench.rewrites(other),
            2 | 3 if joined && !led => self.bench.elects(other),
            4 => self.bench.publishes(),
            5 | 6 if joined && published => self.bench.acknowledges(other),
            7 if published => self.bench.confirms(),
            8 => self.bench.requests("ops"),
            9 => self.bench.put(key, "garbage"),
            10 => self.bench.delete(key),
            11 if self.below(6) == 0 => self.bench.joins("b"),
            _ if !joined => self.bench.joins(other),
            _ => self.bench.write(Txn::new().guard(Guard::absent("none")).put("c/view/else", "x", None)),
        }
    }
}

impl Bench {
    fn open_calls(&self) -> Vec<String> {
        self.open.iter().map(|call: &Output| self.names.render(call)).collect()
    }

    fn has_session(&self, node: &str) -> bool {
        self.others.get(node).is_some_and(|lease| self.store.lives_until(*lease).is_some())
    }

    fn is_present(&self, node: &str) -> bool {
        let key = self.keys.node_key(&name(node));
        self.store.get(&key).is_some_and(|entry| decode_node(name(node), entry).is_ok())
    }

    fn has_version(&self) -> bool {
        let entry = self.store.get(self.keys.version_key());
        entry.is_some_and(|entry| crate::record::decode::<crate::record::VersionRecord>(&entry.value).is_ok())
    }
}
