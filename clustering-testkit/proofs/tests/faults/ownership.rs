//! P12: at no moment do two processes hold a key, as judged by the logs of their workers, and no increment of a key's
//! counters is lost or doubled. After each fault, all slots are held by their owners again.

use std::{future::Future, sync::Arc};

use clustering_core::{
    Namespace,
    operator::Operator,
    store::{Change, CoordinationStore},
};
use clustering_proofs::{
    node::{Conflict, Node, NodeSpec},
    work::Breach,
};
use clustering_testkit::{history::Observation, proxy::Proxy};
use futures_util::StreamExt;

use crate::{
    owners::{Owners, name_of},
    scenario::{LONG, ms, soon, without},
};

const NAMES: [&str; 3] = ["a", "b", "c"];

fn follower(nodes: &[Arc<Node>], leader: &Node) -> Arc<Node> {
    nodes.iter().rfind(|node| node.name() != leader.name()).unwrap().clone()
}

pub(crate) async fn p12_the_slots_of_a_killed_node_are_held_by_others_after_the_ttl() {
    let (owners, nodes) = Owners::with(&NAMES).await;
    let leader = owners.leader().await.0;
    let node = follower(&nodes, &leader);
    let since = owners.now();
    node.kill().await;
    owners.all_held(&without(&NAMES, node.name())).await;
    owners.measured("an exclusive node killed", since);
    owners.join(owners.exclusive(node.name())).await;
    assert!(owners.check_all(&NAMES).await > 0);
}

pub(crate) async fn p12_a_process_paused_past_the_ttl_holds_nothing_when_it_resumes() {
    let (owners, nodes) = Owners::with(&NAMES).await;
    let leader = owners.leader().await.0;
    for node in [leader.clone(), follower(&nodes, &leader)] {
        node.pause();
        owners.all_held(&without(&NAMES, node.name())).await;
        node.resume();
        owners.all_held(&NAMES).await;
    }
    assert!(owners.check_all(&NAMES).await > 0);
}

pub(crate) async fn p12_a_node_cut_off_from_etcd_lets_go_before_others_acquire() {
    let owners = Owners::new().await;
    let proxy = Proxy::to(&owners.etcd.endpoint()).await.unwrap();
    let behind = NodeSpec { endpoints: vec![proxy.endpoint()], ..owners.exclusive("a") };
    let node = owners.join(behind).await;
    owners.join(owners.exclusive("b")).await;
    owners.join(owners.exclusive("c")).await;
    owners.all_held(&NAMES).await;
    // In the second round, requests still arrive, but their replies are lost.
    for breaks in [Proxy::hang, Proxy::hang_answers] {
        breaks(&proxy);
        owners.let_go(&node).await;
        owners.all_held(&without(&NAMES, "a")).await;
        proxy.heal();
        owners.all_held(&NAMES).await;
    }
    assert!(owners.check_all(&NAMES).await > 0);
}

/// The evicted nodes continue to work for longer than the others need to publish and adapt.
pub(crate) async fn p12_an_evicted_node_finishes_its_work_before_others_acquire() {
    let owners = Owners::new().await;
    for name in NAMES {
        owners.join(owners.working(name, |work| work.lingers = ms(800))).await;
    }
    owners.all_held(&NAMES).await;
    let namespace = Namespace::parse(&owners.namespace).unwrap();
    let operator = Operator::new(owners.store.clone(), namespace, "test");
    let leader = owners.leader().await.0;
    for node in [follower(&owners.nodes(), &leader), leader] {
        let before = owners.stable(&NAMES).await;
        operator.evict(&name_of(&node)).await.unwrap();
        node.next("a rejoin", LONG, |it| matches!(it, Observation::Rejoined { .. })).await;
        owners.stable_after(before, &NAMES).await;
        owners.all_held(&NAMES).await;
    }
    assert!(owners.check_all(&NAMES).await > 0);
}

