//! P8 and P9: progress, and the number of commits that changes cost.

use clustering_core::{
    Event, StopReason,
    store::{CoordinationStoreExt, Revision},
};
use clustering_memory::Stats;

use crate::common::{Cluster, TTL, followers, leader, secs, stable};

/// Returns the number of changes of the store since `before`: commits that had an effect, and leases whose end deleted
/// keys. (The lease of a node that left has no keys any more.)
fn effective(cluster: &Cluster, before: Revision) -> u64 {
    cluster.store.revision().get() - before.get()
}

/// Counts the commits for a join, a graceful leave and a crash among N nodes, where N is the size of the new view.
async fn p9_membership_changes_with(size: usize) {
    let cluster = Cluster::new();
    let mut nodes = cluster.start_many(size - 1).await;
    // After this, the leader's own join is over, and so is its pause between publications.
    tokio::time::sleep(secs(10)).await;

    let (before, revision) = (cluster.store.stats(), cluster.store.revision());
    nodes.push(cluster.start("late").await);
    stable(&nodes).await;
    let join = cluster.store.stats().since(&before);
    assert_eq!(effective(&cluster, revision), size as u64 + 3, "a join: {join:?}");
    // Each node receives the new node, the version, and its stability. The new node receives no more than that, and
    // the leader also receives an acknowledgement of each node.
    assert_eq!(join.batches, 3 * size as u64 + size as u64, "{join:?}");

    tokio::time::sleep(secs(10)).await;
    let (before, revision) = (cluster.store.stats(), cluster.store.revision());
    nodes.pop().unwrap().stop().await.unwrap();
    stable(&nodes).await;
    let leave = cluster.store.stats().since(&before);
    assert_eq!(effective(&cluster, revision), nodes.len() as u64 + 3, "a leave: {leave:?}");
    assert_eq!((leave.commits_refused, leave.revokes), (0, 1));

    nodes.push(cluster.start("late").await);
    stable(&nodes).await;
    tokio::time::sleep(secs(10)).await;
    let (before, revision) = (cluster.store.stats(), cluster.store.revision());
    nodes.pop().unwrap().crash();
    stable(&nodes).await;
    let crash = cluster.store.stats().since(&before);
    // The end of the lease is not a commit.
    assert_eq!(effective(&cluster, revision), nodes.len() as u64 + 2 + 1, "a crash: {crash:?}");
    assert_eq!(crash.expiries, 1);
    cluster.audit().await;
}

#[tokio::test(start_paused = true)]
async fn p9_membership_changes_among_2_cost_at_most_5_commits() {
    p9_membership_changes_with(2).await;
}

#[tokio::test(start_paused = true)]
async fn p9_membership_changes_among_5_cost_at_most_8_commits() {
    p9_membership_changes_with(5).await;
}

#[tokio::test(start_paused = true)]
async fn p9_membership_changes_among_20_cost_at_most_23_commits() {
    p9_membership_changes_with(20).await;
}

#[tokio::test(start_paused = true)]
async fn p9_a_cluster_at_rest_renews_and_does_nothing_else() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(5).await;
    tokio::time::sleep(secs(1)).await;
    let before = cluster.store.stats();
    let events: Vec<_> = nodes.iter().map(|node| node.log.all().len()).collect();
    tokio::time::sleep(secs(600)).await;
    let idle = cluster.store.stats().since(&before);
    assert_eq!(idle.renewals, 5 * 600 / (TTL.as_secs() / 3));
    let mut expected = Stats::default();
    expected.renewals = idle.renewals;
    assert_eq!(idle, expected);
    assert_eq!(nodes.iter().map(|node| node.log.all().len()).collect::<Vec<_>>(), events);
}

