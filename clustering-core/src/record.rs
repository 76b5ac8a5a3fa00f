//! What stands in the keys: JSON objects. Readers ignore fields that they don't know.
//!
//! Other programs read and write these; `machine/tests/records.rs` pins what the machine writes.

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, value::MapDeserializer},
};
use serde_json::value::RawValue;

use crate::{
    json::{self, Fields},
    keyspace::Keyspace,
    name::{Incarnation, NodeName, NodeUri},
    node::{Metadata, Node},
    store::{Entry, Limits, Txn},
    version::{Term, Version},
};

/// The protocol that this library speaks.
pub(crate) const PROTOCOL: u32 = 1;

/// The most causes that a version record names; the rest is counted.
const CAUSES: usize = 32;

/// Maximum size of the causes in a version record, in encoded bytes. It leaves room for the other fields, and is
/// sufficient for 32 causes with the longest names.
const CAUSES_SIZE: usize = Limits::VALUE / 4 * 3;

/// The longest free text that a record carries, in bytes: reasons of people and of callbacks.
const TEXT: usize = 1024;

/// Writes a record as it stands in the store.
pub(crate) fn encode<T: Serialize>(record: &T) -> Bytes {
    // Fails only for maps whose keys are no strings, and no record has one.
    serde_json::to_vec(record).expect("records are plain objects").into()
}

/// Reads a record, or tells what is wrong with it.
pub(crate) fn decode<T: DeserializeOwned>(record: &[u8]) -> Result<T, String> {
    read(json::fields(record)?)
}

fn read<T: DeserializeOwned>(fields: Fields<'_>) -> Result<T, String> {
    T::deserialize(MapDeserializer::new(fields.into_iter()))
        .map_err(|error: serde_json::Error| error.to_string())
}

/// A node's own record, to be written.
#[derive(Serialize)]
pub(crate) struct NodeRecord<'a> {
    pub(crate) uri: &'a NodeUri,
    pub(crate) incarnation: &'a Incarnation,
    pub(crate) metadata: &'a Metadata,
    pub(crate) protocol: u32,
    /// The newest version that the process had seen when its session began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seen: Option<Version>,
}

/// The node whose record an entry holds.
///
/// `uri` and `incarnation` must be strings in every release, because all nodes must agree on the validity of a record.
/// All other fields are read leniently.
pub(crate) fn decode_node(name: NodeName, entry: &Entry) -> Result<Node, String> {
    let fields = json::fields(&entry.value)?;
    let text = |field: &str| match fields.get(field).map(|value| value.get()) {
        None | Some("null") => Err(format!("its {field} is missing")),
        Some(text) => serde_json::from_str::<String>(text).map_err(|_| format!("its {field} is no text")),
    };
    let (uri, incarnation) = (text("uri")?, text("incarnation")?);
    let protocol = fields.get("protocol").and_then(|value| serde_json::from_str(value.get()).ok());
    Ok(Node {
        name,
        uri: NodeUri::recorded(&uri),
        incarnation: Incarnation::from(incarnation),
        metadata: fields.get("metadata").map(|value| metadata(value)).unwrap_or_default(),
        protocol: protocol.unwrap_or(PROTOCOL),
        created: entry.created,
        modified: entry.modified,
        lease: entry.lease,
        seen: text("seen").ok().and_then(|text| text.parse().ok()),
    })
}

/// Reads metadata as it was written: strings by their contents, any other value as its JSON text without blanks.
fn metadata(value: &RawValue) -> Metadata {
    let entries: Fields<'_> = serde_json::from_str(value.get()).unwrap_or_default();
    let text = |value: &RawValue| serde_json::from_str(value.get()).unwrap_or_else(|_| json::compact(value));
    entries.into_iter().map(|(key, value)| (key, text(value))).collect()
}

/// The election key: who leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct LeaderRecord {
    pub(crate) node: NodeName,
    pub(crate) incarnation: Incarnation,
}

