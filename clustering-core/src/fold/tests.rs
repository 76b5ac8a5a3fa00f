use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::{
    name::Namespace,
    store::{Batch, Change, Entry, LeaseId, Snapshot},
    version::Version,
};

/// A change of one key.
#[derive(Clone, Debug)]
enum Step {
    Put(&'static str, Value),
    Delete(&'static str),
}

#[derive(Clone, Debug)]
enum Value {
    Node(u8),
    Leader(&'static str),
    Version(u8),
    /// A version of a cluster that has reached its minimum size.
    Formed(u8),
    Stable(u8),
    Request(&'static str),
    /// The departure of this node and incarnation: it left.
    Gone(&'static str, u8),
    Garbage,
}

const KEYS: [&str; 9] = [
    "c/view/nodes/a",
    "c/view/nodes/b",
    "c/view/nodes/c",
    "c/view/leader",
    "c/view/version",
    "c/view/stable",
    "c/view/request",
    "c/view/gone",
    "c/view/nodes/x/y",
];

/// A log: its current entries, from which it creates batches and snapshots.
#[derive(Default)]
struct Log {
    revision: Revision,
    entries: BTreeMap<Key, Entry>,
}

impl Log {
    /// Writes all of these changes in one revision.
    fn write(&mut self, steps: &[Step]) -> Batch {
        self.revision = self.revision.next();
        let mut changes = Vec::new();
        for step in steps {
            match step {
                Step::Put(key, value) => {
                    let key = Key::from(*key);
                    let created = self.entries.get(&key).map_or(self.revision, |entry| entry.created);
                    let lease = Some(LeaseId::new(7));
                    let value = value.text().into();
                    let entry = Entry { key: key.clone(), value, created, modified: self.revision, lease };
                    self.entries.insert(key, entry.clone());
                    changes.push(Change::Put(entry));
                }
                Step::Delete(key) => {
                    if self.entries.remove(&Key::from(*key)).is_some() {
                        changes.push(Change::Delete(Key::from(*key)));
                    }
                }
            }
        }
        Batch::new(self.revision, changes)
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot { revision: self.revision, entries: self.entries.values().cloned().collect() }
    }
}

impl Value {
    fn text(&self) -> String {
        match self {
            Value::Node(incarnation) => format!(r#"{{"uri": "http://n", "incarnation": "{incarnation}"}}"#),
            Value::Leader(node) => format!(r#"{{"node": "{node}", "incarnation": "x"}}"#),
            Value::Version(label) => {
                format!(r#"{{"version": "{}"}}"#, Version::from_u128(u128::from(*label)))
            }
            Value::Formed(label) => {
                let label = Version::from_u128(u128::from(*label));
                format!(r#"{{"version": "{label}", "formed": true}}"#)
            }
            Value::Stable(label) => Value::Version(*label).text(),
            Value::Request(leader) => format!(r#"{{"by": "ops", "leader": "{leader}"}}"#),
            Value::Gone(node, incarnation) => {
                format!(r#"{{"node": "{node}", "incarnation": "{incarnation}", "how": "left"}}"#)
            }
            Value::Garbage => "garbage".to_owned(),
        }
    }
}

fn keyspace() -> Keyspace {
    Keyspace::new(Namespace::parse("c").unwrap())
}

fn fold() -> Fold {
    Fold::new(keyspace(), None)
}

fn names<'a>(nodes: impl IntoIterator<Item = &'a Arc<Node>>) -> Vec<&'a str> {
    nodes.into_iter().map(|node| node.name.as_str()).collect()
}

fn node(key: &'static str) -> Step {
    Step::Put(key, Value::Node(1))
}

fn version(label: u8) -> Step {
    Step::Put("c/view/version", Value::Version(label))
}

/// Returns a fold that has applied these batches, and their log.
fn folded(batches: &[&[Step]]) -> (Fold, Log) {
    let (mut fold, mut log) = (fold(), Log::default());
    for steps in batches {
        fold.apply(&log.write(steps));
    }
    (fold, log)
}

#[test]
fn p1_a_view_includes_all_changes_of_its_versions_revision() {
    let orders: [[Step; 3]; 2] = [
        [version(1), node("c/view/nodes/b"), Step::Delete("c/view/nodes/a")],
        [Step::Delete("c/view/nodes/a"), node("c/view/nodes/b"), version(1)],
    ];
    for steps in orders {
        let (fold, _) = folded(&[&[node("c/view/nodes/a")], &steps]);
        assert_eq!(names(fold.newest().unwrap().iter()), ["b"]);
        assert!(!fold.has_drifted());
    }
}

#[test]
fn p2_applying_a_batch_again_changes_nothing() {
    let (mut fold, mut log) = folded(&[&[node("c/view/nodes/a")]]);
    let newer = log.write(&[version(1)]);
    fold.apply(&newer);
    let before = fold.clone();
    assert!(fold.apply(&newer).is_empty());
    assert!(fold.apply(&Batch { revision: Revision::new(1), changes: newer.changes }).is_empty());
    assert_eq!(fold, before);
}

#[test]
fn the_term_of_a_version_that_elects_is_its_own_revision() {
    let elect = [Step::Put("c/view/leader", Value::Leader("a")), version(1)];
    let (fold, _) = folded(&[&[node("c/view/nodes/a")], &elect]);
    assert_eq!(fold.term(), Some(Term::new(Revision::new(2))));
    assert_eq!(fold.newest().unwrap().term(), Term::new(Revision::new(2)));
}

#[test]
fn an_unreadable_or_deleted_version_has_no_view() {
    for last in [Step::Put("c/view/version", Value::Garbage), Step::Delete("c/view/version")] {
        let (fold, _) = folded(&[&[node("c/view/nodes/a"), version(9)], &[last]]);
        assert!(fold.newest().is_none() && !fold.is_stable());
        assert!(!fold.has_drifted(), "without a view there is no drift");
    }
}

#[test]
fn p4_only_a_stable_record_written_after_its_version_counts() {
    let stable = |label| Step::Put("c/view/stable", Value::Version(label));
    let (mut fold, mut log) = folded(&[&[node("c/view/nodes/a"), version(1)]]);
    assert!(!fold.is_stable());
    fold.apply(&log.write(&[stable(2)]));
    assert!(!fold.is_stable(), "the record names another version");
    fold.apply(&log.write(&[stable(1)]));
    assert!(fold.is_stable());
    fold.apply(&log.write(&[version(1)]));
    assert!(!fold.is_stable(), "the same label written again is another version");
    fold.apply(&log.write(&[version(1), stable(1)]));
    assert!(!fold.is_stable(), "no node can have acknowledged a version in its own revision");
}

#[test]
fn a_request_favours_a_present_node_until_the_next_version() {
    let request = |node| Step::Put("c/view/request", Value::Request(node));
    let favoured = |fold: &Fold| fold.favoured().map(|node| node.name.to_string());
    let (mut fold, mut log) = folded(&[&[node("c/view/nodes/a"), version(1)]]);
    fold.apply(&log.write(&[request("b")]));
    assert_eq!(favoured(&fold), None, "an absent node is not favoured");
    fold.apply(&log.write(&[node("c/view/nodes/b")]));
    assert_eq!(favoured(&fold), Some("b".to_owned()));
    fold.apply(&log.write(&[version(2)]));
    assert_eq!(favoured(&fold), None, "the request was fulfilled");
    fold.apply(&log.write(&[request("b"), version(3)]));
    assert_eq!(favoured(&fold), None, "a version in the same revision fulfils the request");
}

#[test]
fn p1_a_resync_keeps_the_view_only_if_the_version_is_unchanged() {
    let (before, mut log) = folded(&[&[node("c/view/nodes/a"), version(1)]]);
    log.write(&[node("c/view/nodes/b")]);
    let mut same = before.clone();
    let changed = same.resync(&log.snapshot(), false);
    assert_eq!(names(same.newest().unwrap().iter()), ["a"]);
    assert_eq!(same.drift().collect::<Vec<_>>(), ["b"]);
    assert!(same.has_drifted());
    assert!(matches!(changed.as_slice(), [Changed::Up(node)] if node.name == "b"));

    let mut rewound = before.clone();
    rewound.resync(&log.snapshot(), true);
    assert!(rewound.newest().is_none());

    log.write(&[version(2)]);
    let mut missed = before;
    let changed = missed.resync(&log.snapshot(), false);
    assert!(missed.newest().is_none());
    assert!(changed.contains(&Changed::Version));
}

fn gone(node: &'static str, incarnation: u8) -> Step {
    Step::Put("c/view/gone", Value::Gone(node, incarnation))
}

fn departure_of(fold: &Fold, name: &str) -> Departure {
    fold.departure(&NodeName::parse(name).unwrap())
}

#[test]
fn a_departure_record_counts_only_together_with_the_deletion_in_either_order() {
    let initial = [node("c/view/nodes/a"), node("c/view/nodes/b"), version(1)];
    let deletion = || Step::Delete("c/view/nodes/a");
    for steps in [[gone("a", 1), deletion()], [deletion(), gone("a", 1)]] {
        let (mut fold, mut log) = folded(&[&initial]);
        let changed = fold.apply(&log.write(&steps));
        assert!(changed.iter().any(|change| matches!(change, Changed::Down(_, Departure::Left, _))));
        assert_eq!(departure_of(&fold, "a"), Departure::Left);
        fold.apply(&log.write(&[version(2)]));
        assert!(fold.departures.is_empty(), "a departure is kept only until the next version");
    }
    // Records of another incarnation, of another node, or in another revision do not count.
    let others: [&[&[Step]]; 4] = [
        &[&[gone("a", 2), deletion()]],
        &[&[gone("b", 1), deletion()]],
        &[&[gone("a", 1)], &[deletion()]],
        &[&[deletion()], &[gone("a", 1)]],
    ];
    for batches in others {
        let (mut fold, mut log) = folded(&[&initial]);
        for steps in batches {
            fold.apply(&log.write(steps));
        }
        assert_eq!(departure_of(&fold, "a"), Departure::Ended, "{batches:?}");
    }
}

#[test]
fn no_departure_is_kept_for_a_node_outside_the_view_or_back_again() {
    let leaves = [Step::Delete("c/view/nodes/a"), gone("a", 1)];
    let (fold, _) = folded(&[&[version(1)], &[node("c/view/nodes/a")], &leaves]);
    assert!(fold.departures.is_empty());
    // The leave was missed.
    let (mut fold, mut log) = folded(&[&[version(1)], &[node("c/view/nodes/a")]]);
    log.write(&leaves);
    fold.resync(&log.snapshot(), false);
    assert!(fold.departures.is_empty());
    // The node is back.
    let (fold, _) = folded(&[&[node("c/view/nodes/a"), version(1)], &leaves, &[node("c/view/nodes/a")]]);
    assert!(fold.departures.is_empty());
}

#[test]
fn after_a_gap_the_departure_record_counts_only_for_the_incarnation_it_names() {
    let (before, log) = folded(&[&[node("c/view/nodes/a"), node("c/view/nodes/b"), version(1)]]);
    let after = |batches: &[&[Step]]| {
        let (mut fold, mut log) =
            (before.clone(), Log { revision: log.revision, entries: log.entries.clone() });
        for steps in batches {
            log.write(steps);
        }
        let changed = fold.resync(&log.snapshot(), false);
        let down = changed.iter().find_map(|change| match change {
            Changed::Down(node, how, _) if node.name == "a" => Some(*how),
            _ => None,
        });
        assert_eq!(down.unwrap_or(Departure::Ended), departure_of(&fold, "a"));
        departure_of(&fold, "a")
    };
    let a = || Step::Delete("c/view/nodes/a");
    let b = || Step::Delete("c/view/nodes/b");
    assert_eq!(after(&[&[a(), gone("a", 1)]]), Departure::Left);
    assert_eq!(after(&[&[a(), gone("a", 1)], &[b(), gone("b", 1)]]), Departure::Ended);
    // An earlier incarnation left.
    assert_eq!(after(&[&[gone("a", 7)], &[a()]]), Departure::Ended);
    // The node is present.
    assert_eq!(after(&[&[gone("a", 1)]]), Departure::Ended);
    // The departure was seen before the gap.
    let mut seen = before.clone();
    let mut later = Log { revision: log.revision, entries: log.entries.clone() };
    seen.apply(&later.write(&[a(), gone("a", 1)]));
    seen.resync(&later.snapshot(), false);
    assert_eq!(departure_of(&seen, "a"), Departure::Left);
}

fn step() -> impl Strategy<Value = Step> {
    let value = prop_oneof![
        6 => (0..4u8).prop_map(Value::Node),
        2 => prop::sample::select(vec!["a", "b"]).prop_map(Value::Leader),
        3 => (1..9u8).prop_map(Value::Version),
        2 => (prop::sample::select(vec!["a", "b"]), 0..4u8).prop_map(|(node, incarnation)| Value::Gone(node, incarnation)),
        1 => Just(Value::Garbage),
    ];
    let key = || prop::sample::select(KEYS.to_vec());
    prop_oneof![
        4 => (key(), value).prop_map(|(key, value)| Step::Put(key, value)),
        2 => (1..9u8).prop_map(version),
        1 => (0..4u8).prop_map(|incarnation| gone("a", incarnation)),
        2 => key().prop_map(Step::Delete),
    ]
}

/// Generates the changes of one revision, each to a different key.
fn revision() -> impl Strategy<Value = Vec<Step>> {
    let key_of = |step: &Step| match step {
        Step::Put(key, _) | Step::Delete(key) => *key,
    };
    prop::collection::vec(step(), 1..4).prop_map(move |mut steps| {
        let mut seen = BTreeSet::new();
        steps.retain(|step| seen.insert(key_of(step)));
        steps
    })
}

/// Computes the drift from scratch.
fn drift(fold: &Fold) -> BTreeSet<NodeName> {
    if fold.newest().is_none() {
        return BTreeSet::new();
    }
    let present = fold.present().map(|node| (node.name.clone(), node.modified));
    let present: BTreeMap<_, _> = present.collect();
    let viewed = fold.newest().into_iter().flat_map(|view| view.iter());
    let viewed: BTreeMap<_, _> = viewed.map(|node| (node.name.clone(), node.modified)).collect();
    let names = present.keys().chain(viewed.keys());
    names.filter(|name| present.get(*name) != viewed.get(*name)).cloned().collect()
}

#[test]
fn only_nodes_that_registered_before_the_newest_stable_version_belong_to_it() {
    let (mut fold, mut log) = (fold(), Log::default());
    let version = |label| Step::Put("c/view/version", Value::Version(label));
    for steps in [
        [node("c/view/nodes/a")],
        [version(1)],
        [node("c/view/nodes/b")],
        [Step::Put("c/view/stable", Value::Stable(1))],
        [version(2)],
        [node("c/view/nodes/a")],
    ] {
        fold.apply(&log.write(&steps));
    }
    let belong = |fold: &Fold| names(fold.present().filter(|node| fold.was_stable_with(node))).join(" ");
    assert_eq!(belong(&fold), "a");
    log.write(&[version(3)]);
    fold.resync(&log.snapshot(), false);
    assert_eq!(belong(&fold), "a", "the replica saw that version before the gap");
    let mut late = self::fold();
    late.resync(&log.snapshot(), false);
    assert_eq!(belong(&late), "a b", "the replica did not see the version, only that it is stable");
    fold.resync(&log.snapshot(), true);
    assert_eq!(belong(&fold), "a b", "revisions cannot be compared with those before a rewind");
    log.write(&[Step::Put("c/view/stable", Value::Stable(3))]);
    late.resync(&log.snapshot(), false);
    assert_eq!(belong(&late), "a b");
    log.write(&[node("c/view/nodes/c")]);
    late.resync(&log.snapshot(), false);
    assert_eq!(belong(&late), "a b", "the snapshot contains that version");
    late.apply(&log.write(&[Step::Delete("c/view/stable")]));
    assert_eq!(belong(&late), "");
}

#[test]
fn a_replica_remembers_that_the_cluster_has_formed_until_a_rewind() {
    let (mut fold, mut log) = (fold(), Log::default());
    fold.apply(&log.write(&[Step::Put("c/view/version", Value::Version(1))]));
    assert!(!fold.has_formed());
    fold.apply(&log.write(&[Step::Put("c/view/version", Value::Formed(2))]));
    assert!(fold.has_formed());
    fold.apply(&log.write(&[Step::Delete("c/view/version")]));
    assert!(fold.has_formed());
    fold.resync(&log.snapshot(), false);
    assert!(fold.has_formed());
    fold.resync(&log.snapshot(), true);
    assert!(!fold.has_formed());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn p1_replicas_of_the_same_log_agree_and_track_the_drift_correctly(
        revisions in prop::collection::vec(revision(), 1..30),
        gap in 0..30usize,
    ) {
        let (mut all, mut late, mut log) = (fold(), fold(), Log::default());
        let mut missed = Revision::ZERO;
        for (place, steps) in revisions.iter().enumerate() {
            let batch = log.write(steps);
            if batch.changes.is_empty() {
                continue;
            }
            all.apply(&batch);
            prop_assert_eq!(all.drift().cloned().collect::<BTreeSet<_>>(), drift(&all));
            // `late` reads a snapshot at one place, and applies all other batches.
            if place == gap {
                missed = log.revision;
                late.resync(&log.snapshot(), false);
            } else {
                late.apply(&batch);
            }
            prop_assert_eq!(late.drift().cloned().collect::<BTreeSet<_>>(), drift(&late));
            for fold in [&all, &late] {
                let is_gone = |name: &NodeName| drift(fold).contains(name) && fold.node(name).is_none();
                prop_assert!(fold.departures.keys().all(is_gone), "{:?}", fold.departures);
            }
            // Both agree on all records, and on the view unless `late` missed its version.
            prop_assert_eq!(names(all.present()), names(late.present()));
            prop_assert_eq!(all.leader(), late.leader());
            prop_assert_eq!(all.version(), late.version());
            prop_assert_eq!(all.request(), late.request());
            prop_assert_eq!(all.stable(), late.stable());
            if all.newest().is_some_and(|view| view.revision() > missed) || late.newest().is_some() {
                prop_assert_eq!(all.newest(), late.newest());
            }
        }
    }

    #[test]
    fn a_resync_reports_the_same_changes_as_the_batches_in_between(
        first in prop::collection::vec(revision(), 1..10),
        between in prop::collection::vec(revision(), 1..10),
    ) {
        let (mut fold, mut log) = (fold(), Log::default());
        for steps in &first {
            fold.apply(&log.write(steps));
        }
        let before = fold.clone();
        for steps in &between {
            log.write(steps);
        }
        let reported = fold.resync(&log.snapshot(), false);
        // The revisions of a node's record before and after show whether it joined, departed or changed.
        let changed = |name: &str| {
            let name = NodeName::parse(name).unwrap();
            (before.node(&name).map(|node| node.modified), fold.node(&name).map(|node| node.modified))
        };
        for name in ["a", "b", "c"] {
            let up = reported.iter().any(|change| matches!(change, Changed::Up(node) if node.name == name));
            let down = reported.iter().any(|change| matches!(change, Changed::Down(node, ..) if node.name == name));
            let again = reported.iter().any(|change| matches!(change, Changed::Renewed(node) if node.name == name));
            let expected = match changed(name) {
                (None, Some(_)) => (true, false, false),
                (Some(_), None) => (false, true, false),
                (Some(old), Some(new)) if old != new => (false, false, true),
                _ => (false, false, false),
            };
            prop_assert_eq!((up, down, again), expected, "{}", name);
        }
        prop_assert_eq!(reported.contains(&Changed::Leader), before.leader() != fold.leader());
        prop_assert_eq!(reported.contains(&Changed::Version), before.version() != fold.version());
        prop_assert_eq!(reported.contains(&Changed::Stable), before.stable() != fold.stable());
        prop_assert_eq!(reported.contains(&Changed::Request), before.request() != fold.request());
    }
}
