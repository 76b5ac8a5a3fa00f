//! The health check of the leader fails or hangs, while its lease is still renewed.

use clustering_proofs::node::{Condition, NodeSpec};
use clustering_testkit::history::Observation;

use crate::scenario::{Alone, LONG, ms, secs, without};

const NAMES: [&str; 3] = ["a", "b", "c"];

pub(crate) async fn p11_a_leader_whose_check_fails_gives_up_its_lead() {
    loses_the_lead(Condition::Ill, "the node is ill").await;
}

pub(crate) async fn p11_a_leader_whose_check_hangs_gives_up_its_lead() {
    loses_the_lead(Condition::Hangs, "the check did not answer within 1s").await;
}

async fn loses_the_lead(condition: Condition, why: &str) {
    let scenario = Alone::new().await;
    // Long enough that no lease expires in this test: a session can end only because its lease was given back.
    let ttl = secs(40);
    for name in NAMES {
        let spec = NodeSpec { ttl, check_every: Some(ms(200)), ..scenario.spec(name) };
        let node = scenario.spawn(spec);
        node.next("a join", LONG, |it| matches!(it, Observation::Joined { .. })).await;
    }
    let before = scenario.stable(&NAMES).await;
    let (leader, term) = scenario.leader().await;
    // The leader is writing, so it has writes to stop.
    leader.next("a write", LONG, |it| matches!(it, Observation::FencedWrite { .. })).await;

    let since = scenario.now();
    leader.set_condition(condition);
    let fell = |it: &Observation| matches!(it, Observation::Unhealthy { reason } if reason == why);
    leader.next("an unhealthy state", LONG, fell).await;
    let lost = |it: &Observation| matches!(it, Observation::SessionLost { reason, .. } if reason == "the node is not healthy");
    leader.next("the end of its session", LONG, lost).await;
    let after = scenario.stable_after(before, &without(&NAMES, leader.name())).await;
    let took = scenario.measured(&format!("a leader with health check {condition:?}, TTL {ttl:?}"), since);
    assert!(took < ttl / 2, "the leader did not give its lease back");
    let (other, later) = scenario.leader().await;
    assert!(other.name() != leader.name() && later > term);

    // The node stays away as long as its check does not pass.
    for _ in 0..3 {
        leader.next("another check", LONG, |it| matches!(it, Observation::CheckEnded { .. })).await;
    }
    assert_eq!(leader.count(|it| matches!(it, Observation::Rejoined { .. })), 0);
    assert_eq!(scenario.present(), (Some(after), Some(later)), "nothing else has changed");

    let well = scenario.now();
    leader.set_condition(Condition::Well);
    leader.next("a healthy state", LONG, |it| matches!(it, Observation::Healthy)).await;
    leader.next("a rejoin", LONG, |it| matches!(it, Observation::Rejoined { .. })).await;
    scenario.stable_after(after, &NAMES).await;
    scenario.measured("a node is healthy again", well);
    assert_eq!(scenario.present().1, Some(later), "the other node still leads");
    scenario.check(&NAMES).await;
}
