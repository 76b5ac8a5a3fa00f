use serde::{Deserialize, Serialize};

use crate::name::{Incarnation, NodeName};

/// The value of the election key. The term is not part of it: it is the revision at which the key was created.
///
/// ```json
/// {"node": "ingest-1", "incarnation": "01ARZ3NDEKTSV4RRFFQ69G5FAV"}
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct LeaderRecord {
    pub(crate) node: NodeName,
    pub(crate) incarnation: Incarnation,
}
