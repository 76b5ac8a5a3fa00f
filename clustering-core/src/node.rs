//! A node as the log has it.

use std::{
    collections::BTreeMap,
    fmt,
    hash::{Hash, Hasher},
};

use bytes::Bytes;
use serde::Serialize;

use crate::{
    name::{Incarnation, NodeName, NodeUri},
    placement::Weight,
    store::{Entry, LeaseId, Revision},
    version::Version,
};

/// What a node tells the others about itself: texts under names.
///
/// `weight`, a whole number, is the share of keys that it takes (see [`placement`](crate::placement)).
pub type Metadata = BTreeMap<String, String>;

/// The metadata entry that holds a node's [`Weight`].
pub const WEIGHT: &str = "weight";

/// A node as its record has it. The same on every node that folded the same log (P1).
#[derive(Clone, Serialize)]
pub struct Node {
    /// Its name, unique in the cluster.
    pub name: NodeName,
    /// Where it is reached.
    pub uri: NodeUri,
    /// Which life of that name it is.
    pub incarnation: Incarnation,
    /// What it tells about itself.
    #[serde(skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
    /// The protocol that it speaks.
    pub protocol: u32,
    /// When it registered: its age among candidates.
    pub created: Revision,
    /// When its record was last put: the identity by which a view is compared with what stands now.
    pub modified: Revision,
    /// The lease that its record lives under. A record put by hand may have none.
    #[serde(skip)]
    pub lease: Option<LeaseId>,
    /// The newest version that its process had seen when its session began. Versions are minted above it.
    #[serde(skip)]
    pub(crate) seen: Option<Version>,
    /// The record as it stands in the store. It adds nothing to what it says.
    #[serde(skip)]
    pub(crate) text: Bytes,
}

impl Node {
    /// Whether that entry, under the key of its name, holds its record.
    pub(crate) fn is_of(&self, entry: &Entry) -> bool {
        self.modified == entry.modified
            && self.created == entry.created
            && self.lease == entry.lease
            && (self.text.as_ptr_range() == entry.value.as_ptr_range() || self.text == entry.value)
    }

    /// The share of keys that it takes: the metadata entry `weight`, or 1 where it is missing or no whole number.
    pub fn weight(&self) -> Weight {
        self.metadata.get(WEIGHT).and_then(|text| text.parse().ok()).unwrap_or_default()
    }
}

impl Node {
    fn said(&self) -> impl Eq + Hash + '_ {
        let Node { name, uri, incarnation, metadata, protocol, created, modified, lease, seen, text: _ } =
            self;
        (modified, created, name, lease, incarnation, uri, metadata, protocol, seen)
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.said() == other.said()
    }
}

impl Eq for Node {}

impl Hash for Node {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.said().hash(state);
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