pub(crate) async fn p12_a_second_instance_acquires_after_the_first_has_let_go() {
    let owners = Owners::new().await;
    for name in NAMES {
        owners.join(owners.working(name, |work| work.lingers = ms(800))).await;
    }
    owners.all_held(&NAMES).await;
    let leader = owners.leader().await.0;
    for first in [follower(&owners.nodes(), &leader), leader] {
        let before = owners.stable(&NAMES).await;
        let second = owners.exclusive(first.name());
        owners.join(NodeSpec { name_conflict: Conflict::TakeOver, ..second }).await;
        let taken = |it: &Observation| *it == Observation::Stopped { reason: "taken_over".into() };
        first.next("the end after the takeover", LONG, taken).await;
        owners.stable_after(before, &NAMES).await;
        owners.all_held(&NAMES).await;
    }
    assert!(owners.check_all(&NAMES).await > 0);
}

/// The nodes have a `release` callback, so that stopping takes a while.
pub(crate) async fn p12_a_rolling_restart_hands_every_key_over() {
    let owners = Owners::new().await;
    let spec = |name| owners.working(name, |work| work.release_takes = Some(ms(200)));
    let mut nodes = Vec::new();
    for name in NAMES {
        nodes.push(owners.join(spec(name)).await);
    }
    owners.all_held(&NAMES).await;
    let since = owners.now();
    for (node, name) in nodes.iter().zip(NAMES) {
        node.stop().await;
        owners.join(spec(name)).await;
    }
    owners.all_held(&NAMES).await;
    owners.measured("a rolling restart of three exclusive nodes", since);
    assert!(owners.check_all(&NAMES).await > 0);
}

/// Lets a node join, kills the leader in a phase of the hand-over, and waits until the others have completed it.
/// `phase` waits for the phase, and may interfere with the leader's connection to etcd.
async fn leader_killed<F: Future<Output = ()>>(phase: impl FnOnce(Arc<Owners>, Arc<Proxy>) -> F) {
    let owners = Arc::new(Owners::new().await);
    let proxy = Arc::new(Proxy::to(&owners.etcd.endpoint()).await.unwrap());
    // Each phase takes long enough to kill the leader in it.
    let spec = |name: &str| NodeSpec {
        stabilize_takes: ms(if name == "c" { 600 } else { 0 }),
        ..owners.working(name, |work| work.lingers = ms(600))
    };
    let leader = owners.join(NodeSpec { endpoints: vec![proxy.endpoint()], ..spec("a") }).await;
    owners.join(spec("b")).await;
    owners.all_held(&NAMES[..2]).await;
    assert_eq!(owners.leader().await.0.name(), "a");
    let phase = phase(owners.clone(), proxy.clone());
    tokio::join!(owners.join(spec("c")), soon("the phase", phase));
    leader.kill().await;
    owners.settle().await;
    let ledger = owners.follower.ledger();
    let (newest, stable) = (ledger.present().newest().unwrap().cut.len(), ledger.present().is_stable());
    assert!(
        newest == 3 && !stable,
        "the leader was killed too early or too late: {newest} nodes, stable {stable}"
    );
    owners.all_held(&NAMES[1..]).await;
    owners.join(owners.exclusive("a")).await;
    assert!(owners.check_all(&NAMES).await > 0);
}

/// Watches a key or prefix of the cluster, and waits until a value that contains `mark` is put.
async fn put(owners: &Owners, prefix: &str, mark: &str) {
    let now = owners.etcd.revision().await.unwrap();
    let mut watch = owners.store.watch(&owners.key(prefix), now).await.unwrap();
    while let Some(batch) = watch.next().await {
        let marked = |change: &Change| match change {
            Change::Put(entry) => String::from_utf8_lossy(&entry.value).contains(mark),
            Change::Delete(_) => false,
        };
        if batch.unwrap().changes.iter().any(marked) {
            return;
        }
    }
    panic!("the watch of {prefix} ended");
}

pub(crate) async fn p12_the_leader_is_killed_before_slots_are_released() {
    leader_killed(|owners, _proxy| async move { put(&owners, "view/version", "").await }).await;
}

