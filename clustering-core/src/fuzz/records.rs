use std::fmt::Debug;

use bytes::Bytes;
use proptest::{prelude::*, sample::select};
use serde::Serialize;
use serde_json::Value;

use super::{any_json, any_record, cases, value};
use crate::{
    json,
    name::NodeName,
    record::{
        DepartureRecord, HistoryRecord, LeaderRecord, NodeRecord, ReadinessRecord, RequestRecord,
        StableRecord, VersionRecord, decode, decode_node, encode,
    },
    store::{Entry, Revision},
};

fn entry(value: &[u8]) -> Entry {
    Entry {
        key: "c/view/nodes/n".into(),
        value: Bytes::copy_from_slice(value),
        created: Revision::new(3),
        modified: Revision::new(5),
        lease: None,
    }
}

fn name() -> NodeName {
    NodeName::parse("n").expect("a name")
}

/// Checks that bytes are refused with a reason, or are an object that survives being written and read again.
fn round_trip<T: Serialize + PartialEq + Debug>(
    bytes: &[u8],
    decode: fn(&[u8]) -> Result<T, String>,
) -> Result<(), TestCaseError> {
    match decode(bytes) {
        Ok(record) => {
            let is_object = serde_json::from_slice::<Value>(bytes).is_ok_and(|value| value.is_object());
            prop_assert!(is_object, "a value that is not an object was read as {record:?}");
            prop_assert_eq!(decode(&encode(&record)), Ok(record));
        }
        Err(reason) => prop_assert!(!reason.is_empty(), "refused without a reason"),
    }
    Ok(())
}

/// Generates texts that are almost JSON, from tokens that parsers treat differently.
fn strange_json() -> impl Strategy<Value = String> {
    let token = select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"a\":",
        "\"\"",
        "1",
        "-0",
        "1e999",
        "-1E+400",
        "1e-400",
        "0e999",
        "0.1",
        "01",
        "1.",
        "\"\\ud83d\\ude00\"",
        "\"\\ud83d\"",
        "\"\\ude00\"",
        "\"\\u00\"",
        "\"\\x\"",
        "\"\\\"",
        "\"\\\\\"",
        "true",
        "null",
        "nul",
        " ",
        "\t",
        "\u{0}",
        "\u{a0}",
        "ü",
    ]);
    let any = proptest::collection::vec(token, 0..8).prop_map(|tokens| tokens.concat());
    let deep = (120..135usize, select(vec![("[", "]"), ("{\"a\":", "}")]), any.clone());
    prop_oneof![
        2 => any.clone(),
        2 => any.prop_map(|value| format!("{{\"a\": {value}}}")),
        1 => deep.prop_map(|(levels, (open, close), inner)| {
            let inner = if inner.len() > 4 { "1" } else { &inner };
            format!("{}{inner}{}", open.repeat(levels), close.repeat(levels))
        }),
    ]
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn fuzz_records_are_refused_with_a_reason_or_survive_a_round_trip(bytes in value()) {
        round_trip::<LeaderRecord>(&bytes, decode)?;
        round_trip::<VersionRecord>(&bytes, decode)?;
        round_trip::<RequestRecord>(&bytes, decode)?;
        round_trip::<StableRecord>(&bytes, decode)?;
        round_trip::<DepartureRecord>(&bytes, decode)?;
        round_trip::<ReadinessRecord>(&bytes, decode)?;
        round_trip::<HistoryRecord>(&bytes, HistoryRecord::decode)?;
    }

    /// A record is readable exactly if `serde_json::Value` could parse it in a build without optional features.
    #[test]
    fn fuzz_records_are_readable_exactly_if_serde_json_can_parse_them(bytes in value(), strange_json in strange_json()) {
        let within = format!(r#"{{"uri": "u", "incarnation": "x", "new": {strange_json}}}"#);
        for record in [&bytes[..], strange_json.as_bytes(), within.as_bytes()] {
            let is_object = serde_json::from_slice::<Value>(record).is_ok_and(|value| value.is_object());
            prop_assert_eq!(json::fields(record).is_ok(), is_object);
        }
    }

    /// A node is present exactly if its record is readable. All releases must agree on that, so the rule never changes.
    #[test]
    fn fuzz_a_node_record_needs_two_strings_and_nothing_else(object in any_record()) {
        let is_text = |field: &str| object[field].is_string();
        let decoded = decode_node(name(), &entry(object.to_string().as_bytes()));
        prop_assert_eq!(decoded.is_ok(), is_text("uri") && is_text("incarnation"), "{:?}", decoded);
        if let Ok(node) = decoded {
            prop_assert_eq!(Some(node.uri.as_str()), object["uri"].as_str());
            prop_assert_eq!(Some(node.incarnation.as_str()), object["incarnation"].as_str());
            // The record survives being written and read again.
            let record = NodeRecord {
                uri: &node.uri,
                incarnation: &node.incarnation,
                metadata: &node.metadata,
                protocol: node.protocol,
                priority: node.priority,
                restart_grace: Some(node.restart_grace.as_millis() as u64).filter(|grace| *grace > 0),
                endpoint: node.endpoint.as_ref(),
                seen: node.seen,
            };
            prop_assert_eq!(decode_node(name(), &entry(&encode(&record))), Ok(node));
        }
    }

    #[test]
    fn fuzz_any_bytes_are_read_as_a_node_record_or_refused_with_a_reason(bytes in value()) {
        if let Err(reason) = decode_node(name(), &entry(&bytes)) {
            prop_assert!(!reason.is_empty());
        }
    }

    /// Newer releases may write fields that this release does not know.
    #[test]
    fn fuzz_unknown_fields_are_ignored(object in any_record(), field in "[a-z]{12}", more in any_json()) {
        let mut with = object.clone();
        with[&field] = more;
        let (without, with) = (object.to_string(), with.to_string());
        let (without, with) = (without.as_bytes(), with.as_bytes());
        prop_assert_eq!(decode::<VersionRecord>(without).ok(), decode::<VersionRecord>(with).ok());
        prop_assert_eq!(decode::<ReadinessRecord>(without).ok(), decode::<ReadinessRecord>(with).ok());
        prop_assert_eq!(decode::<LeaderRecord>(without).ok(), decode::<LeaderRecord>(with).ok());
        prop_assert_eq!(decode_node(name(), &entry(without)).ok(), decode_node(name(), &entry(with)).ok());
    }

    /// Optional fields of the wrong type count as missing.
    #[test]
    fn fuzz_only_the_label_decides_whether_a_version_is_readable(object in any_record()) {
        let label = object["version"].as_str().and_then(|label| label.parse::<crate::version::Version>().ok());
        let read = decode::<VersionRecord>(object.to_string().as_bytes()).ok();
        prop_assert_eq!(read.map(|record| record.version), label);
    }
}
