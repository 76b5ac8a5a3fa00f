//! Second instances under a name that is held.

use std::sync::Arc;

use clustering_proofs::node::{Conflict, Node, NodeSpec};
use clustering_testkit::history::Observation;

use crate::scenario::{Alone, LONG};

const NAMES: [&str; 2] = ["a", "b"];

fn second(scenario: &Alone, name_conflict: Conflict) -> Arc<Node> {
    scenario.spawn(NodeSpec { name_conflict, uri: "http://second.test:80".into(), ..scenario.spec("b") })
}

pub(crate) async fn p7_a_second_instance_waits_until_the_first_one_leaves() {
    let (scenario, nodes) = Alone::with(&NAMES).await;
    let before = scenario.present();
    let second = second(&scenario, Conflict::Wait);
    second
        .next(
            "a report that the name is held",
            LONG,
            |it| matches!(it, Observation::Note { text } if text.contains("name is held")),
        )
        .await;
    // Wait for some renewals of the first instance.
    for _ in 0..3 {
        nodes[1].next("a renewal", LONG, |it| matches!(it, Observation::Renewed { .. })).await;
    }
    assert_eq!(second.count(|it| matches!(it, Observation::Joined { .. })), 0);
    assert_eq!(scenario.present(), before, "the second instance changed nothing");
    let since = scenario.now();
    nodes[1].stop().await;
    second.next("a join", LONG, |it| matches!(it, Observation::Joined { .. })).await;
    scenario.stable_after(before.0.unwrap(), &NAMES).await;
    scenario.measured("a second instance after the first one left", since);
    scenario.check(&NAMES).await;
}

pub(crate) async fn p7_a_second_instance_takes_over_the_name() {
    for leads in [false, true] {
        let names = if leads { &NAMES[1..] } else { &NAMES[..] };
        let (scenario, nodes) = Alone::with(names).await;
        let first = nodes.last().unwrap();
        let before = scenario.stable(names).await;
        let since = scenario.now();
        let second = second(&scenario, Conflict::TakeOver);
        second.next("a join", LONG, |it| matches!(it, Observation::Joined { .. })).await;
        let taken = |it: &Observation| *it == Observation::Stopped { reason: "taken_over".into() };
        first.next("the end after the takeover", LONG, taken).await;
        scenario.stable_after(before, names).await;
        scenario.measured(
            &format!("a second instance takes over{}", if leads { " from the leader" } else { "" }),
            since,
        );
        scenario.check(names).await;
    }
}

pub(crate) async fn p7_a_second_instance_stops_if_the_name_is_taken() {
    let (scenario, _) = Alone::with(&NAMES).await;
    let commits = || scenario.follower.ledger().present().commits().to_vec();
    let before = commits();
    let second = second(&scenario, Conflict::Fail);
    let refused = |it: &Observation| *it == Observation::Stopped { reason: "name_taken".into() };
    second.next("the end because the name is taken", LONG, refused).await;
    second.process().unwrap().wait().await.unwrap();
    scenario.settle().await;
    assert_eq!(commits(), before, "the second instance changed nothing");
    scenario.check(&NAMES).await;
}