/// The leader of fifty nodes crashes. One commit elects the next leader and publishes; no other node even tries.
#[tokio::test(start_paused = true)]
async fn p9_no_stampede_when_the_leader_is_lost() {
    let cluster = Cluster::new();
    let mut nodes = cluster.start_many(50).await;
    tokio::time::sleep(secs(10)).await;
    for graceful in [false, true] {
        let leading = nodes.iter().position(|node| node.is_leader()).unwrap();
        let old = nodes.remove(leading);
        let before = (cluster.store.stats(), cluster.audit().await.reigns().len());
        match graceful {
            true => old.stop().await.unwrap(),
            false => old.crash(),
        }
        stable(&nodes).await;
        let cost = cluster.store.stats().since(&before.0);
        assert_eq!(cost.commits_refused, 0, "{cost:?}");
        // The lease ends or the leader leaves; one commit elects and publishes, all acknowledge, one confirms.
        assert_eq!(cost.commits_effective, u64::from(graceful) + 1 + nodes.len() as u64 + 1);
        let audit = cluster.audit().await;
        assert_eq!(audit.reigns().len(), before.1 + 1);
        tokio::time::sleep(secs(10)).await;
    }
}

/// Many concurrent requests, on the leader and on other nodes, share one version.
#[tokio::test(start_paused = true)]
async fn p9_concurrent_requests_share_one_version() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(5).await;
    tokio::time::sleep(secs(10)).await;
    let rest = followers(&nodes);
    let asked = futures_util::future::join_all((0..40).map(|number| {
        let node = rest[number % rest.len()];
        async move { node.request_version(format!("number {number}")).await.unwrap() }
    }));
    let mut versions = asked.await;
    versions.dedup();
    assert_eq!(versions, [stable(&nodes).await]);
    tokio::time::sleep(secs(10)).await;
    let on_leader = leader(&nodes);
    let (a, b) = tokio::join!(on_leader.cluster_change(), on_leader.request_version("twice"));
    assert_eq!(a, b);
    assert_eq!(a.unwrap(), stable(&nodes).await);
    let causes = nodes[0].view().unwrap().causes().to_vec();
    assert_eq!(causes.len(), 1, "{causes:?}");
    assert_eq!(cluster.audit().await.confirmed().len(), cluster.seen.announced().len());
}

/// After changes, faults and further changes, the newest version becomes stable.
#[tokio::test(start_paused = true)]
async fn p8_when_changes_cease_the_newest_version_becomes_stable() {
    let cluster = Cluster::new();
    let mut nodes = cluster.start_many(4).await;
    for round in 0..12 {
        let name = format!("r{round:02}");
        nodes.push(cluster.start(&name).await);
        let gone = nodes.remove(round % 3);
        if round % 2 == 0 {
            gone.crash();
        } else {
            gone.stop().await.unwrap();
        }
        nodes[round % 4].line.cut();
        tokio::time::sleep(secs(7 * (round as u64 % 4))).await;
        nodes[round % 4].line.heal();
    }
    let newest = stable(&nodes).await;
    tokio::time::sleep(secs(60)).await;
    assert_eq!(stable(&nodes).await, newest);
    let last = nodes[0].log.all();
    assert!(last.iter().any(|event| matches!(&**event, Event::Stable { version } if *version == newest)));
    cluster.audit().await;
    for node in &nodes {
        node.stop().await.unwrap();
        assert_eq!(node.ended().await.unwrap().0, StopReason::Asked);
    }
    assert_eq!((cluster.store.lease_count(), cluster.store.open_watches()), (0, 0));
}

/// Only the leader watches the acknowledgements: a deposed leader drops that watch, whether it is open or still being
/// opened.
#[tokio::test(start_paused = true)]
async fn p9_a_deposed_leader_stops_watching_the_acknowledgements() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(2).await;
    let (old, new) = (leader(&nodes), followers(&nodes)[0]);
    assert_eq!((old.line.open_watches(), new.line.open_watches()), (2, 1));
    old.resign().await.unwrap();
    stable(&nodes).await;
    assert_eq!((old.line.open_watches(), new.line.open_watches()), (1, 2));
    assert_eq!(cluster.store.open_watches(), 3);
    // The old leader leads again and is deposed by hand at once, possibly while its watch is still being opened.
    old.line.delay(secs(2));
    new.resign().await.unwrap();
    old.leads().await;
    cluster.store.delete("cluster/view/leader").await.unwrap();
    new.leads().await;
    old.line.delay(secs(0));
    tokio::time::sleep(secs(10)).await;
    stable(&nodes).await;
    assert_eq!((old.line.open_watches(), new.line.open_watches()), (1, 2));
    assert_eq!(cluster.store.open_watches(), 3);
}
