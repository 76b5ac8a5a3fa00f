//! A cluster as its keys show it, for operators and tools, which are no nodes.
//!
//! ```
//! use clustering_memory::{MemoryStore, report::{ClusterState, Report}};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = MemoryStore::new();
//! let cluster = clustering_memory::Clustering::builder(store.clone())
//!     .namespace("telemetry/ingest")
//!     .name("ingest-1")
//!     .uri("http://10.0.0.7:8080")
//!     .start()
//!     .await?;
//! cluster.wait_stable().await?;
//!
//! let report = Report::read(&store, cluster.namespace()).await?.expect("there is a cluster");
//! assert_eq!(report.condition, ClusterState::Stable);
//! assert_eq!(report.nodes[0].name, "ingest-1");
//! # Ok(())
//! # }
//! ```
//!
//! A [`Report`] is one look: two reads, however many nodes there are. A [`Monitor`] keeps one up to date and tells what
//! happens, at the cost of two watches. Neither writes anything, and neither holds a lease.

mod monitor;
mod monitor_event;
mod records;
mod watched;

use std::{collections::BTreeSet, fmt, sync::Arc};

use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use self::records::Records;
pub use self::{monitor::Monitor, monitor_event::MonitorEvent};
use crate::{
    event::Laggard,
    keyspace::Keyspace,
    name::{Namespace, NodeName},
    node::Node,
    record::Cause,
    store::{CoordinationStore, Key, Revision, Snapshot, StoreError},
    version::{Term, Version},
    view::Nodes,
};

/// Number of clusters that are read at a time.
const READS: usize = 16;

/// What the keys of a cluster say, at one revision.
///
/// Serialized it is an object, the form in which tools hand it on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The cluster's namespace.
    pub namespace: Namespace,
    /// The revision of the look at `{ns}/view/`. What it says of acknowledgements may be newer, never older.
    pub revision: Revision,
    /// How the cluster is.
    pub condition: ClusterState,
    /// Who leads; `None` if nobody does.
    pub leader: Option<LeaderReport>,
    /// The newest version; `None` if none was ever published.
    pub version: Option<VersionReport>,
    /// The newest version that was recorded as stable, whether or not newer ones were published since.
    pub stable: Option<Version>,
    /// A wish for a new version that was not granted yet.
    pub request: Option<RequestReport>,
    /// The nodes present, sorted by name.
    pub nodes: Vec<NodeReport>,
    /// Keys of the cluster that cannot be read, with what is wrong with them. A node record among them counts as absent.
    pub malformed: Vec<Malformed>,
}

/// How a cluster is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ClusterState {
    /// Every node is ready at the newest version, and the leader recorded so.
    Stable,
    /// Every node is ready at the newest version; the leader has yet to record it.
    Confirming,
    /// Nodes have yet to acknowledge the newest version.
    Adapting {
        /// Which, by name, and why if they said so.
        waiting_for: Vec<Laggard>,
    },
    /// The newest version is out of date, and the leader has yet to publish the next.
    Due {
        /// The nodes that are new, or whose record changed, since the newest version.
        changed: Vec<NodeName>,
        /// By how many there are fewer nodes than when it became stable.
        gone: usize,
        /// Whether somebody asked for a new version.
        asked: bool,
    },
    /// Nobody leads.
    Leaderless,
    /// The election key or the version cannot be read, and must be deleted by hand: nodes do not touch it.
    Unreadable,
    /// No node is present.
    Empty,
}

impl ClusterState {
    /// Whether it is [`Stable`](ClusterState::Stable).
    pub fn is_stable(&self) -> bool {
        *self == ClusterState::Stable
    }
}

/// Who leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LeaderReport {
    /// Its name; `None` if the election key cannot be read.
    pub name: Option<NodeName>,
    /// Its term.
    pub term: Term,
}

/// The newest version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VersionReport {
    /// Its label; `None` if the record cannot be read.
    pub version: Option<Version>,
    /// The revision that wrote it.
    pub revision: Revision,
    /// The term of the leader that published it.
    pub term: Option<Term>,
    /// That leader.
    pub leader: Option<NodeName>,
    /// Why it was published.
    pub causes: Vec<Cause>,
    /// Time in its label, in milliseconds since 1970: the publisher's wall clock time, or later (see
    /// [`Version::minted_ms`]). `None` if the record cannot be read, or the label is not
    /// [plausible](Version::is_plausible).
    pub published_ms: Option<u64>,
}

/// A wish for a new version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RequestReport {
    /// Who asked.
    pub by: Option<String>,
    /// What they gave as the reason.
    pub why: Option<String>,
}

