use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use super::{encode, shorten};
use crate::{
    json::{self, Fields},
    name::NodeName,
    store::Limits,
};

/// Maximum number of causes in a version record. The others are counted.
pub(super) const CAUSES: usize = 32;

/// Maximum size of the causes in a version record, in encoded bytes. It leaves room for the other fields, and is
/// sufficient for 32 causes with the longest names.
pub(super) const CAUSES_SIZE: usize = Limits::VALUE / 4 * 3;

/// Why a version was published.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Cause {
    /// The node joined, or came back.
    Joined(NodeName),
    /// The node left: it was stopped or unregistered, or found itself unhealthy.
    Left(NodeName),
    /// The node's session ended: it crashed, was cut off or paused for too long, or an older release left. Also used if
    /// the publisher did not see how the node departed.
    Ended(NodeName),
    /// The node's session ended, and the node is back in a new session.
    Returned(NodeName),
    /// The node changed its record.
    Changed(NodeName),
    /// The leader removed the node because it kept a version from becoming stable, or an operator removed it.
    Evicted(NodeName),
    /// Another node found that the node's process is gone.
    Crashed(NodeName),
    /// The node did not come back in the time for which its slots waited for it.
    NotBack(NodeName),
    /// The node was elected leader.
    Elected(NodeName),
    /// A node or an operator requested the version.
    Asked {
        /// The requester.
        by: String,
        /// The reason given by the requester.
        why: Option<String>,
    },
    /// The publisher could not determine the view of the previous version, because changes were compacted away.
    Resync,
    /// The acknowledgement of that node was deleted although its record was still there.
    Unacknowledged(NodeName),
    /// Nodes had seen a newer label than that of the previous version, since the store was restored to an older state.
    Restored,
    /// An operator cordoned the node: it owns no slots.
    Cordoned(NodeName),
    /// An operator lifted the cordon of the node.
    Uncordoned(NodeName),
    /// The assignment of the slots did not fit the nodes of the previous version.
    Assigned,
    /// The cluster was stable with its [minimum size](crate::Config::min_nodes) for the first time, so its slots can be
    /// assigned.
    Formed,
    /// Number of further causes.
    More(usize),
    /// A cause that a newer release of this library wrote, as its JSON. It is written as it was read.
    #[serde(untagged)]
    Other(#[serde(serialize_with = "as_json")] String),
}

/// Serializes a string that contains JSON as that JSON.
fn as_json<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    match serde_json::from_str::<&RawValue>(text) {
        Ok(json) => json.serialize(serializer),
        Err(_) => text.serialize(serializer),
    }
}

impl Cause {
    /// Decodes a cause. A cause that this release does not know is kept as its JSON.
    pub(super) fn decode(value: &RawValue) -> Self {
        Self::known(value).unwrap_or_else(|| Cause::Other(json::compact(value)))
    }

    /// Decodes a cause that this release knows. Written by hand, because a derived `Deserialize` would request values
    /// of any type for the untagged variant; see [`json`].
    fn known(value: &RawValue) -> Option<Self> {
        #[derive(Deserialize)]
        struct Asked {
            by: String,
            why: Option<String>,
        }
        fn read<'a, T: Deserialize<'a>>(value: &'a RawValue) -> Option<T> {
            serde_json::from_str(value.get()).ok()
        }
        match read::<String>(value).as_deref() {
            Some("resync") => return Some(Cause::Resync),
            Some("restored") => return Some(Cause::Restored),
            Some("assigned") => return Some(Cause::Assigned),
            Some("formed") => return Some(Cause::Formed),
            _ => {}
        }
        let fields: Fields<'_> = read(value)?;
        let (kind, value) = fields.first_key_value().filter(|_| fields.len() == 1)?;
        Some(match kind.as_str() {
            "joined" => Cause::Joined(read(value)?),
            "left" => Cause::Left(read(value)?),
            "ended" => Cause::Ended(read(value)?),
            "returned" => Cause::Returned(read(value)?),
            "changed" => Cause::Changed(read(value)?),
            "evicted" => Cause::Evicted(read(value)?),
            "crashed" => Cause::Crashed(read(value)?),
            "not_back" => Cause::NotBack(read(value)?),
            "elected" => Cause::Elected(read(value)?),
            "unacknowledged" => Cause::Unacknowledged(read(value)?),
            "cordoned" => Cause::Cordoned(read(value)?),
            "uncordoned" => Cause::Uncordoned(read(value)?),
            "more" => Cause::More(read(value)?),
            "asked" => read(value).map(|Asked { by, why }| Cause::Asked { by, why })?,
            _ => return None,
        })
    }

    /// Returns the kind of the cause, as it is serialized; `None` for [`More`](Cause::More), which only counts other
    /// causes.
    pub fn kind(&self) -> Option<&'static str> {
        Some(match self {
            Cause::Joined(_) => "joined",
            Cause::Left(_) => "left",
            Cause::Ended(_) => "ended",
            Cause::Returned(_) => "returned",
            Cause::Changed(_) => "changed",
            Cause::Evicted(_) => "evicted",
            Cause::Crashed(_) => "crashed",
            Cause::NotBack(_) => "not_back",
            Cause::Elected(_) => "elected",
            Cause::Asked { .. } => "asked",
            Cause::Resync => "resync",
            Cause::Unacknowledged(_) => "unacknowledged",
            Cause::Restored => "restored",
            Cause::Cordoned(_) => "cordoned",
            Cause::Uncordoned(_) => "uncordoned",
            Cause::Assigned => "assigned",
            Cause::Formed => "formed",
            Cause::More(_) => return None,
            Cause::Other(_) => "other",
        })
    }
}

/// Truncates a list of causes to the size allowed in a record, and counts those that do not fit.
///
/// Other clients may have written any number of causes of any length. A leader that copies them must not write a record
/// that the store refuses.
pub(crate) fn cut_off(causes: Vec<Cause>) -> Vec<Cause> {
    let (mut kept, mut more, mut room) = (Vec::new(), 0_usize, CAUSES_SIZE);
    for cause in causes {
        let cause = match cause {
            Cause::More(count) => {
                more = more.saturating_add(count);
                continue;
            }
            Cause::Asked { by, why } => Cause::Asked { by: shorten(by), why: why.map(shorten) },
            other => other,
        };
        let size = encode(&cause).len() + 1;
        if kept.len() < CAUSES && size <= room {
            room -= size;
            kept.push(cause);
        } else {
            more = more.saturating_add(1);
        }
    }
    kept.extend((more > 0).then_some(Cause::More(more)));
    kept
}
