//! Processes that are killed.

use clustering_testkit::promises::p9_cost;

use crate::scenario::{Alone, SLACK, TTL, secs, without};

const NAMES: [&str; 3] = ["a", "b", "c"];

async fn killed(leader: bool) {
    let (scenario, nodes) = Alone::with(&NAMES).await;
    let (leading, term) = scenario.leader().await;
    let node = match leader {
        true => leading,
        false => nodes.iter().find(|node| node.name() != leading.name()).unwrap().clone(),
    };
    let before = scenario.stable(&NAMES).await;
    let since = scenario.now();
    node.kill().await;
    let rest = without(&NAMES, node.name());
    let after = scenario.stable_after(before, &rest).await;
    let what = if leader { "the leader killed" } else { "a follower killed" };
    let took = scenario.measured(&format!("{what}, TTL {TTL:?}"), since);
    assert!(took < TTL + SLACK, "{took:?}");
    assert_eq!(scenario.present().1 == Some(term), !leader, "the leader has changed only if it was killed");
    let ledger = scenario.check(&rest).await;
    p9_cost::check_change(&ledger, before, after).unwrap();
    // The node can rejoin under its name at once, because its old record is gone.
    let since = scenario.now();
    scenario.spawn(scenario.spec(node.name()));
    scenario.stable_after(after, &NAMES).await;
    scenario.measured("a node started", since);
    scenario.check(&NAMES).await;
}

pub(crate) async fn p9_the_death_of_a_follower_costs_n_plus_three_commits() {
    killed(false).await;
}

pub(crate) async fn p9_the_death_of_a_leader_costs_n_plus_three_commits() {
    killed(true).await;
}

/// Kills all nodes at the same time and restarts them before their leases expire. Each must wait for the expiry of its
/// own old lease.
pub(crate) async fn p8_the_cluster_recovers_after_all_nodes_were_killed() {
    let (scenario, nodes) = Alone::with(&NAMES).await;
    let before = scenario.stable(&NAMES).await;
    for node in &nodes {
        node.kill().await;
    }
    let since = scenario.now();
    for name in NAMES {
        scenario.spawn(scenario.spec(name));
    }
    scenario.stable_after(before, &NAMES).await;
    let took = scenario.measured(&format!("all nodes killed and restarted at once, TTL {TTL:?}"), since);
    assert!(took < TTL + SLACK + secs(2), "{took:?}");
    scenario.check(&NAMES).await;
}
