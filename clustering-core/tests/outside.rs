//! A cluster seen and handled from outside, on the memory store under paused time.

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use std::{sync::Arc, time::Duration};

use clustering_core::{
    ClusterState, Clustering, Monitor, Namespace, NodeName, Operator, OperatorError, Readiness, Report,
    history,
    operator::{Purge, Purged},
    store::{CoordinationStore, CoordinationStoreExt, ErrorKind, Revision, Txn},
};
use clustering_memory::MemoryStore;
use clustering_testkit::faulty::{Call, FaultyStore};
use futures_util::FutureExt;

const TTL: Duration = Duration::from_secs(15);
const LABEL: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

fn name(text: &str) -> NodeName {
    NodeName::parse(text).unwrap()
}

fn namespace() -> Namespace {
    Namespace::parse("c").unwrap()
}

fn operator(store: &MemoryStore) -> Operator {
    Operator::new(store.clone(), namespace(), "ops")
}

async fn report(store: &MemoryStore) -> Report {
    Report::read(store, &namespace()).await.unwrap().expect("there is a cluster")
}

async fn node(store: &MemoryStore, name: &str) -> Clustering {
    let builder = Clustering::builder(store.clone()).namespace("c").name(name).uri("http://h:1");
    builder.start().await.unwrap()
}

/// Nodes of one cluster, stable, the first of which leads.
async fn nodes(store: &MemoryStore, names: &[&str]) -> Vec<Clustering> {
    let mut nodes: Vec<Clustering> = Vec::new();
    for name in names {
        nodes.push(node(store, name).await);
    }
    stable(store, names.len()).await;
    nodes
}

async fn stable(store: &MemoryStore, count: usize) -> Report {
    let mut seen = Revision::ZERO;
    loop {
        let report = operator(store).stable_after(seen).await.unwrap();
        if report.nodes.len() == count {
            return report;
        }
        seen = report.version.unwrap().revision;
    }
}

