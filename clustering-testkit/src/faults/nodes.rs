//! Scenarios in which nodes are killed or paused while the store works.

use std::sync::Arc;

use super::{
    Faults,
    scene::{NAMES, Scene, is_lost, is_rejoined, without},
};
use crate::{
    history::{Entry, Observation, WriteOutcome},
    promises::p9_cost,
};

async fn killed<F: Faults>(faults: Arc<F>, leads: bool) {
    let (scene, _) = Scene::with(faults, &NAMES).await;
    let (node, term) = (scene.one(leads).await, scene.leader().await.1);
    let before = scene.stable(&NAMES).await;
    let since = scene.now();
    node.kill().await;
    let rest = without(&NAMES, &node.name);
    let after = scene.stable_after(before, &rest).await;
    let what = if leads { "the leader killed" } else { "a follower killed" };
    let took = scene.measured(what, since);
    scene.assert_noticed(took);
    // The last renewal was a third of the TTL before, at most.
    assert!(took > scene.ttl() / 2, "a lease ended too early: {took:?}; {}", scene.story());
    assert_eq!(scene.present().1 == Some(term), !leads, "the leader changes only if it was killed");
    let ledger = scene.check(&rest).await;
    if let Err(violation) = p9_cost::check_change(&ledger, before, after) {
        panic!("{violation}");
    }
    // The name is free now.
    let settings = scene.settings();
    scene.join(&node.name, settings).await;
    scene.stable_after(after, &NAMES).await;
    scene.check(&NAMES).await;
}

/// Kills a follower: the others are stable without it once its lease has expired, with N + 3 commits (P9).
pub async fn p8_a_killed_follower_is_removed_within_its_ttl<F: Faults>(faults: Arc<F>) {
    killed(faults, false).await;
}

/// Kills the leader: another node leads once its lease has expired, with N + 3 commits (P9).
pub async fn p8_a_killed_leader_is_replaced_within_its_ttl<F: Faults>(faults: Arc<F>) {
    killed(faults, true).await;
}

/// Kills all nodes at once and starts them again. Each node waits for the end of its own previous lease.
pub async fn p8_the_cluster_recovers_after_all_nodes_were_killed<F: Faults>(faults: Arc<F>) {
    let (scene, nodes) = Scene::with(faults, &NAMES).await;
    let before = scene.stable(&NAMES).await;
    for node in &nodes {
        node.kill().await;
    }
    let since = scene.now();
    let settings = scene.settings();
    for name in NAMES {
        scene.spawn(name, settings).await;
    }
    scene.stable_after(before, &NAMES).await;
    let took = scene.measured("all nodes killed and started again", since);
    assert!(took < scene.noticed() + scene.ttl(), "the nodes rejoined too late: {took:?}; {}", scene.story());
    scene.check(&NAMES).await;
}

/// Pauses the leader until another node leads. Once it resumes, its first answer is that it does not lead, and the
/// write that it was about to make is refused.
pub async fn p6_a_resumed_leader_knows_at_once_that_it_no_longer_leads<F: Faults>(faults: Arc<F>) {
    let (scene, _) = Scene::with(faults, &NAMES).await;
    let (leader, term) = scene.leader().await;
    // The leader writes all the time, so one of its writes is late after the pause.
    scene.next(&leader, "a write", |it| matches!(it, Observation::LeaderCommit { .. })).await;
    let before = scene.stable(&NAMES).await;
    let since = scene.now();
    leader.pause().await;
    let rest = without(&NAMES, &leader.name);
    let after = scene.stable_after(before, &rest).await;
    scene.measured("the leader paused", since);
    assert!(scene.leader().await.1 > term, "another node leads; {}", scene.story());

    leader.pass_all();
    let asked = leader.ask();
    assert!(
        matches!(asked, Some(Observation::AskedLeader { term: None, .. })),
        "the paused node answers {asked:?}; {}",
        scene.story()
    );
    leader.resume();
    let late = |entry: &Entry| match &entry.observation {
        Observation::LeaderCommit { id, term, outcome } if id.ends_with("-late") => {
            Some((term.get(), outcome.clone()))
        }
        _ => None,
    };
    let (under, outcome) = scene.next_of(&leader, "a late write", late).await;
    assert_eq!(under, term);
    assert!(!matches!(outcome, WriteOutcome::Done(_)), "a deposed leader has written; {}", scene.story());
    scene.stable_after(after, &NAMES).await;
    scene.check(&NAMES).await;
}

/// Pauses a follower past its TTL. It rejoins by itself, and the leader stays.
pub async fn p7_a_follower_rejoins_after_a_pause<F: Faults>(faults: Arc<F>) {
    let (scene, _) = Scene::with(faults, &NAMES).await;
    let (node, term) = (scene.one(false).await, scene.leader().await.1);
    let before = scene.stable(&NAMES).await;
    node.pause().await;
    let after = scene.stable_after(before, &without(&NAMES, &node.name)).await;
    node.pass_all();
    let since = scene.now();
    node.resume();
    scene.next(&node, "a lost session", is_lost).await;
    scene.next(&node, "a rejoin", is_rejoined).await;
    scene.stable_after(after, &NAMES).await;
    scene.measured("a paused follower resumed", since);
    assert_eq!(scene.present().1, Some(term), "the leader has changed; {}", scene.story());
    scene.check(&NAMES).await;
}
