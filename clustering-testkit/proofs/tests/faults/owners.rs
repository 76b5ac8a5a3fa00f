use std::{collections::BTreeMap, ops::Deref, path::PathBuf, sync::Arc};

use clustering_core::NodeName;
use clustering_proofs::{
    node::{Node, NodeSpec},
    work::{Event, FencedFile, Judge, Judged, Line, Log, Place, WorkSpec, counts},
};
use clustering_testkit::{
    history::{Moment, Observation, WriteOutcome},
    process::Folder,
};

use crate::scenario::{Alone, LONG, ms, soon};

/// Interval at which the logs of the workers are read.
const LOOK: std::time::Duration = ms(200);

/// A cluster of exclusive nodes on its own etcd.
pub(crate) struct Owners {
    alone: Alone,
    /// Fenced files of the keys.
    files: Folder,
}

impl Deref for Owners {
    type Target = Alone;
    fn deref(&self) -> &Alone {
        &self.alone
    }
}

impl Owners {
    pub(crate) async fn new() -> Self {
        Owners { alone: Alone::new().await, files: Folder::new().unwrap() }
    }

    /// Starts an etcd and these nodes, and waits until they hold all slots.
    pub(crate) async fn with(names: &[&str]) -> (Self, Vec<Arc<Node>>) {
        let owners = Owners::new().await;
        let mut nodes = Vec::new();
        for name in names {
            nodes.push(owners.join(owners.exclusive(name)).await);
        }
        owners.all_held(names).await;
        (owners, nodes)
    }

    /// Returns the specification of an exclusive node's next life.
    pub(crate) fn exclusive(&self, name: &str) -> NodeSpec {
        let spec = self.spec(name);
        let work = WorkSpec::new(spec.journal.with_extension("work"), self.files.path());
        NodeSpec { work: Some(work), write_every: None, ..spec }
    }

    /// Returns the specification of an exclusive node with changed work.
    pub(crate) fn working(&self, name: &str, change: impl FnOnce(&mut WorkSpec)) -> NodeSpec {
        let mut spec = self.exclusive(name);
        change(spec.work.as_mut().unwrap());
        spec
    }

    /// Starts a node, and waits until it has joined.
    pub(crate) async fn join(&self, spec: NodeSpec) -> Arc<Node> {
        let node = self.spawn(spec);
        node.next("a join", LONG, |it| matches!(it, Observation::Joined { .. })).await;
        node
    }

    /// Waits until these nodes are in a stable version, each holds exactly the slots that this version assigns to it,
    /// all slots are assigned, and every key's counters are incremented again.
    pub(crate) async fn all_held(&self, names: &[&str]) {
        self.stable(names).await;
        let held = async {
            // The logs are files, so a new line cannot be awaited.
            while self.judge_slots(names).is_err() {
                tokio::time::sleep(LOOK).await;
            }
            let since = self.now();
            while self.judge_increments(since).is_err() {
                tokio::time::sleep(LOOK).await;
            }
        };
        if tokio::time::timeout(LONG, held).await.is_err() {
            let why = self.judge_slots(names).and(self.judge_increments(self.now()));
            panic!("{names:?} do not hold all slots: {why:?}; {}", self.story());
        }
    }

    fn judge_slots(&self, names: &[&str]) -> Result<(), String> {
        let nodes = self.nodes();
        let node = |name: &&str| nodes.iter().rfind(|node| node.name() == *name).unwrap();
        let logs: Vec<_> =
            names.iter().map(|name| (node(name).spec().life.clone(), log_of(node(name)))).collect();
        let slots = node(&names[0]).spec().work.as_ref().unwrap().slots;
        judge_of(&logs).check_slots(self.present().0, slots)
    }

    fn judge_increments(&self, since: Moment) -> Result<(), String> {
        let logs = self.logs();
        judge_of(&logs).check_increments(self.keys(), since)
    }

    /// Waits until the last recorded event of every key's worker on the node is the end of its work.
    pub(crate) async fn let_go(&self, node: &Node) {
        let let_go = async {
            loop {
                let mut working = BTreeMap::new();
                for line in log_of(node) {
                    match line.event {
                        Event::Began { key, .. } => working.insert(key, true),
                        Event::Ended { key } => working.insert(key, false),
                        _ => None,
                    };
                }
                if !working.values().any(|works| *works) {
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        if tokio::time::timeout(LONG, let_go).await.is_err() {
            panic!("{} continues to work; {}", node.spec().life, self.story());
        }
    }

    fn keys(&self) -> impl Iterator<Item = String> + use<> {
        WorkSpec::new("", "").keys()
    }

    /// Returns the logs of all lives.
    fn logs(&self) -> Vec<(String, Vec<Line>)> {
        let nodes = self.nodes();
        let exclusive = nodes.iter().filter(|node| node.spec().work.is_some());
        exclusive.map(|node| (node.spec().life.clone(), log_of(node))).collect()
    }

    /// Judges the times at which nodes held keys.
    pub(crate) fn judge_holds(&self) -> Result<Judged, String> {
        let logs = self.logs();
        judge_of(&logs).check_holds()
    }

    /// Judges the increments of all counters.
    pub(crate) async fn judge_counts(&self) -> Result<(), String> {
        let logs = self.logs();
        let judge = judge_of(&logs);
        for key in self.keys() {
            let stored = counts(&self.store, &self.namespace, &key).await.unwrap();
            judge.check_counts(&key, Place::Store, &stored)?;
            let filed = FencedFile::counts(self.files.path().join(&key)).unwrap();
            judge.check_counts(&key, Place::File, &filed)?;
            if stored.is_empty() || filed.is_empty() {
                return Err(format!("no worker has worked on {key}"));
            }
        }
        Ok(())
    }

    /// Waits until the node has incremented a counter in the store after that time.
    pub(crate) async fn incremented_by(&self, node: &Node, since: Moment) {
        let done = |line: &Line| {
            let made = matches!(
                &line.event,
                Event::Tried { place: Place::Store, outcome: WriteOutcome::Done(_), .. }
            );
            made && line.at > since
        };
        let incremented = async {
            while !log_of(node).iter().any(done) {
                tokio::time::sleep(LOOK).await;
            }
        };
        soon("an increment", incremented).await;
    }

    /// Stops all nodes, so that every increment has a result, and checks all promises. Returns the number of times that
    /// keys went from one process to another.
    pub(crate) async fn check_all(&self, names: &[&str]) -> usize {
        self.all_held(names).await;
        self.check(names).await;
        for name in names {
            let nodes = self.nodes();
            nodes.iter().rfind(|node| node.name() == *name).unwrap().stop().await;
        }
        let judged = self.judge_counts().await.and(self.judge_holds());
        match judged {
            Ok(judged) => judged.moves,
            Err(violation) => panic!("{violation}\n{}", self.story()),
        }
    }
}

fn judge_of(logs: &[(String, Vec<Line>)]) -> Judge<'_> {
    logs.iter().fold(Judge::default(), |judge, (life, log)| judge.with(life, log))
}

/// Returns the log of a life's workers.
fn log_of(node: &Node) -> Vec<Line> {
    let path: &PathBuf = &node.spec().work.as_ref().unwrap().log;
    if path.exists() { Log::read(path).unwrap() } else { Vec::new() }
}

/// Parses a node's name.
pub(crate) fn name_of(node: &Node) -> NodeName {
    NodeName::parse(node.name()).unwrap()
}
