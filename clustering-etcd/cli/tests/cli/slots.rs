//! Exclusive clusters: `status`, `why`, `watch`, `find` and `placement` with slots; `cordon`, `uncordon` and `drain`.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clustering_core::{
    NodeName, Version,
    slots::{Assignment, Slot, SlotCount},
    store::{CoordinationStore, CoordinationStoreExt, LeaseId},
};
use clustering_etcd::EtcdStore;
use clustering_testkit::{etcd::EtcdServer, process::Process};
use serde_json::{Value, json};

use crate::{
    harness::{clustering, clustering_with, node, nodes, soon, stable, stop, store},
    watch::printed,
};

/// A namespace with an exclusive cluster whose records are written by hand, so that each phase of a hand-over lasts as
/// long as the test needs.
pub(crate) struct ByHand {
    store: EtcdStore,
    namespace: String,
    leases: BTreeMap<String, LeaseId>,
    pub(crate) label: Version,
}

impl ByHand {
    pub(crate) fn new(etcd: &EtcdServer, namespace: &str) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let (store, namespace) = (store(etcd), namespace.to_owned());
        ByHand { store, namespace, leases: BTreeMap::new(), label: Version::from_u128(now << 80) }
    }

    pub(crate) async fn put(&self, key: &str, value: Value, lease: Option<LeaseId>) {
        self.store.put(&format!("{}/{key}", self.namespace), value.to_string().into(), lease).await.unwrap();
    }

    pub(crate) async fn delete(&self, key: &str) {
        self.store.delete(&format!("{}/{key}", self.namespace)).await.unwrap();
    }

    /// Writes the record of a node that is not exclusive.
    pub(crate) async fn plain(&mut self, name: &str) -> LeaseId {
        let lease = self.store.grant_lease(Duration::from_secs(600)).await.unwrap().id;
        self.leases.insert(name.to_owned(), lease);
        let number = name.rsplit('-').next().unwrap();
        let record = json!({"uri": format!("http://10.0.0.{number}:8080"), "incarnation": self.label});
        self.put(&format!("view/nodes/{name}"), record, Some(lease)).await;
        lease
    }

    pub(crate) async fn node(&mut self, name: &str) -> LeaseId {
        let lease = self.plain(name).await;
        self.witness(name, lease, Some(lease), false).await;
        lease
    }

    /// Writes the key of a session that may hold slots.
    pub(crate) async fn witness(&self, name: &str, lease: LeaseId, under: Option<LeaseId>, left: bool) {
        let record = json!({
            "node": name, "incarnation": self.label, "uri": "http://h:1", "ttl_ms": 15_000, "slots": 8,
            "left": left
        });
        self.put(&format!("view/holds/{lease}"), record, under).await;
    }

    /// Publishes a version that assigns the slots to these nodes in turn. The first node leads.
    pub(crate) async fn publish(&self, slots: u16, owners: &[&str], cause: Value) {
        self.publish_with(slots, owners, json!({ "cause": cause })).await;
    }

    /// Publishes a version as [`publish`](Self::publish) does, with these fields in its record.
    pub(crate) async fn publish_with(&self, slots: u16, owners: &[&str], fields: Value) {
        let names: Vec<NodeName> = owners.iter().map(|owner| NodeName::parse(owner).unwrap()).collect();
        let owner = |slot: Slot| names.get(usize::from(slot.number()) % names.len().max(1));
        let assignment = Assignment::new(SlotCount::new(slots).unwrap(), owner).encode();
        let key = format!("{}/view/slots", self.namespace);
        self.store.put(&key, assignment.into(), None).await.unwrap();
        let leader = json!({"node": owners[0], "incarnation": self.label});
        self.put("view/leader", leader, None).await;
        let key = format!("{}/view/leader", self.namespace);
        let term = self.store.get(&key).await.unwrap().unwrap().created;
        let mut version = json!({"version": self.label, "number": 4, "term": term, "leader": owners[0]});
        version.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.put("view/version", version.clone(), None).await;
        self.put("history/4", version, None).await;
    }

    pub(crate) async fn releases(&self, name: &str) {
        let record = json!({"version": self.label, "phase": "released"});
        self.put(&format!("ready/{name}"), record, Some(self.leases[name])).await;
    }

    pub(crate) async fn acknowledges(&self, names: &[&str]) {
        for name in names {
            let record = json!({"version": self.label, "outcome": "ready"});
            self.put(&format!("ready/{name}"), record, Some(self.leases[*name])).await;
        }
    }

    pub(crate) async fn released(&self) {
        self.put("view/released", json!({"version": self.label, "term": 3}), None).await;
    }

    pub(crate) async fn stable(&self) {
        self.put("view/stable", json!({"version": self.label}), None).await;
    }
}

