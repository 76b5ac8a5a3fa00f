//! Property tests of configuration from the environment and from files: any input is accepted or rejected, and no
//! output shows a secret. `fuzz` in `clustering-core` has the command for a longer run.

use std::{collections::BTreeMap, ffi::OsString, sync::OnceLock, time::Duration};

use proptest::{collection::vec, prelude::*, sample::select};

use crate::{EtcdConfig, Pem, Tls, endpoint::Endpoint};

fn cases() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

/// Generates hosts, endpoints, lists of endpoints, and garbage.
fn place() -> impl Strategy<Value = String> {
    let part = select(vec![
        "http://",
        "https://",
        "etcd",
        "etcd-1.internal",
        "10.0.0.7",
        "[::1]",
        "::1",
        ":",
        ":2379",
        ":0",
        ":65536",
        ",",
        " ",
        "/",
        "-",
        ".",
        "é",
        "\u{0}",
        "_",
        "[",
        "]",
    ]);
    prop_oneof![4 => vec(part, 0..6).prop_map(|parts| parts.concat()), 1 => any::<String>()]
}

fn variables() -> impl Strategy<Value = BTreeMap<&'static str, String>> {
    let number = prop_oneof![
        4 => select(vec!["", "0", "1", "2", "15", "15s", "86400", "86401s", "-1", "1e3", "15m", "s", "+5", "18446744073709551616"])
            .prop_map(str::to_owned),
        1 => any::<u64>().prop_map(|number| number.to_string()),
        1 => any::<String>(),
    ]
    .boxed();
    let truth = select(vec!["", "1", "0", "true", "FALSE", "yes", "t", "f"]).prop_map(str::to_owned).boxed();
    let file =
        prop_oneof![Just(String::new()), Just("/no/such/file".to_owned()), Just("/".to_owned())].boxed();
    let place = place().boxed();
    let one = prop_oneof![
        3 => place.clone().prop_map(|value| ("ETCD_ENDPOINTS", value)),
        2 => place.clone().prop_map(|value| ("ETCD_HOST", value)),
        2 => number.clone().prop_map(|value| ("ETCD_PORT", value)),
        1 => place.clone().prop_map(|value| ("ETCDCTL_ENDPOINTS", value)),
        1 => place.prop_map(|value| ("ETCDCTL_DISCOVERY_SRV", value)),
        2 => number.prop_map(|value| ("ETCD_TTL", value)),
        1 => truth.clone().prop_map(|value| ("ETCDCTL_INSECURE_TRANSPORT", value)),
        1 => truth.prop_map(|value| ("ETCDCTL_INSECURE_SKIP_TLS_VERIFY", value)),
        1 => file.clone().prop_map(|value| ("ETCDCTL_CACERT", value)),
        1 => file.clone().prop_map(|value| ("ETCDCTL_CERT", value)),
        1 => file.prop_map(|value| ("ETCDCTL_KEY", value)),
    ];
    vec(one, 0..5).prop_map(|variables| variables.into_iter().collect())
}

fn config(variables: &BTreeMap<&'static str, String>) -> Result<EtcdConfig, crate::ConfigError> {
    crate::env::config(|name| variables.get(name).map(OsString::from))
}

/// Returns a certificate and its key, in PEM.
fn pair() -> &'static (String, String) {
    static PAIR: OnceLock<(String, String)> = OnceLock::new();
    PAIR.get_or_init(|| {
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate =
            rcgen::CertificateParams::new(["etcd".to_owned()]).expect("a name").self_signed(&key);
        (certificate.expect("a certificate").pem(), key.serialize_pem())
    })
}

