use serde::{Deserialize, Serialize};

use super::lenient;
use crate::name::NodeName;

/// A request for a new version. It is open until a version is written after it.
///
/// ```json
/// {"by": "ops@host", "why": "rebalance", "leader": "ingest-2"}
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct RequestRecord {
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient")]
    pub(crate) why: Option<String>,
    /// The node that campaigns first in the next election while the request is open.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient")]
    pub(crate) leader: Option<NodeName>,
}
