use serde::{Deserialize, Serialize};

use super::lenient;
use crate::version::Version;

/// A node's acknowledgement of a version, or the reason why it refused.
///
/// ```json
/// {"version": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "outcome": "ready"}
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct ReadinessRecord {
    pub(crate) version: Version,
    pub(crate) outcome: ReadinessOutcome,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient")]
    pub(crate) detail: Option<String>,
}

/// The outcome of a node's last stabilize.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ReadinessOutcome {
    Ready,
    Failed,
}