/// Generates PEM data, valid or damaged, and garbage. It is text, so that failures are readable.
fn pem() -> impl Strategy<Value = String> {
    let whole = select(vec![0, 1, 2]).prop_map(|which| match which {
        0 => pair().0.clone(),
        1 => pair().1.clone(),
        _ => format!("{}{}", pair().1, pair().0),
    });
    let damage = vec(
        (
            any::<usize>(),
            select(vec!["", "-", "\n", "=", "-----BEGIN PRIVATE KEY-----\n", "A", "\u{0}", "é"]),
        ),
        0..4,
    );
    prop_oneof![
        6 => (whole, damage, any::<bool>()).prop_map(|(mut pem, damage, cut)| {
            for (at, text) in damage {
                let at = at % (pem.len() + 1);
                if pem.is_char_boundary(at) {
                    pem.insert_str(at, text);
                    if cut {
                        pem.truncate(at + text.len());
                    }
                }
            }
            pem
        }),
        1 => any::<String>(),
    ]
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn fuzz_accepted_endpoints_survive_a_round_trip(text in place()) {
        match text.parse::<Endpoint>() {
            Ok(endpoint) => {
                prop_assert_eq!(endpoint.to_string().parse::<Endpoint>().ok(), Some(endpoint.clone()));
                prop_assert!(!endpoint.host().is_empty() && endpoint.host().is_ascii());
            }
            Err(error) => prop_assert!(!error.rule().is_empty()),
        }
    }

    #[test]
    fn fuzz_a_password_in_an_endpoint_is_not_shown(before in place(), secret in "s3cr3t[a-z0-9]{4}", after in place()) {
        let endpoint = format!("{before}me:{secret}@{after}");
        for name in ["ETCD_ENDPOINTS", "ETCD_HOST", "ETCDCTL_ENDPOINTS"] {
            match config(&BTreeMap::from([(name, endpoint.clone())])) {
                Ok(config) => prop_assert!(false, "{config:?} was accepted"),
                Err(error) => {
                    prop_assert!(!format!("{error} {error:?}").contains(&secret), "{}", error);
                    prop_assert_eq!(error.what(), name);
                }
            }
        }
    }

    /// An accepted environment gives a valid configuration. The error of a rejected one names a variable that is set.
    #[test]
    fn fuzz_an_invalid_environment_is_reported_with_a_variable_that_is_set(variables in variables()) {
        match config(&variables) {
            Ok(config) => {
                prop_assert!(config.validate().is_ok() && !config.endpoints.is_empty());
                if let Some(ttl) = config.ttl {
                    prop_assert!(ttl >= Duration::from_secs(2) && ttl <= Duration::from_secs(86_400));
                }
            }
            Err(error) => {
                let named = variables.contains_key(error.what());
                // Without a configured CA, TLS needs those of the system, which may be missing.
                prop_assert!(named || error.what().starts_with("tls") || error.what() == "ETCDCTL_CACERT", "{}", error);
            }
        }
    }

    #[test]
    fn fuzz_a_password_is_not_shown(
        user in any::<String>(),
        secret in "s3cr3t[a-z0-9]{4}",
        apart in any::<bool>(),
        mut variables in variables(),
    ) {
        if apart {
            variables.insert("ETCDCTL_USER", user);
            variables.insert("ETCDCTL_PASSWORD", secret.clone());
        } else {
            variables.insert("ETCDCTL_USER", format!("{user}:{secret}"));
        }
        let shown = match config(&variables) {
            Ok(config) => format!("{config:?}"),
            Err(error) => format!("{error} {error:?} {:?}", clustering_core::store::StoreError::from(error.clone())),
        };
        prop_assert!(!shown.contains(&secret), "{}", shown);
    }

    #[test]
    fn fuzz_invalid_pem_is_rejected_without_showing_a_key(ca in pem(), certificate in pem(), key in pem()) {
        let tls = Tls::new().ca(Pem::bytes(ca)).identity(Pem::bytes(certificate), Pem::bytes(key));
        let shown = match tls.load() {
            Ok(_) => format!("{tls:?}"),
            Err(error) => {
                prop_assert!(error.what().starts_with("tls."), "{}", error);
                format!("{error} {error:?} {tls:?}")
            }
        };
        let body = pair().1.lines().nth(1).expect("a line of the key");
        prop_assert!(!body.as_bytes().windows(12).any(|part| shown.contains(&*String::from_utf8_lossy(part))), "{}", shown);
    }
}

#[test]
fn a_valid_pair_is_loaded() {
    let (certificate, key) = pair().clone();
    let tls =
        Tls::new().ca(Pem::bytes(certificate.clone())).identity(Pem::bytes(certificate), Pem::bytes(key));
    tls.load().expect("the pair is valid");
}
