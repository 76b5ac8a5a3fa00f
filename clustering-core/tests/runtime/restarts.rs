//! Slots that wait for absent nodes: restarts within the grace, and losses of many nodes at once.

use std::{collections::BTreeMap, time::Duration};

use clustering_core::{
    Builder, Cause, Discovery, Event, NodeName, NotHeld, Route,
    event::MassFailureKind,
    slots::{Slot, SlotCount, SlotSet},
    store::Change,
};

use crate::common::{Cluster, Node, TTL, history, leader, name, secs, soon, stable};

const SLOTS: u16 = 24;
const GRACE: Duration = secs(60);

fn exclusive(builder: Builder) -> Builder {
    builder.exclusive(SLOTS)
}

/// Starts exclusive nodes of these names one after the other, and waits until they are stable.
async fn start(cluster: &Cluster, names: &[&str]) -> Vec<Node> {
    let mut nodes = Vec::new();
    for name in names {
        nodes.push(cluster.start_with(name, exclusive).await);
        stable(&nodes).await;
    }
    nodes
}

fn held(nodes: &[Node]) -> BTreeMap<NodeName, SlotSet> {
    nodes.iter().map(|node| (node.name().clone(), node.held_slots())).collect()
}

/// Returns the number of assignments that were stored so far.
async fn assignments(cluster: &Cluster) -> usize {
    let history = history(&cluster.store).await;
    let changes = history.iter().flat_map(|batch| batch.changes.iter());
    changes.filter(|change| matches!(change, Change::Put(entry) if entry.key.ends_with("view/slots"))).count()
}

/// Waits until the node knows a version with this many nodes.
async fn knows(node: &Node, nodes: usize) {
    let knows =
        |status: &clustering_core::Status| status.newest.as_ref().is_some_and(|view| view.len() == nodes);
    node.until("the node knows all nodes", knows).await;
}

fn key_of(slot: Slot) -> String {
    let count = SlotCount::new(SLOTS).unwrap();
    (0..).map(|number| format!("key-{number}")).find(|key| count.slot_of(key) == slot).unwrap()
}

fn causes(node: &Node, wanted: &Cause) -> usize {
    node.log.count(|event| matches!(event, Event::VersionPublished { causes, .. } if causes.contains(wanted)))
}

