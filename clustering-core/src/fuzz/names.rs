use proptest::{prelude::*, sample::select};

use super::{cases, text};
use crate::{
    keyspace::{KeyKind, Keyspace},
    name::{Namespace, NodeName, NodeUri},
    placement::Weight,
    store::{Key, Limits},
    version::Version,
};

fn namespace() -> impl Strategy<Value = String> {
    prop_oneof![
        text(),
        proptest::collection::vec(
            select(vec![
                "a",
                "b c",
                "view",
                "ready",
                "history",
                "nodes",
                "7",
                "",
                " ",
                "ä",
                "views",
                "history-7"
            ]),
            1..5
        )
        .prop_map(|parts| parts.join("/")),
    ]
}

fn uri() -> impl Strategy<Value = String> {
    let part = select(vec![
        "http",
        "://",
        "h",
        ":",
        "8080",
        "99999",
        "/",
        "@",
        "user:hunter2",
        "[::1]",
        "?",
        "#",
        "%",
        "%zz",
        " ",
        "ä",
        "..",
        "\u{0}",
        "x",
    ]);
    prop_oneof![
        any::<String>(),
        proptest::collection::vec(part, 0..8).prop_map(|parts| parts.concat()),
        "http://[a-z0-9.:@/-]{0,20}",
    ]
}

proptest! {
    #![proptest_config(cases())]

    /// The rules are written here a second time. A valid name can be parsed from the node's keys again.
    #[test]
    fn fuzz_names_follow_their_rules_and_can_be_parsed_from_their_keys(text in text(), long in 250..260usize) {
        for text in [text, "n".repeat(long)] {
            let good = !text.is_empty()
                && text.len() <= 255
                && text.trim() == text
                && !text.chars().any(|c| c == '/' || c.is_control());
            match NodeName::parse(&text) {
                Ok(name) => {
                    prop_assert!(good, "{:?}", text);
                    let keys = Keyspace::new(Namespace::parse("c/d").expect("a namespace"));
                    prop_assert_eq!(keys.kind_of(&keys.node_key(&name)), KeyKind::Node(name.clone()));
                    prop_assert_eq!(keys.acknowledger(&keys.readiness_key(&name)), Some(name.clone()));
                    let of = Keyspace::namespace_of_node(&keys.node_key(&name));
                    prop_assert_eq!(of.as_ref(), Some(keys.namespace()));
                    let json = serde_json::to_string(&name).expect("a string");
                    prop_assert_eq!(serde_json::from_str::<NodeName>(&json).ok(), Some(name));
                }
                Err(error) => {
                    prop_assert!(!good, "{}", error);
                    prop_assert!(error.to_string().len() < 700);
                    prop_assert!(serde_json::from_value::<NodeName>(text.into()).is_err());
                }
            }
        }
    }

    /// Two clusters have no key in common, and each recognizes its own keys.
    #[test]
    fn fuzz_different_namespaces_share_no_keys(one in namespace(), two in namespace(), name in text()) {
        let parsed = [&one, &two].map(|text| Namespace::parse(text).map(Keyspace::new));
        let name = NodeName::parse(&name).or_else(|_| NodeName::parse("n")).expect("a name");
        if let [Ok(one), Ok(two)] = &parsed {
            let key = one.node_key(&name);
            prop_assert!(key.len() <= Limits::KEY, "{}", key);
            prop_assert!(one.is_reserved(&key) && one.is_reserved(one.election_key()));
            if one != two {
                for key in [one.node_key(&name), one.readiness_key(&name), one.version_key().clone(), one.history_key(7)] {
                    prop_assert!(one.is_own(&key) && !two.is_own(&key), "{}", key);
                    prop_assert!(!two.is_reserved(&key), "{} is in {}", key, two.namespace());
                    prop_assert!(matches!(two.kind_of(&key), KeyKind::Unknown | KeyKind::BadName(_)), "{}", key);
                }
            }
        }
    }

    /// Any key in the store can be classified without a panic, and keys of the protocol survive a round trip.
    #[test]
    fn fuzz_any_key_can_be_classified(key in super::key(), any in any::<String>()) {
        let keys = Keyspace::new(Namespace::parse("c").expect("a namespace"));
        for key in [key, any] {
            let kind = keys.kind_of(&Key::from(key.clone()));
            if let KeyKind::Node(name) = kind {
                prop_assert_eq!(keys.node_key(&name), Key::from(key.clone()));
            }
            if let Some(name) = keys.acknowledger(&key) {
                prop_assert_eq!(keys.readiness_key(&name), Key::from(key.clone()));
            }
            if keys.is_own(&Key::from(key.clone())) {
                prop_assert!(keys.is_reserved(&key), "{}", key);
            }
            Keyspace::namespace_of_node(&key);
        }
    }

    /// An accepted URI has a scheme and contains no password.
    #[test]
    fn fuzz_accepted_uris_contain_no_password(text in uri()) {
        match NodeUri::parse(&text) {
            Ok(uri) => {
                prop_assert_eq!(uri.as_str(), &text);
                prop_assert!(text.contains("://") && !text.contains("hunter2@"), "{}", text);
                prop_assert_eq!(NodeUri::recorded(&text), uri);
            }
            Err(error) => {
                prop_assert_eq!(error.field, "uri");
                prop_assert!(error.to_string().len() < 1000, "{}", error);
            }
        }
    }

    #[test]
    fn fuzz_a_password_in_a_uri_is_never_shown(user in "[a-z]{0,4}", secret in "s3cr3t[a-z0-9]{4}", rest in "[a-z0-9.:/?#%-]{0,12}") {
        for text in [format!("http://{user}:{secret}@{rest}"), format!("//{user}:{secret}@h{rest}"), format!("{user}:{secret}@h")] {
            if let Err(error) = NodeUri::parse(&text) {
                prop_assert!(!format!("{error} {error:?}").contains(&secret), "{}", error);
            } else {
                prop_assert!(false, "{} was accepted", text);
            }
        }
    }

    /// Every version can be parsed from its text in upper and lower case. Texts that parse do so consistently.
    #[test]
    fn fuzz_versions_survive_a_round_trip_through_text(bits in any::<u128>(), text in text()) {
        let version = Version::from_u128(bits);
        prop_assert_eq!(version.to_string().parse::<Version>(), Ok(version));
        prop_assert_eq!(version.to_string().to_lowercase().parse::<Version>(), Ok(version));
        match text.parse::<Version>() {
            Ok(version) => prop_assert_eq!(version.to_string().parse::<Version>(), Ok(version)),
            Err(error) => prop_assert!(error.to_string().len() < 600),
        }
    }

    #[test]
    fn fuzz_weights_are_whole_numbers(number in any::<u32>(), text in text()) {
        prop_assert_eq!(number.to_string().parse::<Weight>().map(Weight::get), Ok(number));
        let digits = text.strip_prefix('+').unwrap_or(&text);
        let whole = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        prop_assert_eq!(text.parse::<Weight>().is_ok(), whole && digits.parse::<u32>().is_ok(), "{}", text);
    }
}
