//! The state of a cluster as its keys show it, for operators and tools outside of the cluster.
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
//! A [`Report`] is a snapshot, which takes two reads for any number of nodes. A [`Monitor`] keeps a report up to date
//! with two watches, and returns events. Neither writes to the store nor holds a lease.

mod assemble;
mod monitor;
mod monitor_event;
mod ownership;
mod records;
mod watched;

use std::{collections::BTreeSet, fmt, sync::Arc};

use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use self::records::Records;
pub use self::{
    monitor::Monitor,
    monitor_event::MonitorEvent,
    ownership::{CordonReport, DrainReport, Handover, KeptReport, Move, SlotsReport, StandingReport},
};
use crate::{
    event::Laggard,
    keyspace::Keyspace,
    name::{Namespace, NodeName},
    node::Node,
    record::Cause,
    slots::SlotSet,
    store::{CoordinationStore, Key, Revision, Snapshot, StoreError},
    version::{Term, Version},
    view::Nodes,
};

/// Number of clusters that are read at a time.
const READS: usize = 16;

/// The state of a cluster at one revision.
///
/// Tools exchange reports as JSON objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The cluster's namespace.
    pub namespace: Namespace,
    /// The revision at which `{ns}/view/` was read. The acknowledgements may be newer, but not older.
    pub revision: Revision,
    /// The state of the cluster.
    pub condition: ClusterState,
    /// The leader, if there is one.
    pub leader: Option<LeaderReport>,
    /// The newest version; `None` if no version was published.
    pub version: Option<VersionReport>,
    /// The newest version that was recorded as stable. Newer versions may have been published since.
    pub stable: Option<Version>,
    /// The open request for a new version.
    pub request: Option<RequestReport>,
    /// The slots; `None` if the cluster is not exclusive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots: Option<SlotsReport>,
    /// The nodes that are cordoned, sorted by name, whether or not they are present.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cordoned: Vec<CordonReport>,
    /// The nodes present, sorted by name.
    pub nodes: Vec<NodeReport>,
    /// The malformed records of the cluster. A malformed node record counts as absent.
    pub malformed: Vec<Malformed>,
}

/// The state of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ClusterState {
    /// All nodes have acknowledged the newest version, and the leader has recorded it as stable.
    Stable,
    /// All nodes have acknowledged the newest version, but the leader has not recorded it as stable yet.
    Confirming,
    /// The cluster is new, and the newest version has fewer nodes than its
    /// [minimum size](crate::Config::min_nodes), so it does not become stable.
    WaitingForNodes {
        /// Number of nodes in the newest version.
        nodes: usize,
        /// The minimum size.
        min_nodes: u32,
    },
    /// Slots are being handed over: some slots that move in the newest version are not released yet, so no node
    /// acquires slots. [`SlotsReport::standing`] lists the sessions that may still hold slots.
    Releasing {
        /// The nodes that have not released the slots that they lost, sorted by name. A report from a single read may
        /// include nodes that lose no slots.
        waiting_for: Vec<Laggard>,
    },
    /// Some nodes have not acknowledged the newest version yet.
    Adapting {
        /// The nodes, sorted by name, with their reasons if they refused.
        waiting_for: Vec<Laggard>,
    },
    /// The newest version is out of date, and the leader has not published the next one yet. This does not include joins
    /// during a hand-over of slots, which wait until the version is stable, but for at most 30 s.
    Due {
        /// The nodes that joined, or whose record changed, since the newest version.
        changed: Vec<NodeName>,
        /// Number of nodes that have left since the version became stable.
        gone: usize,
        /// True if a new version was requested.
        asked: bool,
    },
    /// There is no leader.
    Leaderless,
    /// The record of the leader or of the version is malformed. An operator must delete it, since nodes do not touch
    /// it.
    Unreadable,
    /// No node is present.
    Empty,
}

impl ClusterState {
    /// True if the state is [`Stable`](ClusterState::Stable).
    pub fn is_stable(&self) -> bool {
        *self == ClusterState::Stable
    }
}

/// The leader in a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LeaderReport {
    /// The leader's name; `None` if its record is malformed.
    pub name: Option<NodeName>,
    /// The leader's term.
    pub term: Term,
}

/// The newest version in a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VersionReport {
    /// The version's label; `None` if the record is malformed.
    pub version: Option<Version>,
    /// The revision that wrote the version.
    pub revision: Revision,
    /// The term of the leader that published the version.
    pub term: Option<Term>,
    /// The leader that published the version.
    pub leader: Option<NodeName>,
    /// The reasons why the version was published.
    pub causes: Vec<Cause>,
    /// The [minimum size](crate::Config::min_nodes) with which the publisher was configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_nodes: Option<u32>,
    /// The time in the label, in milliseconds since 1970: the publisher's wall clock time, or later (see
    /// [`Version::minted_ms`]). `None` if the record is malformed, or the label is not
    /// [plausible](Version::is_plausible).
    pub published_ms: Option<u64>,
}