#[tokio::test]
async fn p12_a_hanging_hand_over_shows_the_nodes_and_sessions_that_it_waits_for() {
    let etcd = EtcdServer::start().await.unwrap();
    let mut cluster = ByHand::new(&etcd, "c");
    let old = cluster.node("n-9").await;
    for name in ["n-1", "n-2", "n-3"] {
        cluster.node(name).await;
    }
    cluster.delete("view/nodes/n-9").await;
    cluster.publish(8, &["n-1", "n-2", "n-3"], json!([{"joined": "n-3"}])).await;
    cluster.releases("n-3").await;
    cluster.acknowledges(&["n-2"]).await;
    let said = clustering(&etcd, &["status"]).await;
    let out = said.ended(1);
    let wanted = format!(
        "slots     8\n\
         state     not stable: slots move, waiting for 1 of 3 nodes to release them\n\
         \x20         n-1 has not released the slots that it lost\n\
         \x20         n-9 is gone, but may hold slots until its lease {old} expires, in at most 15s\n"
    );
    assert!(out.contains(&wanted), "{out}");
    let rows: Vec<Vec<_>> =
        out.lines().skip(8).map(|line| line.split_whitespace().take(4).collect()).collect();
    assert_eq!(rows[0], ["NAME", "READINESS", "SLOTS", "REGISTERED"]);
    assert_eq!(rows[1][..4], ["n-1", "holding,", "leads", "3"]);
    assert_eq!((&rows[2][..3], &rows[3][..3]), (&["n-2", "ready", "3"][..], &["n-3", "released", "2"][..]));
    let said = clustering(&etcd, &["why"]).await;
    for part in [
        "because n-3 joined\nnot stable: slots move, waiting for 1 of 3 nodes",
        "\n  n-1 has not released the slots that it lost\n  n-9 is gone",
        "\n  a node that does not release its slots leaves after its release timeout",
        "\n  if the process of a session that is gone keeps renewing its lease, the leader ends the lease two TTLs (30s)",
    ] {
        assert!(said.ended(0).contains(part), "no {part:?} in {}", said.out);
    }
    let shown = clustering(&etcd, &["status", "--json"]).await.json();
    let waiting = json!([{ "name": "n-1", "refused": null }]);
    assert_eq!(shown["condition"], json!({ "state": "releasing", "waiting_for": waiting }));
    assert_eq!((&shown["slots"]["count"], &shown["slots"]["released"]), (&json!(8), &json!(false)));
    assert_eq!(shown["slots"]["standing"][0]["lease"], json!(old.to_string()));
    assert_eq!(shown["nodes"][2]["slots"], json!([2, 5]));
    assert_eq!(shown["nodes"][2]["handover"], "released");

    // First a session that left in order, then a session that the leader ends.
    cluster.witness("n-9", old, Some(old), true).await;
    cluster.acknowledges(&["n-1"]).await;
    let said = clustering(&etcd, &["status"]).await;
    assert!(
        said.ended(1).contains("slots move once a session has ended\n          n-9 left, but"),
        "{said:?}"
    );
    cluster.witness("n-9", old, None, false).await;
    let said = clustering(&etcd, &["status"]).await;
    assert!(said.ended(1).contains("the leader ends it, which takes 15s"), "{said:?}");
    cluster.delete(&format!("view/holds/{old}")).await;
    let said = clustering(&etcd, &["status"]).await;
    assert!(said.ended(1).contains("all slots are released, n-1 has yet to record that"), "{said:?}");
    cluster.released().await;
    let said = clustering(&etcd, &["status"]).await;
    assert!(said.ended(1).contains("waiting for 1 of 3 nodes\n          n-3 has not answered"), "{said:?}");
    cluster.acknowledges(&["n-3"]).await;
    cluster.stable().await;
    let said = clustering(&etcd, &["status"]).await;
    assert!(said.ended(0).contains("slots     8\nstate     stable, all 3 nodes are ready\n"), "{said:?}");
}

#[tokio::test]
async fn nodes_that_are_not_exclusive_and_slots_without_owner_are_explained() {
    let etcd = EtcdServer::start().await.unwrap();
    let mut cluster = ByHand::new(&etcd, "c");
    cluster.node("n-1").await;
    cluster.plain("n-2").await;
    cluster.publish(8, &["n-1", "n-3"], json!([{"joined": "n-2"}])).await;
    cluster.acknowledges(&["n-1", "n-2"]).await;
    cluster.stable().await;
    let said = clustering(&etcd, &["status"]).await;
    let out = said.ended(0);
    let slots = "slots     8, not handed over in this version\n          n-2 is not exclusive\n          \
                 4 have no owner: 1,3,5,7\n";
    assert!(out.contains(slots) && out.contains("n-2   ready         -"), "{out}");
    // The version is stable, but its slots cannot be acquired.
    let said = clustering(&etcd, &["why"]).await;
    for part in [
        "\nslots: 8, not handed over in this version; n-2 is not exclusive; 4 have no owner: 1,3,5,7\n",
        "\n  no slot is acquired before all nodes are exclusive: restart the others with exclusive(8), or --exclusive 8\n",
        "\n  slots without an owner get one in the next version\n",
    ] {
        assert!(said.ended(0).contains(part), "no {part:?} in {}", said.out);
    }
}

