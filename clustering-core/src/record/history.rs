use serde::{Deserialize, Serialize};

use super::{VersionRecord, from_fields, lenient};
use crate::{json, name::NodeName};

/// A history entry: a version's record as it was published, with a `stable` field once the version is stable.
///
/// ```json
/// {"version": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "number": 7, "term": 12, "leader": "ingest-1", "cause": ["resync"],
///  "stable": {"after_ms": 31, "nodes": 3, "last": "ingest-2", "last_after_ms": 29}}
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub(crate) struct HistoryRecord {
    #[serde(flatten)]
    pub(crate) published: VersionRecord,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stable: Option<SettledRecord>,
}

impl HistoryRecord {
    /// Decodes an entry. Written by hand, because a derived `Deserialize` with flattened fields would request values of
    /// any type; see [`json`].
    pub(crate) fn decode(record: &[u8]) -> Result<Self, String> {
        let fields = json::fields(record)?;
        let stable = fields.get("stable").and_then(|value| serde_json::from_str(value.get()).ok());
        Ok(HistoryRecord { published: from_fields(fields)?, stable })
    }
}

/// How a version became stable. The leader measures all times from when it saw the version published.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct SettledRecord {
    /// Time until the version was recorded as stable.
    pub(crate) after_ms: u64,
    /// Number of nodes in the version's view.
    pub(crate) nodes: usize,
    /// The node that acknowledged last.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient")]
    pub(crate) last: Option<NodeName>,
    /// Time until the last acknowledgement.
    #[serde(default)]
    pub(crate) last_after_ms: u64,
}
