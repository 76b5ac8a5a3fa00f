//! Details that several events carry: store calls, reasons, and the nodes that block a version.

use std::{fmt, time::Duration};

use serde::Serialize;

use super::{
    serialize::milliseconds,
    text::{brief, counted},
};
use crate::{
    name::{Incarnation, NodeName, NodeUri},
    record::{HoldsRecord, StoredRecord},
    slots::SlotCount,
    store::LeaseId,
    version::Version,
};

/// A call to the store that the protocol needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StoreCall {
    /// Obtains a lease for a new session.
    Grant,
    /// Revokes the lease of an earlier session. The node then rejoins.
    Revoke,
    /// Registers the node.
    Join,
    /// Changes the node's record.
    Rewrite,
    /// Requests a new version.
    RequestVersion,
    /// Makes the node leader and publishes a version.
    Elect,
    /// Publishes a version.
    Publish,
    /// Acknowledges a version, or checks that the acknowledgement was recorded.
    Acknowledge,
    /// Reads and watches the acknowledgements of all nodes, on the leader.
    FollowAcknowledgements,
    /// Records that the slots of a version may be acquired.
    Permit,
    /// Ends the witness of a removed session whose process does not follow the log.
    Reclaim,
    /// Records that a version is stable.
    Confirm,
    /// Removes a laggard.
    Evict,
    /// Removes a node whose process is gone.
    RemoveCrashed,
    /// Gives up leadership.
    Resign,
}

impl fmt::Display for StoreCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StoreCall::Grant => "granting a lease",
            StoreCall::Revoke => "revoking an old lease",
            StoreCall::Join => "joining",
            StoreCall::Rewrite => "changing the node's record",
            StoreCall::RequestVersion => "requesting a version",
            StoreCall::Elect => "electing this node",
            StoreCall::Publish => "publishing a version",
            StoreCall::Acknowledge => "acknowledging a version",
            StoreCall::FollowAcknowledgements => "watching the acknowledgements",
            StoreCall::Permit => "recording that slots are released",
            StoreCall::Reclaim => "reclaiming the slots of a removed session",
            StoreCall::Confirm => "recording that a version is stable",
            StoreCall::Evict => "evicting a laggard",
            StoreCall::RemoveCrashed => "removing a crashed node",
            StoreCall::Resign => "resigning",
        })
    }
}

/// Reason why a session ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LostReason {
    /// The session deadline passed without a successful renewal.
    Expired,
    /// The store no longer knows the lease: it expired, or somebody revoked it.
    LeaseGone,
    /// Somebody deleted the node's record or made it unreadable. The lease may still be live.
    Removed,
    /// Another node removed this one as crashed although its process is alive. See
    /// [`Event::FalselyRemoved`](crate::Event::FalselyRemoved).
    FalselyRemoved,
    /// The store was restored to an older state.
    Rewound,
    /// The node's health checks failed, so it gave up the session (P11).
    Unhealthy,
    /// The node did not let go of slots that it lost within
    /// [`Config::release_timeout`](crate::Config::release_timeout).
    ReleaseTimeout,
}

impl LostReason {
    /// Returns the reason as it appears in JSON and in metric labels.
    pub fn kind(&self) -> &'static str {
        match self {
            LostReason::Expired => "expired",
            LostReason::LeaseGone => "lease_gone",
            LostReason::Removed => "removed",
            LostReason::FalselyRemoved => "falsely_removed",
            LostReason::Rewound => "rewound",
            LostReason::Unhealthy => "unhealthy",
            LostReason::ReleaseTimeout => "release_timeout",
        }
    }
}

impl fmt::Display for LostReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LostReason::Expired => "no renewal succeeded in time",
            LostReason::LeaseGone => "the store no longer knows the lease",
            LostReason::Removed => "the node's record was removed",
            LostReason::FalselyRemoved => "another node removed the record, mistaking this process for dead",
            LostReason::Rewound => "the store was restored to an older state",
            LostReason::Unhealthy => "the node is not healthy",
            LostReason::ReleaseTimeout => "the node did not release its lost slots in time",
        })
    }
}

/// Reason why a node ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StopReason {
    /// The service asked the node to stop, or dropped the last handle.
    Asked,
    /// Another process took over the node's name.
    TakenOver {
        /// The URI of that process.
        by: NodeUri,
    },
    /// Another process holds the node's name, and [`NameConflict::Fail`](crate::NameConflict) is set.
    NameTaken {
        /// The URI of that process.
        by: NodeUri,
    },
    /// An operator asked this incarnation of the node to leave.
    Drained {
        /// The operator.
        by: String,
        /// The reason that the operator gave.
        why: String,
    },
    /// The node is configured with another number of slots than the cluster.
    SlotCount {
        /// The node's number of slots.
        configured: SlotCount,
        /// The cluster's number of slots.
        cluster: SlotCount,
    },
    /// The node's task was aborted: the tokio runtime was shut down, or the store's code panicked. The node's lease
    /// expires after its TTL.
    Aborted,
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StopReason::Asked => f.write_str("it was asked to stop"),
            StopReason::TakenOver { by } => write!(f, "another process, at {by}, took over its name"),
            StopReason::NameTaken { by } => write!(f, "its name is held by another process, at {by}"),
            StopReason::Drained { by, why } if why.is_empty() => write!(f, "{by} drained it"),
            StopReason::Drained { by, why } => write!(f, "{by} drained it: {why}"),
            StopReason::SlotCount { configured, cluster } => write!(
                f,
                "it is configured with {configured} slots, but the cluster has {cluster}: configure {cluster}, or use another namespace"
            ),
            StopReason::Aborted => {
                f.write_str("its task was aborted: the runtime was shut down, or the store panicked")
            }
        }
    }
}

