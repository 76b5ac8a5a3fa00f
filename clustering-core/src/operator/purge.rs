use super::{Done, Operator, OperatorError};
use crate::{
    report::Report,
    store::{CoordinationStore, Entry, Guard, Key, Limits, Revision, Txn},
};

/// Options for deleting a cluster's keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Purge {
    /// True to delete the keys even if nodes are present. Nodes that are alive lose their records and join again.
    pub force: bool,
}

impl Purge {
    /// Creates options with the given [`force`](Self::force).
    pub fn new(force: bool) -> Self {
        Purge { force }
    }
}

/// The result of a purge.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Purged {
    /// Number of deleted keys.
    pub keys: usize,
    /// Number of commits.
    pub commits: usize,
    /// Keys below the cluster's prefixes that are not those of a cluster of this release. They were not deleted.
    pub left: Vec<Key>,
    /// Number of sessions that may still hold keys. Their `holds` keys were not deleted, because a new cluster must
    /// wait until these sessions have ended (P12). The keys disappear with the leases of the sessions.
    pub sessions: usize,
}

impl Operator {
    /// Deletes the cluster's own keys under `view/`, `ready/` and `history/` that existed when the cluster was read,
    /// and nothing else below the namespace: keys that do not parse as this cluster's are [left](Purged::left). Works
    /// in commits of at most [`Limits::OPERATIONS`] keys, each of which is guarded against changes since the read.
    ///
    /// The `holds` keys of [live sessions](Purged::sessions) stay: they disappear by themselves.
    ///
    /// The history of versions is deleted too. A new cluster in that namespace starts from scratch.
    ///
    /// # Errors
    ///
    /// [`OperatorError::NoCluster`]; [`OperatorError::NodesPresent`] if nodes are present or join meanwhile, and
    /// [`Purge::force`] is false; [`OperatorError::Contended`] if keys change meanwhile. In the last two cases, some
    /// keys may have been deleted.
    pub async fn purge(&self, how: Purge) -> Result<Purged, OperatorError> {
        let keys = self.keyspace();
        let view = self.store.read(keys.view_prefix()).await?;
        let ready = self.store.read(keys.ready_prefix()).await?;
        let history = self.store.read(keys.history_prefix()).await?;
        let Some(report) = Report::of(keys, &view, &ready) else {
            return Err(OperatorError::NoCluster(keys.namespace().clone()));
        };
        if !how.force {
            check_empty(&report)?;
        }
        let (mut entries, others): (Vec<&Entry>, Vec<&Entry>) = [&view, &ready, &history]
            .into_iter()
            .flat_map(|read| &read.entries)
            .partition(|entry| keys.is_own(&entry.key));
        let own = entries.len();
        entries.retain(|entry| !self.is_live_witness(entry));
        let sessions = own - entries.len();
        // Node records first: after an incomplete purge, no version must remain whose nodes appear to be present.
        entries.sort_by_key(|entry| !entry.key.starts_with(keys.nodes_prefix().as_str()));
        let left = others.into_iter().map(|entry| entry.key.clone()).collect();
        let mut purged = Purged { keys: 0, commits: 0, left, sessions };
        // One guard is for the election key: a node that joins an empty cluster is elected, which makes the guard fail.
        for part in entries.chunks(Limits::OPERATIONS - 1) {
            let mut txn = Txn::new();
            if !how.force && !part.iter().any(|entry| entry.key == *keys.election_key()) {
                let stands = view.entries.iter().any(|entry| entry.key == *keys.election_key());
                if !stands {
                    txn = txn.guard(Guard::created_at(keys.election_key().clone(), Revision::ZERO));
                }
            }
            for entry in part {
                txn = txn
                    .guard(Guard::modified_at(entry.key.clone(), entry.modified))
                    .delete(entry.key.clone());
            }
            match self.commit(txn).await? {
                Done::Yes | Done::Refused { unsure: true } => {}
                Done::Refused { unsure: false } => {
                    if let Some(report) = self.report().await?.filter(|_| !how.force) {
                        check_empty(&report)?;
                    }
                    return Err(OperatorError::Contended);
                }
            }
            purged.keys += part.len();
            purged.commits += 1;
        }
        Ok(purged)
    }
}

fn check_empty(report: &Report) -> Result<(), OperatorError> {
    match report.nodes.is_empty() {
        true => Ok(()),
        false => {
            Err(OperatorError::NodesPresent(report.nodes.iter().map(|node| node.name.clone()).collect()))
        }
    }
}