#[tokio::test(start_paused = true)]
async fn p12_a_restart_within_the_grace_moves_no_slot_wherever_the_leader_is() {
    for restarted in 0..3 {
        let cluster = Cluster::new();
        let mut nodes = start(&cluster, &["a", "b", "c"]).await;
        let (before, stored) = (held(&nodes), assignments(&cluster).await);
        let leaver = nodes.remove(restarted);
        let own = leaver.name().clone();
        let key = key_of(leaver.held_slots().iter().next().unwrap());
        leaver.stop_for_restart(GRACE).await.unwrap();
        stable(&nodes).await;
        let version = nodes[0].now().newest.unwrap().version();
        assert_eq!(
            nodes[0].hold(&key).unwrap_err(),
            NotHeld::Waiting { node: own.clone(), version },
            "nobody may hold the key meanwhile"
        );
        let late = Discovery::observe(cluster.store.clone(), "cluster").await.unwrap();
        for discovery in [nodes[0].discovery(), late] {
            assert_eq!(discovery.route(&key), Route::Waiting { node: own.clone() });
            assert_eq!(discovery.find(&key), None);
        }
        let kept = |event: &Event| matches!(event, Event::SlotsKept { name, keep } if *name == own && *keep > GRACE - secs(1));
        for node in &nodes {
            node.log.next("slots kept", kept).await;
        }
        tokio::time::sleep(GRACE - secs(5)).await;
        let discovery = nodes[0].discovery();
        let (route, back) = tokio::join!(
            soon("a route", discovery.wait_route(&key)),
            cluster.start_with(own.as_str(), exclusive)
        );
        assert!(matches!(route, Ok(Route::At(node)) if node.name == own));
        nodes.insert(restarted, back);
        stable(&nodes).await;
        tokio::time::sleep(GRACE * 2).await;
        assert_eq!((held(&nodes), assignments(&cluster).await), (before, stored));
        cluster.audit().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_slots_of_a_node_that_is_not_back_in_time_move() {
    let cluster = Cluster::new();
    let mut nodes = start(&cluster, &["a", "b"]).await;
    nodes.pop().unwrap().stop_for_restart(GRACE).await.unwrap();
    stable(&nodes).await;
    tokio::time::sleep(GRACE - secs(1)).await;
    assert_eq!(nodes[0].held_slots().len(), usize::from(SLOTS) / 2);
    tokio::time::sleep(secs(2)).await;
    stable(&nodes).await;
    assert_eq!(nodes[0].held_slots().len(), usize::from(SLOTS));
    assert_eq!(causes(&nodes[0], &Cause::NotBack(name("b"))), 1);
    assert!(nodes[0].now().newest.unwrap().kept().is_empty());
    cluster.audit().await;
}

#[tokio::test(start_paused = true)]
async fn two_nodes_that_restart_one_after_the_other_both_keep_their_slots() {
    let cluster = Cluster::new();
    let mut nodes = start(&cluster, &["a", "b", "c", "d"]).await;
    let (before, stored) = (held(&nodes), assignments(&cluster).await);
    let (b, c) = (nodes.remove(1), nodes.remove(1));
    b.stop_for_restart(GRACE).await.unwrap();
    c.stop_for_restart(GRACE).await.unwrap();
    stable(&nodes).await;
    tokio::time::sleep(secs(20)).await;
    nodes.insert(1, cluster.start_with("c", exclusive).await);
    nodes.insert(1, cluster.start_with("b", exclusive).await);
    stable(&nodes).await;
    assert_eq!((held(&nodes), assignments(&cluster).await), (before, stored));
    cluster.audit().await;
}

#[tokio::test(start_paused = true)]
async fn the_wait_goes_on_if_the_leader_dies() {
    let cluster = Cluster::new();
    let mut nodes = start(&cluster, &["a", "b", "c"]).await;
    let place = nodes.iter().position(|node| !node.is_leader()).unwrap();
    let restarting = nodes.remove(place);
    let (own, slots) = (restarting.name().clone(), restarting.held_slots());
    restarting.stop_for_restart(GRACE).await.unwrap();
    stable(&nodes).await;
    let place = nodes.iter().position(|node| node.is_leader()).unwrap();
    nodes.remove(place).crash();
    knows(&nodes[0], 1).await;
    assert!(nodes[0].now().newest.unwrap().kept().contains_key(&own));
    nodes.push(cluster.start_with(own.as_str(), exclusive).await);
    stable(&nodes).await;
    assert!(slots.is_subset(&nodes[1].held_slots()));
    cluster.audit().await;
}

#[tokio::test(start_paused = true)]
async fn a_crashed_node_with_a_restart_grace_finds_its_slots_again() {
    let cluster = Cluster::new();
    let mut nodes = start(&cluster, &["a", "b"]).await;
    nodes.push(cluster.start_with("c", |builder| exclusive(builder).restart_grace(GRACE)).await);
    stable(&nodes).await;
    let (before, stored) = (held(&nodes), assignments(&cluster).await);
    nodes.pop().unwrap().crash();
    knows(&nodes[0], 2).await;
    assert_eq!(nodes[0].now().newest.unwrap().kept()[&name("c")], GRACE);
    tokio::time::sleep(secs(30)).await;
    nodes.push(cluster.start_with("c", exclusive).await);
    stable(&nodes).await;
    assert_eq!((held(&nodes), assignments(&cluster).await), (before, stored));
    cluster.audit().await;
}

/// Every session is lost, and the nodes rejoin one after the other.
#[tokio::test(start_paused = true)]
async fn an_outage_of_the_store_among_many_nodes_moves_no_slot() {
    let cluster = Cluster::new();
    let names: Vec<String> = (0..12).map(|number| format!("n{number:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let nodes = start(&cluster, &names).await;
    tokio::time::sleep(TTL).await;
    let (before, stored) = (held(&nodes), assignments(&cluster).await);
    nodes.iter().for_each(|node| node.line.cut());
    tokio::time::sleep(TTL * 3).await;
    nodes.iter().for_each(|node| node.line.heal());
    for node in &nodes {
        node.log.next("back", |event| matches!(event, Event::Rejoined { .. })).await;
    }
    stable(&nodes).await;
    tokio::time::sleep(TTL * 4).await;
    stable(&nodes).await;
    assert_eq!((held(&nodes), assignments(&cluster).await), (before, stored));
    let over = |event: &Event| matches!(event, Event::MassFailureOver { kind: MassFailureKind::Lost });
    let lost =
        |event: &Event| matches!(event, Event::MassFailure(failure) if failure.kind == MassFailureKind::Lost);
    let count = |is: fn(&Event) -> bool| nodes.iter().map(|node| node.log.count(is)).sum::<usize>();
    assert!(count(lost) >= 1 && count(lost) == count(over), "{} and {}", count(lost), count(over));
    assert_eq!(leader(&nodes).now().mass_failure, None);
    cluster.audit().await;
}
