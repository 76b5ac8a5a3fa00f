//! The stabilize callback: its argument, its return types, and calls that are slow, refuse, panic or never return.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use clustering_core::{
    Event, Laggards, Outcome, Stabilization,
    event::{Blocked, LostReason},
    store::CoordinationStore,
};
use tokio::time::Instant;

use crate::common::{Cluster, Node, TTL, followers, leader, ms, secs, soon, stable};

/// Returns the refusals of a node: attempt and reason.
fn refusals(node: &Node) -> Vec<(u32, String)> {
    let refusal = |event: &Arc<Event>| match &**event {
        Event::StabilizeRefused { attempt, reason, .. } => Some((*attempt, reason.clone())),
        _ => None,
    };
    node.log.all().iter().filter_map(refusal).collect()
}

async fn blocked(node: &Node) -> Blocked {
    node.log
        .next_of("blocked", |event| match event {
            Event::Blocked(blocked) => Some(blocked.clone()),
            _ => None,
        })
        .await
}

#[tokio::test(start_paused = true)]
async fn p8_a_slow_stabilize_is_reported_and_its_node_named() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(2).await;
    // Changes that follow each other closely would be published later.
    tokio::time::sleep(secs(2)).await;
    let begun = Instant::now();
    let slow = cluster
        .start_with("slow", |builder| builder.stabilize(|_| async { tokio::time::sleep(secs(60)).await }))
        .await;
    let leading = leader(&nodes);
    let blocked = blocked(leading).await;
    assert_eq!(begun.elapsed(), secs(30));
    assert_eq!(blocked.since, secs(30));
    assert_eq!(blocked.laggards.len(), 1);
    assert_eq!((blocked.laggards[0].name.as_str(), &blocked.laggards[0].refused), ("slow", &None));
    assert!(Event::Blocked(blocked.clone()).to_string().contains("slow has not answered"));
    assert_eq!(leading.now().blocked.unwrap().laggards, blocked.laggards);
    assert_eq!(followers(&nodes)[0].now().blocked, None, "only the leader knows which nodes block");
    slow.log.next("slow", |event| matches!(event, Event::StabilizeSlow { attempt: 1, .. })).await;
    stable(nodes.iter().chain([&slow])).await;
    assert_eq!(begun.elapsed(), secs(60));
    assert_eq!(leading.now().blocked, None);
    assert_eq!(slow.log.count(|event| matches!(event, Event::StabilizeSlow { .. })), 1);
    // It kept its session throughout.
    assert_eq!(slow.log.count(|event| matches!(event, Event::SessionLost { .. })), 0);
    cluster.audit().await;
}

#[tokio::test(start_paused = true)]
async fn p8_a_refused_stabilize_is_retried_with_growing_delays_until_it_succeeds() {
    let cluster = Cluster::new();
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let kept = attempts.clone();
    let soon = |builder: clustering_core::Builder| builder.configure(|config| config.warn_after = secs(10));
    let first = cluster.start_with("a", soon).await;
    stable([&first]).await;
    let node = cluster
        .start_with("b", |builder| {
            builder.stabilize(move |stabilization: Stabilization| {
                let attempt = stabilization.attempt();
                kept.lock().unwrap().push((attempt, Instant::now()));
                std::future::ready(if attempt > 10 { Ok(true) } else { Err(format!("no {attempt}")) })
            })
        })
        .await;
    let told = blocked(&first).await;
    assert!(told.laggards[0].refused.as_ref().unwrap().starts_with("no "), "{told}");
    assert!(told.to_string().contains("b refused (no "), "{told}");
    stable([&first, &node]).await;
    let expected: Vec<_> = (1..=10).map(|attempt| (attempt, format!("no {attempt}"))).collect();
    assert_eq!(refusals(&node), expected);
    let times = attempts.lock().unwrap().clone();
    assert_eq!(times.iter().map(|(attempt, _)| *attempt).collect::<Vec<_>>(), (1..=11).collect::<Vec<_>>());
    for (place, delay) in [100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000, 5000].into_iter().enumerate() {
        let waited = times[place + 1].1 - times[place].1;
        assert!(
            waited <= ms(delay + 1) && waited >= ms(delay * 3 / 4),
            "{waited:?} after attempt {}",
            place + 1
        );
    }
    cluster.audit().await;
}