/// Otherwise the leader would seem to be late with recording that the version is stable.
#[tokio::test(start_paused = true)]
async fn a_version_that_waits_for_more_nodes_says_so_until_the_cluster_has_formed() {
    let store = MemoryStore::new();
    node_by_hand(&store, "a").await;
    version_by_hand(&store).await;
    let mut monitor = Monitor::start(Arc::new(store.clone()), &namespace()).await.unwrap();
    let version = |fields: &str| format!(r#"{{"version": "{LABEL}", "cause": [], {fields}}}"#);
    by_hand(&store, "view/version", &version(r#""min_nodes": 3"#)).await;
    wait_for_events(&mut monitor, &["has 1 node and the cluster begins with 3"]).await;
    let now = report(&store).await;
    assert_eq!(now.condition, ClusterState::WaitingForNodes { nodes: 1, min_nodes: 3 });
    assert_eq!(now.version.unwrap().min_nodes, Some(3));
    assert_eq!(
        serde_json::to_value(&now.condition).unwrap(),
        serde_json::json!({"state": "waiting_for_nodes", "nodes": 1, "min_nodes": 3})
    );
    by_hand(&store, "view/version", &version(r#""min_nodes": 3, "formed": true"#)).await;
    wait_for_events(&mut monitor, &["has only 1 node, fewer than the minimum of 3"]).await;
    assert!(matches!(report(&store).await.condition, ClusterState::Adapting { .. }));
}

/// Writes what other programs, or people, might have written.
async fn by_hand(store: &MemoryStore, key: &str, value: &str) {
    store.put(&format!("c/{key}"), value.to_owned().into(), None).await.unwrap();
}

async fn node_by_hand(store: &MemoryStore, name: &str) {
    by_hand(store, &format!("view/nodes/{name}"), r#"{"uri": "http://h:1", "incarnation": "x"}"#).await;
}

async fn version_by_hand(store: &MemoryStore) {
    by_hand(store, "view/leader", r#"{"node": "a", "incarnation": "x"}"#).await;
    by_hand(store, "view/version", &format!(r#"{{"version": "{LABEL}", "cause": []}}"#)).await;
}

#[tokio::test(start_paused = true)]
async fn a_stable_cluster_takes_two_reads() {
    let store = MemoryStore::new();
    let nodes = nodes(&store, &["a", "b", "c"]).await;
    let before = store.stats();
    let report = report(&store).await;
    assert_eq!(store.stats().since(&before).reads, 2);

    assert_eq!(report.condition, ClusterState::Stable);
    assert_eq!(report.leader_name(), Some(&name("a")));
    assert_eq!(report.leader.as_ref().map(|leader| leader.term), nodes[0].term());
    assert_eq!(report.version.as_ref().unwrap().version, nodes[0].cluster_version());
    assert_eq!((report.stable, report.ready()), (nodes[0].cluster_version(), 3));
    let leads: Vec<_> = report.nodes.iter().map(|node| (node.name.as_str(), node.leads)).collect();
    assert_eq!(leads, [("a", true), ("b", false), ("c", false)]);
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    assert!(report.nodes.iter().all(|node| node.registered_ms.unwrap().abs_diff(now) < 3_600_000));
    assert_eq!(report.placement().find("k"), nodes[0].discovery().find("k").as_ref());
}

#[tokio::test(start_paused = true)]
async fn laggards_are_reported_with_their_reasons() {
    let store = MemoryStore::new();
    let _a = node(&store, "a").await;
    let b = Clustering::builder(store.clone()).namespace("c").name("b").uri("http://h:1");
    let _b = b.stabilize(|_| async { Err::<(), _>("its disk is full") }).start().await.unwrap();
    let c = Clustering::builder(store.clone()).namespace("c").name("c").uri("http://h:1");
    let _c = c.stabilize(|_| std::future::pending::<()>()).start().await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let report = report(&store).await;
    let ClusterState::Adapting { waiting_for } = &report.condition else { panic!("{report:?}") };
    let waiting: Vec<_> =
        waiting_for.iter().map(|node| (node.name.as_str(), node.refused.as_deref())).collect();
    assert_eq!(waiting, [("b", Some("its disk is full")), ("c", None)]);
    assert_eq!(report.node(&name("b")).unwrap().readiness, Readiness::Refused("its disk is full".into()));
    assert_eq!(report.node(&name("c")).unwrap().readiness, Readiness::Stabilizing);
}

#[tokio::test(start_paused = true)]
async fn each_cluster_state_is_reported() {
    let store = MemoryStore::new();
    assert_eq!(Report::read(&store, &namespace()).await.unwrap(), None);
    by_hand(&store, "mine", "1").await;
    by_hand(&store, "ready/x", "garbage").await;
    assert_eq!(Report::read(&store, &namespace()).await.unwrap(), None, "these are not keys of a cluster");

    by_hand(&store, "view/stable", &format!(r#"{{"version": "{LABEL}"}}"#)).await;
    assert_eq!(report(&store).await.condition, ClusterState::Empty);
    node_by_hand(&store, "a").await;
    assert_eq!(report(&store).await.condition, ClusterState::Leaderless);
    by_hand(&store, "view/leader", "garbage").await;
    assert_eq!(report(&store).await.condition, ClusterState::Unreadable);
    store.delete("c/view/leader").await.unwrap();
    version_by_hand(&store).await;
    // The stability record is older than the version.
    let waiting = report(&store).await.condition;
    assert!(matches!(waiting, ClusterState::Adapting { waiting_for } if waiting_for[0].name == "a"));
    by_hand(&store, "ready/a", &format!(r#"{{"version": "{LABEL}", "outcome": "ready"}}"#)).await;
    assert_eq!(report(&store).await.condition, ClusterState::Confirming);
    by_hand(&store, "view/stable", &format!(r#"{{"version": "{LABEL}"}}"#)).await;
    assert_eq!(report(&store).await.condition, ClusterState::Stable);
    node_by_hand(&store, "b").await;
    let due = ClusterState::Due { changed: vec![name("b")], gone: 0, asked: false };
    assert_eq!(report(&store).await.condition, due);
    store.delete("c/view/nodes/b").await.unwrap();
    by_hand(&store, "view/stable", &format!(r#"{{"version": "{LABEL}", "nodes": 2}}"#)).await;
    let gone = ClusterState::Due { changed: vec![], gone: 1, asked: false };
    assert_eq!(report(&store).await.condition, gone);
    by_hand(&store, "view/stable", &format!(r#"{{"version": "{LABEL}", "nodes": 1}}"#)).await;
    by_hand(&store, "view/request", r#"{"by": "me", "why": "so"}"#).await;
    let asked = report(&store).await;
    assert_eq!(asked.condition, ClusterState::Due { changed: vec![], gone: 0, asked: true });
    assert_eq!(asked.request.unwrap().why.as_deref(), Some("so"));
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_of_another_session_or_version_does_not_count() {
    let store = MemoryStore::new();
    node_by_hand(&store, "a").await;
    version_by_hand(&store).await;
    let lease = store.grant_lease(TTL).await.unwrap().id;
    let ready = format!(r#"{{"version": "{LABEL}", "outcome": "ready"}}"#);
    store.put("c/ready/a", ready.into(), Some(lease)).await.unwrap();
    assert_eq!(report(&store).await.nodes[0].readiness, Readiness::Stabilizing);
    let other = r#"{"version": "01ARZ3NDEKTSV4RRFFQ69G5FAW", "outcome": "ready"}"#;
    by_hand(&store, "ready/a", other).await;
    assert_eq!(report(&store).await.nodes[0].readiness, Readiness::Stabilizing);
}

#[tokio::test(start_paused = true)]
async fn malformed_records_are_listed_and_do_not_affect_other_records() {
    let store = MemoryStore::new();
    let _nodes = nodes(&store, &["a"]).await;
    by_hand(&store, "view/nodes/bad", "garbage").await;
    by_hand(&store, "view/nodes/x/y", "{}").await;
    by_hand(&store, "view/unknown", "garbage").await;
    by_hand(&store, "ready/a2", "{").await;
    let report = report(&store).await;
    assert_eq!((report.condition, report.nodes.len()), (ClusterState::Stable, 1));
    let keys: Vec<_> = report.malformed.iter().map(|malformed| malformed.key.as_str()).collect();
    assert_eq!(keys, ["c/ready/a2", "c/view/nodes/bad", "c/view/nodes/x/y"]);
}

#[tokio::test(start_paused = true)]
async fn read_all_finds_clusters_and_the_remains_of_clusters() {
    let store = MemoryStore::new();
    let _nodes = nodes(&store, &["a"]).await;
    store.put("c/d/view/stable", "{}".into(), None).await.unwrap();
    store.put("other/thing", "1".into(), None).await.unwrap();
    store.put("c/ready", "1".into(), None).await.unwrap();
    let all = Report::read_all(&store, "").await.unwrap();
    let all: Vec<_> = all.iter().map(|one| (one.namespace.as_str(), one.nodes.len())).collect();
    assert_eq!(all, [("c", 1), ("c/d", 0)]);
    assert_eq!(Report::read_all(&store, "c/d").await.unwrap().len(), 1);
}

/// Waits for events that contain these texts, in this order, with any others between them.
async fn wait_for_events(monitor: &mut Monitor, wanted: &[&str]) -> Vec<String> {
    let mut seen = Vec::new();
    let mut wanted = wanted.iter().peekable();
    while let Some(next) = wanted.peek() {
        let events = tokio::time::timeout(Duration::from_secs(600), monitor.next()).await;
        let Ok(events) = events else { panic!("{next} was not seen, only {seen:#?}") };
        for event in events {
            let text = event.to_string();
            if wanted.peek().is_some_and(|wanted| text.contains(**wanted)) {
                wanted.next();
            }
            seen.push(text);
        }
    }
    seen
}

#[tokio::test(start_paused = true)]
async fn a_monitor_returns_events_and_keeps_its_report_up_to_date() {
    let store = MemoryStore::new();
    let before = store.stats();
    let mut monitor = Monitor::start(Arc::new(store.clone()), &namespace()).await.unwrap();
    assert_eq!(monitor.report(), None);
    let a = node(&store, "a").await;
    let wanted = ["a is present", "a leads, term", "of 1 node: a was elected", "a is ready at", "stable at"];
    wait_for_events(&mut monitor, &wanted).await;
    let b = node(&store, "b").await;
    wait_for_events(
        &mut monitor,
        &["b is present at http://h:1", "of 2 nodes: b joined", "ready at", "stable at"],
    )
    .await;
    assert_eq!(monitor.report(), Some(report(&store).await));
    b.stop().await.unwrap();
    wait_for_events(&mut monitor, &["b is gone: it left", "of 1 node: b left", "stable at"]).await;
    operator(&store).change(Some("just so")).await.unwrap();
    let said = wait_for_events(&mut monitor, &["ops asks for a new version (just so)", "stable at"]).await;
    assert!(said.last().unwrap().contains(", after "), "{said:?}");
    a.stop().await.unwrap();
    wait_for_events(&mut monitor, &["nobody leads"]).await;
    assert_eq!(monitor.report().unwrap().condition, ClusterState::Empty);
    by_hand(&store, "view/nodes/bad", "garbage").await;
    wait_for_events(&mut monitor, &["cannot read c/view/nodes/bad"]).await;
    // There is no event for the deletion of a malformed record, but the report changes.
    store.commit(Txn::new().delete("c/view/nodes/bad").delete("c/view/stable")).await.unwrap();
    while monitor.report() != Some(report(&store).await) {
        let seen = tokio::time::timeout(Duration::from_secs(600), monitor.next()).await;
        assert_eq!(seen.unwrap(), Vec::new());
    }
    assert!(store.stats().since(&before).watches >= 2);
}

#[tokio::test(start_paused = true)]
async fn a_monitor_continues_after_a_compaction_and_an_outage() {
    let store = MemoryStore::new();
    let faulty = FaultyStore::new(store.clone());
    let mut monitor = Monitor::start(Arc::new(faulty.clone()), &namespace()).await.unwrap();
    faulty.cut();
    tokio::time::timeout(Duration::from_secs(1), monitor.next()).await.map(drop).unwrap();
    let _nodes = nodes(&store, &["a"]).await;
    store.compact(store.revision());
    faulty.heal();
    wait_for_events(&mut monitor, &["the store is back", "read a snapshot at revision"]).await;
    assert_eq!(monitor.report(), Some(report(&store).await));
    let _b = node(&store, "b").await;
    wait_for_events(&mut monitor, &["b is present", "stable at"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_publishes_a_version_that_names_the_requester() {
    let store = MemoryStore::new();
    assert_eq!(operator(&store).change(None).await, Err(OperatorError::NoCluster(namespace())));
    let nodes = nodes(&store, &["a", "b"]).await;
    let old = nodes[1].cluster_version().unwrap();
    let seen = operator(&store).change(Some("by hand")).await.unwrap();
    let version = operator(&store).published_after(seen).await.unwrap();
    assert!(version > old);
    let report = operator(&store).stable_after(seen).await.unwrap();
    let causes: Vec<_> = report.version.unwrap().causes.iter().map(ToString::to_string).collect();
    assert_eq!(causes, ["ops asked (by hand)"]);
}

#[tokio::test(start_paused = true)]
async fn p5_after_a_resignation_another_node_leads() {
    let store = MemoryStore::new();
    assert_eq!(operator(&store).resign(None, None).await, Err(OperatorError::NoCluster(namespace())));
    let mut nodes = nodes(&store, &["a", "b", "c", "d"]).await;
    let term = operator(&store).resign(None, None).await.unwrap();
    let (leader, next) = operator(&store).led_after(term).await.unwrap();
    assert_eq!(leader, Some(name("d")), "the youngest of the other nodes");
    assert!(next > term && !nodes[0].is_leader());

    // b leads because the request favours it, although c is younger.
    let term = operator(&store).resign(Some(&name("b")), Some("a better machine")).await.unwrap();
    assert_eq!(operator(&store).led_after(term).await.unwrap().0, Some(name("b")));
    let causes = report(&store).await.version.unwrap().causes;
    let causes: Vec<_> = causes.iter().map(ToString::to_string).collect();
    assert_eq!(causes, ["b was elected", "ops asked (a better machine)"]);

    let already = operator(&store).resign(Some(&name("b")), None).await;
    assert_eq!(already, Err(OperatorError::LeadsAlready(name("b"))));
    let nobody = operator(&store).resign(Some(&name("x")), None).await.unwrap_err().to_string();
    assert_eq!(nobody, "no node x is present; there are a, b, c, d");
    let b = nodes.remove(1);
    for node in nodes {
        node.stop().await.unwrap();
    }
    assert_eq!(operator(&store).resign(None, None).await, Err(OperatorError::Alone));
    b.stop().await.unwrap();
    assert_eq!(operator(&store).resign(None, None).await, Err(OperatorError::NoLeader));
}

#[tokio::test(start_paused = true)]
async fn p7_an_evicted_node_leaves_the_view_and_rejoins() {
    let store = MemoryStore::new();
    let nodes = nodes(&store, &["a", "b"]).await;
    let mut monitor = operator(&store).monitor().await.unwrap();
    operator(&store).evict(&name("b")).await.unwrap();
    let causes = "of 1 node: b was evicted, ops asked (evicted b)";
    wait_for_events(
        &mut monitor,
        &["b is gone: it was evicted", causes, "stable at", "b is present", "of 2 nodes"],
    )
    .await;
    stable(&store, 2).await;

    // After the eviction of the leader, another node leads.
    let term = nodes[0].term().unwrap();
    operator(&store).evict(&name("a")).await.unwrap();
    assert_eq!(operator(&store).led_after(term).await.unwrap().0, Some(name("b")));
    stable(&store, 2).await;
    let gone = operator(&store).evict(&name("x")).await.unwrap_err();
    assert_eq!(gone.to_string(), "no node x is present; there are a, b");
    // A malformed record can be evicted too.
    by_hand(&store, "view/nodes/bad", "garbage").await;
    operator(&store).evict(&name("bad")).await.unwrap();
    assert_eq!(report(&store).await.malformed, []);
}

#[tokio::test(start_paused = true)]
async fn an_operation_whose_reply_is_lost_is_executed_once() {
    let store = MemoryStore::new();
    let _nodes = nodes(&store, &["a", "b", "c"]).await;
    let faulty = FaultyStore::new(store.clone());
    let operator = Operator::new(faulty.clone(), namespace(), "ops");
    let term = report(&store).await.leader.unwrap().term;
    faulty.lose_replies(Call::Commit, 1);
    assert_eq!(operator.resign(None, None).await, Ok(term));
    faulty.lose_replies(Call::Commit, 1);
    operator.evict(&name("c")).await.unwrap();
    faulty.lose_replies(Call::Commit, 1);
    operator.change(None).await.unwrap();
    stable(&store, 3).await;
}

#[tokio::test(start_paused = true)]
async fn long_texts_do_not_make_operations_fail() {
    let store = MemoryStore::new();
    let _nodes = nodes(&store, &["a", "b"]).await;
    let long = "\u{1}".repeat(100_000);
    let operator = Operator::new(store.clone(), namespace(), long.clone());
    let seen = operator.change(Some(&long)).await.unwrap();
    operator.published_after(seen).await.unwrap();
    let term = operator.resign(Some(&name("b")), Some(&long)).await.unwrap();
    operator.led_after(term).await.unwrap();
    // A record of 64 KiB, whose incarnation is too long for a departure record.
    let record = format!(r#"{{"uri": "", "incarnation": "{}"}}"#, "x".repeat(65_500));
    by_hand(&store, "view/nodes/x", &record).await;
    operator.evict(&name("x")).await.unwrap();
    stable(&store, 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_purge_deletes_only_the_keys_of_its_cluster() {
    let store = MemoryStore::new();
    let nodes = nodes(&store, &["a", "b"]).await;
    store.put("c/mine", "1".into(), None).await.unwrap();
    store.put("c/d/view/stable", "{}".into(), None).await.unwrap();
    let refused = operator(&store).purge(Purge::default()).await;
    assert_eq!(refused, Err(OperatorError::NodesPresent(vec![name("a"), name("b")])));
    for node in nodes {
        node.stop().await.unwrap();
    }
    for number in 0..100 {
        by_hand(&store, &format!("ready/{number}"), "1").await;
    }
    let view = store.read("c/view/").await.unwrap().entries.len() + 100;
    let standing = view + store.read("c/history/").await.unwrap().entries.len();
    assert!(standing > view, "the history has entries");
    let purged = operator(&store).purge(Purge::default()).await.unwrap();
    assert_eq!((purged.keys, purged.commits), (standing, standing.div_ceil(15)));
    assert!(purged.left.is_empty(), "{purged:?}");
    let left: Vec<_> = store.read("").await.unwrap().entries.into_iter().map(|entry| entry.key).collect();
    assert_eq!(left.iter().map(|key| key.as_str()).collect::<Vec<_>>(), ["c/d/view/stable", "c/mine"]);
    assert_eq!(operator(&store).purge(Purge::default()).await, Err(OperatorError::NoCluster(namespace())));
}

/// The other keys include a cluster that an older release allowed there, and one that a store's prefix hides.
#[tokio::test(start_paused = true)]
async fn a_purge_leaves_foreign_keys_below_the_clusters_prefixes() {
    let store = MemoryStore::new();
    by_hand(&store, "view/stable", "{}").await;
    let others = [
        "history/64",
        "history/view/leader",
        "history/view/nodes/a",
        "history/view/version",
        "ready/a/b",
        "view/nodes/a/b",
        "view/p/view/nodes/a",
        "view/unknown",
    ];
    for other in others {
        let record =
            format!(r#"{{"uri": "http://h:1", "incarnation": "x", "version": "{LABEL}", "number": 7}}"#);
        by_hand(&store, other, &record).await;
    }
    assert_eq!(
        history(&store, operator(&store).keyspace()).await.unwrap(),
        [],
        "the entries belong to another cluster"
    );
    let purged = operator(&store).purge(Purge::default()).await.unwrap();
    let left: Vec<_> = store.read("").await.unwrap().entries.into_iter().map(|entry| entry.key).collect();
    assert_eq!(left, others.map(|other| format!("c/{other}").into()));
    let mut said = purged.left;
    said.sort();
    assert_eq!((purged.keys, said), (1, left));
    assert_eq!(operator(&store).purge(Purge::default()).await, Err(OperatorError::NoCluster(namespace())));
}

#[tokio::test(start_paused = true)]
async fn purge_and_history_do_not_touch_nested_namespaces() {
    let namespaces = [
        "a",
        "a/b",
        "a/b/c",
        "a/viewer",
        "a/view-1",
        "a/already",
        "a/ready-1",
        "a/prehistory",
        "a/history-1",
        "a/nodes",
        "a/nodes/a",
        "a/leader",
        "a/version",
        "a/7",
        "a0",
        "b",
    ];
    let store = MemoryStore::new();
    let mut nodes = Vec::new();
    for namespace in namespaces {
        let node = Clustering::builder(store.clone()).namespace(namespace).name("a").uri("http://h:1");
        let node = node.start().await.unwrap();
        node.request_version(namespace).await.unwrap();
        node.wait_stable().await.unwrap();
        nodes.push(node);
    }
    for node in &nodes {
        let asked = node.history().await.unwrap().iter().map(|entry| entry.to_string()).collect::<Vec<_>>();
        assert_eq!(asked.len(), 2, "{asked:?}");
        assert!(asked[0].contains(&format!("a asked ({})", node.namespace())), "{asked:?}");
    }
    for node in nodes {
        node.stop().await.unwrap();
    }
    let all = async || -> Vec<_> {
        store.read("").await.unwrap().entries.into_iter().map(|entry| entry.key.to_string()).collect()
    };
    for namespace in namespaces {
        let before = all().await;
        let parsed = Namespace::parse(namespace).unwrap();
        let purged = Operator::new(store.clone(), parsed, "ops").purge(Purge::default()).await.unwrap();
        assert!(purged.left.is_empty(), "{purged:?}");
        let own = |key: &String| {
            let rest = key.strip_prefix(namespace).and_then(|rest| rest.strip_prefix('/'));
            rest.is_some_and(|rest| Namespace::RESERVED.contains(&rest.split('/').next().unwrap()))
        };
        let kept: Vec<_> = before.into_iter().filter(|key| !own(key)).collect();
        assert_eq!(all().await, kept, "{namespace}");
    }
    assert!(all().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn after_a_forced_purge_live_nodes_rejoin() {
    let store = MemoryStore::new();
    let _nodes = nodes(&store, &["a", "b"]).await;
    let version = report(&store).await.version.unwrap().revision;
    let purged: Purged = operator(&store).purge(Purge::new(true)).await.unwrap();
    assert!(purged.keys >= 6, "{purged:?}");
    let back = stable(&store, 2).await;
    assert!(back.version.unwrap().revision > version);
}

#[tokio::test(start_paused = true)]
async fn a_purge_does_not_delete_keys_that_changed_since_its_read() {
    let store = MemoryStore::new();
    by_hand(&store, "view/stable", "{}").await;
    for number in 0..40 {
        by_hand(&store, &format!("ready/{number:02}"), "1").await;
    }
    let faulty = FaultyStore::new(store.clone());
    let (inner, mut commits) = (store.clone(), 0);
    faulty.fail_next_commit_matching(ErrorKind::Refused, move |_| {
        commits += 1;
        if commits == 2 {
            let joins =
                inner.put("c/view/nodes/late", r#"{"uri": "http://h", "incarnation": "x"}"#.into(), None);
            joins.now_or_never().unwrap().unwrap();
            let elects = inner.put("c/view/leader", r#"{"node": "late", "incarnation": "x"}"#.into(), None);
            elects.now_or_never().unwrap().unwrap();
        }
        false
    });
    let purged = Operator::new(faulty, namespace(), "ops").purge(Purge::default()).await;
    assert_eq!(purged, Err(OperatorError::NodesPresent(vec![name("late")])));
    assert_eq!(report(&store).await.leader_name(), Some(&name("late")));
}
