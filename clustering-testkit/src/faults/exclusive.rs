//! Exclusive nodes work on keys while nodes are killed, paused and cut off. Two nodes never hold the same key at the
//! same time.

use std::sync::Arc;

use futures_util::future::select_all;

use super::{
    Faults, Line,
    node::{Node, Settings},
    scene::{NAMES, Scene, is_lost, without},
    worker::keys,
};
use crate::history::{Entry, Moment, Observation};

async fn owners<F: Faults>(faults: Arc<F>) -> Scene<F> {
    let scene = Scene::new(faults).await;
    let settings = settings(&scene);
    scene.start(&NAMES, settings).await;
    all_held(&scene, &NAMES).await;
    scene
}

fn settings<F: Faults>(scene: &Scene<F>) -> Settings {
    Settings { exclusive: true, ..scene.settings() }
}

/// Waits until these nodes are stable and every key has been held by one of them at a time after this call.
async fn all_held<F: Faults>(scene: &Scene<F>, names: &[&str]) {
    scene.stable(names).await;
    let since = scene.now();
    for key in keys() {
        scene.soon(&format!("a holder of {key}"), held(&scene.nodes(), &key, since)).await;
    }
}

/// Waits until one of the nodes has held the key at a time after `since`.
async fn held(nodes: &[Arc<Node>], key: &str, since: Moment) {
    let holds = |entry: &Entry| match &entry.observation {
        Observation::Holds { key: held, until: Some(until) } if held == key && *until > since => Some(()),
        _ => None,
    };
    let each = nodes.iter().map(|node| Box::pin(node.next_of(holds)));
    select_all(each).await;
}

/// Kills the leader and a follower, one after the other: others hold their keys once their leases have expired.
pub async fn p12_the_keys_of_a_killed_node_are_held_by_others<F: Faults>(faults: Arc<F>) {
    let scene = owners(faults).await;
    for leads in [false, true] {
        let node = scene.one(leads).await;
        node.kill().await;
        all_held(&scene, &without(&NAMES, &node.name)).await;
        let settings = settings(&scene);
        scene.join(&node.name, settings).await;
        all_held(&scene, &NAMES).await;
    }
    scene.check(&NAMES).await;
}

/// Pauses a node past its TTL: it holds nothing when it resumes.
pub async fn p12_a_node_paused_past_the_ttl_holds_nothing_when_it_resumes<F: Faults>(faults: Arc<F>) {
    let scene = owners(faults).await;
    for leads in [false, true] {
        let node = scene.one(leads).await;
        node.pause().await;
        all_held(&scene, &without(&NAMES, &node.name)).await;
        node.resume();
        all_held(&scene, &NAMES).await;
    }
    scene.check(&NAMES).await;
}

async fn cut_off<F: Faults>(faults: Arc<F>, breaks: fn(&Line)) {
    let scene = owners(faults).await;
    let node = scene.one(false).await;
    node.pass_all();
    breaks(&node.line);
    scene.next(&node, "a lost session", is_lost).await;
    all_held(&scene, &without(&NAMES, &node.name)).await;
    node.line.heal();
    all_held(&scene, &NAMES).await;
    scene.check(&NAMES).await;
}

/// Blocks all traffic between a node and the store: the node gives up its keys before others hold them.
pub async fn p12_a_node_cut_off_from_the_store_lets_go_in_time<F: Faults>(faults: Arc<F>) {
    cut_off(faults, Line::hang).await;
}

/// Lets the requests of a node through to the store, but blocks the answers: the node gives up its keys before others
/// hold them.
pub async fn p12_a_node_that_gets_no_answers_lets_go_in_time<F: Faults>(faults: Arc<F>) {
    cut_off(faults, Line::hang_answers).await;
}

/// Kills the store and starts it again, once within the TTL and once after it: all keys are held again.
pub async fn p12_all_keys_are_held_again_after_the_store_was_away<F: Faults>(faults: Arc<F>) {
    let scene = owners(faults).await;
    scene.faults.kill().await;
    scene.faults.start().await;
    all_held(&scene, &NAMES).await;
    let nodes = scene.nodes();
    nodes.iter().for_each(|node| node.pass_all());
    scene.faults.kill().await;
    for node in &nodes {
        scene.next(node, "a lost session", is_lost).await;
    }
    scene.faults.start().await;
    all_held(&scene, &NAMES).await;
    scene.check(&NAMES).await;
}
