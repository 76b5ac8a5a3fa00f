//! The history of a cluster: for each of the last versions, the leader that published it, the causes, the time until
//! it was stable, and the node that acknowledged last.
//!
//! ```
//! # use clustering_memory::{Clustering, MemoryStore};
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let cluster = Clustering::builder(MemoryStore::new()).name("a").uri("http://a").start().await?;
//! cluster.wait_stable().await?;
//! cluster.request_version("a look at the history").await?;
//! cluster.wait_stable().await?;
//! for entry in cluster.history().await? {
//!     println!("{entry}");
//! }
//! # let newest = cluster.history().await?[0].to_string();
//! # assert!(newest.starts_with("#2 ") && newest.contains("a asked (a look at the history)"), "{newest}");
//! # Ok(())
//! # }
//! ```
//!
//! The leader writes the history as part of commits that it makes anyway, so it costs no commits. It contains the last
//! [64](Keyspace::HISTORY) versions. There are no events for its changes: read it when it is needed.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::Serialize;

use crate::{
    event::{Causes, brief, counted, milliseconds},
    keyspace::Keyspace,
    name::NodeName,
    record::{Cause, HistoryRecord},
    store::{CoordinationStore, Entry, StoreError},
    version::{Term, Version},
};

/// A version in the history. `Display` writes a line for people.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub struct HistoryEntry {
    /// The number of the version, counted from the first version of the cluster.
    pub number: u64,
    /// The version. Its label contains a time: [`Version::minted_ms`].
    pub version: Version,
    /// The leader that published the version.
    pub leader: Option<NodeName>,
    /// The term of that leader.
    pub term: Term,
    /// The reasons why the version was published.
    pub causes: Vec<Cause>,
    /// The absent nodes whose slots waited for them in this version, with the time in milliseconds that was left when
    /// it was published.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub kept: BTreeMap<NodeName, u64>,
    /// How the version became stable; `None` if it is not stable yet, or was superseded before.
    pub stable: Option<Settled>,
}

/// How a version became stable. The leader measured all times from when it saw the version published.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub struct Settled {
    /// Time until the version was recorded as stable.
    #[serde(serialize_with = "milliseconds", rename = "after_ms")]
    pub after: Duration,
    /// Number of nodes in the version's view.
    pub nodes: usize,
    /// The node that acknowledged last.
    pub last: Option<NodeName>,
    /// Time until the last acknowledgement.
    #[serde(serialize_with = "milliseconds", rename = "last_after_ms")]
    pub last_after: Duration,
}

/// Reads the history of the cluster with these keys, newest version first. Takes one read.
///
/// Missing and malformed entries are left out.
///
/// # Errors
///
/// [`StoreError`] if the read fails.
pub async fn history(
    store: &(impl CoordinationStore + ?Sized),
    keys: &Keyspace,
) -> Result<Vec<HistoryEntry>, StoreError> {
    let mut entries = store.read(keys.history_prefix()).await?.entries;
    entries.retain(|entry| keys.history_entry(&entry.key).is_some());
    // An entry is last put when its version becomes stable, which is before the next version is published.
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.modified));
    Ok(entries.iter().filter_map(read).collect())
}

fn read(entry: &Entry) -> Option<HistoryEntry> {
    let HistoryRecord { published, stable } = HistoryRecord::decode(&entry.value).ok()?;
    Some(HistoryEntry {
        number: published.number,
        version: published.version,
        leader: published.leader,
        // An election omits the term, which is the revision of its own commit, until the version is stable.
        term: published.term.unwrap_or_else(|| Term::new(entry.modified)),
        causes: published.causes,
        kept: published.kept,
        stable: stable.map(|stable| Settled {
            after: Duration::from_millis(stable.after_ms),
            nodes: stable.nodes,
            last: stable.last,
            last_after: Duration::from_millis(stable.last_after_ms),
        }),
    })
}

impl fmt::Display for HistoryEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} {}", self.number, self.version)?;
        if let Some(leader) = &self.leader {
            write!(f, " by {leader}")?;
        }
        write!(f, ", term {}: {}", self.term, Causes(&self.causes))?;
        match &self.stable {
            Some(stable) => write!(f, "; {stable}"),
            None => f.write_str("; not stable"),
        }
    }
}

impl fmt::Display for Settled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} stable after {:?}", counted(self.nodes), brief(self.after))?;
        match &self.last {
            Some(last) => write!(f, ", {last} last after {:?}", brief(self.last_after)),
            None => Ok(()),
        }
    }
}