/// Evidence that a process is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// A connection to its endpoint was refused: no process listens there.
    Refused,
    /// Another process answered at its endpoint, with a valid identity.
    Replaced,
}

/// A version that is taking long to become stable, and what blocks it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Blocked {
    /// The version.
    pub version: Version,
    /// Time since this leader saw the version published.
    #[serde(serialize_with = "milliseconds", rename = "since_ms")]
    pub since: Duration,
    /// The nodes that have not acknowledged the version, sorted by name. While slots are being handed over: the nodes
    /// that have not released the slots that they lost.
    pub laggards: Vec<Laggard>,
    /// Sessions outside of the version that may still hold keys. No moving slot is acquired before they end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<Holder>,
    /// True if the nodes wait for the release of slots.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub releasing: bool,
    /// The [minimum size](crate::Config::min_nodes) that the cluster has not reached yet. Until it has, this version
    /// does not become stable, even if no node is late.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for_nodes: Option<u32>,
}

/// A session outside of the newest version that may still hold keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub struct Holder {
    /// The lease of the session.
    #[serde(serialize_with = "super::serialize::text")]
    pub lease: LeaseId,
    /// Name of the node; `None` if the key cannot be read.
    pub node: Option<NodeName>,
    /// Incarnation of the node; `None` if the key cannot be read.
    pub incarnation: Option<Incarnation>,
    /// True if the node left by itself.
    pub left: bool,
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not stable after {:?}: ", self.version, brief(self.since))?;
        let laggard = |laggard: &Laggard| match (&laggard.refused, self.releasing) {
            (Some(reason), _) => format!("{} refused ({reason})", laggard.name),
            (None, true) => format!("{} has not released its lost slots", laggard.name),
            (None, false) => format!("{} has not answered", laggard.name),
        };
        let holder = |holder: &Holder| {
            let name = holder.node.as_ref().map_or("an unreadable session", NodeName::as_str);
            format!("{name} may still hold keys under its earlier lease {}", holder.lease)
        };
        let size = |min: u32| format!("it has fewer than {min} nodes, with which the cluster begins");
        let reasons = self.laggards.iter().map(laggard).chain(self.holders.iter().map(holder));
        let reasons: Vec<String> = reasons.chain(self.waits_for_nodes.map(size)).collect();
        f.write_str(&reasons.join(", "))
    }
}

/// A node that has not acknowledged the newest version.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Laggard {
    /// The node's name.
    pub name: NodeName,
    /// The reason that the node's `stabilize` gave for refusing the version; `None` while the node has not answered.
    pub refused: Option<String>,
}

impl Holder {
    pub(crate) fn new(lease: LeaseId, witness: &StoredRecord<HoldsRecord>) -> Self {
        let record = witness.record.as_ref();
        Holder {
            lease,
            node: record.map(|record| record.node.clone()),
            incarnation: record.map(|record| record.incarnation.clone()),
            left: record.is_some_and(|record| record.left),
        }
    }
}

/// Simultaneous failure of so many nodes that a common cause is assumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub struct MassFailure {
    /// The newest version.
    pub version: Version,
    /// Kind of the failure.
    pub kind: MassFailureKind,
    /// Number of nodes that are late, or that are lost.
    pub failing: usize,
    /// Number of nodes in the view, or of owners in the last assignment.
    pub nodes: usize,
}

/// Kind of a [`MassFailure`], with the action that the leader suspends while it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MassFailureKind {
    /// The nodes are late or refuse the newest version. The leader evicts no laggards.
    Late,
    /// Their sessions ended at about the same time. The leader keeps their slots for them.
    Lost,
}

impl fmt::Display for MassFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MassFailure { version, kind, failing, nodes } = self;
        let nodes = counted(*nodes);
        match kind {
            MassFailureKind::Late => write!(
                f,
                "mass failure: {failing} of {nodes} are late or refuse {version}; evictions are suspended, look for a common cause"
            ),
            MassFailureKind::Lost => write!(
                f,
                "mass failure: {failing} of {nodes} are lost; their slots wait for them, look for a common cause"
            ),
        }
    }
}