#[tokio::test]
async fn find_and_placement_follow_the_slots() {
    let etcd = EtcdServer::start().await.unwrap();
    let mut cluster = ByHand::new(&etcd, "c");
    for name in ["n-1", "n-2"] {
        cluster.node(name).await;
    }
    cluster.publish(8, &["n-1", "n-2"], json!([])).await;
    let count = SlotCount::new(8).unwrap();
    let owner = |key: &str| 1 + count.slot_of(key).number() % 2;
    let keys: Vec<_> = (0..50).map(|number| format!("device-{number}")).collect();
    let line =
        |key: &String| format!("{key}\tn-{0}\thttp://10.0.0.{0}:8080\t{1}\n", owner(key), count.slot_of(key));
    let expected: String = keys.iter().map(line).collect();
    let said = clustering_with(&etcd, &["find"], &keys.join("\n")).await;
    assert_eq!(said.ended(0), expected);
    let shown = clustering(&etcd, &["find", "-c", "3", "--json", "device-7"]).await.json();
    assert_eq!(shown["slot"], json!(count.slot_of("device-7")));
    assert_eq!(shown["nodes"][0]["name"], json!(format!("n-{}", owner("device-7"))));
    assert_eq!(shown["nodes"].as_array().unwrap().len(), 2, "each node once");
    // The view that a hook gets contains the slots, which may differ from those in the store.
    let nodes = json!([{"name": "n-1", "uri": "http://x:1"}, {"name": "n-2", "uri": "http://x:2"}]);
    let view =
        json!({ "nodes": nodes, "slots": { "count": 8, "owners": { "n-2": (0..8).collect::<Vec<_>>() } } });
    let args = ["find", "--view", "-", "--endpoints", "127.0.0.1:1", "device-7"];
    let said = clustering_with(&etcd, &args, &view.to_string()).await;
    assert_eq!(said.ended(0), format!("device-7\tn-2\thttp://x:2\t{}\n", count.slot_of("device-7")));

    let said = clustering(&etcd, &["placement"]).await;
    let rows: Vec<Vec<_>> = said.ended(0).lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NODE", "WEIGHT", "SLOTS", "KEYS", "SHARE", "FAIR"]);
    assert_eq!(rows[1][..4], ["n-1", "1", "4", "0"]);
    assert!(said.out.contains("\nwith new-1: 2 of 8 slots move\n"), "{said:?}");
    assert!(said.out.contains("\nwithout n-1: 4 of 8 slots move\n"), "{said:?}");
    let shown = clustering_with(&etcd, &["placement", "--json"], &keys.join("\n")).await.json();
    let first = keys.iter().filter(|key| owner(key) == 1).count();
    assert_eq!((&shown["nodes"][0]["keys"], &shown["nodes"][0]["slots"]), (&json!(first), &json!(4)));
    assert_eq!((&shown["less"][0]["moved"], &shown["less"][0]["moved_slots"]), (&json!(first), &json!(4)));

    // A slot whose node is absent has no owner.
    cluster.publish(8, &["n-1", "n-3"], json!([])).await;
    let key = keys.iter().find(|key| owner(key) == 2).unwrap();
    let slot = count.slot_of(key);
    let said = clustering(&etcd, &["find", key]).await;
    said.refused(1, &[&format!("no node takes \"{key}\": slot {slot} has no owner")]);
}

