//! A node of the cluster as recorded in the log.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use crate::{
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
    /// The revision at which the node registered. Older nodes campaign for leadership first.
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