#[tokio::test(start_paused = true)]
async fn p8_panics_are_refusals_with_their_text() {
    let cluster = Cluster::new();
    let node = cluster
        .start_with("a", |builder| {
            builder.stabilize(|stabilization| {
                // Panics before it returns a future.
                assert!(stabilization.attempt() != 1, "at once");
                async move {
                    match stabilization.attempt() {
                        2 => panic!("a text"),
                        3 => panic!("a text with {}", stabilization.attempt()),
                        4 => std::panic::panic_any(4),
                        _ => {}
                    }
                }
            })
        })
        .await;
    stable([&node]).await;
    let expected = ["at once", "a text", "a text with 3", "without a message"];
    let expected: Vec<_> =
        expected.iter().zip(1..).map(|(text, attempt)| (attempt, format!("it panicked: {text}"))).collect();
    assert_eq!(refusals(&node), expected);
}

#[tokio::test(start_paused = true)]
async fn p8_a_stabilize_that_never_returns_is_aborted_by_the_timeout() {
    let cluster = Cluster::new();
    let dropped = Arc::new(AtomicU32::new(0));
    struct Held(Arc<AtomicU32>);
    impl Drop for Held {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let counted = dropped.clone();
    let begun = Instant::now();
    let node = cluster
        .start_with("a", |builder| {
            let builder = builder.configure(|config| config.stabilize_timeout = Some(secs(7)));
            builder.stabilize(move |stabilization| {
                let held = Held(counted.clone());
                async move {
                    if stabilization.attempt() <= 2 {
                        let _held = held;
                        std::future::pending::<()>().await;
                    }
                }
            })
        })
        .await;
    stable([&node]).await;
    assert!(begun.elapsed() > secs(14) && begun.elapsed() < secs(15), "{:?}", begun.elapsed());
    assert_eq!(dropped.load(Ordering::SeqCst), 3, "the state of the aborted calls is dropped");
    let reason = "it was ended after 7s, the stabilize timeout".to_owned();
    assert_eq!(refusals(&node), [(1, reason.clone()), (2, reason)]);
}

/// Without a timeout a stabilize that hangs is never aborted, and its node blocks every version; but versions are still
/// published, and the node can leave.
#[tokio::test(start_paused = true)]
async fn p8_a_stabilize_that_ignores_its_token_blocks_only_its_own_node() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(2).await;
    let stuck =
        cluster.start_with("stuck", |builder| builder.stabilize(|_| std::future::pending::<()>())).await;
    blocked(leader(&nodes)).await;
    let version = nodes[0].cluster_change().await.unwrap();
    stuck.log.next("told", |event| matches!(event, Event::Superseded { .. })).await;
    for node in &nodes {
        node.until("the others are ready", |status| status.cluster_version() == Some(version)).await;
    }
    let again = blocked(leader(&nodes)).await;
    assert_eq!(again.version, version);
    let begun = Instant::now();
    stuck.stop().await.unwrap();
    assert_eq!(begun.elapsed(), secs(5), "stop takes as long as the stop timeout");
    stable(&nodes).await;
    cluster.audit().await;
}

#[tokio::test(start_paused = true)]
async fn a_laggard_is_evicted_under_that_policy_and_rejoins() {
    let cluster = Cluster::new();
    let evict = Laggards::Evict { after: secs(45) };
    let mut nodes = Vec::new();
    for name in ["a", "b"] {
        nodes.push(cluster.start_with(name, |builder| builder.laggards(evict)).await);
    }
    let well = Arc::new(AtomicBool::new(false));
    let is_well = well.clone();
    let stuck = cluster
        .start_with("stuck", |builder| {
            builder.stabilize(move |stabilization| {
                let well = is_well.load(Ordering::SeqCst);
                async move {
                    if !well {
                        stabilization.superseded().await;
                    }
                }
            })
        })
        .await;
    nodes[0].log.next("evicted", |event| matches!(event, Event::Evicted { name } if name == "stuck")).await;
    let lost = |event: &Event| matches!(event, Event::SessionLost { reason: LostReason::Removed });
    stuck.log.next("removed", lost).await;
    stable(&nodes).await;
    well.store(true, Ordering::SeqCst);
    nodes.push(stuck);
    stable(&nodes).await;
    cluster.audit().await;
}

