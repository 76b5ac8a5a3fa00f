//! Counts of what was written to the log of a cluster.

use std::error::Error;

use clustering_core::{
    NodeName,
    slots::Assignment,
    store::{Batch, Change, CoordinationStore, Entry, Revision, Snapshot},
};
use clustering_etcd::{EtcdConfig, EtcdStore};
use clustering_testkit::etcd::EtcdServer;
use futures_util::StreamExt;

/// The log of a cluster from some moment on.
pub(crate) struct Log {
    store: EtcdStore,
    /// Prefix of the keys of the view.
    prefix: String,
    began: Snapshot,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) versions: u64,
    pub(crate) elections: u64,
    /// Changes of the owner of a slot, of all slots together.
    pub(crate) moves: u64,
}

impl Log {
    /// Begins to count now.
    pub(crate) async fn begin(etcd: &EtcdServer, namespace: &str) -> Result<Self, Box<dyn Error>> {
        let store = EtcdStore::new(EtcdConfig::new(etcd.endpoints())?)?;
        let prefix = format!("{namespace}/view/");
        let began = store.read(&prefix).await?;
        Ok(Log { store, prefix, began })
    }

    /// Reads all changes since the beginning from the history that etcd keeps, so that an outage hides none.
    ///
    /// `names` are the names of all nodes that may own slots.
    pub(crate) async fn counts(&self, names: &[NodeName]) -> Result<Counts, Box<dyn Error>> {
        let now = self.store.read(&self.prefix).await?;
        let last = now.entries.iter().map(|entry| entry.modified).max().unwrap_or(Revision::ZERO);
        let mut tally = Tally { names, prefix: &self.prefix, owners: Vec::new(), counts: Counts::default() };
        for entry in &self.began.entries {
            tally.assigned(entry)?;
        }
        let mut seen = self.began.revision;
        let mut watch = self.store.watch(&self.prefix, seen).await?;
        while seen < last {
            let batch = watch.next().await.ok_or("the watch of the log ended")??;
            seen = batch.revision;
            tally.add(&batch)?;
        }
        Ok(tally.counts)
    }
}

struct Tally<'a> {
    names: &'a [NodeName],
    prefix: &'a str,
    /// The last owner of each slot, as an index into `names`.
    owners: Vec<Option<usize>>,
    counts: Counts,
}

impl Tally<'_> {
    fn add(&mut self, batch: &Batch) -> Result<(), Box<dyn Error>> {
        for change in &*batch.changes {
            let Change::Put(entry) = change else { continue };
            match entry.key.as_str().strip_prefix(self.prefix) {
                Some("version") => self.counts.versions += 1,
                Some("leader") if entry.created == entry.modified => self.counts.elections += 1,
                _ => self.assigned(entry)?,
            }
        }
        Ok(())
    }

    /// Compares the owners of the slots with the former ones, if the entry holds an assignment.
    fn assigned(&mut self, entry: &Entry) -> Result<(), Box<dyn Error>> {
        if entry.key.as_str().strip_prefix(self.prefix) != Some("slots") {
            return Ok(());
        }
        let owners = Assignment::decode(&entry.value)?.among(self.names);
        self.owners.resize(owners.len(), None);
        for (before, after) in self.owners.iter_mut().zip(owners) {
            let is_moved = before.is_some() && after.is_some() && *before != after;
            self.counts.moves += u64::from(is_moved);
            *before = after.or(*before);
        }
        Ok(())
    }
}
