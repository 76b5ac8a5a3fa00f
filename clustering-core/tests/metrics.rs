//! Metrics: each is written with its documented labels and with the right values.

#![allow(clippy::unwrap_used, reason = "a failed expectation fails the test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use clustering_core::{
    Builder, Clustering, Event, EventsError, HealthChecks, Outcome, Stabilization, Status,
    metrics::{self as names, Kind, Metric},
    store::{CoordinationStore, CoordinationStoreExt, ErrorKind},
};
use clustering_memory::MemoryStore;
use clustering_testkit::faulty::{Call, FaultyStore};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tokio::time::sleep;

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A metric's name and its labels.
type Series = (String, Vec<(String, String)>);

/// The values of each series.
#[derive(Clone, Debug, Default)]
struct Seen(BTreeMap<Series, Vec<f64>>);

impl Seen {
    /// Adds the values that were written since the last call. A snapshot resets counters and histograms.
    fn look(&mut self, snapshotter: &Snapshotter) {
        for (key, _, _, value) in snapshotter.snapshot().into_vec() {
            let key = key.key();
            let labels: Vec<_> =
                key.labels().map(|label| (label.key().to_owned(), label.value().to_owned())).collect();
            let seen = self.0.entry((key.name().to_owned(), labels)).or_default();
            match value {
                DebugValue::Counter(count) => *seen = vec![seen.first().unwrap_or(&0.0) + count as f64],
                DebugValue::Gauge(value) => *seen = vec![value.into_inner()],
                DebugValue::Histogram(values) => seen.extend(values.iter().map(|value| value.into_inner())),
            }
        }
    }

    /// Returns the values of a metric with the given label, or all its values.
    fn of(&self, metric: Metric, label: Option<(&str, &str)>) -> Vec<f64> {
        let has = |labels: &[(String, String)]| {
            label.is_none_or(|(key, value)| labels.contains(&(key.to_owned(), value.to_owned())))
        };
        let mine = self.0.iter().filter(|((name, labels), _)| name == metric.name && has(labels));
        mine.flat_map(|(_, values)| values.clone()).collect()
    }

    fn one(&self, metric: Metric, label: Option<(&str, &str)>) -> f64 {
        match self.of(metric, label)[..] {
            [value] => value,
            ref values => panic!("{} {label:?}: {values:?}", metric.name),
        }
    }
}

fn node(store: &FaultyStore, name: &str) -> Builder {
    Clustering::builder(store.clone()).name(name).uri("http://host").seed(1).namespace("ns")
}

async fn until(node: &Clustering, is: impl FnMut(&Status) -> bool) {
    let mut status = node.status();
    tokio::time::timeout(secs(900), status.wait_for(is))
        .await
        .expect("the status never reached the condition")
        .unwrap();
}

/// Returns a health check that the test controls: 0 means healthy, 1 unhealthy.
fn health(of: &Arc<AtomicU64>) -> impl Fn() -> std::future::Ready<bool> + Send + Sync + 'static {
    let of = of.clone();
    move || std::future::ready(of.load(Ordering::Relaxed) == 0)
}

