//! Processes that are paused (`SIGSTOP`) for longer than their lease lives.

use clustering_proofs::node::Node;
use clustering_testkit::history::{Entry, Observation, WriteOutcome};

use crate::scenario::{Alone, LONG, Scenario, TTL, without};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Pauses the node until etcd has ended its lease and the others have continued without it.
async fn pause_past_the_lease(scenario: &Scenario, node: &Node) {
    let before = scenario.stable(&NAMES).await;
    let since = scenario.now();
    node.pause();
    let after = scenario.stable_after(before, &without(&NAMES, node.name())).await;
    scenario.measured(&format!("{} paused, TTL {TTL:?}", node.name()), since);
    assert_ne!(before, after);
}

pub(crate) async fn p6_a_resumed_leader_knows_at_once_that_it_no_longer_leads() {
    let (scenario, _) = Alone::with(&NAMES).await;
    let (leader, term) = scenario.leader().await;
    // The leader is writing, so one of its writes is late after the pause.
    leader.next("a write", LONG, |it| matches!(it, Observation::LeaderCommit { .. })).await;
    pause_past_the_lease(&scenario, &leader).await;
    let (other, later) = scenario.leader().await;
    assert!(other.name() != leader.name() && later > term);
    let before = scenario.stable(&without(&NAMES, leader.name())).await;

    leader.pass_all();
    let resumed = scenario.now();
    leader.resume();
    let asked = |entry: &Entry| match entry.observation {
        Observation::AskedLeader { term, .. } if entry.at >= resumed => Some(term),
        _ => None,
    };
    assert_eq!(
        leader.next_of("an answer of is_leader()", LONG, asked).await,
        None,
        "the first answer after the pause"
    );
    let late = |entry: &Entry| match &entry.observation {
        Observation::LeaderCommit { id, term, outcome } if id.ends_with("-late") => {
            Some((term.get(), outcome.clone()))
        }
        _ => None,
    };
    let (under, outcome) = leader.next_of("its late write", LONG, late).await;
    assert_eq!(under, term);
    assert!(!matches!(outcome, WriteOutcome::Done(_)), "{outcome:?}");
    scenario.stable_after(before, &NAMES).await;
    scenario.measured("a paused leader resumes", resumed);
    scenario.check(&NAMES).await;
}
