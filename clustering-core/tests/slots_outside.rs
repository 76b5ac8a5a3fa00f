//! Reports and operations on exclusive clusters from outside: slots, cordons, drains. The records are written by hand.

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use clustering_core::{
    ClusterState, Clustering, Monitor, Namespace, NodeName, Operator, OperatorError, Readiness, Report,
    operator::Purge,
    report::{Handover, SlotsReport},
    slots::{Assignment, Slot, SlotCount},
    store::{CoordinationStore, CoordinationStoreExt, LeaseId},
};
use clustering_memory::MemoryStore;
use clustering_testkit::faulty::{Call, FaultyStore};
use serde_json::{Value, json};

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

async fn slots(store: &MemoryStore) -> SlotsReport {
    report(store).await.slots.expect("the cluster is exclusive")
}

/// An exclusive cluster whose records are written by hand.
struct Exclusive {
    store: MemoryStore,
    leases: BTreeMap<String, LeaseId>,
}

impl Exclusive {
    fn new() -> Self {
        Exclusive { store: MemoryStore::new(), leases: BTreeMap::new() }
    }

    async fn put(&self, key: &str, value: Value, lease: Option<LeaseId>) {
        self.store.put(&format!("c/{key}"), value.to_string().into(), lease).await.unwrap();
    }

    /// Writes the record of a node without the witness of its session.
    async fn plain(&mut self, name: &str) -> LeaseId {
        let lease = self.store.grant_lease(TTL).await.unwrap().id;
        self.leases.insert(name.to_owned(), lease);
        let record = json!({"uri": "http://h:1", "incarnation": format!("of-{name}")});
        self.put(&format!("view/nodes/{name}"), record, Some(lease)).await;
        lease
    }

    async fn node(&mut self, name: &str) -> LeaseId {
        let lease = self.plain(name).await;
        self.put(&format!("view/holds/{lease}"), Self::witness(name), Some(lease)).await;
        lease
    }

    fn witness(name: &str) -> Value {
        json!({
            "node": name, "incarnation": format!("of-{name}"), "uri": "http://h:1", "ttl_ms": 15_000, "slots": 8
        })
    }

    /// Publishes a version that assigns eight slots to these nodes in turn.
    async fn publish(&self, owners: &[&str], clean: bool, cause: Value) {
        let names: Vec<NodeName> = owners.iter().map(|owner| name(owner)).collect();
        let owner = |slot: Slot| names.get(usize::from(slot.number()) % names.len().max(1));
        let assignment = Assignment::new(SlotCount::new(8).unwrap(), owner);
        self.store.put("c/view/slots", assignment.encode().into(), None).await.unwrap();
        self.put("view/leader", json!({"node": "a", "incarnation": "of-a"}), None).await;
        self.put("view/version", json!({"version": LABEL, "clean": clean, "cause": cause}), None).await;
    }

    async fn answer(&self, name: &str, answer: Value) {
        let mut record = json!({ "version": LABEL });
        record.as_object_mut().unwrap().extend(answer.as_object().unwrap().clone());
        self.put(&format!("ready/{name}"), record, Some(self.leases[name])).await;
    }

    async fn releases(&self, name: &str) {
        self.answer(name, json!({ "phase": "released" })).await;
    }

    async fn acknowledges(&self, name: &str) {
        self.answer(name, json!({ "outcome": "ready" })).await;
    }

    async fn released(&self) {
        self.put("view/released", json!({"version": LABEL, "term": 1}), None).await;
    }
}