/// The newest version.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct VersionRecord {
    pub(crate) version: Version,
    /// How many versions there have been: one more than the version before has. 0 if it was written by others, who need
    /// not count.
    #[serde(default, deserialize_with = "count")]
    pub(crate) number: u64,
    /// Left out by the commit that elects: its own revision is the term.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient")]
    pub(crate) term: Option<Term>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient")]
    pub(crate) leader: Option<NodeName>,
    #[serde(default, rename = "cause", deserialize_with = "causes")]
    pub(crate) causes: Vec<Cause>,
}

/// A wish for another version.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct RequestRecord {
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient")]
    pub(crate) why: Option<String>,
    /// Whom the next election is to favour, as long as the wish is not granted. It only sets who campaigns first.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient")]
    pub(crate) leader: Option<NodeName>,
}

/// Who last went in order, and how. It comes in the commit that deletes that node's record: a record that goes without it
/// went with its session.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct DepartureRecord {
    pub(crate) node: NodeName,
    /// That of the record that was deleted.
    pub(crate) incarnation: Incarnation,
    /// What a newer release wrote, and this one doesn't know, is some way to leave.
    #[serde(default, deserialize_with = "departure")]
    pub(crate) how: Departure,
}

impl DepartureRecord {
    /// Adds the record to a commit that deletes the node's own. An incarnation that was written by hand may be too long
    /// for it. In this case the record is left out, so that the commit does not fail.
    pub(crate) fn add_to(txn: Txn, keys: &Keyspace, node: &Node, how: Departure) -> Txn {
        let gone = DepartureRecord { node: node.name.clone(), incarnation: node.incarnation.clone(), how };
        let record = encode(&gone);
        match record.len() <= Limits::VALUE {
            true => txn.put(keys.departure_key().clone(), record, None),
            false => txn,
        }
    }

    /// How that node went, whose record was deleted. Incarnations tell: it may have been back since it left.
    pub(crate) fn tells(gone: Option<&Self>, node: &Node) -> Departure {
        let its = |gone: &&Self| gone.node == node.name && gone.incarnation == node.incarnation;
        gone.filter(its).map_or(Departure::Ended, |gone| gone.how)
    }
}

/// The newest version that became stable, and the term of the leader that recorded it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct StableRecord {
    pub(crate) version: Version,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient")]
    pub(crate) term: Option<Term>,
    /// How many nodes it has: whoever looks at the log without having followed it sees by that who has gone since.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient")]
    pub(crate) nodes: Option<usize>,
}

/// A version in the history: its record as it was published and, once it is stable, how it became so.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub(crate) struct HistoryRecord {
    #[serde(flatten)]
    pub(crate) published: VersionRecord,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stable: Option<SettledRecord>,
}

impl HistoryRecord {
    /// Reads an entry. (A derived reader of flattened fields would ask for values of any type, see [`json`].)
    pub(crate) fn decode(record: &[u8]) -> Result<Self, String> {
        let fields = json::fields(record)?;
        let stable = fields.get("stable").and_then(|value| serde_json::from_str(value.get()).ok());
        Ok(HistoryRecord { published: read(fields)?, stable })
    }
}

/// How a version became stable. Times count from when its leader saw it published.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct SettledRecord {
    /// Until it was recorded.
    pub(crate) after_ms: u64,
    /// How many nodes its view has.
    pub(crate) nodes: usize,
    /// Whose acknowledgement came last.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient")]
    pub(crate) last: Option<NodeName>,
    /// Until that came.
    #[serde(default)]
    pub(crate) last_after_ms: u64,
}

/// What a node says of a version.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct ReadinessRecord {
    pub(crate) version: Version,
    pub(crate) outcome: ReadinessOutcome,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient")]
    pub(crate) detail: Option<String>,
}

/// Whether a node adapted to a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ReadinessOutcome {
    Ready,
    Failed,
}

