//! Scenarios in which the network between the nodes and the store fails while the store works.

use std::{sync::Arc, time::Duration};

use clustering_core::store::Revision;
use tokio::time::timeout;

use super::{
    Faults, Line,
    node::Settings,
    report::not_judged,
    scene::{NAMES, Scene, is_joined, is_lost, is_rejoined, is_suspended, without},
};
use crate::{
    conformance::Hook,
    history::{Ledger, Observation, WriteOutcome},
};

/// Number of times that the answers to the leader are lost.
const LOSSES: usize = 5;

/// Number of times that all connections are closed.
const CLOSURES: usize = 5;

/// Breaks the line of one node until the others have continued without it. Then repairs it, and waits until all nodes
/// are together again.
async fn broken<F: Faults>(faults: Arc<F>, what: &str, leads: bool, breaks: fn(&Line)) {
    let (scene, _) = Scene::with(faults, &NAMES).await;
    let (node, term) = (scene.one(leads).await, scene.leader().await.1);
    let before = scene.stable(&NAMES).await;
    node.pass_all();
    let since = scene.now();
    breaks(&node.line);
    let mut suspended = None;
    if leads {
        suspended = Some(scene.next(&node, "the suspension of its lead", is_suspended).await.at);
    }
    scene.next(&node, "a lost session", is_lost).await;
    let after = scene.stable_after(before, &without(&NAMES, &node.name)).await;
    let took = scene.measured(what, since);
    scene.assert_noticed(took);
    let later = scene.leader().await.1;
    if leads {
        assert!(later > term, "another node leads; {}", scene.story());
        let elected = scene.time_of(Revision::new(later));
        assert!(suspended < elected, "the leader stops before another is elected; {}", scene.story());
    } else {
        assert_eq!(later, term, "the leader has changed; {}", scene.story());
    }
    let since = scene.now();
    node.line.heal();
    scene.next(&node, "a rejoin", is_rejoined).await;
    scene.stable_after(after, &NAMES).await;
    scene.measured(&format!("{what}, since the repair"), since);
    assert_eq!(scene.leader().await.1, later, "the leader has changed again; {}", scene.story());
    scene.check(&NAMES).await;
}

/// Blocks all traffic between the leader and the store while the leader's connections stay open: it stops acting
/// before another node is elected.
pub async fn p6_a_leader_whose_connections_hang_stops_leading_in_time<F: Faults>(faults: Arc<F>) {
    broken(faults, "the leader's connections hang", true, Line::hang).await;
}

/// Blocks all traffic between a follower and the store: the follower rejoins afterwards.
pub async fn p7_a_follower_whose_connections_hang_rejoins<F: Faults>(faults: Arc<F>) {
    broken(faults, "a follower's connections hang", false, Line::hang).await;
}

/// Closes all connections of the leader, and new ones at once: the leader rejoins afterwards.
pub async fn p7_a_leader_whose_connections_are_closed_rejoins<F: Faults>(faults: Arc<F>) {
    broken(faults, "the leader's connections are closed", true, Line::cut).await;
}

/// Lets the leader's requests through to the store, but blocks the answers. Its renewals keep the lease alive for a
/// while without the leader knowing.
pub async fn p6_a_leader_that_gets_no_answers_stops_leading_in_time<F: Faults>(faults: Arc<F>) {
    broken(faults, "the leader gets no answers", true, Line::hang_answers).await;
}

