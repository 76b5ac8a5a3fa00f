//! Scenarios in which the store does not answer for a while, and then continues with all its data.

use std::sync::Arc;

use clustering_core::Version;

use super::{
    Faults,
    node::{Node, Settings},
    scene::{NAMES, Scene, is_lost, is_suspended, without},
};
use crate::history::Observation;

/// Starts nodes whose TTL outlasts a short absence of the store on a busy machine.
async fn roomy<F: Faults>(faults: Arc<F>) -> (Scene<F>, Vec<Arc<Node>>) {
    let scene = Scene::new(faults).await;
    let settings = Settings { ttl: 3 * scene.ttl(), ..scene.settings() };
    let nodes = scene.start(&NAMES, settings).await;
    (scene, nodes)
}

/// Checks that no node lost its session since `before`, and that nothing else has changed.
async fn nothing_changed<F: Faults>(
    scene: &Scene<F>,
    nodes: &[Arc<Node>],
    before: (Option<Version>, Option<u64>),
) {
    scene.renewed(nodes).await;
    for node in nodes {
        assert_eq!(node.count(is_lost), 0, "{} lost its session; {}", node.name, scene.story());
    }
    scene.check(&NAMES).await;
    assert_eq!(scene.present(), before, "the version or the term has changed; {}", scene.story());
}

/// Kills the server and starts it again before any lease expires: no session is lost and no version is published.
/// Afterwards, leases still expire in time.
pub async fn p7_a_restart_of_the_store_within_the_ttl_changes_nothing<F: Faults>(faults: Arc<F>) {
    let (scene, nodes) = roomy(faults).await;
    let before = scene.present();
    scene.faults.kill().await;
    scene.faults.start().await;
    nothing_changed(&scene, &nodes, before).await;
    // A store that starts may extend the leases, but not forever.
    let node = scene.one(false).await;
    node.kill().await;
    scene.stable(&without(&NAMES, &node.name)).await;
    scene.check(&without(&NAMES, &node.name)).await;
}

/// Freezes the server past the leader's deadline, but not past its lease: the leader stops acting in time, and goes on
/// under the same term.
pub async fn p6_a_pause_of_the_store_within_the_ttl_changes_nothing<F: Faults>(faults: Arc<F>) {
    let (scene, nodes) = roomy(faults).await;
    let before = scene.present();
    let leader = scene.leader().await.0;
    leader.pass_all();
    scene.faults.pause().await;
    scene.next(&leader, "the suspension of its lead", is_suspended).await;
    scene.faults.resume().await;
    let resumed = |it: &Observation| matches!(it, Observation::LeadershipResumed { .. });
    scene.next(&leader, "the resumption of its lead", resumed).await;
    nothing_changed(&scene, &nodes, before).await;
}

/// Makes the store unavailable for longer than the sessions last.
async fn away<F: Faults>(faults: Arc<F>, what: &str, go: impl AsyncFn(&F), back: impl AsyncFn(&F)) {
    let (scene, nodes) = Scene::with(faults, &NAMES).await;
    let before = scene.stable(&NAMES).await;
    nodes.iter().for_each(|node| node.pass_all());
    go(&scene.faults).await;
    for node in &nodes {
        let away = |it: &Observation| matches!(it, Observation::StoreAway { .. });
        scene.next(node, "a report that the store is away", away).await;
        scene.next(node, "a lost session", is_lost).await;
        // The node keeps the last view, and reports it as stale.
        let handle = node.handle().expect("the node is running");
        assert!(handle.stale_for().is_some() && handle.nodes().len() == NAMES.len(), "{}", node.name);
    }
    back(&scene.faults).await;
    let answers = scene.now();
    scene.stable_after(before, &NAMES).await;
    scene.measured(&format!("{what}, since the store answers again"), answers);
    scene.check(&NAMES).await;
}

/// Kills the server and starts it again after all sessions have ended: all nodes rejoin.
pub async fn p7_nodes_rejoin_after_the_store_was_down_for_longer_than_the_ttl<F: Faults>(faults: Arc<F>) {
    let (kill, start) = (async |faults: &F| faults.kill().await, async |faults: &F| faults.start().await);
    away(faults, "the store was down", kill, start).await;
}

/// Freezes the server until all sessions have ended: all nodes rejoin.
pub async fn p6_nodes_rejoin_after_the_store_was_paused_for_longer_than_the_ttl<F: Faults>(faults: Arc<F>) {
    let (pause, resume) = (async |faults: &F| faults.pause().await, async |faults: &F| faults.resume().await);
    away(faults, "the store was paused", pause, resume).await;
}
