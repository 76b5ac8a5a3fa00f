//! Hand-made histories for tests of the checkers.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use clustering_core::{
    NodeName, Term, Version,
    store::{self, Batch, Change, LeaseId, Revision, Snapshot},
};
use serde_json::{Value, json};

use super::{Calm, Promises, check};
use crate::history::{
    Ending, Entry, Ledger, Life, Member, Moment, Observation, Page, WriteOutcome, ledger::Content,
};

const NAMESPACE: &str = "c";

/// Returns the version with this label. `V1`, `V1b`, `V2` and so on are in ascending order.
pub(crate) fn version(label: &str) -> Version {
    let digits = label.trim_start_matches('V');
    let number: u128 = digits.trim_end_matches('b').parse().unwrap();
    Version::from_u128(number * 10 + u128::from(digits.ends_with('b')))
}

/// Panics if the checkers find a broken promise, either step by step or in the recorded history.
#[track_caller]
pub(crate) fn kept(scene: Scene) {
    scene.as_it_goes().unwrap();
    scene.in_hindsight().unwrap();
}

/// Panics unless the checkers find this promise broken step by step, with `says` in the message. In the recorded
/// history, any promise may be the first.
#[track_caller]
pub(crate) fn broken(promise: &str, says: &str, scene: Scene) {
    let violation = scene.as_it_goes().expect_err("the checkers should find a broken promise");
    assert!(violation.promise.starts_with(promise), "{violation}");
    let told = violation.to_string();
    assert!(told.contains(says), "{says:?} is missing in: {told}");
    scene.in_hindsight().expect_err("the checkers should find a broken promise in the recorded history");
}

#[derive(Clone, Debug)]
enum Step {
    Page(Page),
    Entry(Entry),
    Calm(Calm),
}

