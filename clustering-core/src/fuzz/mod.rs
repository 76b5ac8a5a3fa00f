//! Fuzz tests of everything that is read from the store or given by the environment. Such input is checked, and either
//! read or refused.
//!
//! Each property runs 256 cases, which takes about a second. To run more cases, in all crates:
//!
//! ```sh
//! PROPTEST_CASES=1000000 cargo test --release --workspace --all-features fuzz_
//! ```
//!
//! Inputs are not random bytes, but records with valid, invalid and unusual fields, some of them damaged.

mod config;
mod names;
mod records;

use bytes::Bytes;
use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Map, Value, json};

pub(crate) fn cases() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

/// Names of the fields of all records, and some that no record has.
const FIELDS: [&str; 26] = [
    "uri",
    "incarnation",
    "metadata",
    "protocol",
    "node",
    "version",
    "number",
    "term",
    "leader",
    "cause",
    "by",
    "why",
    "outcome",
    "detail",
    "stable",
    "after_ms",
    "nodes",
    "last",
    "state",
    "phase",
    "clean",
    "slots",
    "owners",
    "ttl_ms",
    "left",
    "",
];

/// Texts that have a meaning in some record, or might confuse a reader.
const TEXTS: [&str; 16] = [
    "a",
    "b",
    "",
    "/",
    "n/m",
    " a",
    "\u{0}",
    "ready",
    "failed",
    "01ARZ3NDEKTSV4RRFFQ69G5FAV",
    "7ZZZZZZZZZZZZZZZZZZZZZZZZZ",
    "00000000000000000000000000",
    "http://h:1",
    "zwölf",
    "weight",
    "-1",
];

/// Generates a text, either one of [`TEXTS`] or an arbitrary one.
pub(crate) fn text() -> impl Strategy<Value = String> {
    prop_oneof![2 => select(TEXTS.to_vec()).prop_map(str::to_owned), 1 => any::<String>()]
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => text().prop_map(Value::from),
        2 => select(vec![0, 1, 2, 64, u64::from(u32::MAX), u64::MAX / 2, u64::MAX - 1, u64::MAX]).prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
    ]
}

/// Generates arbitrary JSON.
pub(crate) fn any_json() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            vec((text(), inner), 0..6).prop_map(|fields| fields.into_iter().collect::<Map<_, _>>().into()),
        ]
    })
}

/// Generates a valid record of any kind.
fn valid_record() -> impl Strategy<Value = Value> {
    let label = select(vec![
        "01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "01ARZ3NDEKTSV4RRFFQ69G5FAW",
        "7ZZZZZZZZZZZZZZZZZZZZZZZZZ",
    ]);
    let name = select(vec!["a", "b", "c"]);
    (label, name, any::<u64>(), select(vec!["ready", "failed"])).prop_flat_map(|(label, name, number, outcome)| {
        select(vec![
            json!({"uri": format!("http://{name}"), "incarnation": label, "metadata": {"zone": "x"}, "protocol": 1}),
            json!({"node": name, "incarnation": label}),
            json!({"node": name, "incarnation": label, "how": "left"}),
            json!({"version": label, "number": number, "term": number, "leader": name, "cause": [{"joined": name}]}),
            json!({"by": name, "why": "fuzz", "leader": name}),
            json!({"version": label, "term": number}),
            json!({"version": label, "outcome": outcome, "detail": "fuzz"}),
            json!({"version": label, "phase": "released"}),
            json!({"node": name, "incarnation": label, "uri": "http://a", "ttl_ms": number, "slots": 4, "left": true}),
            json!({"slots": 4, "owners": "//////////8="}),
            json!({"incarnation": label, "by": name, "why": "fuzz"}),
        ])
    })
}

