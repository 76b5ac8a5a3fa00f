use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::lenient_or_default;
use crate::{
    name::{Incarnation, NodeName},
    version::{Term, Version},
};

/// Witness that the process whose lease is in the key may still hold keys. It is put with the node's record and exists
/// until the lease ends, even if the record is removed earlier.
///
/// ```json
/// {"node": "ingest-1", "incarnation": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "uri": "http://10.0.0.7:8080", "ttl_ms": 15000, "slots": 256}
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct HoldsRecord {
    pub(crate) node: NodeName,
    pub(crate) incarnation: Incarnation,
    #[serde(default, deserialize_with = "lenient_or_default")]
    pub(crate) uri: String,
    /// TTL of the lease in milliseconds, as granted.
    pub(crate) ttl_ms: u64,
    /// Number of slots with which the node is configured.
    pub(crate) slots: u16,
    /// True if the node left by itself. It then ends its lease as soon as it has let go of everything.
    #[serde(default, skip_serializing_if = "std::ops::Not::not", deserialize_with = "lenient_or_default")]
    pub(crate) left: bool,
}

impl HoldsRecord {
    /// Returns the TTL of the lease.
    pub(crate) fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_ms)
    }
}

/// The newest version whose slots may be acquired, because all nodes that lost slots have let go of them.
///
/// ```json
/// {"version": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "term": 12}
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct ReleasedRecord {
    pub(crate) version: Version,
    pub(crate) term: Term,
}

/// An operator's mark on a node that must not own slots.
///
/// ```json
/// {"by": "alice", "why": "broken disk"}
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct CordonRecord {
    #[serde(default, deserialize_with = "lenient_or_default")]
    pub(crate) by: String,
    #[serde(default, deserialize_with = "lenient_or_default")]
    pub(crate) why: String,
}

/// An operator's request to one incarnation of a node to leave in order.
///
/// ```json
/// {"incarnation": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "by": "alice", "why": "maintenance"}
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct DrainRecord {
    pub(crate) incarnation: Incarnation,
    #[serde(default, deserialize_with = "lenient_or_default")]
    pub(crate) by: String,
    #[serde(default, deserialize_with = "lenient_or_default")]
    pub(crate) why: String,
}
