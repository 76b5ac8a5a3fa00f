//! Why did it change? The last versions of a cluster: who published each, for which reasons, how long it took to become
//! stable, and who was last.
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
//! The leader writes it within the commits that it makes anyway. It keeps the last [64](Keyspace::HISTORY) versions, and
//! nobody is told of changes in it: read it when there is a question.

use std::{fmt, time::Duration};

use serde::Serialize;

use crate::{
    event::{Causes, brief, counted, milliseconds},
    keyspace::Keyspace,
    name::NodeName,
    record::{Cause, HistoryRecord},
    store::{CoordinationStore, Entry, StoreError},
    version::{Term, Version},
};

/// A version of the past, or the newest. `Display` gives a line for people.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub struct HistoryEntry {
    /// How many versions there had been with it.
    pub number: u64,
    /// The version. Its label bears a time: [`Version::minted_ms`].
    pub version: Version,
    /// The leader that published it.
    pub leader: Option<NodeName>,
    /// That leader's term.
    pub term: Term,
    /// Why it was published.
    pub causes: Vec<Cause>,
    /// How it became stable; `None` if it has not, or was superseded before.
    pub stable: Option<Settled>,
}

/// How a version became stable. Times are its leader's, from when that saw the version published.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub struct Settled {
    /// How long it took until this was recorded.
    #[serde(serialize_with = "milliseconds", rename = "after_ms")]
    pub after: Duration,
    /// How many nodes the version has.
    pub nodes: usize,
    /// The node whose acknowledgement came last.
    pub last: Option<NodeName>,
    /// How long it took until that came.
    #[serde(serialize_with = "milliseconds", rename = "last_after_ms")]
    pub last_after: Duration,
}

/// The history of the cluster with these keys, the newest version first. Costs one read.
///
/// Entries that are missing or cannot be read are left out.
///
/// # Errors
///
/// What the store says.
pub async fn history(
    store: &(impl CoordinationStore + ?Sized),
    keys: &Keyspace,
) -> Result<Vec<HistoryEntry>, StoreError> {
    let mut entries = store.read(keys.history_prefix()).await?.entries;
    entries.retain(|entry| keys.history_slot(&entry.key).is_some());
    // A version is published after the one before it became stable, if that did.
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.modified));
    Ok(entries.iter().filter_map(read).collect())
}

fn read(entry: &Entry) -> Option<HistoryEntry> {
    let HistoryRecord { published, stable } = HistoryRecord::decode(&entry.value).ok()?;
    Some(HistoryEntry {
        number: published.number,
        version: published.version,
        leader: published.leader,
        // The commit that elects leaves it out, and when the version is stable it is filled in.
        term: published.term.unwrap_or_else(|| Term::new(entry.modified)),
        causes: published.causes,
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
