use serde::{Deserialize, Serialize};

use super::{lenient, lenient_or_default};
use crate::version::Version;

/// A node's acknowledgement of a version: it is ready, or it refused for a reason, or it has released the slots that
/// the version takes from it.
///
/// ```json
/// {"version": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "outcome": "ready"}
/// {"version": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "phase": "released"}
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct ReadinessRecord {
    pub(crate) version: Version,
    #[serde(default, skip_serializing_if = "ReadinessOutcome::is_pending")]
    pub(crate) outcome: ReadinessOutcome,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient")]
    pub(crate) detail: Option<String>,
    #[serde(
        default,
        skip_serializing_if = "ReadinessPhase::is_holding",
        deserialize_with = "lenient_or_default"
    )]
    pub(crate) phase: ReadinessPhase,
}

impl ReadinessRecord {
    /// True if the node has let go of all slots that the version takes from it. Always true for a node that is ready.
    pub(crate) fn is_released(&self) -> bool {
        self.outcome == ReadinessOutcome::Ready || self.phase == ReadinessPhase::Released
    }
}

/// The outcome of a node's last stabilize.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ReadinessOutcome {
    /// The node has not adapted to the version yet.
    #[default]
    Pending,
    Ready,
    Failed,
}

impl ReadinessOutcome {
    fn is_pending(&self) -> bool {
        *self == ReadinessOutcome::Pending
    }
}

/// Progress of the hand-over on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ReadinessPhase {
    /// The node may still hold slots that the version takes from it.
    #[default]
    Holding,
    /// The node no longer holds any of these slots.
    Released,
}

impl ReadinessPhase {
    fn is_holding(&self) -> bool {
        *self == ReadinessPhase::Holding
    }
}