#[tokio::test(start_paused = true)]
async fn p8_a_leader_that_is_itself_the_laggard_steps_down_and_is_evicted() {
    let cluster = Cluster::new();
    let evict = Laggards::Evict { after: secs(45) };
    let stuck_from_two = |stabilization: Stabilization| async move {
        if stabilization.view().len() > 1 {
            stabilization.superseded().await;
        }
    };
    let stuck = cluster.start_with("a", |builder| builder.laggards(evict).stabilize(stuck_from_two)).await;
    stable([&stuck]).await;
    let other = cluster.start_with("b", |builder| builder.laggards(evict)).await;
    other.leads().await;
    stuck.log.next("removed", |event| matches!(event, Event::SessionLost { .. })).await;
    stable([&other]).await;
    cluster.audit().await;
}

#[tokio::test(start_paused = true)]
async fn every_return_type_can_report_success() {
    let cluster = Cluster::new();
    let nodes = [
        cluster.start_with("unit", |builder| builder.stabilize(|_| async {})).await,
        cluster.start_with("bool", |builder| builder.stabilize(|_| async { true })).await,
        cluster.start_with("result", |builder| builder.stabilize(|_| async { Ok::<_, String>(()) })).await,
        cluster.start_with("outcome", |builder| builder.stabilize(|_| async { Outcome::Ready })).await,
        cluster
            .start_with("both", |builder| builder.stabilize(|_| async { Ok::<_, std::io::Error>(true) }))
            .await,
    ];
    stable(&nodes).await;
}

#[tokio::test(start_paused = true)]
async fn every_return_type_can_report_a_refusal() {
    let cluster = Cluster::new();
    let no = |stabilization: &Stabilization| stabilization.attempt() == 1;
    let nodes = [
        cluster.start_with("bool", |builder| builder.stabilize(move |s| async move { !no(&s) })).await,
        cluster
            .start_with("result", |builder| {
                builder.stabilize(move |s| async move { if no(&s) { Err("an error") } else { Ok(()) } })
            })
            .await,
        cluster
            .start_with("outcome", |builder| {
                builder.stabilize(move |s| async move {
                    if no(&s) { Outcome::refused("an outcome") } else { Outcome::Ready }
                })
            })
            .await,
    ];
    stable(&nodes).await;
    let reasons: Vec<_> = nodes.iter().map(|node| refusals(node).remove(0).1).collect();
    assert_eq!(reasons, ["it returned false", "an error", "an outcome"]);
}

#[tokio::test(start_paused = true)]
async fn stop_tells_a_running_stabilize_and_waits_for_it() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(2).await;
    let told = Arc::new(AtomicBool::new(false));
    let tell = told.clone();
    let leaver = cluster
        .start_with("leaver", |builder| {
            builder.stabilize(move |stabilization| {
                let tell = tell.clone();
                async move {
                    stabilization.superseded().await;
                    tokio::time::sleep(secs(1)).await;
                    tell.store(true, Ordering::SeqCst);
                }
            })
        })
        .await;
    leaver.log.next("it begins", |event| matches!(event, Event::Stabilizing { .. })).await;
    let begun = Instant::now();
    let (stopped, _) = tokio::join!(leaver.stop(), stable(&nodes));
    stopped.unwrap();
    assert_eq!(begun.elapsed(), secs(1), "its own stop waits for the callback; the other nodes do not");
    assert!(told.load(Ordering::SeqCst));
    assert_eq!(
        leaver.log.ended().await.iter().filter(|event| matches!(***event, Event::Ready { .. })).count(),
        0
    );
    cluster.audit().await;
}

