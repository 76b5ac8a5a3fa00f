use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::{Cause, lenient, lenient_or_default};
use crate::{
    name::NodeName,
    version::{Term, Version},
};

/// The newest version.
///
/// ```json
/// {"version": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "number": 7, "term": 12, "leader": "ingest-1", "cause": [{"joined": "ingest-2"}]}
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct VersionRecord {
    pub(crate) version: Version,
    /// The number of this version, one more than that of the version before. 0 if another client wrote the record
    /// without a number.
    #[serde(default, deserialize_with = "lenient_or_default")]
    pub(crate) number: u64,
    /// The term of the leader. The record of an election omits it, because the term is the revision of that commit.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient")]
    pub(crate) term: Option<Term>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient")]
    pub(crate) leader: Option<NodeName>,
    #[serde(default, rename = "cause", deserialize_with = "causes")]
    pub(crate) causes: Vec<Cause>,
    /// True if the previous version had hand-over and was stable: then only sessions of that version's cut that lose
    /// slots must release them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not", deserialize_with = "lenient_or_default")]
    pub(crate) clean: bool,
    /// Names of absent nodes whose slots wait for them, with the remaining time in milliseconds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "lenient_or_default")]
    pub(crate) kept: BTreeMap<NodeName, u64>,
    /// Minimum size of the cluster, if the publisher has one configured.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient")]
    pub(crate) min_nodes: Option<u32>,
    /// True once the cluster has been stable with its minimum size.
    #[serde(default, skip_serializing_if = "std::ops::Not::not", deserialize_with = "lenient_or_default")]
    pub(crate) formed: bool,
}

#[cfg(test)]
impl VersionRecord {
    /// Returns a record with nothing but a label.
    pub(crate) fn labelled(version: Version) -> Self {
        VersionRecord {
            version,
            number: 0,
            term: None,
            leader: None,
            causes: Vec::new(),
            clean: false,
            kept: BTreeMap::new(),
            min_nodes: None,
            formed: false,
        }
    }
}

/// Reads a list of causes, or a single cause.
fn causes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Cause>, D::Error> {
    let value = <&RawValue>::deserialize(deserializer)?;
    Ok(match serde_json::from_str::<Vec<&RawValue>>(value.get()) {
        Ok(values) => values.into_iter().map(Cause::decode).collect(),
        Err(_) if value.get() == "null" => Vec::new(),
        Err(_) => vec![Cause::decode(value)],
    })
}
