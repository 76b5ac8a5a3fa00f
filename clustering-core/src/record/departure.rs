use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Cause, encode, lenient_or_default};
use crate::{
    config::MAX_TTL,
    keyspace::Keyspace,
    name::{Incarnation, NodeName},
    node::Node,
    store::{Limits, Txn},
};

/// The last node that left or was evicted. The commit that deletes the node's record writes it; a node record that is
/// deleted without it ended with its session.
///
/// ```json
/// {"node": "ingest-2", "incarnation": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "how": "left"}
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct DepartureRecord {
    pub(crate) node: NodeName,
    /// The incarnation in the deleted record.
    pub(crate) incarnation: Incarnation,
    /// An unknown value, written by a newer release, counts as [`Left`](Departure::Left).
    #[serde(default, deserialize_with = "lenient_or_default")]
    pub(crate) how: Departure,
    /// Time in milliseconds for which the slots of a node that left wait for it; 0 if it will not come back.
    #[serde(default, skip_serializing_if = "is_zero", deserialize_with = "lenient_or_default")]
    pub(crate) keep_ms: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl DepartureRecord {
    /// Adds the record to a commit that deletes the node's own. An incarnation that was written by hand may be too long
    /// for it. In this case the record is left out, so that the commit does not fail.
    pub(crate) fn add_to(txn: Txn, keys: &Keyspace, node: &Node, how: Departure, keep: Duration) -> Txn {
        let (name, incarnation) = (node.name.clone(), node.incarnation.clone());
        let keep_ms = keep.as_millis() as u64;
        let record = encode(&DepartureRecord { node: name, incarnation, how, keep_ms });
        match record.len() <= Limits::VALUE {
            true => txn.put(keys.departure_key().clone(), record, None),
            false => txn,
        }
    }

    /// Returns how `node` departed, given the departure record at that time. The incarnations must match, because the
    /// record may be about an earlier departure of the same node.
    pub(crate) fn how_departed(record: Option<&Self>, node: &Node) -> Departure {
        record.filter(|record| record.is_about(node)).map_or(Departure::Ended, |record| record.how)
    }

    /// Returns the time for which the slots of `node` wait for it, given the departure record at that time. The times
    /// in the records may have been written by hand, so they are limited to those that a node can have.
    pub(crate) fn grace(record: Option<&Self>, node: &Node) -> Duration {
        let grace = match record.filter(|record| record.is_about(node)) {
            Some(DepartureRecord { how: Departure::Left, keep_ms, .. }) => Duration::from_millis(*keep_ms),
            Some(DepartureRecord { how: Departure::Evicted, .. }) => Duration::ZERO,
            _ => node.restart_grace,
        };
        grace.min(MAX_TTL)
    }

    /// True if the record is about this incarnation of the node.
    fn is_about(&self, node: &Node) -> bool {
        self.node == node.name && self.incarnation == node.incarnation
    }
}

/// How a node departed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Departure {
    /// The node left: it was stopped or unregistered, or found itself unhealthy.
    #[default]
    Left,
    /// The leader removed the node because it kept a version from becoming stable, or an operator removed it.
    Evicted,
    /// Another node found that the node's process is gone, and removed the node. See
    /// [`Config::crash_detection`](crate::Config::crash_detection).
    Crashed,
    /// The node's session ended: it crashed, was cut off or paused for too long, or an older release left. Also used if
    /// the departure is unknown: the record was deleted by hand, or the changes were compacted away.
    Ended,
}

impl Departure {
    /// Returns the departure of `name` as a cause of the next version.
    pub(crate) fn cause(self, name: NodeName) -> Cause {
        match self {
            Departure::Left => Cause::Left(name),
            Departure::Evicted => Cause::Evicted(name),
            Departure::Crashed => Cause::Crashed(name),
            Departure::Ended => Cause::Ended(name),
        }
    }
}
