//! Storms: many changes in a short time.

use std::{error::Error, time::Duration};

use clustering_core::Event;
use futures_util::{FutureExt, future::join_all};
use serde_json::json;
use tokio::{task::unconstrained, time::Instant};

use crate::{
    arguments::Arguments,
    place::{Node, Place, stable},
};

pub(crate) async fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    for nodes in &arguments.nodes {
        let place = Place::open(arguments).await?;
        match arguments.restart {
            true => rolling_restart(arguments, &place, *nodes).await?,
            false => joins(arguments, &place, *nodes).await?,
        }
    }
    Ok(())
}

/// Results of a storm.
struct Came {
    changes: usize,
    versions: u64,
    commits: u64,
    /// Time from the last change until every node sees a stable version of all nodes.
    stable_after: Duration,
    /// Number of stabilize runs: of the node with the most runs, and of all nodes together.
    most_runs: u64,
    all_runs: u64,
}

async fn joins(arguments: &Arguments, place: &Place, count: usize) -> Result<(), Box<dyn Error>> {
    let observer = place.observe().await?;
    let mut changes = observer.changes();
    let (before, began) = (place.commits().await, Instant::now());
    let step = arguments.within / count as u32;
    let join = |number: usize| async move {
        tokio::time::sleep_until(began + step * number as u32).await;
        Node::start(place, number, arguments).await
    };
    let nodes = join_all((0..count).map(join)).await;
    let joined = Instant::now();
    stable(&nodes, count).await;
    let stable_after = joined.elapsed();
    let came = Came {
        changes: count,
        versions: versions(&mut changes),
        commits: place.commits().await - before,
        stable_after,
        most_runs: nodes.iter().map(Node::runs).max().unwrap_or(0),
        all_runs: nodes.iter().map(Node::runs).sum(),
    };
    let what = format!("{count} join within {:?}", arguments.within);
    came.report(arguments, &what, count);
    end(nodes).await;
    Ok(())
}

async fn rolling_restart(arguments: &Arguments, place: &Place, count: usize) -> Result<(), Box<dyn Error>> {
    let start = |number| Node::start(place, number, arguments);
    let mut nodes = join_all((0..count).map(start)).await;
    stable(&nodes, count).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let observer = place.observe().await?;
    let mut changes = observer.changes();
    let before = place.commits().await;
    let earlier: Vec<u64> = nodes.iter().map(Node::runs).collect();
    let mut most_runs = 0;
    let mut all_runs = 0;
    let mut tick = tokio::time::interval(arguments.every);
    for turn in 0..count {
        let number = if arguments.youngest_first { count - 1 - turn } else { turn };
        tick.tick().await;
        let runs = nodes[number].runs() - earlier[number];
        nodes[number].cluster.stop().await?;
        nodes[number] = Node::start(place, number, arguments).await;
        (most_runs, all_runs) = (most_runs.max(runs), all_runs + runs);
    }
    let restarted = Instant::now();
    stable(&nodes, count).await;
    let came = Came {
        changes: 2 * count,
        stable_after: restarted.elapsed(),
        versions: versions(&mut changes),
        commits: place.commits().await - before,
        most_runs: most_runs.max(nodes.iter().map(Node::runs).max().unwrap_or(0)),
        all_runs: all_runs + nodes.iter().map(Node::runs).sum::<u64>(),
    };
    let order = if arguments.youngest_first { "the youngest first" } else { "the oldest first" };
    came.report(
        arguments,
        &format!("{count} are restarted, one every {:?}, {order}", arguments.every),
        count,
    );
    end(nodes).await;
    Ok(())
}

/// Returns the number of versions published since the subscription.
fn versions(changes: &mut clustering_core::Changes) -> u64 {
    let mut versions = 0;
    loop {
        // An observer sees every version before the nodes are stable, so all events have arrived by now.
        // Without `unconstrained`, tokio's cooperative budget could make the channel look empty.
        match unconstrained(changes.recv()).now_or_never() {
            Some(Ok(event)) => versions += u64::from(matches!(*event, Event::VersionPublished { .. })),
            Some(Err(clustering_core::EventsError::Missed(missed))) => {
                eprintln!("missed {missed} events; versions among them are not counted");
            }
            Some(Err(_)) | None => return versions,
        }
    }
}

async fn end(nodes: Vec<Node>) {
    join_all(nodes.iter().map(|node| node.cluster.stop())).await;
}

impl Came {
    fn report(&self, arguments: &Arguments, what: &str, nodes: usize) {
        let Came { changes, versions, commits, stable_after, most_runs, all_runs } = self;
        // With one version per change: the change, the version, one acknowledgement per node, and the stable record.
        let one_by_one = changes * (nodes + 3);
        let gap = arguments.gap.unwrap_or_else(|| {
            let gap = clustering_core::Config::default().publish_gap;
            (gap.first, gap.max)
        });
        if arguments.json {
            let line = json!({
                "storm": what, "store": arguments.store.name(), "gap_first_ms": gap.0.as_millis() as u64,
                "gap_max_ms": gap.1.as_millis() as u64, "versions": versions, "commits": commits,
                "commits_one_version_each": one_by_one, "stable_after_ms": stable_after.as_millis() as u64,
                "most_stabilize_runs": most_runs, "all_stabilize_runs": all_runs,
            });
            return println!("{line}");
        }
        println!(
            "{what} ({}, gap {:?} to {:?}): {versions} versions, {commits} commits \
             (with one version per change: {one_by_one}), stabilize ran {:.1} times per node, at most {most_runs}; \
             all stable {stable_after:.2?} after the last",
            arguments.store.name(),
            gap.0,
            gap.1,
            *all_runs as f64 / nodes as f64,
        );
    }
}