#[tokio::test(start_paused = true)]
async fn a_barrier_that_is_open_when_the_leader_stops_is_completed_by_the_next() {
    let cluster = Cluster::new();
    let mut nodes = cluster.start_many(3).await;
    let slow = cluster
        .start_with("slow", |builder| builder.stabilize(|_| async { tokio::time::sleep(secs(10)).await }))
        .await;
    let leading = nodes.iter().position(|node| node.is_leader()).unwrap();
    let old = nodes.remove(leading);
    let open = old.log.next_of("four", |event| match event {
        Event::VersionPublished { nodes: 4, version, .. } => Some(*version),
        _ => None,
    });
    let open = open.await;
    old.stop().await.unwrap();
    nodes.push(slow);
    let version = stable(&nodes).await;
    assert!(version > open);
    let announced: Vec<_> = cluster.seen.announced().into_iter().map(|(version, ..)| version).collect();
    assert!(!announced.contains(&open) && announced.contains(&version));
    cluster.audit().await;
}

/// The argument of stabilize across versions, refusals and a lost session.
#[tokio::test(start_paused = true)]
async fn previous_joined_left_and_attempt_describe_the_state_of_the_process() {
    #[derive(Debug, PartialEq)]
    struct Given(u32, Option<usize>, Vec<String>, Vec<String>, Vec<String>);
    let cluster = Cluster::new();
    let (sender, mut given) = tokio::sync::mpsc::unbounded_channel();
    let refuse = Arc::new(AtomicBool::new(false));
    let refuses = refuse.clone();
    let node = cluster
        .start_with("me", |builder| {
            builder.stabilize(move |stabilization: Stabilization| {
                let names = |nodes: &[Arc<clustering_core::Node>]| {
                    nodes.iter().map(|node| node.name.to_string()).collect::<Vec<_>>()
                };
                let diff = stabilization.diff();
                assert_eq!((&diff.joined, &diff.left), (&stabilization.joined(), &stabilization.left()));
                assert_eq!(stabilization.version(), stabilization.view().version());
                let previous = stabilization.previous().map(|view| view.len());
                sender
                    .send(Given(
                        stabilization.attempt(),
                        previous,
                        names(&diff.joined),
                        names(&diff.left),
                        names(&diff.changed),
                    ))
                    .unwrap();
                std::future::ready(!refuses.swap(false, Ordering::SeqCst))
            })
        })
        .await;
    let mut next = async || soon("a stabilize", given.recv()).await.unwrap();
    let list = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(next().await, Given(1, None, list(&["me"]), list(&[]), list(&[])));
    stable([&node]).await;
    let b = cluster.start("b").await;
    assert_eq!(next().await, Given(1, Some(1), list(&["b"]), list(&[]), list(&[])));
    stable([&node, &b]).await;
    refuse.store(true, Ordering::SeqCst);
    let c = cluster.start("c").await;
    assert_eq!(next().await, Given(1, Some(2), list(&["c"]), list(&[]), list(&[])));
    assert_eq!(next().await, Given(2, Some(2), list(&["c"]), list(&[]), list(&[])));
    stable([&node, &b, &c]).await;
    b.stop().await.unwrap();
    assert_eq!(next().await, Given(1, Some(3), list(&[]), list(&["b"]), list(&[])));
    stable([&node, &c]).await;
    // The session is lost, but the process's state is not.
    let own = cluster.store.leases()[0].id;
    cluster.store.revoke_lease(own).await.unwrap();
    node.log.next("back", |event| matches!(event, Event::Rejoined { .. })).await;
    assert_eq!(next().await, Given(1, Some(2), list(&[]), list(&[]), list(&["me"])));
    stable([&node, &c]).await;
    tokio::time::sleep(TTL).await;
    assert!(given.try_recv().is_err(), "no other call");
    cluster.audit().await;
}
