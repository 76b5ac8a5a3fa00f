use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::PROTOCOL;
use crate::{
    json::{self, Fields},
    name::{Incarnation, NodeName, NodeUri},
    node::{Endpoint, Metadata, Node},
    store::Entry,
    version::Version,
};

/// A node's own record, to be written.
///
/// ```json
/// {"uri": "http://10.0.0.7:8080", "incarnation": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "metadata": {"zone": "a"}, "protocol": 1, "priority": 100}
/// ```
#[derive(Serialize)]
pub(crate) struct NodeRecord<'a> {
    pub(crate) uri: &'a NodeUri,
    pub(crate) incarnation: &'a Incarnation,
    pub(crate) metadata: &'a Metadata,
    pub(crate) protocol: u32,
    /// Always written: a record without it shows that the node ranks candidates as earlier releases did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) priority: Option<u32>,
    /// Time in milliseconds for which the slots of the node wait for it if its session ends.
    #[serde(rename = "restart_grace_ms", skip_serializing_if = "Option::is_none")]
    pub(crate) restart_grace: Option<u64>,
    /// Where other nodes can find out whether the process is alive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint: Option<&'a Endpoint>,
    /// The newest version that the process had seen when its session began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seen: Option<Version>,
}

/// Decodes a node record.
///
/// `uri` and `incarnation` must be strings in every release, because all nodes must agree on the validity of a record.
/// Invalid values of other fields count as missing.
pub(crate) fn decode_node(name: NodeName, entry: &Entry) -> Result<Node, String> {
    let fields = json::fields(&entry.value)?;
    let text = |field: &str| match fields.get(field).map(|value| value.get()) {
        None | Some("null") => Err(format!("its {field} is missing")),
        Some(text) => {
            serde_json::from_str::<String>(text).map_err(|_| format!("its {field} is not a string"))
        }
    };
    let (uri, incarnation) = (text("uri")?, text("incarnation")?);
    fn optional<T: DeserializeOwned>(fields: &Fields<'_>, field: &str) -> Option<T> {
        fields.get(field).and_then(|value| serde_json::from_str(value.get()).ok())
    }
    Ok(Node {
        name,
        uri: NodeUri::recorded(&uri),
        incarnation: Incarnation::from(incarnation),
        metadata: fields.get("metadata").map(|value| metadata(value)).unwrap_or_default(),
        protocol: optional(&fields, "protocol").unwrap_or(PROTOCOL),
        priority: optional(&fields, "priority"),
        restart_grace: optional(&fields, "restart_grace_ms").map(Duration::from_millis).unwrap_or_default(),
        endpoint: optional(&fields, "endpoint"),
        created: entry.created,
        modified: entry.modified,
        lease: entry.lease,
        seen: text("seen").ok().and_then(|text| text.parse().ok()),
    })
}

/// Reads metadata. Values that are not strings become their JSON text without whitespace.
fn metadata(value: &RawValue) -> Metadata {
    let entries: Fields<'_> = serde_json::from_str(value.get()).unwrap_or_default();
    let text = |value: &RawValue| serde_json::from_str(value.get()).unwrap_or_else(|_| json::compact(value));
    entries.into_iter().map(|(key, value)| (key, text(value))).collect()
}