#[derive(Clone, Debug)]
pub(crate) struct Scene {
    steps: Vec<Step>,
    now: Moment,
    revision: u64,
    standing: BTreeMap<String, store::Entry>,
    written: BTreeMap<Version, Revision>,
    life: Option<Life>,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Scene {
            steps: Vec::new(),
            now: Moment::default(),
            revision: 0,
            standing: BTreeMap::new(),
            written: BTreeMap::new(),
            life: None,
        }
    }

    /// Creates a scene in which these nodes are present, under leases counted from 1, and the first of them leads and
    /// has published V1.
    pub(crate) fn of(names: &[&str]) -> Self {
        let mut scene = Scene::new();
        for (name, lease) in names.iter().zip(1..) {
            scene.join(name, lease);
        }
        scene.elect(names[0], "V1");
        scene
    }

    fn as_it_goes(&self) -> Result<(), super::Violation> {
        let mut promises = Promises::new(NAMESPACE);
        let by_hand = |step: &&Step| matches!(step, Step::Page(Page { content: Content::ByHand(_), .. }));
        for step in self.steps.iter().filter(by_hand).chain(&self.steps) {
            match step {
                Step::Page(page) => promises.turn(page)?,
                Step::Entry(entry) => promises.observe(entry)?,
                Step::Calm(calm) => promises.calm(calm)?,
            }
        }
        Ok(())
    }

    fn in_hindsight(&self) -> Result<Ledger, super::Violation> {
        let (mut pages, mut journals) = (Vec::new(), BTreeMap::<Life, Vec<Entry>>::new());
        let mut calm = None;
        for step in &self.steps {
            calm = None;
            match step {
                Step::Page(page) => pages.push(page.clone()),
                Step::Entry(entry) => journals.entry(entry.life.clone()).or_default().push(entry.clone()),
                Step::Calm(now) => calm = Some(now),
            }
        }
        check(NAMESPACE, &pages, &journals.into_values().collect::<Vec<_>>(), calm)
    }

    pub(crate) fn ledger(&self) -> Ledger {
        self.in_hindsight().unwrap()
    }

    // ---- the store -------------------------------------------------------------------------------------------------

    fn page(&mut self, content: Content) {
        self.steps.push(Step::Page(Page { at: Some(self.now), content }));
    }

    fn commit(&mut self, puts: &[(&str, Value, Option<u64>)], deletes: &[&str]) -> Revision {
        self.revision += 1;
        let revision = Revision::new(self.revision);
        let mut changes = Vec::new();
        for key in deletes {
            if self.standing.remove(*key).is_some() {
                changes.push(Change::Delete(format!("{NAMESPACE}/{key}").into()));
            }
        }
        for (key, value, lease) in puts {
            let entry = store::Entry {
                key: format!("{NAMESPACE}/{key}").into(),
                value: value.to_string().into(),
                created: self.standing.get(*key).map_or(revision, |old| old.created),
                modified: revision,
                lease: lease.map(LeaseId::new),
            };
            self.standing.insert((*key).to_owned(), entry.clone());
            changes.push(Change::Put(entry));
        }
        self.page(Content::Batch(Batch::new(revision, changes)));
        revision
    }

    fn lease(&self, name: &str) -> Option<u64> {
        self.standing.get(&format!("view/nodes/{name}"))?.lease.map(LeaseId::get)
    }

    pub(crate) fn join(&mut self, name: &str, lease: u64) {
        let record = json!({"uri": format!("http://{name}"), "incarnation": format!("{name}-{lease}")});
        self.commit(&[(&format!("view/nodes/{name}"), record, Some(lease))], &[]);
    }

    /// Ends the node's lease.
    pub(crate) fn leave(&mut self, name: &str) {
        let leader = self
            .standing
            .get("view/leader")
            .filter(|leader| leader.lease.map(LeaseId::get) == self.lease(name));
        let leader = leader.map(|_| "view/leader");
        let keys = [Some(&*format!("view/nodes/{name}")), Some(&*format!("ready/{name}")), leader];
        let keys: Vec<_> = keys.into_iter().flatten().collect();
        self.commit(&[], &keys);
    }

    pub(crate) fn elect(&mut self, name: &str, label: &str) {
        // A new leader creates the key again.
        self.standing.remove("view/leader");
        let lease = self.lease(name);
        let record = json!({"version": version(label), "leader": name});
        let revision = self
            .commit(&[("view/leader", json!({"node": name}), lease), ("view/version", record, None)], &[]);
        self.written.insert(version(label), revision);
    }

    pub(crate) fn overwrite_leader(&mut self, name: &str) {
        self.commit(&[("view/leader", json!({"node": name}), self.lease(name))], &[]);
    }

    pub(crate) fn term(&self) -> Term {
        Term::new(self.standing["view/leader"].created)
    }

    pub(crate) fn publish(&mut self, label: &str) -> Revision {
        self.publish_under(label, self.term())
    }

    pub(crate) fn publish_under(&mut self, label: &str, term: Term) -> Revision {
        let record = json!({"version": version(label), "term": term});
        let revision = self.commit(&[("view/version", record, None)], &[]);
        self.written.insert(version(label), revision);
        revision
    }

    pub(crate) fn acknowledge(&mut self, name: &str, label: &str) {
        let lease = self.lease(name).expect("the node has a record");
        self.acknowledge_under(name, label, lease, "ready");
    }

    pub(crate) fn acknowledge_under(&mut self, name: &str, label: &str, lease: u64, outcome: &str) {
        let record = json!({"version": version(label), "outcome": outcome});
        self.commit(&[(&format!("ready/{name}"), record, Some(lease))], &[]);
    }

    pub(crate) fn confirm(&mut self, label: &str) {
        self.confirm_under(label, self.term());
    }

    pub(crate) fn confirm_under(&mut self, label: &str, term: Term) {
        self.commit(&[("view/stable", json!({"version": version(label), "term": term}), None)], &[]);
    }

    pub(crate) fn write(&mut self, id: &str, term: Term) -> Revision {
        self.commit(&[("leader-commits/list", json!({"id": id, "term": term}), None)], &[])
    }

    /// Increments the counter under the current term.
    pub(crate) fn counts(&mut self, id: &str, count: u64, ids: &[&str]) {
        let (term, page) = (self.term(), format!("leader-commits/{}", Ledger::page_of(count)));
        let counter = json!({"id": id, "term": term, "count": count});
        let listed = json!({"id": id, "term": term, "ids": ids});
        self.commit(&[("leader-commits/counter", counter, None), (&page, listed, None)], &[]);
    }

    pub(crate) fn delete(&mut self, key: &str) {
        self.commit(&[], &[key]);
    }

    pub(crate) fn write_elsewhere(&mut self) {
        self.commit(&[("elsewhere", json!(1), None)], &[]);
    }

    pub(crate) fn by_hand(&mut self, revision: Revision) {
        self.page(Content::ByHand(revision));
    }

    pub(crate) fn era(&mut self) {
        self.standing.clear();
        self.revision = 0;
        self.page(Content::Era);
    }

    pub(crate) fn gap(&mut self) {
        self.revision += 1;
        let entries = self.standing.values().cloned().collect();
        self.page(Content::Gap(Snapshot { revision: Revision::new(self.revision), entries }));
    }

    // ---- the nodes -------------------------------------------------------------------------------------------------

    pub(crate) fn pass(&mut self, duration: Duration) {
        self.now = self.now + duration;
    }

    /// Assigns all later observations to that life.
    pub(crate) fn as_life(&mut self, life: &str) {
        self.life = Some(life.into());
    }

    pub(crate) fn saw(&mut self, node: &str, observation: Observation) {
        let life = self.life.clone().unwrap_or_else(|| format!("{node}#1").into());
        let node = NodeName::parse(node).unwrap();
        self.steps.push(Step::Entry(Entry { at: self.now, node, life, observation }));
    }

    pub(crate) fn sees(&mut self, node: &str, label: &str) {
        self.sees_at(node, label, self.written[&version(label)].get());
    }

    pub(crate) fn sees_at(&mut self, node: &str, label: &str, revision: u64) {
        let (version, revision) = (version(label), Revision::new(revision));
        self.saw(node, Observation::VersionPublished { version, revision });
    }

    pub(crate) fn resynced(&mut self, node: &str, rewound: bool) {
        self.saw(node, Observation::Resynced { rewound, revision: Revision::new(self.revision) });
    }

    fn members(&self, names: &[&str]) -> Vec<Member> {
        let member = |name: &&str| Member {
            name: NodeName::parse(name).unwrap(),
            uri: format!("http://{name}"),
            incarnation: format!("{name}-{}", self.lease(name).unwrap_or_default()).into(),
            metadata: BTreeMap::new(),
        };
        names.iter().map(member).collect()
    }

    pub(crate) fn stabilizes(&mut self, node: &str, label: &str, names: &[&str]) {
        self.stabilizes_at(node, label, self.written[&version(label)].get(), names);
    }

    pub(crate) fn stabilizes_at(&mut self, node: &str, label: &str, revision: u64, names: &[&str]) {
        self.saw(node, Observation::Stabilizing { version: version(label), attempt: 1 });
        self.called(node, label, revision, 1, self.members(names));
        self.stabilize_ends(node, label, 1, false);
    }

    /// Records a stabilize with the nodes of the cut, modified by `change`.
    pub(crate) fn given(&mut self, node: &str, label: &str, change: impl FnOnce(&mut Vec<Member>)) {
        let names: Vec<_> = self
            .standing
            .keys()
            .filter_map(|key| key.strip_prefix("view/nodes/"))
            .map(str::to_owned)
            .collect();
        let mut nodes = self.members(&names.iter().map(|name| &**name).collect::<Vec<_>>());
        change(&mut nodes);
        self.saw(node, Observation::Stabilizing { version: version(label), attempt: 1 });
        self.called(node, label, self.written[&version(label)].get(), 1, nodes);
    }

    pub(crate) fn stabilize_begins(&mut self, node: &str, label: &str, attempt: u32, names: &[&str]) {
        self.saw(node, Observation::Stabilizing { version: version(label), attempt });
        self.callback_begins(node, label, attempt, names);
    }

    pub(crate) fn callback_begins(&mut self, node: &str, label: &str, attempt: u32, names: &[&str]) {
        self.called(node, label, self.written[&version(label)].get(), attempt, self.members(names));
    }

    fn called(&mut self, node: &str, label: &str, revision: u64, attempt: u32, nodes: Vec<Member>) {
        let (version, revision) = (version(label), Revision::new(revision));
        self.saw(node, Observation::StabilizeBegan { version, revision, attempt, nodes });
    }

    pub(crate) fn stabilize_ends(&mut self, node: &str, label: &str, attempt: u32, told: bool) {
        let (version, ending) = (version(label), Ending::Ready);
        self.saw(node, Observation::StabilizeEnded { version, attempt, ending, told });
    }

    pub(crate) fn leads(&mut self, node: &str) {
        let leader = Some(NodeName::parse(node).unwrap());
        let term = Some(self.term());
        self.saw(node, Observation::LeaderChanged { leader, term, own: true });
    }

    pub(crate) fn announces(&mut self, node: &str, label: &str) {
        let term = self.term();
        self.saw(node, Observation::Announcing { version: version(label), term });
        self.callback_announces(node, label);
    }

    pub(crate) fn callback_announces(&mut self, node: &str, label: &str) {
        let term = self.term();
        self.saw(node, Observation::OnStableBegan { version: version(label), term });
    }

    pub(crate) fn announced(&mut self, node: &str, label: &str) {
        let term = self.term();
        self.saw(node, Observation::OnStableEnded { version: version(label), term, ending: Ending::Ready });
    }

    pub(crate) fn wrote(&mut self, node: &str, id: &str, term: Term, outcome: WriteOutcome) {
        self.saw(node, Observation::LeaderCommit { id: id.to_owned(), term, outcome });
    }

    pub(crate) fn starts_taking_over(&mut self, node: &str) {
        self.saw(node, Observation::Started { leadership: None, takes_over: true });
    }

    pub(crate) fn grants(&mut self, node: &str, lease: u64, ttl: Duration) {
        self.saw(node, Observation::Granted { lease, sent: self.now, ttl });
    }

    pub(crate) fn renews(&mut self, node: &str, lease: u64, took: Duration, left: Duration) {
        let sent = self.now;
        self.pass(took);
        self.saw(node, Observation::Renewed { lease, sent, left });
    }

    pub(crate) fn says_yes(&mut self, node: &str, until: Option<Moment>) {
        let term = Some(self.term());
        self.saw(node, Observation::AskedLeader { term, until });
    }

    pub(crate) fn says_no(&mut self, node: &str) {
        self.saw(node, Observation::AskedLeader { term: None, until: None });
    }

    pub(crate) fn loses(&mut self, node: &str) {
        self.saw(node, Observation::SessionLost { reason: "expired".into(), rewound: false });
    }

    pub(crate) fn joined(&mut self, node: &str) {
        let incarnation = self.members(&[node]).remove(0).incarnation;
        self.saw(node, Observation::Joined { incarnation });
    }

    pub(crate) fn rejoined(&mut self, node: &str) {
        let incarnation = self.members(&[node]).remove(0).incarnation;
        self.saw(node, Observation::Rejoined { incarnation });
    }

    /// Records that a node holds a key, at most until that many seconds after the start of the scene.
    pub(crate) fn holds(&mut self, node: &str, key: &str, until: Option<u64>) {
        let until = until.map(|until| Moment::default() + Duration::from_secs(until));
        self.saw(node, Observation::Holds { key: key.to_owned(), until });
    }

    pub(crate) fn lets_go(&mut self, node: &str, key: &str) {
        self.saw(node, Observation::LetGo { key: key.to_owned() });
    }

    // ---- the end ---------------------------------------------------------------------------------------------------

    pub(crate) fn calm(&mut self, members: &[&str]) {
        let members: BTreeSet<_> = members.iter().map(|name| NodeName::parse(name).unwrap()).collect();
        self.steps.push(Step::Calm(Calm { members }));
    }

    /// Lets these nodes acknowledge the version, records it as stable, and ends the history.
    pub(crate) fn settled(&mut self, members: &[&str], label: &str) {
        members.iter().for_each(|name| self.acknowledge(name, label));
        self.confirm(label);
        self.calm(members);
    }
}
