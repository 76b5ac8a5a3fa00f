use serde::{Deserialize, Serialize};

use super::lenient;
use crate::version::{Term, Version};

/// The newest version that became stable, and the term of the leader that recorded it.
///
/// ```json
/// {"version": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "term": 12, "nodes": 3}
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct StableRecord {
    pub(crate) version: Version,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient")]
    pub(crate) term: Option<Term>,
    /// Number of nodes in the version's view. Readers that did not follow the log compare it with the number of nodes
    /// present, to find out if nodes have left since.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient")]
    pub(crate) nodes: Option<usize>,
}
