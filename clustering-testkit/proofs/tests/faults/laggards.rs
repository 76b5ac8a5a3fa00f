//! Nodes that never become ready, and leaders that evict them.

use std::{sync::Arc, time::Duration};

use clustering_proofs::node::{Node, NodeSpec};
use clustering_testkit::history::Observation;

use crate::scenario::{Alone, LONG, Scenario, secs};

/// Long enough for a node that is about to become ready, on a busy machine.
const EVICTED_AFTER: Duration = secs(4);

/// Starts a node that evicts laggards if it leads. `lags` makes it a laggard itself.
fn spawn(scenario: &Scenario, name: &str, lags: bool) -> Arc<Node> {
    scenario.spawn(NodeSpec {
        evict_after: Some(EVICTED_AFTER),
        warn_after: secs(1),
        stabilize_refuses: if lags { u32::MAX } else { 0 },
        ..scenario.spec(name)
    })
}

async fn evicts(node: &Node, laggard: &str) {
    let evicted = format!("evicted {laggard}, ");
    node.next(&evicted, LONG, |it| matches!(it, Observation::Note { text } if text.starts_with(&evicted)))
        .await;
}

async fn blocked_by(node: &Node, name: &str) {
    let names = |it: &Observation| match it {
        Observation::Blocked { missing, .. } => missing.iter().any(|missing| missing.name.as_str() == name),
        _ => false,
    };
    node.next("the blocking nodes", LONG, names).await;
}

async fn removed(node: &Node) {
    let lost = |it: &Observation| matches!(it, Observation::SessionLost { reason, .. } if reason.contains("removed"));
    node.next("its removal", LONG, lost).await;
}

pub(crate) async fn p8_a_laggard_is_reported_and_evicted_until_it_stops() {
    let scenario = Alone::new().await;
    let leader = spawn(&scenario, "a", false);
    scenario.stable(&["a"]).await;
    spawn(&scenario, "b", false);
    let mut before = scenario.stable(&["a", "b"]).await;
    let laggard = spawn(&scenario, "c", true);
    laggard.next("a join", LONG, |it| matches!(it, Observation::Joined { .. })).await;
    let since = scenario.now();
    // The laggard rejoins by itself and is evicted again.
    for again in [false, true] {
        blocked_by(&leader, "c").await;
        evicts(&leader, "c").await;
        removed(&laggard).await;
        before = scenario.stable_after(before, &["a", "b"]).await;
        if !again {
            scenario.measured(&format!("a joined laggard that is evicted after {EVICTED_AFTER:?}"), since);
        }
        laggard.next("a rejoin", LONG, |it| matches!(it, Observation::Rejoined { .. })).await;
    }
    laggard.stop().await;
    scenario.settle().await;
    scenario.stable(&["a", "b"]).await;
    scenario.check(&["a", "b"]).await;
}

pub(crate) async fn p8_a_leader_that_lags_steps_down_and_is_evicted() {
    let scenario = Alone::new().await;
    let laggard = spawn(&scenario, "a", true);
    let (leader, term) = scenario.leader().await;
    assert_eq!(leader.name(), "a");
    let other = spawn(&scenario, "b", false);
    other.next("a join", LONG, |it| matches!(it, Observation::Joined { .. })).await;
    // The laggard steps down by itself.
    let leads = |it: &Observation| matches!(it, Observation::LeaderChanged { leader: Some(leader), .. } if leader.as_str() == "b");
    other.next("the new leader", LONG, leads).await;
    assert_eq!(laggard.count(|it| matches!(it, Observation::SessionLost { .. })), 0);
    evicts(&other, "a").await;
    removed(&laggard).await;
    scenario.stable(&["b"]).await;
    let (leader, later) = scenario.leader().await;
    assert!(leader.name() == "b" && later > term);
    laggard.stop().await;
    scenario.settle().await;
    scenario.stable(&["b"]).await;
    scenario.check(&["b"]).await;
}
