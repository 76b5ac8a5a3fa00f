use std::collections::{BTreeMap, BTreeSet};

use clustering_core::store::{Batch, Change, CoordinationStore, Entry, Revision};
use clustering_memory::MemoryStore;
use futures_util::StreamExt;
use serde_json::Value;

use super::soon;

/// What the store's history says of a cluster, and whether the promises were kept. It shares no code with the library,
/// so that both would have to be wrong in the same way.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    pub(crate) versions: Vec<Published>,
    /// The versions recorded as stable, in order.
    pub(crate) stable: Vec<String>,
    /// How often a leader was elected.
    pub(crate) elections: usize,
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) version: String,
    pub(crate) nodes: BTreeSet<String>,
    /// Whether there was a revision since at which every node stood as in the cut and had acknowledged.
    pub(crate) acknowledged_by_all: bool,
    cut: BTreeMap<String, Entry>,
}

/// Every change since the store was made.
pub(crate) async fn history(store: &MemoryStore) -> Vec<Batch> {
    let mut watch = store.watch("", Revision::ZERO).await.unwrap();
    let mut batches: Vec<Batch> = Vec::new();
    while batches.last().is_none_or(|last| last.revision < store.revision()) {
        batches.push(soon("the history", watch.next()).await.unwrap().expect("nothing is compacted"));
    }
    batches
}

impl Audit {
    /// Checks P2, P4 and P5 over the whole history of the cluster in that namespace.
    pub(crate) async fn of(store: &MemoryStore, namespace: &str) -> Self {
        let mut audit = Audit::default();
        for batch in history(store).await {
            audit.apply(&batch, namespace);
        }
        audit
    }

    /// How many keys under that part of the namespace stand at the end.
    pub(crate) fn entries_left(&self, part: &str) -> usize {
        self.entries.keys().filter(|key| key.contains(part)).count()
    }

    fn at(&self, namespace: &str, key: &str) -> Option<&Entry> {
        self.entries.get(&format!("{namespace}/{key}"))
    }

    fn apply(&mut self, batch: &Batch, namespace: &str) {
        let written = |key: &str| {
            batch.changes.iter().find_map(|change| match change {
                Change::Put(entry) if *entry.key == format!("{namespace}/{key}") => Some(entry),
                _ => None,
            })
        };
        for change in &batch.changes {
            match change {
                Change::Put(entry) => drop(self.entries.insert(entry.key.to_string(), entry.clone())),
                Change::Delete(key) => drop(self.entries.remove(key.as_str())),
            }
        }
        if written("view/leader").is_some() {
            self.elections += 1;
        }
        if let Some(entry) = written("view/version") {
            self.publish(entry, namespace);
        }
        self.note_acknowledgements(namespace);
        if let Some(entry) = written("view/stable") {
            self.confirm(entry, namespace);
        }
    }

    fn publish(&mut self, entry: &Entry, namespace: &str) {
        let record: Value = serde_json::from_slice(&entry.value).unwrap();
        let version = record["version"].as_str().unwrap().to_owned();
        if let Some(last) = self.versions.last() {
            assert!(version > last.version, "P2: {version} is not above {}", last.version);
        }
        let leader = self.at(namespace, "view/leader").expect("P5: a version without a leader");
        let term = record["term"].as_u64().unwrap_or(entry.modified.get());
        assert_eq!(term, leader.created.get(), "P5: {version} was published by one that was deposed");
        let prefix = format!("{namespace}/view/nodes/");
        let cut: BTreeMap<_, _> = self
            .entries
            .iter()
            .filter_map(|(key, entry)| Some((key.strip_prefix(&prefix)?.to_owned(), entry.clone())))
            .collect();
        let nodes = cut.keys().cloned().collect();
        self.versions.push(Published { version, nodes, acknowledged_by_all: false, cut });
    }

    fn note_acknowledgements(&mut self, namespace: &str) {
        let Some(newest) = self.versions.last() else { return };
        let acknowledged = |(name, cut): (&String, &Entry)| {
            let record = self.at(namespace, &format!("view/nodes/{name}"));
            let ready = self.at(namespace, &format!("ready/{name}"));
            let says = ready.map(|ready| {
                let value: Value = serde_json::from_slice(&ready.value).unwrap_or_default();
                value["version"] == *newest.version && value["outcome"] == "ready"
            });
            record.is_some_and(|record| record.modified == cut.modified)
                && ready.is_some_and(|ready| ready.lease == cut.lease)
                && says == Some(true)
        };
        if newest.cut.iter().all(acknowledged) {
            self.versions.last_mut().unwrap().acknowledged_by_all = true;
        }
    }

    fn confirm(&mut self, entry: &Entry, namespace: &str) {
        let record: Value = serde_json::from_slice(&entry.value).unwrap();
        let version = record["version"].as_str().unwrap().to_owned();
        let newest = self.versions.last().expect("P4: stable without a version");
        assert_eq!(version, newest.version, "P4: only the newest version becomes stable");
        assert!(newest.acknowledged_by_all, "P4: {version} was never acknowledged by all of {newest:?}");
        let leader = self.at(namespace, "view/leader").expect("P5: stable without a leader");
        assert_eq!(record["term"], leader.created.get(), "P5: recorded by one that was deposed");
        assert!(!self.stable.contains(&version), "P4: {version} was recorded twice");
        self.stable.push(version);
    }
}
