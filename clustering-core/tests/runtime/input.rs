//! Invalid input gives an error with field, value and rule, and nothing is sent to the store.

use std::time::Duration;

use clustering_core::{
    Backoff, Builder, Clustering, CrashDetection, Discovery, Laggards, runtime::StartError,
    store::CoordinationStore,
};
use clustering_memory::Stats;

use crate::common::{Cluster, ms, secs, stable, start};

type Change = fn(Builder) -> Builder;

/// Field, value as the error shows it, part of the rule, and the change of the builder.
const INPUT: &[(&str, &str, &str, Change)] = &[
    ("name", "\"\"", "empty", |builder| builder.name("")),
    ("name", "\"a/b\"", "slash", |builder| builder.name("a/b")),
    ("name", "\"/\"", "slash", |builder| builder.name("/")),
    ("name", "\" a\"", "blanks", |builder| builder.name(" a")),
    ("name", "\"a\\n\"", "control", |builder| builder.name("a\n")),
    ("name", "\"\\0\"", "control", |builder| builder.name("\0")),
    ("name", "(256 bytes)", "at most 255 bytes", |builder| builder.name("n".repeat(256))),
    ("name", "(256 bytes)", "at most 255 bytes", |builder| builder.name("é".repeat(128))),
    ("uri", "\"\"", "required", |builder| builder.uri("")),
    ("uri", "not shown", "password", |builder| builder.uri("http://user:pass@host")),
    ("uri", "\"http://host:99999\"", "65535", |builder| builder.uri("http://host:99999")),
    ("uri", "\"10.0.0.7:8080\"", "scheme", |builder| builder.uri("10.0.0.7:8080")),
    ("uri", "\"host\"", "scheme", |builder| builder.uri("host")),
    ("uri", "\"http://\"", "host", |builder| builder.uri("http://")),
    ("uri", "\"http://:80\"", "host", |builder| builder.uri("http://:80")),
    ("uri", "\"://host\"", "URI", |builder| builder.uri("://host")),
    ("uri", "\"http://a b\"", "URI", |builder| builder.uri("http://a b")),
    ("uri", "(5007 bytes)", "4096", |builder| builder.uri(format!("http://{}", "h".repeat(5000)))),
    ("namespace", "\"\"", "empty", |builder| builder.namespace("")),
    ("namespace", "\"/a\"", "slash", |builder| builder.namespace("/a")),
    ("namespace", "\"a/\"", "slash", |builder| builder.namespace("a/")),
    ("namespace", "\"a//b\"", "slash", |builder| builder.namespace("a//b")),
    ("namespace", "\"a/view\"", "`view`", |builder| builder.namespace("a/view")),
    ("namespace", "\"ready/b\"", "`ready`", |builder| builder.namespace("ready/b")),
    ("namespace", "\"a\\tb\"", "control", |builder| builder.namespace("a\tb")),
    ("namespace", "\"a/ b\"", "blanks", |builder| builder.namespace("a/ b")),
    ("namespace", "(201 bytes)", "200", |builder| builder.namespace("n".repeat(201))),
    ("metadata", "\"\"", "key", |builder| builder.metadata("", "x")),
    ("metadata", "1 entries", "32768 bytes", |builder| builder.metadata("k", "v".repeat(32 * 1024))),
    ("metadata", "1 entries", "32768 bytes", |builder| builder.metadata("k", "\"".repeat(16 * 1024))),
    ("weight", "\"heavy\"", "whole number", |builder| builder.metadata("weight", "heavy")),
    ("weight", "\"-1\"", "whole number", |builder| builder.metadata("weight", "-1")),
    ("weight", "\"1.5\"", "whole number", |builder| builder.metadata("weight", "1.5")),
    ("weight", "\"4294967296\"", "whole number", |builder| builder.metadata("weight", "4294967296")),
    ("ttl", "0ns", "at least 1 s", |builder| builder.ttl(Duration::ZERO)),
    ("ttl", "999ms", "at least 1 s", |builder| builder.ttl(ms(999))),
    ("ttl", "86401s", "at most 1 day", |builder| builder.ttl(secs(86_401))),
    ("renew_every", "8s", "half of ttl", |builder| {
        builder.configure(|config| config.renew_every = Some(secs(8)))
    }),
    ("leadership", "15s", "less than ttl", |builder| {
        builder.configure(|config| config.leadership = Some(secs(15)))
    }),
    ("leadership", "5s", "renew_every", |builder| {
        builder.configure(|config| config.leadership = Some(secs(5)))
    }),
    ("call_timeout", "5s", "third of ttl", |builder| {
        builder.configure(|config| config.call_timeout = Some(secs(5)))
    }),
    ("stabilize_retry", "9s", "longest", |builder| {
        builder.configure(|config| config.stabilize_retry = Backoff::new(secs(9), secs(5)))
    }),
    ("publish_gap", "0ns", "zero", |builder| {
        builder.configure(|config| config.publish_gap = Backoff::new(Duration::ZERO, secs(5)))
    }),
    ("warn_after", "0ns", "zero", |builder| builder.configure(|config| config.warn_after = Duration::ZERO)),
    ("stabilize_timeout", "0ns", "zero", |builder| {
        builder.configure(|config| config.stabilize_timeout = Some(Duration::ZERO))
    }),
    ("on_stable_timeout", "0ns", "zero", |builder| {
        builder.configure(|config| config.on_stable_timeout = Some(Duration::ZERO))
    }),
    ("uri", "\"http://0.0.0.0:80\"", "CrashDetection::advertise", |builder| {
        builder.uri("http://0.0.0.0:80").detect_crashes(CrashDetection::new())
    }),
    ("crash_detection.advertise", "\"host:80\"", "without a port", |builder| {
        builder.detect_crashes(CrashDetection::new().advertise("host:80"))
    }),
    ("laggards", "10ms", "1 s", |builder| builder.laggards(Laggards::Evict { after: ms(10) })),
];

