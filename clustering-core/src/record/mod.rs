//! The records that a cluster keeps in the store: JSON objects whose unknown fields readers ignore.
//!
//! Other programs read and write these records, so their format is part of the
//! [protocol](crate::docs::protocol); `machine/tests/records.rs` pins what the machine writes. Everything that reads a
//! record decodes it here.

mod cause;
mod departure;
mod history;
mod leader;
mod node;
mod ownership;
mod readiness;
mod request;
mod stable;
mod version;

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, value::MapDeserializer},
};
use serde_json::value::RawValue;

pub use self::{cause::Cause, departure::Departure};
pub(crate) use self::{
    cause::cut_off,
    departure::DepartureRecord,
    history::{HistoryRecord, SettledRecord},
    leader::LeaderRecord,
    node::{NodeRecord, decode_node},
    ownership::{CordonRecord, DrainRecord, HoldsRecord, ReleasedRecord},
    readiness::{ReadinessOutcome, ReadinessPhase, ReadinessRecord},
    request::RequestRecord,
    stable::StableRecord,
    version::VersionRecord,
};
use crate::{
    json::{self, Fields},
    store::{Entry, LeaseId, Revision},
};

/// Version of the record protocol that this release writes.
pub(crate) const PROTOCOL: u32 = 1;

/// Maximum size in bytes of a free text in a record, such as a reason that a user or a callback gives.
const TEXT: usize = 1024;

/// A record with the metadata of its key. Guards need the metadata even if the value is malformed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StoredRecord<T> {
    pub(crate) created: Revision,
    pub(crate) modified: Revision,
    pub(crate) lease: Option<LeaseId>,
    /// The decoded value, or `None` if it is malformed.
    pub(crate) record: Option<T>,
}

impl<T> StoredRecord<T> {
    pub(crate) fn new(entry: &Entry, record: Option<T>) -> Self {
        StoredRecord { created: entry.created, modified: entry.modified, lease: entry.lease, record }
    }

    /// Decodes an entry. Passes the reason to `malformed` if the value cannot be decoded.
    pub(crate) fn decode(entry: &Entry, malformed: impl FnOnce(String)) -> Self
    where
        T: DeserializeOwned,
    {
        StoredRecord::new(entry, decode(&entry.value).map_err(malformed).ok())
    }
}

/// Encodes a record for the store.
pub(crate) fn encode<T: Serialize>(record: &T) -> Bytes {
    // Encoding fails only for maps whose keys are not strings, and no record contains one.
    serde_json::to_vec(record).expect("records are plain objects").into()
}

/// Decodes a record. The error says what is wrong with it.
pub(crate) fn decode<T: DeserializeOwned>(record: &[u8]) -> Result<T, String> {
    from_fields(json::fields(record)?)
}

fn from_fields<T: DeserializeOwned>(fields: Fields<'_>) -> Result<T, String> {
    T::deserialize(MapDeserializer::new(fields.into_iter()))
        .map_err(|error: serde_json::Error| error.to_string())
}

/// Truncates a text to the size allowed in a record.
pub(crate) fn shorten(text: String) -> String {
    match text.char_indices().find(|(end, _)| *end >= TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Reads an optional field. An invalid value counts as missing, so that it does not make the whole record malformed.
fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    let value = <&RawValue>::deserialize(deserializer)?;
    Ok(serde_json::from_str(value.get()).ok())
}

/// Reads an optional field like [`lenient`], with the default instead of `None`.
fn lenient_or_default<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    lenient(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests;