/// An open request for a new version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RequestReport {
    /// The requester.
    pub by: Option<String>,
    /// The reason given by the requester.
    pub why: Option<String>,
}

/// A node in a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct NodeReport {
    /// The node's record.
    #[serde(flatten)]
    pub node: Arc<Node>,
    /// The node's readiness for the newest version.
    pub readiness: Readiness,
    /// True if the node is the leader.
    pub leads: bool,
    /// True if the node is [exclusive](crate::Builder::exclusive).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub exclusive: bool,
    /// The slots that the newest version assigns to the node. It may not hold all of them yet.
    #[serde(skip_serializing_if = "SlotSet::is_empty")]
    pub slots: SlotSet,
    /// The progress of the hand-over on the node; `None` if the newest version has no hand-over, or does not contain
    /// this node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handover: Option<Handover>,
    /// The cordon of the node, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cordon: Option<CordonReport>,
    /// The request to leave in order, if there is one for the node's session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainReport>,
    /// The time at which the node registered or last changed its record, by its own wall clock, in milliseconds since
    /// 1970; `None` if its incarnation is not a ULID with a [plausible](Version::is_plausible) time.
    pub registered_ms: Option<u64>,
}

impl std::ops::Deref for NodeReport {
    type Target = Node;
    fn deref(&self) -> &Node {
        &self.node
    }
}

/// The readiness of a node for the newest version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Readiness {
    /// The node acknowledged the version.
    Ready,
    /// The node has not answered yet.
    Stabilizing,
    /// The node's stabilize refused the version. The node will try again.
    Refused(
        /// The reason.
        String,
    ),
    /// The node does not belong to the version: it registered or changed its record later.
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

/// A malformed record, or a key without a valid name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Malformed {
    /// The key.
    #[serde(serialize_with = "text")]
    pub key: Key,
    /// The reason why it is malformed.
    pub reason: String,
}

fn text<S: serde::Serializer>(key: &Key, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(key)
}

impl Report {
    /// Reads the state of the cluster in `namespace`, with two reads. Returns `None` if there is no cluster: none of
    /// its records is in the store.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if a read fails.
    pub async fn read(
        store: &(impl CoordinationStore + ?Sized),
        namespace: &Namespace,
    ) -> Result<Option<Report>, StoreError> {
        let keyspace = Keyspace::new(namespace.clone());
        // The order matters: with the acknowledgements read last, every acknowledged version is in the first read, or
        // a newer version is.
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
    /// [`StoreError`] if a read fails, for example because the caller may not read all keys.
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
        // The keys of namespace `a` match the prefix `a/`, although the namespace does not.
        let wanted = namespaces.into_iter().filter(|namespace| namespace.as_str().starts_with(prefix));
        let reports =
            stream::iter(wanted).map(|namespace| async move { Report::read(store, &namespace).await });
        reports.buffered(READS).try_filter_map(|report| async { Ok(report) }).try_collect().await
    }

    /// Creates a report from snapshots of `{ns}/view/` and `{ns}/ready/`. The second must not be older than the first.
    /// Returns `None` if there is no cluster.
    pub fn of(keyspace: &Keyspace, view: &Snapshot, ready: &Snapshot) -> Option<Report> {
        let records = Records::read(keyspace, view, ready);
        records.is_cluster().then(|| records.report())
    }

    /// Returns the nodes present, to find the owners of keys as [`Discovery::find`](crate::Discovery::find) does in a
    /// process that has just started.
    pub fn placement(&self) -> Nodes {
        Nodes::new(self.nodes.iter().map(|node| node.node.clone()))
    }

    /// Returns the node with that name if it is present.
    pub fn node(&self, name: &NodeName) -> Option<&NodeReport> {
        self.nodes.binary_search_by(|node| node.name.cmp(name)).ok().map(|index| &self.nodes[index])
    }

    /// Returns the name of the leader, if there is a leader with a valid record.
    pub fn leader_name(&self) -> Option<&NodeName> {
        self.leader.as_ref()?.name.as_ref()
    }

    /// Returns the number of nodes that have acknowledged the newest version.
    pub fn ready(&self) -> usize {
        self.nodes.iter().filter(|node| node.readiness == Readiness::Ready).count()
    }
}
