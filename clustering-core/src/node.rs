//! A node of the cluster as recorded in the log.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::{
    event::milliseconds,
    name::{Incarnation, NodeName, NodeUri},
    placement::Weight,
    store::{LeaseId, Revision},
    version::Version,
};

/// Metadata that a node publishes about itself, as text values by name.
///
/// The entry `weight`, an integer, is the share of keys that the node owns (see [`placement`](crate::placement)).
pub type Metadata = BTreeMap<String, String>;

/// Name of the metadata entry that holds a node's [`Weight`].
pub const WEIGHT: &str = "weight";

/// A node of the cluster, decoded from its record. Nodes that have folded the same log hold equal values (P1).
#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Node {
    /// The node's name, unique in the cluster.
    pub name: NodeName,
    /// The URI under which the node can be reached.
    pub uri: NodeUri,
    /// The node's incarnation, which changes with each session and with each change of the record.
    pub incarnation: Incarnation,
    /// The metadata that the node publishes about itself.
    #[serde(skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
    /// Version of the record protocol that the node uses.
    pub protocol: u32,
    /// Priority of the node as a candidate for the lead; `None` if the node runs an earlier release, which ranks
    /// candidates by age alone. See [`Config::priority`](crate::Config::priority).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// Time for which the slots of the node wait for it if its session ends. See
    /// [`Config::restart_grace`](crate::Config::restart_grace).
    #[serde(
        rename = "restart_grace_ms",
        serialize_with = "milliseconds",
        skip_serializing_if = "Duration::is_zero"
    )]
    pub restart_grace: Duration,
    /// Where other nodes can find out whether the process is alive; `None` without
    /// [crash detection](crate::Config::crash_detection).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// The revision at which the node registered.
    pub created: Revision,
    /// The revision at which the node's record was last put. A node of a view is still unchanged if the current record
    /// has the same revision.
    pub modified: Revision,
    /// The lease that the node's record is attached to. A record that was put by hand may have none.
    #[serde(skip)]
    pub lease: Option<LeaseId>,
    /// The newest version that the process had seen when its session began. Later versions are minted above it.
    #[serde(skip)]
    pub(crate) seen: Option<Version>,
}

/// A TCP address at which a process answers with its identity as long as it is alive.
///
/// The identity stays the same for the whole life of the process, while the incarnation changes with each session and
/// each change of the record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// Host and port, such as `10.0.0.7:40123` or `[fd00::7]:40123`.
    pub address: String,
    /// Identity of the process.
    pub process: ProcessId,
}

/// Identity of a process: a ULID that it generates when it starts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProcessId(Ulid);

impl ProcessId {
    /// Creates an identity from the bits of a ULID.
    pub const fn from_u128(bits: u128) -> Self {
        ProcessId(Ulid(bits))
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buffer = [0; ulid::ULID_LEN];
        f.pad(self.0.array_to_str(&mut buffer))
    }
}

impl fmt::Debug for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl From<Ulid> for ProcessId {
    fn from(ulid: Ulid) -> Self {
        ProcessId(ulid)
    }
}

impl TryFrom<String> for ProcessId {
    type Error = ulid::DecodeError;
    fn try_from(text: String) -> Result<Self, ulid::DecodeError> {
        Ulid::from_string(&text).map(ProcessId)
    }
}

impl From<ProcessId> for String {
    fn from(process: ProcessId) -> String {
        process.to_string()
    }
}

impl Node {
    /// Returns the node's share of keys: the metadata entry `weight`, or 1 if the entry is missing or not a valid
    /// weight.
    pub fn weight(&self) -> Weight {
        self.metadata.get(WEIGHT).and_then(|text| text.parse().ok()).unwrap_or_default()
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({} @{}", self.name, self.incarnation, self.modified)?;
        for (key, value) in &self.metadata {
            write!(f, " {key}={value}")?;
        }
        f.write_str(")")
    }
}
