//! P9 for exclusive clusters: the number of commits that a hand-over costs.

use clustering_core::{Release, slots::SlotCount, store::Revision};
use futures_util::future::join_all;

use crate::common::{Cluster, Node, secs, stable};

/// Numbers of slots for which the cost must be the same.
const SLOTS: &[u16] = &[1, 256, 4_096];

/// An exclusive cluster whose nodes may have a `release` callback.
struct Exclusive {
    cluster: Cluster,
    slots: u16,
    releases: bool,
}

impl Exclusive {
    async fn start(&self, name: &str) -> Node {
        self.cluster
            .start_with(name, |builder| {
                let builder = builder.exclusive(self.slots);
                if self.releases { builder.release(|_: Release| async {}) } else { builder }
            })
            .await
    }

    /// Starts nodes, and waits until they are at rest, including the leader's pause between publications.
    async fn start_many(&self, count: usize) -> Vec<Node> {
        let names: Vec<_> = (0..count).map(|number| format!("n{number:03}")).collect();
        let nodes = join_all(names.iter().map(|name| self.start(name))).await;
        self.settle(&nodes).await;
        nodes
    }

    async fn settle(&self, nodes: &[Node]) {
        stable(nodes).await;
        tokio::time::sleep(secs(60)).await;
        self.check_held(nodes);
    }

    /// Checks that each slot is held by exactly one node.
    fn check_held(&self, nodes: &[Node]) {
        let mut held: Vec<_> =
            nodes.iter().flat_map(|node| node.held_slots().iter().collect::<Vec<_>>()).collect();
        held.sort_unstable();
        let all: Vec<_> = SlotCount::new(self.slots).unwrap().iter().collect();
        assert_eq!(held, all, "each slot is held by exactly one node");
    }

    /// Counts the changes of the store until these nodes are at rest.
    async fn counted(&self, before: Revision, nodes: &[Node]) -> u64 {
        self.settle(nodes).await;
        self.cluster.store.revision().get() - before.get()
    }
}

/// Lets one node join, and then another one stop or crash, so that the view has `size` nodes after each change. Returns
/// the number of commits of each change.
async fn cost(size: usize, slots: u16, releases: bool, crashes: bool) -> (u64, u64) {
    let exclusive = Exclusive { cluster: Cluster::new(), slots, releases };
    let store = exclusive.cluster.store.clone();
    let mut nodes = exclusive.start_many(size - 1).await;

    let before = store.revision();
    nodes.push(exclusive.start("late").await);
    let join = exclusive.counted(before, &nodes).await;

    // Add one more node, so that `size` nodes remain.
    nodes.push(exclusive.start("last").await);
    exclusive.settle(&nodes).await;
    let (before, stats) = (store.revision(), store.stats());
    // Choose a node that holds slots. With one slot, this may be the leader.
    let place = nodes.iter().rposition(|node| !node.held_slots().is_empty()).unwrap();
    let goes = nodes.remove(place);
    match crashes {
        true => goes.crash(),
        false => goes.stop().await.unwrap(),
    }
    let mut departure = exclusive.counted(before, &nodes).await;
    // The end of the lease deletes keys, but is not a commit of a node, so it is not counted.
    departure -= store.stats().since(&stats).expiries;
    (join, departure)
}

async fn p9_hand_overs_with(size: usize, all_slots: &[u16]) {
    let n = size as u64;
    for &slots in all_slots {
        let case = format!("{size} nodes, {slots} slots");
        assert_eq!(cost(size, slots, false, false).await, (n + 4, n + 4), "join and stop: {case}");
        assert_eq!(
            cost(size, slots, true, false).await,
            (n + 4, n + 5),
            "join and stop with release: {case}"
        );
        assert_eq!(cost(size, slots, false, true).await, (n + 4, n + 3), "join and crash: {case}");
    }
}

#[tokio::test(start_paused = true)]
async fn p9_hand_overs_among_2_cost_at_most_7_commits_with_any_number_of_slots() {
    p9_hand_overs_with(2, SLOTS).await;
}

#[tokio::test(start_paused = true)]
async fn p9_hand_overs_among_6_cost_at_most_11_commits_with_any_number_of_slots() {
    p9_hand_overs_with(6, SLOTS).await;
}

#[tokio::test(start_paused = true)]
async fn p9_hand_overs_among_21_cost_at_most_26_commits_with_any_number_of_slots() {
    p9_hand_overs_with(21, SLOTS).await;
}

#[tokio::test(start_paused = true)]
async fn p9_hand_overs_among_101_cost_at_most_106_commits_with_any_number_of_slots() {
    p9_hand_overs_with(101, &[1, 4_096]).await;
}