#[tokio::test]
async fn a_watch_shows_each_step_of_a_hand_over() {
    let etcd = EtcdServer::start().await.unwrap();
    let mut cluster = ByHand::new(&etcd, "c");
    cluster.node("n-1").await;
    cluster.publish(8, &["n-1"], json!([])).await;
    let builder = Process::builder(env!("CARGO_BIN_EXE_clustering")).clean_env();
    let watch = builder.args(["watch", "-n", "c", "--endpoints", &etcd.endpoint()]).spawn().unwrap();
    printed(&watch, &["n-1 has not released the slots that it lost\n"]).await;
    cluster.node("n-2").await;
    cluster.publish(8, &["n-1", "n-2"], json!([{"joined": "n-2"}])).await;
    cluster.releases("n-1").await;
    printed(&watch, &["of 2 nodes: n-2 joined\n", "n-1 has released the slots that it lost in "]).await;
    cluster.released().await;
    printed(&watch, &["the slots that move in ", " are released\n"]).await;
    clustering(&etcd, &["cordon", "n-2"]).await.ended(0);
    clustering(&etcd, &["uncordon", "n-2"]).await.ended(0);
    clustering(&etcd, &["drain", "n-2", "--by", "alice", "--why", "a new kernel"]).await.ended(0);
    let wanted = [
        "n-2 is cordoned and must not own slots\n",
        "n-2 is no longer cordoned\n",
        "alice asks n-2 to leave (a new kernel)\n",
    ];
    printed(&watch, &wanted).await;
    watch.terminate().unwrap();
    soon("the end of the command", watch.wait()).await.unwrap();
}

#[tokio::test]
async fn a_cordon_stays_until_it_is_lifted_and_is_shown() {
    let etcd = EtcdServer::start().await.unwrap();
    clustering(&etcd, &["cordon", "a"]).await.refused(2, &["no cluster in the namespace c"]);
    let nodes = nodes(&etcd, &["a", "b"]).await;
    let said = clustering(&etcd, &["cordon", "b", "--by", "alice", "--why", "broken disk", "--wait"]).await;
    assert!(said.ended(0).starts_with("b is cordoned\n") && said.out.contains(" is stable, with 2 nodes\n"));
    assert_eq!(clustering(&etcd, &["cordon", "b"]).await.ended(0), "b is cordoned already\n");
    let said = clustering(&etcd, &["cordon", "x"]).await;
    assert_eq!(said.ended(0), "x is cordoned; no node with this name is present\n");
    let said = clustering(&etcd, &["status"]).await;
    let out = said.ended(0);
    assert!(out.contains("\ncordoned  b by ops@") && out.contains("\n          x (absent) by ops@"), "{out}");
    assert!(out.contains("\nb     ready, cordoned  "), "{out}");
    let shown = clustering(&etcd, &["status", "--json"]).await.json();
    assert_eq!(shown["nodes"][1]["cordon"], shown["cordoned"][0]);
    assert_eq!(clustering(&etcd, &["uncordon", "b"]).await.ended(0), "b is no longer cordoned\n");
    clustering(&etcd, &["uncordon", "b"]).await.refused(1, &["b is not cordoned; x is"]);
    clustering(&etcd, &["cordon", "a/b"]).await.refused(2, &["name \"a/b\" cannot be used"]);
    stop(nodes).await;
}

#[tokio::test]
async fn a_drain_that_the_node_ignores_is_shown_and_times_out() {
    let etcd = EtcdServer::start().await.unwrap();
    let mut cluster = ByHand::new(&etcd, "c");
    cluster.node("n-1").await;
    cluster.publish(8, &["n-1"], json!([])).await;
    cluster.released().await;
    cluster.acknowledges(&["n-1"]).await;
    cluster.stable().await;
    let said =
        clustering(&etcd, &["drain", "n-1", "--why", "a new kernel", "--wait", "--timeout", "300ms"]).await;
    assert_eq!(said.ended(1), "n-1 is asked to leave\n");
    said.refused(
        1,
        &["n-1 has not left, or no version without it is stable within 300ms", "stable, its one node"],
    );
    let said = clustering(&etcd, &["status"]).await;
    let out = said.ended(0);
    assert!(out.contains("\ndraining  n-1 by ops@") && out.contains(": a new kernel\n"), "{out}");
    assert!(out.contains("\nn-1   ready, leads, draining  8  "), "{out}");
    clustering(&etcd, &["drain", "x"]).await.refused(1, &["no node x is present; there is n-1"]);
}

/// A new cluster in the namespace must wait for the live session, so its witness must remain.
#[tokio::test]
async fn p12_a_purge_keeps_the_witnesses_of_live_sessions() {
    let etcd = EtcdServer::start().await.unwrap();
    let mut cluster = ByHand::new(&etcd, "c");
    let lease = cluster.node("n-1").await;
    cluster.publish(8, &["n-1"], json!([])).await;
    cluster.delete("view/nodes/n-1").await;
    let said = clustering(&etcd, &["purge", "c", "--yes"]).await;
    said.refused(0, &["1 session may still hold slots; their keys disappear with their leases"]);
    let left = store(&etcd).read("c/").await.unwrap().entries;
    assert_eq!(
        left.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(),
        [format!("c/view/holds/{lease}")]
    );
    let nodes = vec![node(&etcd, "a").start().await.unwrap()];
    stable(&nodes).await;
    stop(nodes).await;
}