fn waiting_for(report: &Report) -> Vec<&str> {
    let ClusterState::Releasing { waiting_for } = &report.condition else { panic!("{report:#?}") };
    waiting_for.iter().map(|node| node.name.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn each_phase_of_a_hand_over_is_reported() {
    let mut cluster = Exclusive::new();
    for name in ["a", "b"] {
        cluster.node(name).await;
    }
    cluster.publish(&["a", "b"], false, json!([])).await;
    let first = report(&cluster.store).await;
    assert_eq!(waiting_for(&first), ["a", "b"]);
    let counts: Vec<_> = first.nodes.iter().map(|node| (node.slots.to_string(), node.handover)).collect();
    let holding = Some(Handover::Holding);
    assert_eq!(counts, [("0,2,4,6".to_owned(), holding), ("1,3,5,7".to_owned(), holding)]);
    let owner = |report: &Report, key: &str| {
        report.owner_of(report.slot_of(key).unwrap()).map(|node| node.name.clone())
    };
    assert!(["k1", "k2", "k3"].iter().all(|key| owner(&first, key).is_some()));

    // A node that has released its slots does not count as one that refused.
    cluster.releases("a").await;
    let now = report(&cluster.store).await;
    assert_eq!((waiting_for(&now), now.nodes[0].handover), (vec!["b"], Some(Handover::Released)));
    assert_eq!(now.nodes[0].readiness, Readiness::Stabilizing);
    cluster.acknowledges("b").await;
    let now = report(&cluster.store).await;
    assert!(waiting_for(&now).is_empty() && !now.slots.as_ref().unwrap().released, "{now:#?}");
    assert_eq!(now.nodes[1].handover, Some(Handover::Ready));
    cluster.released().await;
    let now = report(&cluster.store).await;
    let ClusterState::Adapting { waiting_for } = &now.condition else { panic!("{now:#?}") };
    assert_eq!(waiting_for[0].name, "a");
    assert!(now.slots.unwrap().released);

    // The same label written again is a new version, whose slots are not released.
    cluster.publish(&["a", "b"], false, json!([])).await;
    assert!(!slots(&cluster.store).await.released);
}

#[tokio::test(start_paused = true)]
async fn nodes_that_wait_to_join_do_not_hide_whom_the_hand_over_waits_for() {
    let mut cluster = Exclusive::new();
    for name in ["a", "b"] {
        cluster.node(name).await;
    }
    cluster.publish(&["a", "b"], false, json!([])).await;
    cluster.node("c").await;
    let report_of = async || report(&cluster.store).await;
    let releasing = report_of().await;
    assert_eq!((waiting_for(&releasing), &releasing.nodes[2].readiness), (vec!["a", "b"], &Readiness::New));
    for name in ["a", "b"] {
        cluster.releases(name).await;
    }
    cluster.released().await;
    assert!(
        matches!(report_of().await.condition, ClusterState::Adapting { waiting_for } if waiting_for.len() == 2)
    );
    for name in ["a", "b"] {
        cluster.acknowledges(name).await;
    }
    assert_eq!(report_of().await.condition, ClusterState::Confirming);
    cluster.put("view/stable", json!({"version": LABEL, "nodes": 2}), None).await;
    let due = ClusterState::Due { changed: vec![name("c")], gone: 0, asked: false };
    assert_eq!(report_of().await.condition, due);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_changes_during_a_hand_over_needs_a_version_at_once() {
    let mut cluster = Exclusive::new();
    for name in ["a", "b"] {
        cluster.node(name).await;
    }
    cluster.publish(&["a", "b"], false, json!([])).await;
    cluster.node("c").await;
    let changed = json!({"uri": "http://h:2", "incarnation": "of-a"});
    cluster.put("view/nodes/a", changed, Some(cluster.leases["a"])).await;
    let condition = report(&cluster.store).await.condition;
    let changed = vec![name("a"), name("c")];
    assert_eq!(condition, ClusterState::Due { changed, gone: 0, asked: false });
}

#[tokio::test(start_paused = true)]
async fn a_node_that_just_joined_does_not_delay_a_clean_start() {
    let mut cluster = Exclusive::new();
    for name in ["a", "b"] {
        cluster.node(name).await;
    }
    cluster.publish(&["a", "b"], true, json!([{"joined": "b"}])).await;
    assert_eq!(waiting_for(&report(&cluster.store).await), ["a"]);
    // In other versions, every node must acknowledge that it has released its lost slots.
    cluster.publish(&["a", "b"], false, json!([{"joined": "b"}])).await;
    assert_eq!(waiting_for(&report(&cluster.store).await), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn nodes_that_are_not_exclusive_prevent_the_hand_over() {
    let mut cluster = Exclusive::new();
    cluster.node("a").await;
    cluster.plain("b").await;
    cluster.publish(&["a"], false, json!([])).await;
    let now = report(&cluster.store).await;
    assert_eq!((now.slot_of("k"), now.nodes[0].handover), (None, None));
    assert_eq!((now.nodes[0].exclusive, now.nodes[1].exclusive), (true, false));
    assert!(matches!(now.condition, ClusterState::Adapting { .. }), "{now:#?}");
    let slots = now.slots.unwrap();
    assert_eq!((slots.has_handover, slots.not_exclusive), (false, vec![name("b")]));
    // Clusters without exclusive nodes have no slots.
    let mut plain = Exclusive::new();
    plain.plain("a").await;
    let shown = serde_json::to_value(report(&plain.store).await).unwrap();
    assert!(shown.get("slots").is_none() && shown["nodes"][0].get("exclusive").is_none(), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn sessions_that_may_still_hold_slots_are_reported_until_they_end() {
    let mut cluster = Exclusive::new();
    let old = cluster.node("a").await;
    cluster.node("b").await;
    cluster.store.delete("c/view/nodes/a").await.unwrap();
    // The node has rejoined in a new session, which is not reported.
    cluster.node("a").await;
    cluster.publish(&["a", "b"], false, json!([])).await;
    let standing = slots(&cluster.store).await.standing;
    assert_eq!(standing.len(), 1);
    assert_eq!((standing[0].holder.lease, standing[0].holder.node.clone()), (old, Some(name("a"))));
    assert_eq!((standing[0].ttl, standing[0].holder.left, standing[0].reclaimed), (Some(TTL), false, false));
    let shown = serde_json::to_value(&standing[0]).unwrap();
    assert_eq!((&shown["lease"], &shown["ttl_ms"]), (&json!(old.to_string()), &json!(15_000)));

    let mut left = Exclusive::witness("a");
    left["left"] = json!(true);
    cluster.put(&format!("view/holds/{old}"), left.clone(), Some(old)).await;
    assert!(slots(&cluster.store).await.standing[0].holder.left);
    cluster.put(&format!("view/holds/{old}"), left, None).await;
    assert!(slots(&cluster.store).await.standing[0].reclaimed);
    // A session that began after the version has never held a slot of that version.
    let late = cluster.node("c").await;
    cluster.store.delete("c/view/nodes/c").await.unwrap();
    assert_eq!(slots(&cluster.store).await.standing.len(), 1);
    cluster.store.delete(&format!("c/view/holds/{old}")).await.unwrap();
    assert!(slots(&cluster.store).await.standing.is_empty(), "{late}");
}

#[tokio::test(start_paused = true)]
async fn slots_of_absent_nodes_have_no_owner() {
    let mut cluster = Exclusive::new();
    cluster.node("a").await;
    cluster.publish(&["a", "b"], false, json!([])).await;
    assert_eq!(slots(&cluster.store).await.unowned.to_string(), "1,3,5,7");
    // A node that joined after the version owns no slots in it, even if the assignment contains its name.
    cluster.node("b").await;
    let now = report(&cluster.store).await;
    assert!(now.nodes[1].slots.is_empty() && now.nodes[1].handover.is_none(), "{now:#?}");
    assert_eq!(now.slots.unwrap().unowned.len(), 4);
}

/// Waits for events that contain these texts, in this order. Other events may come in between.
async fn wait_for_events(monitor: &mut Monitor, wanted: &[&str]) {
    let mut seen = Vec::new();
    for wanted in wanted {
        loop {
            let events = tokio::time::timeout(Duration::from_secs(600), monitor.next()).await;
            let Ok(events) = events else { panic!("{wanted} was not seen, only {seen:#?}") };
            let texts: Vec<_> = events.iter().map(ToString::to_string).collect();
            let found = texts.iter().any(|text| text.contains(wanted));
            seen.extend(texts);
            if found {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_monitor_reports_each_step_of_a_hand_over_and_the_slots_that_move() {
    let mut cluster = Exclusive::new();
    let a = cluster.node("a").await;
    let mut monitor = Monitor::start(Arc::new(cluster.store.clone()), &namespace()).await.unwrap();
    cluster.publish(&["a"], false, json!([])).await;
    cluster.node("b").await;
    cluster.publish(&["a", "b"], true, json!([{"joined": "b"}])).await;
    cluster.releases("a").await;
    wait_for_events(&mut monitor, &["version", "version", "a has released the slots that it lost in"]).await;
    let now = monitor.report().unwrap();
    assert!(waiting_for(&now).is_empty(), "b loses nothing: {now:#?}");
    let moves = now.slots.unwrap().moves.unwrap();
    assert_eq!(moves.len(), 1);
    assert_eq!((&moves[0].from, &moves[0].to), (&Some(name("a")), &Some(name("b"))));
    assert_eq!(moves[0].slots.to_string(), "1,3,5,7");
    cluster.released().await;
    wait_for_events(&mut monitor, &["are released"]).await;

    let operator = operator(&cluster.store);
    operator.cordon(&name("b"), Some("broken disk")).await.unwrap();
    operator.uncordon(&name("b")).await.unwrap();
    operator.drain(&name("b"), Some("maintenance")).await.unwrap();
    let wanted = ["b is cordoned", "b is no longer cordoned", "ops asks b to leave (maintenance)"];
    wait_for_events(&mut monitor, &wanted).await;
    cluster.store.delete("c/view/nodes/a").await.unwrap();
    cluster.put(&format!("view/holds/{a}"), Exclusive::witness("a"), None).await;
    wait_for_events(&mut monitor, &[&format!("a was removed but renews its lease {a}")]).await;
}

async fn node(store: &MemoryStore, name: &str) -> Clustering {
    let builder = Clustering::builder(store.clone()).namespace("c").name(name).uri("http://h:1");
    builder.start().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_cordon_stays_until_it_is_lifted_and_may_name_an_absent_node() {
    let store = MemoryStore::new();
    let ops = operator(&store);
    assert_eq!(ops.cordon(&name("a"), None).await, Err(OperatorError::NoCluster(namespace())));
    assert_eq!(ops.uncordon(&name("a")).await, Err(OperatorError::NoCluster(namespace())));
    let _a = node(&store, "a").await;
    let done = ops.cordon(&name("a"), Some("broken disk")).await.unwrap();
    assert!(done.present && done.new);
    let before = store.get("c/view/cordoned/a").await.unwrap();
    let again = ops.cordon(&name("a"), Some("broken disk")).await.unwrap();
    assert!(again.present && !again.new);
    assert_eq!(store.get("c/view/cordoned/a").await.unwrap(), before, "nothing changes");
    // Another requester and reason replace the first.
    let other = Operator::new(store.clone(), namespace(), "alice");
    assert!(!other.cordon(&name("a"), None).await.unwrap().new);
    let absent = ops.cordon(&name("x"), None).await.unwrap();
    assert!(!absent.present && absent.new);
    let now = report(&store).await;
    let cordoned: Vec<_> =
        now.cordoned.iter().map(|cordon| (cordon.name.as_str(), cordon.by.as_str(), &*cordon.why)).collect();
    assert_eq!(cordoned, [("a", "alice", ""), ("x", "ops", "")]);
    assert_eq!(now.nodes[0].cordon.as_ref(), Some(&now.cordoned[0]));
    assert_eq!(store.get("c/view/cordoned/a").await.unwrap().unwrap().lease, None);

    ops.uncordon(&name("a")).await.unwrap();
    let error = ops.uncordon(&name("a")).await.unwrap_err().to_string();
    assert_eq!(error, "a is not cordoned; x is");
    ops.uncordon(&name("x")).await.unwrap();
    assert!(report(&store).await.cordoned.is_empty());
    // An unreadable cordon can be lifted.
    store.put("c/view/cordoned/a", "garbage".into(), None).await.unwrap();
    ops.uncordon(&name("a")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_with_the_session_that_it_was_meant_for() {
    let mut cluster = Exclusive::new();
    let lease = cluster.node("a").await;
    cluster.publish(&["a"], false, json!([])).await;
    let ops = operator(&cluster.store);
    let draining = ops.drain(&name("a"), Some("maintenance")).await.unwrap();
    let version = report(&cluster.store).await.version.unwrap().revision;
    assert_eq!((draining.lease, draining.version), (lease, version));
    let stored = cluster.store.get("c/view/drain/a").await.unwrap().unwrap();
    let record: Value = serde_json::from_slice(&stored.value).unwrap();
    assert_eq!(record, json!({"incarnation": "of-a", "by": "ops", "why": "maintenance"}));
    assert_eq!(stored.lease, Some(lease));
    let now = report(&cluster.store).await;
    assert_eq!(now.nodes[0].drain.as_ref().unwrap().why, "maintenance");

    let gone = ops.drain(&name("x"), None).await.unwrap_err();
    assert_eq!(gone.to_string(), "no node x is present; there is a");
    cluster.put("view/nodes/x", json!({"uri": "http://h:1", "incarnation": "x"}), None).await;
    assert_eq!(ops.drain(&name("x"), None).await, Err(OperatorError::NoSession(name("x"))));
    // The restarted node is not drained.
    cluster.store.revoke_lease(lease).await.unwrap();
    cluster.node("a").await;
    assert_eq!(cluster.store.get("c/view/drain/a").await.unwrap(), None);
    assert_eq!(report(&cluster.store).await.nodes[0].drain, None);
}

#[tokio::test(start_paused = true)]
async fn a_drain_of_a_node_that_restarts_meanwhile_goes_to_the_new_session() {
    let mut cluster = Exclusive::new();
    let old = cluster.node("a").await;
    let faulty = FaultyStore::new(cluster.store.clone());
    let ops = Operator::new(faulty.clone(), namespace(), "ops");
    // Another client replaces the record between the read and the commit.
    let (inner, mut replaced) = (cluster.store.clone(), false);
    faulty.fail_next_commit_matching(clustering_core::store::ErrorKind::Refused, move |_| {
        if !std::mem::replace(&mut replaced, true) {
            let record = json!({"uri": "http://h:1", "incarnation": "new"}).to_string();
            let put = inner.put("c/view/nodes/a", record.into(), Some(old));
            futures_util::FutureExt::now_or_never(put).unwrap().unwrap();
        }
        false
    });
    ops.drain(&name("a"), None).await.unwrap();
    let stored = cluster.store.get("c/view/drain/a").await.unwrap().unwrap();
    assert!(std::str::from_utf8(&stored.value).unwrap().contains("\"new\""), "{stored:?}");
}

#[tokio::test(start_paused = true)]
async fn an_operation_whose_reply_is_lost_is_executed_once() {
    let mut cluster = Exclusive::new();
    cluster.node("a").await;
    let faulty = FaultyStore::new(cluster.store.clone());
    let ops = Operator::new(faulty.clone(), namespace(), "ops");
    faulty.lose_replies(Call::Commit, 1);
    assert!(ops.cordon(&name("a"), None).await.unwrap().new);
    faulty.lose_replies(Call::Commit, 1);
    ops.uncordon(&name("a")).await.unwrap();
    assert_eq!(cluster.store.get("c/view/cordoned/a").await.unwrap(), None);
    faulty.lose_replies(Call::Commit, 1);
    ops.drain(&name("a"), None).await.unwrap();
    assert!(cluster.store.get("c/view/drain/a").await.unwrap().is_some());
}

/// A new cluster in the namespace must wait until the sessions of the old one have ended.
#[tokio::test(start_paused = true)]
async fn p12_a_purge_keeps_the_witnesses_of_live_sessions() {
    let mut cluster = Exclusive::new();
    let lease = cluster.node("a").await;
    cluster.publish(&["a"], false, json!([])).await;
    cluster.releases("a").await;
    cluster.released().await;
    let ops = operator(&cluster.store);
    ops.cordon(&name("b"), None).await.unwrap();
    ops.drain(&name("a"), None).await.unwrap();
    // The leader was about to end this session.
    cluster.put("view/holds/7", Exclusive::witness("b"), None).await;
    let refused = ops.purge(Purge::default()).await;
    assert_eq!(refused, Err(OperatorError::NodesPresent(vec![name("a")])));
    let purged = ops.purge(Purge::new(true)).await.unwrap();
    assert_eq!((purged.sessions, purged.left.len()), (1, 0));
    let left: Vec<_> = cluster.store.read("c/").await.unwrap().entries;
    let left: Vec<_> = left.iter().map(|entry| entry.key.to_string()).collect();
    assert_eq!(left, [format!("c/view/holds/{lease}")]);
    assert_eq!(Report::read(&cluster.store, &namespace()).await.unwrap(), None);
    // Keys that the nodes of an old cluster left behind are also found.
    cluster.released().await;
    assert_eq!(report(&cluster.store).await.condition, ClusterState::Empty);
}

/// Otherwise the slots of a node that restarts would be reported as slots without an owner.
#[tokio::test(start_paused = true)]
async fn slots_that_wait_for_an_absent_node_are_reported_with_their_time() {
    let mut cluster = Exclusive::new();
    cluster.node("a").await;
    cluster.publish(&["a", "b", "gone"], false, json!([{"left": "b"}])).await;
    let mut monitor = Monitor::start(Arc::new(cluster.store.clone()), &namespace()).await.unwrap();
    // Names that own no slots, or that are present, wait for nothing.
    let kept = json!({"a": 1, "b": 20_000, "x": 5});
    cluster.put("view/version", json!({"version": LABEL, "cause": [], "kept": kept}), None).await;
    let events: Vec<_> = monitor.next().await.iter().map(ToString::to_string).collect();
    assert!(events.contains(&"the slots of b wait for it for 20s".to_owned()), "{events:?}");
    let now = slots(&cluster.store).await;
    let [kept] = &now.kept[..] else { panic!("{now:#?}") };
    assert_eq!((kept.name.as_str(), kept.slots.to_string()), ("b", "1,4,7".to_owned()));
    assert_eq!((kept.keep, now.unowned.to_string()), (Duration::from_secs(20), "2,5".to_owned()));
    let shown = serde_json::to_value(&now).unwrap();
    assert_eq!(shown["kept"], json!([{"name": "b", "slots": [1, 4, 7], "keep_ms": 20_000}]));
    // The node is back, and belongs to the next version.
    cluster.node("b").await;
    assert_eq!(slots(&cluster.store).await.kept.len(), 1);
    cluster.publish(&["a", "b", "gone"], false, json!([{"joined": "b"}])).await;
    let now = slots(&cluster.store).await;
    assert_eq!((now.kept.len(), now.unowned.to_string()), (0, "2,5".to_owned()));
}