/// How a node went that was present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Departure {
    /// It left in order: it was stopped or unregistered, or found itself unhealthy.
    #[default]
    Left,
    /// The leader removed it, as it kept a version from becoming stable; or an operator did.
    Evicted,
    /// Its session ended without that: it crashed, was cut off or paused for too long, or an older release left. Or nobody
    /// saw how it went: its record was deleted by hand, or changes were compacted away.
    Ended,
}

impl Departure {
    /// As a cause of the next version.
    pub(crate) fn cause(self, name: NodeName) -> Cause {
        match self {
            Departure::Left => Cause::Left(name),
            Departure::Evicted => Cause::Evicted(name),
            Departure::Ended => Cause::Ended(name),
        }
    }
}

/// Why a version was published.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Cause {
    /// That node joined, or came back.
    Joined(NodeName),
    /// That node left in order: it was stopped or unregistered, or found itself unhealthy.
    Left(NodeName),
    /// That node's session ended without that: it crashed, was cut off or paused for too long, or an older release left. Or
    /// the publisher did not see how it went.
    Ended(NodeName),
    /// That node's session ended, and it is back under a new one.
    Returned(NodeName),
    /// That node changed its record.
    Changed(NodeName),
    /// The leader removed that node, as it kept a version from becoming stable; or an operator did.
    Evicted(NodeName),
    /// That node was elected leader.
    Elected(NodeName),
    /// Somebody asked for it.
    Asked {
        /// Who asked.
        by: String,
        /// What they gave as the reason.
        why: Option<String>,
    },
    /// The publisher could not know the view of the version before: its changes were compacted away.
    Resync,
    /// The acknowledgement of that node was deleted while its record stood.
    Unacknowledged(NodeName),
    /// Nodes had seen a newer label than that of the previous version, since the store was restored to an older state.
    Restored,
    /// That many more causes.
    More(usize),
    /// A cause that a newer release of this library wrote, as its JSON. It is written as it was read.
    #[serde(untagged)]
    Other(#[serde(serialize_with = "as_json")] String),
}

/// Writes a text that is JSON as that JSON.
fn as_json<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    match serde_json::from_str::<&RawValue>(text) {
        Ok(json) => json.serialize(serializer),
        Err(_) => text.serialize(serializer),
    }
}

impl Cause {
    /// Reads a cause. A cause that this release does not know is kept as its text.
    fn decode(value: &RawValue) -> Self {
        Self::known(value).unwrap_or_else(|| Cause::Other(json::compact(value)))
    }

    /// (A derived reader would ask for values of any type, because of the variant without a tag; see [`json`].)
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
            "elected" => Cause::Elected(read(value)?),
            "unacknowledged" => Cause::Unacknowledged(read(value)?),
            "more" => Cause::More(read(value)?),
            "asked" => read(value).map(|Asked { by, why }| Cause::Asked { by, why })?,
            _ => return None,
        })
    }

    /// What kind of cause it is, as it is serialized; `None` for [`More`](Cause::More), which only counts others.
    pub fn kind(&self) -> Option<&'static str> {
        Some(match self {
            Cause::Joined(_) => "joined",
            Cause::Left(_) => "left",
            Cause::Ended(_) => "ended",
            Cause::Returned(_) => "returned",
            Cause::Changed(_) => "changed",
            Cause::Evicted(_) => "evicted",
            Cause::Elected(_) => "elected",
            Cause::Asked { .. } => "asked",
            Cause::Resync => "resync",
            Cause::Unacknowledged(_) => "unacknowledged",
            Cause::Restored => "restored",
            Cause::More(_) => return None,
            Cause::Other(_) => "other",
        })
    }
}

