//! Under paused time and on one thread, the same seed gives the same events, byte by byte.

use std::sync::Arc;

use clustering_core::{Event, Stabilization};

use crate::common::{Cluster, Node, ms, secs, stable, start};

/// Runs joins, refusals, a crash, an outage, a resignation, a request and leaves. Returns all events of all nodes as
/// JSON.
async fn scenario(seed: u64) -> String {
    let cluster = Cluster::new();
    let mut nodes: Vec<Node> = Vec::new();
    for number in 0..6_u64 {
        let (line, builder) = cluster.builder(&format!("n{number}"));
        line.delay(ms(1 + number));
        let builder = builder.seed(seed).stabilize(move |stabilization: Stabilization| async move {
            tokio::time::sleep(ms(20 * number)).await;
            // Some nodes refuse at first.
            stabilization.attempt() > (stabilization.view().len() as u32 + number as u32) % 3
        });
        nodes.push(start(line, builder).await);
    }
    let logs: Vec<_> = nodes.iter().map(|node| node.log.clone()).collect();
    stable(&nodes).await;
    nodes.remove(0).crash();
    stable(&nodes).await;
    nodes[1].line.cut();
    tokio::time::sleep(secs(17)).await;
    nodes[1].line.heal();
    nodes[1].log.next("back", |event| matches!(event, Event::Rejoined { .. })).await;
    stable(&nodes).await;
    nodes.iter().find(|node| node.is_leader()).unwrap().resign().await.unwrap();
    stable(&nodes).await;
    nodes[2].request_version("once more").await.unwrap();
    stable(&nodes).await;
    for node in nodes {
        node.stop().await.unwrap();
    }
    let mut lines = Vec::new();
    for log in &logs[1..] {
        let events: Vec<Arc<Event>> = log.ended().await;
        lines.extend(events.iter().map(|event| serde_json::to_string(&**event).unwrap()));
    }
    let history = crate::common::history(&cluster.store).await;
    lines.extend(history.iter().map(|batch| format!("{batch:?}")));
    lines.join("\n")
}

fn run(seed: u64) -> String {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(scenario(seed))
}

#[test]
fn the_same_seed_gives_the_same_events_and_another_seed_gives_other_events() {
    let first = run(7);
    for _ in 0..3 {
        let again = run(7);
        for (a, b) in first.lines().zip(again.lines()) {
            assert_eq!(a, b);
        }
        assert_eq!(first, again);
    }
    assert!(first.lines().count() > 150, "{}", first.lines().count());
    assert_ne!(run(8), first);
}