/// All connections of all nodes are closed several times, and new ones work: no session is lost, and changes in the
/// meantime are seen.
pub async fn p7_closed_connections_change_nothing<F: Faults>(faults: Arc<F>) {
    let scene = Scene::new(faults).await;
    let settings = Settings { ttl: 3 * scene.ttl(), ..scene.settings() };
    let nodes = scene.start(&NAMES, settings).await;
    for _ in 0..CLOSURES {
        for node in &nodes {
            node.line.close().await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    scene.renewed(&nodes).await;
    scene.join("d", settings).await;
    scene.stable(&["a", "b", "c", "d"]).await;
    for node in &nodes {
        assert_eq!(node.count(is_lost), 0, "{} lost its session; {}", node.name, scene.story());
    }
    scene.check(&["a", "b", "c", "d"]).await;
}

/// A node joins while another node is cut off for less than its TTL. The other node receives the missed change once
/// it is connected again, and the version becomes stable.
pub async fn p1_a_change_is_seen_by_a_node_that_was_cut_off<F: Faults>(faults: Arc<F>) {
    let scene = Scene::new(faults).await;
    let settings = Settings { ttl: 10 * scene.ttl(), ..scene.settings() };
    scene.start(&NAMES, settings).await;
    let node = scene.one(false).await;
    node.line.cut();
    let late = scene.join("d", scene.settings()).await;
    scene.next(&late, "its readiness", |it| matches!(it, Observation::Ready { .. })).await;
    node.line.heal();
    scene.stable(&["a", "b", "c", "d"]).await;
    assert_eq!(node.count(is_lost), 0, "{} lost its session; {}", node.name, scene.story());
    scene.check(&["a", "b", "c", "d"]).await;
}

/// Answers to the leader's commits are lost, so that it cannot know if they took effect: none takes effect twice, and
/// none that was reported as refused takes effect. In between, all answers to the leader are lost for a moment.
pub async fn p5_a_commit_whose_answer_is_lost_takes_effect_at_most_once<F: Faults>(faults: Arc<F>) {
    let scene = Scene::new(faults).await;
    let settings = Settings { ttl: 3 * scene.ttl(), ..scene.settings() };
    scene.start(&NAMES, settings).await;
    let leader = scene.leader().await.0;
    for _ in 0..LOSSES {
        leader.pass_all();
        // Text that only the leader's commits contain, in the value of their list.
        if timeout(settings.ttl, leader.line.lose_answer_to_put(b"\"ids\":")).await.is_err() {
            return not_judged(
                "commits whose answers are lost",
                "the connections are encrypted, or encode values in another way",
            );
        }
        // Commits whose outcome the store reports wrongly are found by the check at the end.
        let failed = |it: &Observation| match it {
            Observation::LeaderCommit { outcome, .. } => !matches!(outcome, WriteOutcome::Done(_)),
            _ => false,
        };
        scene.next(&leader, "a failed write", failed).await;
        scene.next(&leader, "another write", is_written).await;
        leader.line.lose_answers().await;
        scene.next(&leader, "another write", is_written).await;
    }
    scene.check(&NAMES).await;
}

fn is_written(it: &Observation) -> bool {
    matches!(it, Observation::LeaderCommit { outcome: WriteOutcome::Done(_), .. })
}

/// A version is published while a node is cut off, and compacted before the node is connected again. So the node can
/// never compute the version's view, and requests another version.
pub async fn p1_a_node_that_missed_a_compacted_version_requests_another<F: Faults>(faults: Arc<F>) {
    const ALL: [&str; 4] = ["a", "b", "c", "d"];
    let scene = Scene::new(faults).await;
    let settings = scene.settings();
    scene.start(&NAMES[..2], settings).await;
    let node = scene.join(NAMES[2], Settings { ttl: 10 * settings.ttl, ..settings }).await;
    scene.stable(&NAMES).await;
    node.pass_all();
    node.line.cut();
    let late = scene.spawn("d", settings).await;
    let missed = |ledger: &Ledger| {
        let newest = ledger.present().newest()?;
        (newest.cut.len() == ALL.len()).then_some(newest.version)
    };
    let missed = scene.until("a version that the node misses", missed).await;
    scene.next(&late, "a join", is_joined).await;
    let ready = |it: &Observation| matches!(it, Observation::Ready { version } if *version == missed);
    scene.next(&late, "its readiness", ready).await;
    let revision = scene.write_elsewhere(1).await;
    if let Hook::Absent(why) = scene.faults.compact(revision).await {
        return not_judged("what a node does about a compacted version", why);
    }
    node.line.heal();
    let resynced = |it: &Observation| matches!(it, Observation::Resynced { rewound: false, .. });
    scene.next(&node, "a resync", resynced).await;
    scene.stable_after(missed, &ALL).await;
    assert_eq!(node.count(is_lost), 0, "{} lost its session; {}", node.name, scene.story());
    scene.check(&ALL).await;
}