/// As much of a text as a record carries.
pub(crate) fn shorten(text: String) -> String {
    match text.char_indices().find(|(end, _)| *end >= TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Returns as many causes as fit into a record, with their texts cut off, and counts the rest.
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

/// A field whose value cannot be read counts as missing: it must not make the record unreadable.
fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    let value = <&RawValue>::deserialize(deserializer)?;
    Ok(serde_json::from_str(value.get()).ok())
}

fn departure<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Departure, D::Error> {
    lenient(deserializer).map(Option::unwrap_or_default)
}

/// What is no number counts as 0.
fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    lenient(deserializer).map(Option::unwrap_or_default)
}

fn causes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Cause>, D::Error> {
    let value = <&RawValue>::deserialize(deserializer)?;
    Ok(match serde_json::from_str::<Vec<&RawValue>>(value.get()) {
        Ok(values) => values.into_iter().map(Cause::decode).collect(),
        Err(_) if value.get() == "null" => Vec::new(),
        Err(_) => vec![Cause::decode(value)],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Revision;

    fn node(value: &str) -> Result<Node, String> {
        node_of(value.as_bytes())
    }

    fn node_of(value: &[u8]) -> Result<Node, String> {
        let entry = Entry {
            key: "c/view/nodes/n".into(),
            value: Bytes::copy_from_slice(value),
            created: Revision::new(3),
            modified: Revision::new(5),
            lease: None,
        };
        decode_node(NodeName::parse("n").unwrap(), &entry)
    }

    #[test]
    fn a_record_must_be_a_json_object() {
        assert!(node(r#"["http://h:1", "x", {}, 1]"#).unwrap_err().contains("it is no JSON object"));
        assert!(decode::<RequestRecord>(b"[]").is_err());
        assert!(decode::<RequestRecord>(b" \n\t{} ").is_ok());
    }

    #[test]
    fn a_node_record_needs_two_strings_and_nothing_else() {
        let node = node(r#"{"uri": "anything", "incarnation": "x"}"#).unwrap();
        assert_eq!((node.uri.as_str(), node.incarnation.as_str(), node.protocol), ("anything", "x", 1));
        for bad in [
            "",
            "null",
            "[]",
            "\"n\"",
            "{}",
            r#"{"uri": "http://n"}"#,
            r#"{"uri": 1, "incarnation": "x"}"#,
            r#"{"uri": "http://n", "incarnation": null}"#,
            "\u{1}",
        ] {
            assert!(super::tests::node(bad).is_err(), "{bad}");
        }
        assert_eq!(super::tests::node(r#"{"uri": "http://n"}"#).unwrap_err(), "its incarnation is missing");
        assert_eq!(
            super::tests::node(r#"{"uri": 1, "incarnation": "x"}"#).unwrap_err(),
            "its uri is no text"
        );
        let twice = r#"{"uri": 1, "incarnation": "x", "uri": "u", "incarnation": "y"}"#;
        assert_eq!(super::tests::node(twice).map(|node| node.incarnation), Ok("y".to_owned().into()));
        assert!(super::tests::node(r#"{"uri": "u", "incarnation": "x", "uri": 1}"#).is_err());
        assert!(super::tests::node(r#"{"uri": "u", "incarnation": "x"} x"#).is_err());
    }

    #[test]
    fn the_rest_of_a_node_record_is_read_leniently() {
        let read = |rest: &str| node(&format!(r#"{{"uri": "u", "incarnation": "x", {rest}}}"#)).unwrap();
        assert_eq!(read(r#""metadata": {"zone": "a", "weight": 3, "deep": {"k": [1]}}"#).metadata, {
            let texts = [("zone", "a"), ("weight", "3"), ("deep", r#"{"k":[1]}"#)];
            texts.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
        });
        assert!(read(r#""metadata": 7"#).metadata.is_empty());
        assert_eq!(read(r#""protocol": "two""#).protocol, PROTOCOL);
        assert_eq!(read(r#""protocol": 2, "unknown": [{}]"#).protocol, 2);
        let label = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
        assert_eq!(read(&format!(r#""seen": "{label}""#)).seen, label.parse().ok());
        for unreadable in ["7", "null", r#""x""#, "[]"] {
            assert_eq!(read(&format!(r#""seen": {unreadable}"#)).seen, None);
        }
    }

    #[test]
    fn optional_fields_of_the_wrong_type_do_not_make_a_version_unreadable() {
        let label = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
        let read: VersionRecord = decode(
            format!(
                r#"{{"version": "{label}", "number": "x", "term": "x", "leader": 7, "cause": 3, "new": 1}}"#
            )
            .as_bytes(),
        )
        .unwrap();
        assert_eq!((read.number, read.term, read.leader), (0, None, None));
        assert_eq!(read.causes, [Cause::Other("3".into())]);
        assert!(decode::<VersionRecord>(br#"{"version": 7}"#).is_err());
    }

    /// Returns one cause of each kind that has a name in records.
    fn named_causes() -> Vec<Cause> {
        let name = NodeName::parse("n").unwrap();
        vec![
            Cause::Joined(name.clone()),
            Cause::Left(name.clone()),
            Cause::Ended(name.clone()),
            Cause::Returned(name.clone()),
            Cause::Changed(name.clone()),
            Cause::Evicted(name.clone()),
            Cause::Elected(name.clone()),
            Cause::Asked { by: "ops".into(), why: Some("rebalance".into()) },
            Cause::Resync,
            Cause::Unacknowledged(name),
            Cause::Restored,
        ]
    }

    #[test]
    fn causes_survive_a_round_trip_even_if_they_are_unknown() {
        let mut written = named_causes();
        written.push(Cause::More(4));
        let record = VersionRecord {
            version: Version::from_u128(1),
            number: 1,
            term: None,
            leader: None,
            causes: written.clone(),
        };
        assert_eq!(decode::<VersionRecord>(&encode(&record)).unwrap().causes, written);

        let newer =
            format!(r#"{{"version": "{}", "cause": [{{"drained": "n"}}, "resync"]}}"#, Version::from_u128(1));
        let read: VersionRecord = decode(newer.as_bytes()).unwrap();
        assert_eq!(read.causes, [Cause::Other(r#"{"drained":"n"}"#.into()), Cause::Resync]);
        // A leader of an older release copies the unknown cause into the history.
        assert_eq!(decode::<VersionRecord>(&encode(&read)), Ok(read));

        // Numbers keep all their digits.
        let number = "-5.552628668763278e+130";
        let read = format!(r#"{{"version": "{}", "cause": [{number}]}}"#, Version::from_u128(1));
        let read: VersionRecord = decode(read.as_bytes()).unwrap();
        assert_eq!(read.causes, [Cause::Other(number.into())]);
        assert_eq!(decode::<VersionRecord>(&encode(&read)).unwrap(), read);
    }

    #[test]
    fn a_departure_record_is_read_leniently() {
        let read = |rest: &str| {
            let record = format!(r#"{{"node": "n", "incarnation": "x"{rest}}}"#);
            decode::<DepartureRecord>(record.as_bytes()).unwrap().how
        };
        assert_eq!(read(r#", "how": "left""#), Departure::Left);
        assert_eq!(read(r#", "how": "evicted", "by": "ops""#), Departure::Evicted);
        for unknown in ["", r#", "how": "drained""#, r#", "how": 7"#, r#", "how": {"left": 1}"#] {
            assert_eq!(read(unknown), Departure::Left, "{unknown}");
        }
        for bad in [r#"{"node": "n"}"#, r#"{"node": "a/b", "incarnation": "x"}"#, r#"["n", "x"]"#] {
            assert!(decode::<DepartureRecord>(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_departure_record_applies_only_to_the_incarnation_it_names() {
        let node = node(r#"{"uri": "u", "incarnation": "x"}"#).unwrap();
        let gone = |name: &str, incarnation: &str, how| DepartureRecord {
            node: NodeName::parse(name).unwrap(),
            incarnation: incarnation.into(),
            how,
        };
        let tells = |gone: DepartureRecord| DepartureRecord::tells(Some(&gone), &node);
        assert_eq!(tells(gone("n", "x", Departure::Left)), Departure::Left);
        assert_eq!(tells(gone("n", "x", Departure::Evicted)), Departure::Evicted);
        assert_eq!(tells(gone("n", "y", Departure::Left)), Departure::Ended);
        assert_eq!(tells(gone("m", "x", Departure::Left)), Departure::Ended);
        assert_eq!(DepartureRecord::tells(None, &node), Departure::Ended);
    }

    /// Fuzzing found that skipped fields were not validated. A release that knows the field could not have read the
    /// record.
    #[test]
    fn unknown_fields_must_be_readable_too() {
        for strange in [&b"\"\xf0\""[..], br#""\ud800""#, b"1e999"] {
            let record = [br#"{"uri": "http://h", "incarnation": "x", "new": "#, strange, b"}"].concat();
            assert!(serde_json::from_slice::<RequestRecord>(&record).is_ok(), "the field is skipped");
            assert!(node_of(&record).is_err());
            assert!(decode::<RequestRecord>(&record).is_err());
        }
    }

    #[test]
    fn the_kind_of_a_cause_is_its_name_in_records() {
        for cause in named_causes() {
            let json = serde_json::to_value(&cause).unwrap();
            let written = json.as_str().or_else(|| json.as_object()?.keys().next().map(String::as_str));
            assert_eq!(cause.kind(), written);
        }
        assert_eq!(Cause::Other("7".into()).kind(), Some("other"));
        assert_eq!(Cause::More(7).kind(), None);
    }

    #[test]
    fn causes_beyond_the_limit_are_dropped_and_counted() {
        let joined = |n| vec![Cause::Joined(NodeName::parse("n").unwrap()); n];
        let causes = cut_off(joined(100));
        assert_eq!((causes.len(), causes.last()), (33, Some(&Cause::More(68))));
        assert_eq!(cut_off(joined(33)).last(), Some(&Cause::More(1)));
        assert_eq!(cut_off(joined(32)), joined(32));
        let counted = [joined(32), vec![Cause::More(7), Cause::More(usize::MAX)]].concat();
        assert_eq!(cut_off(counted), [joined(32), vec![Cause::More(usize::MAX)]].concat());
    }

    #[test]
    fn causes_of_any_length_fit_into_a_record() {
        let long = |n: usize| Cause::Other(format!("[{}]", vec!["1e9"; n].join(",")));
        assert_eq!(cut_off(vec![long(9)]), [long(9)]);
        assert_eq!(cut_off(vec![long(30_000), Cause::Resync]), [Cause::Resync, Cause::More(1)]);
        // Each of these bytes takes six bytes when encoded.
        let asked = Cause::Asked { by: "\u{1}".repeat(70_000), why: Some("\u{1}".repeat(70_000)) };
        for causes in [vec![asked; 100], vec![long(1_000); 100]] {
            let causes = cut_off(causes);
            assert!(encode(&causes).len() < CAUSES_SIZE + 100, "{}", encode(&causes).len());
            assert!(matches!(causes[..], [_, .., Cause::More(_)]), "{causes:?}");
        }
        // No causes are left out because of the longest names.
        let name = NodeName::parse(&"\"".repeat(NodeName::MAX)).unwrap();
        let named = vec![Cause::Unacknowledged(name); CAUSES];
        assert_eq!(cut_off(named.clone()), named);
    }

    #[test]
    fn long_texts_are_truncated_at_a_character_boundary() {
        for short in [String::new(), "rebalance".to_owned(), "x".repeat(TEXT)] {
            assert_eq!(shorten(short.clone()), short);
        }
        assert_eq!(shorten("x".repeat(TEXT + 1)), format!("{}…", "x".repeat(TEXT)));
        let odd = format!("x{}", "ü".repeat(TEXT));
        assert_eq!(shorten(odd), format!("x{}…", "ü".repeat(TEXT / 2)));
    }
}
