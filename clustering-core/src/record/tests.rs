use super::{
    cause::{CAUSES, CAUSES_SIZE},
    *,
};
use crate::{name::NodeName, node::Node, version::Version};

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
    assert!(node(r#"["http://h:1", "x", {}, 1]"#).unwrap_err().contains("it is not a JSON object"));
    assert!(decode::<RequestRecord>(b"[]").is_err());
    assert!(decode::<RequestRecord>(b" \n\t{} ").is_ok());
}

#[test]
fn a_node_record_needs_only_a_uri_and_an_incarnation() {
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
        assert!(self::node(bad).is_err(), "{bad}");
    }
    assert_eq!(self::node(r#"{"uri": "http://n"}"#).unwrap_err(), "its incarnation is missing");
    assert_eq!(self::node(r#"{"uri": 1, "incarnation": "x"}"#).unwrap_err(), "its uri is not a string");
    let twice = r#"{"uri": 1, "incarnation": "x", "uri": "u", "incarnation": "y"}"#;
    assert_eq!(self::node(twice).map(|node| node.incarnation), Ok("y".to_owned().into()));
    assert!(self::node(r#"{"uri": "u", "incarnation": "x", "uri": 1}"#).is_err());
    assert!(self::node(r#"{"uri": "u", "incarnation": "x"} x"#).is_err());
}

#[test]
fn other_fields_of_a_node_record_are_read_leniently() {
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
fn optional_version_fields_of_the_wrong_type_count_as_missing() {
    let label = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
    let read: VersionRecord = decode(
        format!(r#"{{"version": "{label}", "number": "x", "term": "x", "leader": 7, "cause": 3, "new": 1}}"#)
            .as_bytes(),
    )
    .unwrap();
    assert_eq!((read.number, read.term, read.leader), (0, None, None));
    assert_eq!(read.causes, [Cause::Other("3".into())]);
    assert!(decode::<VersionRecord>(br#"{"version": 7}"#).is_err());
}

/// Returns one cause of each kind that this release knows.
fn known_causes() -> Vec<Cause> {
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
        Cause::Unacknowledged(name.clone()),
        Cause::Restored,
        Cause::Cordoned(name.clone()),
        Cause::Uncordoned(name),
        Cause::Assigned,
    ]
}

#[test]
fn causes_round_trip_and_unknown_causes_are_kept() {
    let mut written = known_causes();
    written.push(Cause::More(4));
    let label = Version::from_u128(1);
    let record = VersionRecord { number: 1, causes: written.clone(), ..VersionRecord::labelled(label) };
    assert_eq!(decode::<VersionRecord>(&encode(&record)).unwrap().causes, written);

    let newer =
        format!(r#"{{"version": "{}", "cause": [{{"drained": "n"}}, "resync"]}}"#, Version::from_u128(1));
    let read: VersionRecord = decode(newer.as_bytes()).unwrap();
    assert_eq!(read.causes, [Cause::Other(r#"{"drained":"n"}"#.into()), Cause::Resync]);
    // A leader copies it into the history.
    assert_eq!(decode::<VersionRecord>(&encode(&read)), Ok(read));

    // Numbers keep all their digits.
    let number = "-5.552628668763278e+130";
    let read = format!(r#"{{"version": "{}", "cause": [{number}]}}"#, Version::from_u128(1));
    let read: VersionRecord = decode(read.as_bytes()).unwrap();
    assert_eq!(read.causes, [Cause::Other(number.into())]);
    assert_eq!(decode::<VersionRecord>(&encode(&read)).unwrap(), read);
}

#[test]
fn an_unknown_departure_counts_as_left() {
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
fn a_departure_record_applies_only_to_its_own_incarnation() {
    let node = node(r#"{"uri": "u", "incarnation": "x"}"#).unwrap();
    let departed = |name: &str, incarnation: &str, how| DepartureRecord {
        node: NodeName::parse(name).unwrap(),
        incarnation: incarnation.into(),
        how,
        keep_ms: 0,
    };
    let how = |record: DepartureRecord| DepartureRecord::how_departed(Some(&record), &node);
    assert_eq!(how(departed("n", "x", Departure::Left)), Departure::Left);
    assert_eq!(how(departed("n", "x", Departure::Evicted)), Departure::Evicted);
    assert_eq!(how(departed("n", "y", Departure::Left)), Departure::Ended);
    assert_eq!(how(departed("m", "x", Departure::Left)), Departure::Ended);
    assert_eq!(DepartureRecord::how_departed(None, &node), Departure::Ended);
}

/// Found by fuzzing: serde skipped unknown fields without parsing them, so a release that knows such a field could
/// not read a record that this release could.
#[test]
fn an_unparsable_unknown_field_makes_a_record_malformed() {
    for strange in [&b"\"\xf0\""[..], br#""\ud800""#, b"1e999"] {
        let record = [br#"{"uri": "http://h", "incarnation": "x", "new": "#, strange, b"}"].concat();
        assert!(serde_json::from_slice::<RequestRecord>(&record).is_ok(), "serde skips the field");
        assert!(node_of(&record).is_err());
        assert!(decode::<RequestRecord>(&record).is_err());
    }
}

#[test]
fn the_kind_of_a_cause_is_its_name_in_the_record() {
    for cause in known_causes() {
        let json = serde_json::to_value(&cause).unwrap();
        let written = json.as_str().or_else(|| json.as_object()?.keys().next().map(String::as_str));
        assert_eq!(cause.kind(), written);
    }
    assert_eq!(Cause::Other("7".into()).kind(), Some("other"));
    assert_eq!(Cause::More(7).kind(), None);
}

/// Clients in other languages rely on the page.
#[test]
fn the_protocol_page_lists_all_causes() {
    let page = include_str!("../docs/protocol.md");
    let (_, causes) = page.split_once("**Causes**").unwrap();
    let (causes, _) = causes.split_once("\n\n").unwrap();
    for cause in known_causes() {
        let kind = format!("\"{}\"", cause.kind().unwrap());
        assert!(causes.contains(&kind), "{kind}");
    }
}

#[test]
fn excess_causes_are_counted() {
    let joined = |n| vec![Cause::Joined(NodeName::parse("n").unwrap()); n];
    let causes = cut_off(joined(100));
    assert_eq!((causes.len(), causes.last()), (33, Some(&Cause::More(68))));
    assert_eq!(cut_off(joined(33)).last(), Some(&Cause::More(1)));
    assert_eq!(cut_off(joined(32)), joined(32));
    let counted = [joined(32), vec![Cause::More(7), Cause::More(usize::MAX)]].concat();
    assert_eq!(cut_off(counted), [joined(32), vec![Cause::More(usize::MAX)]].concat());
}

#[test]
fn long_causes_are_truncated_to_fit_into_a_record() {
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
    // Even with the longest names, all causes fit.
    let name = NodeName::parse(&"\"".repeat(NodeName::MAX)).unwrap();
    let named = vec![Cause::Unacknowledged(name); CAUSES];
    assert_eq!(cut_off(named.clone()), named);
}

#[test]
fn long_texts_are_truncated_between_characters() {
    for short in [String::new(), "rebalance".to_owned(), "x".repeat(TEXT)] {
        assert_eq!(shorten(short.clone()), short);
    }
    assert_eq!(shorten("x".repeat(TEXT + 1)), format!("{}…", "x".repeat(TEXT)));
    let odd = format!("x{}", "ü".repeat(TEXT));
    assert_eq!(shorten(odd), format!("x{}…", "ü".repeat(TEXT / 2)));
}