/// Makes a node write every metric.
async fn play(snapshotter: &Snapshotter) -> Seen {
    let mut seen = Seen::default();
    let store = MemoryStore::new();
    let line = FaultyStore::new(store.clone());
    let ill = Arc::new(AtomicU64::new(0));
    let builder = node(&line, "a")
        .health(health(&ill))
        .configure(|config| config.health = Some(HealthChecks { failures: 2, ..HealthChecks::default() }))
        .stabilize(|change: Stabilization| async move {
            tokio::select! {
                () = sleep(secs(3)) => {}
                () = change.superseded() => return Outcome::refused("superseded"),
            }
            match change.attempt() {
                1 => Outcome::refused("not at once"),
                _ => Outcome::Ready,
            }
        });
    let mut slow = builder.events();
    let a = builder.start().await.unwrap();
    let first = a.wait_stable().await.unwrap();
    seen.look(snapshotter);
    assert_eq!(seen.one(names::LEADER, None), 1.0);
    assert_eq!(seen.one(names::STABLE, None), 1.0);
    // Two attempts of 3 s, and a pause between them.
    let stable = seen.one(names::VERSION_STABLE, None);
    assert!((6.0..7.0).contains(&stable), "{stable}");
    assert_eq!(seen.of(names::STABILIZE, Some(("outcome", "refused"))), [3.0]);
    assert_eq!(seen.of(names::STABILIZE, Some(("outcome", "ready"))), [3.0]);
    assert_eq!(seen.one(names::STABILIZE_ATTEMPTS, None), 2.0);

    // A node of another process, which never becomes ready. It must not be measured here, since the names are the same.
    let lease = store.grant_lease(secs(60)).await.unwrap().id;
    let record = r#"{"uri": "http://b", "incarnation": "b"}"#;
    store.put("ns/view/nodes/b", record.into(), Some(lease)).await.unwrap();
    until(&a, |status| status.cluster_version().is_some_and(|own| own != first)).await;
    // The leader's second watch delivers its own acknowledgement.
    sleep(Duration::from_millis(10)).await;
    seen.look(snapshotter);
    assert_eq!(seen.one(names::VERSIONS, Some(("cause", "joined"))), 2.0);
    assert_eq!(seen.one(names::NODES, Some(("state", "present"))), 2.0);
    assert_eq!(seen.one(names::NODES, Some(("state", "unready"))), 1.0);
    a.cluster_change().await.unwrap();
    store.revoke_lease(lease).await.unwrap();
    a.wait_stable().await.unwrap();
    seen.look(snapshotter);
    assert!(!seen.of(names::STABILIZE, Some(("outcome", "superseded"))).is_empty());

    // The store is away for longer than the lease lives.
    line.fail_next(Call::Renew, 1, ErrorKind::Busy);
    sleep(secs(6)).await;
    line.cut();
    until(&a, |status| status.active_term.is_none()).await;
    seen.look(snapshotter);
    assert_eq!(
        (seen.one(names::LEADER, None), seen.one(names::MEMBER, None)),
        (0.0, 1.0),
        "the leadership deadline has passed"
    );
    assert_eq!(seen.one(names::STORE_AWAY, None), 1.0);
    until(&a, |status| !status.member).await;
    seen.look(snapshotter);
    assert_eq!((seen.one(names::STABLE, None), seen.one(names::MEMBER, None)), (0.0, 0.0));
    assert_eq!(seen.one(names::SESSIONS_LOST, Some(("reason", "expired"))), 1.0);
    assert!(seen.one(names::RENEWALS, Some(("outcome", "failed"))) > 3.0);
    line.heal();
    a.wait_stable().await.unwrap();
    line.compact_watches();
    a.cluster_change().await.unwrap();
    a.wait_stable().await.unwrap();

    // It becomes unhealthy.
    ill.store(1, Ordering::Relaxed);
    until(&a, |status| !status.member).await;
    seen.look(snapshotter);
    assert_eq!(seen.one(names::HEALTHY, None), 0.0);
    assert_eq!(seen.one(names::SESSIONS_LOST, Some(("reason", "unhealthy"))), 1.0);
    ill.store(0, Ordering::Relaxed);
    until(&a, |status| status.active_term.is_some()).await;

    // This subscriber has read no events so far.
    for _ in 0..400 {
        a.cluster_change().await.unwrap();
    }
    let Err(EventsError::Missed(missed)) = slow.recv().await else { panic!("1024 are kept") };
    a.wait_stable().await.unwrap();
    seen.look(snapshotter);
    assert_eq!(seen.one(names::EVENTS_MISSED, None), missed as f64);
    assert_eq!(seen.one(names::TERM, None), a.term().unwrap().get() as f64);
    assert_eq!(seen.one(names::NODES, Some(("state", "present"))), 1.0);
    assert_eq!(seen.one(names::NODES, Some(("state", "versioned"))), 1.0);
    assert_eq!(seen.one(names::NODES, Some(("state", "unready"))), 0.0);
    let renewed = seen.one(names::RENEWALS, Some(("outcome", "done")));
    let left = seen.of(names::RENEWAL_LEFT, None);
    assert_eq!(left.len() as f64, renewed);
    assert!(left.contains(&10.0) && left.iter().all(|left| *left < 15.0), "{left:?}");
    a.stop().await.unwrap();
    seen.look(snapshotter);
    for gauge in [names::LEADER, names::MEMBER, names::STABLE, names::TERM] {
        assert_eq!(seen.one(gauge, None), 0.0, "{} of one that has ended", gauge.name);
    }
    seen
}

#[tokio::test(start_paused = true)]
async fn every_metric_is_written_with_its_labels_and_no_other_is() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let seen = play(&snapshotter).await;

    let written: BTreeSet<&str> = seen.0.keys().map(|(name, _)| name.as_str()).collect();
    let named: BTreeSet<&str> = names::ALL.iter().map(|metric| metric.name).collect();
    assert_eq!(written, named);
    let mut series = BTreeMap::<&str, usize>::new();
    for (name, labels) in seen.0.keys() {
        let metric = names::ALL.iter().find(|metric| metric.name == name).unwrap();
        let keys: Vec<_> = labels.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, metric.labels, "{name}");
        *series.entry(name).or_default() += 1;
        for (key, value) in labels {
            let known = match key.as_str() {
                "namespace" => value == "ns",
                "version" => value == env!("CARGO_PKG_VERSION"),
                "event" => Event::KINDS.contains(&value.as_str()),
                _ => value.chars().all(|c| c.is_ascii_lowercase() || "_ ".contains(c)),
            };
            assert!(known, "{name} has {key}={value}");
        }
    }
    // The number of series does not depend on the number of versions, nodes and terms.
    let most = series.iter().max_by_key(|(_, count)| **count).unwrap();
    assert!(*most.1 <= Event::KINDS.len(), "{most:?}");
}

#[test]
fn names_follow_prometheus_and_the_guide_lists_all_metrics() {
    let mut table = Vec::new();
    for Metric { name, kind, labels, help } in names::ALL {
        assert!(name.starts_with("clustering_") && help.ends_with('.'), "{name}");
        assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
        assert_eq!(name.ends_with("_seconds"), *kind == Kind::Seconds, "{name}");
        let labels = labels.join("`, `");
        let labels = if labels.is_empty() { String::new() } else { format!("`{labels}`") };
        table.push(format!("| `{name}` | {} | {labels} | {} |", kind.name(), help.trim_end_matches('.')));
    }
    let documented = include_str!("../src/docs/operating.md");
    let is_row = |line: &&str| {
        let kind = line.split(" | ").nth(1).unwrap_or_default();
        line.starts_with("| `clustering_")
            && [Kind::Counter, Kind::Gauge, Kind::Seconds].iter().any(|of| of.name() == kind)
    };
    let rows: Vec<_> = documented.lines().filter(is_row).collect();
    assert_eq!(rows, table, "the table should be:\n{}", table.join("\n"));
}
