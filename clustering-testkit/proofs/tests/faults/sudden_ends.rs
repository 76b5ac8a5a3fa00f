//! Processes that end without a word.

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
    assert_eq!(scenario.present().1 == Some(term), !leader, "it leads on if it was not killed");
    let ledger = scenario.check(&rest).await;
    p9_cost::check_change(&ledger, before, after).unwrap();
    // It comes back under its name at once: its old record is gone.
    let since = scenario.now();
    scenario.spawn(scenario.spec(node.name()));
    scenario.stable_after(after, &NAMES).await;
    scenario.measured("a node started", since);
    scenario.check(&NAMES).await;
}

pub(crate) async fn p9_a_killed_node_costs_n_and_three() {
    killed(false).await;
}

pub(crate) async fn p9_a_killed_leader_costs_n_and_three() {
    killed(true).await;
}

/// All at once, and started again before their leases are over: each waits for its own ghost.
pub(crate) async fn p8_all_nodes_killed_and_started_again() {
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
    let took = scenario.measured(&format!("all killed and started again at once, TTL {TTL:?}"), since);
    assert!(took < TTL + SLACK + secs(2), "{took:?}");
    scenario.check(&NAMES).await;
}