/// Generates a record whose fields are valid, invalid or unusual.
pub(crate) fn any_record() -> impl Strategy<Value = Value> {
    let strange = vec((select(FIELDS.to_vec()), any_json()), 0..4);
    let causes = vec(any_json(), 0..3);
    (valid_record(), strange, causes, any::<[bool; 2]>()).prop_map(
        |(mut object, strange, causes, [with_strange, with_causes])| {
            if let Value::Object(fields) = &mut object {
                if with_strange {
                    fields.extend(strange.into_iter().map(|(field, value)| (field.to_owned(), value)));
                }
                if with_causes {
                    fields.insert("cause".to_owned(), causes.into());
                }
            }
            object
        },
    )
}

/// A way to damage bytes. Positions are taken modulo their length.
#[derive(Clone, Debug)]
enum Damage {
    Flip(usize, u8),
    Cut(usize, usize),
    Insert(usize, Vec<u8>),
    Double(usize, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let place = any::<usize>();
    prop_oneof![
        (place, any::<u8>()).prop_map(|(at, with)| Damage::Flip(at, with)),
        (place, 0..20usize).prop_map(|(at, len)| Damage::Cut(at, len)),
        (place, vec(select(b"{}[]\",:\\ntf0\x00\xff\xc3 ".to_vec()), 1..4))
            .prop_map(|(at, new)| Damage::Insert(at, new)),
        (place, 1..20usize).prop_map(|(at, len)| Damage::Double(at, len)),
    ]
}

fn damaged(mut bytes: Vec<u8>, damages: Vec<Damage>) -> Vec<u8> {
    for damage in damages {
        let len = bytes.len();
        let range = |at: usize, count: usize| {
            let from = at % (len + 1);
            from..(from + count).min(len)
        };
        match damage {
            Damage::Flip(at, with) if len > 0 => bytes[at % len] ^= with,
            Damage::Flip(..) => {}
            Damage::Cut(at, count) => drop(bytes.drain(range(at, count))),
            Damage::Insert(at, new) => drop(bytes.splice(range(at, 0), new)),
            Damage::Double(at, count) => {
                let again = bytes[range(at, count)].to_vec();
                drop(bytes.splice(range(at, 0), again));
            }
        }
    }
    bytes
}

/// Generates a value for a key of the cluster: a record, an invalid or damaged record, other JSON, or random bytes.
pub(crate) fn value() -> impl Strategy<Value = Bytes> {
    let bytes = |value: Value| value.to_string().into_bytes();
    let any = prop_oneof![
        3 => valid_record().prop_map(bytes),
        4 => any_record().prop_map(bytes),
        3 => (any_record(), vec(damage(), 1..4)).prop_map(move |(object, damages)| damaged(bytes(object), damages)),
        1 => any_json().prop_map(bytes),
        1 => vec(any::<u8>(), 0..80),
    ];
    // `Bytes` are shown as text when a test fails.
    any.prop_map(Bytes::from)
}

/// Generates a key under the cluster's prefixes, mostly one of the protocol.
pub(crate) fn key() -> impl Strategy<Value = String> {
    let known = [
        "view/leader",
        "view/version",
        "view/request",
        "view/stable",
        "view/gone",
        "view/nodes/a",
        "view/nodes/b",
        "view/nodes/c",
        "view/slots",
        "view/released",
        "view/holds/1",
        "view/holds/2",
        "view/holds/ff",
        "view/cordoned/a",
        "view/drain/b",
        "ready/a",
        "ready/b",
        "ready/c",
    ];
    let strange = [
        "view/",
        "view/nodes/",
        "view/nodes//",
        "view/nodes/ a",
        "view/nodes",
        "view/holds/",
        "view/holds/FF",
        "view/cordoned/a/b",
        "ready/",
        "ready/a/b",
    ];
    prop_oneof![
        8 => select(known.to_vec()).prop_map(|key| format!("c/{key}")),
        1 => select(strange.to_vec()).prop_map(|key| format!("c/{key}")),
        1 => any::<String>().prop_map(|rest| format!("c/view/nodes/{rest}")),
        1 => any::<String>().prop_map(|rest| format!("c/ready/{rest}")),
    ]
}