/// A node that is present.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct NodeReport {
    /// Its record.
    #[serde(flatten)]
    pub node: Arc<Node>,
    /// What it said of the newest version.
    pub readiness: Readiness,
    /// Whether it leads.
    pub leads: bool,
    /// When it registered or last changed its record, by its own wall clock, in milliseconds since 1970; `None` if its
    /// incarnation is no ULID of a [plausible](Version::is_plausible) time.
    pub registered_ms: Option<u64>,
}

impl std::ops::Deref for NodeReport {
    type Target = Node;
    fn deref(&self) -> &Node {
        &self.node
    }
}

/// What a node said of the newest version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Readiness {
    /// It acknowledged it.
    Ready,
    /// It has not answered yet.
    Stabilizing,
    /// Its stabilize said no, and is tried again.
    Refused(
        /// The reason.
        String,
    ),
    /// It is not part of it: it registered, or changed its record, since.
    New,
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Readiness::Ready => f.pad("ready"),
            Readiness::Stabilizing => f.pad("stabilizing"),
            Readiness::Refused(_) => f.pad("refused"),
            Readiness::New => f.pad("new"),
        }
    }
}

/// A key that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Malformed {
    /// The key.
    #[serde(serialize_with = "text")]
    pub key: Key,
    /// What is wrong with it.
    pub reason: String,
}

fn text<S: serde::Serializer>(key: &Key, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(key)
}

impl Report {
    /// Looks at the cluster in that namespace; `None` if there is none: nothing of one stands in the store.
    ///
    /// Costs two reads.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub async fn read(
        store: &(impl CoordinationStore + ?Sized),
        namespace: &Namespace,
    ) -> Result<Option<Report>, StoreError> {
        let keyspace = Keyspace::new(namespace.clone());
        // In this order: whoever acknowledged a version by then stands in what was read before, or a later version is out.
        let view = store.read(keyspace.view_prefix()).await?;
        let ready = store.read(keyspace.ready_prefix()).await?;
        Ok(Report::of(&keyspace, &view, &ready))
    }

    /// Reports on all clusters whose namespaces start with `prefix`, sorted by namespace, including the remains of
    /// clusters without nodes. Each report has its own revision.
    ///
    /// Reads all keys below the prefix, without values, and then each cluster as [`read`](Self::read) does, so call it
    /// from interactive tools rather than in a loop.
    ///
    /// # Errors
    ///
    /// What the store says, such as a refusal where the caller may not read all of it.
    pub async fn read_all(
        store: &(impl CoordinationStore + ?Sized),
        prefix: &str,
    ) -> Result<Vec<Report>, StoreError> {
        let keys = store.read_keys(prefix).await?;
        let namespaces: BTreeSet<_> = keys
            .iter()
            .filter_map(|key| Keyspace::namespace_of(key))
            .map(|(namespace, _)| namespace)
            .collect();
        // Keys start with the namespace and a slash: those of `a` lie below `a/` too.
        let wanted = namespaces.into_iter().filter(|namespace| namespace.as_str().starts_with(prefix));
        let reports =
            stream::iter(wanted).map(|namespace| async move { Report::read(store, &namespace).await });
        reports.buffered(READS).try_filter_map(|report| async { Ok(report) }).try_collect().await
    }

    /// What snapshots of `{ns}/view/` and `{ns}/ready/` say, the second taken no earlier than the first; `None` if there
    /// is no cluster.
    pub fn of(keyspace: &Keyspace, view: &Snapshot, ready: &Snapshot) -> Option<Report> {
        let records = Records::read(keyspace, view, ready);
        records.is_cluster().then(|| records.report())
    }

    /// The nodes present, for placement: who takes which key, as [`Discovery::find`](crate::Discovery::find) of a process
    /// that has just begun to look.
    pub fn placement(&self) -> Nodes {
        Nodes::new(self.nodes.iter().map(|node| node.node.clone()))
    }

    /// The node of that name, if it is present.
    pub fn node(&self, name: &NodeName) -> Option<&NodeReport> {
        self.nodes.binary_search_by(|node| node.name.cmp(name)).ok().map(|index| &self.nodes[index])
    }

    /// The name of the leader, if one leads whose key can be read.
    pub fn leader_name(&self) -> Option<&NodeName> {
        self.leader.as_ref()?.name.as_ref()
    }

    /// How many nodes are ready at the newest version.
    pub fn ready(&self) -> usize {
        self.nodes.iter().filter(|node| node.readiness == Readiness::Ready).count()
    }
}