pub(crate) async fn p12_the_leader_is_killed_after_slots_are_released() {
    leader_killed(|owners, _proxy| async move { put(&owners, "view/released", "").await }).await;
}

/// All nodes have acknowledged the version, but the leader does not know.
pub(crate) async fn p12_the_leader_is_killed_before_the_version_is_stable() {
    leader_killed(|owners, proxy| async move {
        let ready = put(&owners, "ready/c", r#""ready""#);
        let released = async {
            put(&owners, "view/released", "").await;
            proxy.hang_answers();
        };
        tokio::join!(ready, released);
    })
    .await;
}

pub(crate) async fn p12_all_slots_are_held_again_after_etcd_was_away() {
    let (owners, nodes) = Owners::with(&NAMES).await;
    // Once for less than the TTL, and once for longer.
    owners.etcd.kill().await.unwrap();
    owners.etcd.restart().await.unwrap();
    owners.all_held(&NAMES).await;
    owners.etcd.kill().await.unwrap();
    for node in &nodes {
        owners.let_go(node).await;
    }
    owners.etcd.restart().await.unwrap();
    owners.all_held(&NAMES).await;
    owners.check_all(&NAMES).await;
}

/// Nodes that are not exclusive join and leave, and an exclusive node joins while they are present.
pub(crate) async fn p12_a_mixed_rollout_gives_no_key_to_two_nodes() {
    let owners = Owners::new().await;
    let old = |name| NodeSpec { write_every: None, ..owners.spec(name) };
    let first = owners.join(old("x")).await;
    owners.join(owners.exclusive("a")).await;
    owners.join(owners.exclusive("b")).await;
    owners.stable(&["a", "b", "x"]).await;
    // The last old node leaves. Only now are keys held.
    first.stop().await;
    owners.all_held(&NAMES[..2]).await;
    let second = owners.join(old("x")).await;
    owners.join(owners.exclusive("c")).await;
    owners.stable(&["a", "b", "c", "x"]).await;
    second.stop().await;
    owners.all_held(&NAMES).await;
    let third = owners.join(old("x")).await;
    owners.stable(&["a", "b", "c", "x"]).await;
    third.kill().await;
    assert!(owners.check_all(&NAMES).await > 0);
}

/// Resumes a process that was paused past its TTL and continues its work by a deliberate fault, which must be found.
async fn planted(breach: Breach) -> (Owners, Arc<Node>) {
    let owners = Owners::new().await;
    let node = owners.join(owners.working("a", |work| work.breach = Some(breach))).await;
    owners.all_held(&["a"]).await;
    node.pause();
    owners.join(owners.exclusive("b")).await;
    owners.all_held(&["b"]).await;
    assert!(owners.judge_holds().unwrap().moves > 0, "nothing is wrong before the process resumes");
    node.pass_all();
    node.resume();
    node.next("a rejoin", LONG, |it| matches!(it, Observation::Rejoined { .. })).await;
    owners.stable(&["a", "b"]).await;
    (owners, node)
}

/// Pauses all processes, so that counters and logs can be compared.
fn pause_all(owners: &Owners) {
    owners.nodes().iter().for_each(|node| node.pause());
}

pub(crate) async fn p12_a_worker_that_ignores_the_end_of_its_hold_is_found() {
    let (owners, _node) = planted(Breach::GoesOn).await;
    let violation = owners.judge_holds().unwrap_err();
    assert!(violation.contains("held twice"), "{violation}");
    // The fences reject the writes of the resumed process.
    pause_all(&owners);
    owners.judge_counts().await.unwrap();
}

pub(crate) async fn p12_a_worker_whose_writes_are_not_fenced_is_found() {
    let (owners, node) = planted(Breach::Unfenced).await;
    owners.incremented_by(&node, owners.now()).await;
    pause_all(&owners);
    let violation = owners.judge_counts().await.unwrap_err();
    assert!(violation.contains("lost or doubled"), "{violation}");
}