#[tokio::test(start_paused = true)]
async fn invalid_input_is_refused_with_field_value_and_rule_before_anything_is_sent() {
    let cluster = Cluster::new();
    for (field, given, rule, change) in INPUT {
        let (line, builder) = cluster.builder("a");
        let builder = change(builder);
        let before = builder.validate();
        let Err(error) = builder.start().await else { panic!("{field} {given} was accepted") };
        assert_eq!(before, Err(error.clone()), "validate returns the same error");
        let named = match &error {
            StartError::Input(input) => input.field,
            StartError::Config(config) => config.field,
            other => panic!("{field}: {other:?}"),
        };
        let text = error.to_string();
        assert_eq!(named, *field, "{text}");
        assert!(text.contains(field) && text.contains(given) && text.contains(rule), "{text}");
        assert!(text.len() < 400, "{text}");
        assert_eq!(line.attempted(clustering_testkit::faulty::Call::Grant), 0);
    }
    assert_eq!(cluster.store.stats(), Stats::default(), "nothing was sent");
}

#[tokio::test(start_paused = true)]
async fn a_uri_is_required() {
    let cluster = Cluster::new();
    let error = Clustering::builder(cluster.store.clone()).start().await.unwrap_err();
    assert!(matches!(&error, StartError::Input(input) if input.field == "uri"), "{error}");
    assert_eq!(cluster.store.stats(), Stats::default());
}

#[tokio::test(start_paused = true)]
async fn an_observer_checks_its_namespace_too() {
    let cluster = Cluster::new();
    let error = Discovery::observe(cluster.store.clone(), "a//b").await.unwrap_err();
    assert!(matches!(&error, StartError::Input(input) if input.field == "namespace"), "{error}");
    assert_eq!(cluster.store.stats(), Stats::default());
}

/// A start outside of a runtime returns an error instead of panicking.
#[test]
fn a_start_outside_of_a_runtime_is_refused() {
    let starting = Clustering::builder(clustering_memory::MemoryStore::new()).uri("http://host:80").start();
    let error = futures_util::FutureExt::now_or_never(starting).unwrap().unwrap_err();
    assert_eq!(error, StartError::NoRuntime);
    let builder = Clustering::builder(clustering_memory::MemoryStore::new()).uri("http://host:80");
    let starting = builder.detect_crashes(CrashDetection::new()).start();
    let error = futures_util::FutureExt::now_or_never(starting).unwrap().unwrap_err();
    assert_eq!(error, StartError::NoRuntime);
}

/// The longest and most unusual valid input is stored and read back unchanged.
#[tokio::test(start_paused = true)]
async fn input_at_the_limits_works() {
    let cluster = Cluster::new();
    let longest = "n".repeat(255);
    let names = [longest.as_str(), "ü ö", "日本", "a\"b\\c", "..", "*", "view", "Ready"];
    let mut nodes = Vec::new();
    for name in names {
        let (line, builder) = cluster.builder(name);
        let uri = format!("http://[::1]:80/{}", "p".repeat(4000));
        let builder = builder.uri(uri).namespace("n".repeat(200)).metadata("k", "v".repeat(32 * 1024 - 20));
        nodes.push(start(line, builder).await);
    }
    stable(&nodes).await;
    assert_eq!(nodes[0].nodes().len(), names.len());
    let namespaces = Discovery::services(&cluster.store).await.unwrap();
    assert_eq!(namespaces.iter().map(ToString::to_string).collect::<Vec<_>>(), ["n".repeat(200)]);
    for node in &nodes {
        assert!(nodes[0].discovery().node(node.name()).is_some());
        assert!(nodes[0].node_versions().await.unwrap().contains_key(node.name()));
    }
    for node in &nodes {
        node.stop().await.unwrap();
    }
    let left = cluster.store.read("").await.unwrap().entries;
    let history = left.iter().filter(|entry| entry.key.contains("/history/"));
    assert_eq!(left.len() - history.count(), 3, "version, stable, and the last departure");
}

/// Without a name the node gets a ULID, which a seed determines.
#[tokio::test(start_paused = true)]
async fn a_node_without_a_name_gets_a_ulid() {
    let cluster = Cluster::new();
    let builder = || Clustering::builder(cluster.store.clone()).uri("http://host:80");
    let (a, b) = (builder().start().await.unwrap(), builder().start().await.unwrap());
    assert_ne!(a.name(), b.name());
    for node in [&a, &b] {
        assert!(node.name().as_str().parse::<clustering_core::Version>().is_ok(), "{}", node.name());
    }
    let seeded = builder().seed(7).start().await.unwrap();
    let name = seeded.name().clone();
    seeded.stop().await.unwrap();
    assert_eq!(*builder().seed(7).start().await.unwrap().name(), name);
}
