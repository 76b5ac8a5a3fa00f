//! The reply to a commit is lost. Whether the commit was applied or not, its purpose is still achieved, and only once.

use clustering_core::{Event, store::ErrorKind};
use clustering_testkit::faulty::Call;

use crate::common::{Cluster, Kind, Node, followers, leader, of, secs, soon, stable, start};

/// Fate of the commit whose reply is lost.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Applied,
    Never,
    /// Applied late, after the commit that was repeated in its place.
    Late,
}

const FATES: [Fate; 3] = [Fate::Applied, Fate::Never, Fate::Late];

impl Fate {
    fn befall(self, node: &Node, kind: Kind) {
        self.befall_line(&node.line, kind);
    }

    fn befall_line(self, line: &clustering_testkit::faulty::FaultyStore, kind: Kind) {
        match self {
            Fate::Applied => line.lose_reply_of_next_commit_matching(of(kind)),
            Fate::Never => line.fail_next_commit_matching(ErrorKind::OutcomeUnknown, of(kind)),
            Fate::Late => line.hold_next_commit_matching(of(kind)),
        }
    }
}

/// Applies the late commits, which must change nothing. Then waits until the cluster is stable and at rest.
async fn at_rest(cluster: &Cluster, nodes: &[Node], fate: Fate) {
    stable(nodes).await;
    for node in nodes {
        for late in node.line.deliver_held().await {
            assert!(late.is_err(), "{fate:?}: {late:?}");
        }
    }
    // Everything that is still to be published or repeated happens within this time.
    tokio::time::sleep(secs(10)).await;
    let version = stable(nodes).await;
    let before = cluster.store.stats().commits_effective;
    tokio::time::sleep(secs(60)).await;
    assert_eq!(cluster.store.stats().commits_effective, before, "{fate:?}: it is at rest");
    assert_eq!(stable(nodes).await, version);
    for node in nodes {
        assert_eq!(node.log.count(|event| matches!(event, Event::SessionLost { .. })), 0, "{fate:?}");
        assert_eq!(node.log.count(|event| matches!(event, Event::Joined { .. })), 1);
    }
    assert_eq!(cluster.store.lease_count(), nodes.len());
    cluster.audit().await;
}

#[tokio::test(start_paused = true)]
async fn a_join_survives_a_lost_reply() {
    for fate in FATES {
        let cluster = Cluster::new();
        let mut nodes = cluster.start_many(2).await;
        let (line, builder) = cluster.builder("z");
        fate.befall_line(&line, Kind::Join);
        nodes.push(start(line, builder).await);
        at_rest(&cluster, &nodes, fate).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_election_survives_a_lost_reply() {
    for fate in FATES {
        let cluster = Cluster::new();
        let (line, builder) = cluster.builder("a");
        fate.befall_line(&line, Kind::Elect);
        let nodes = vec![start(line, builder).await, cluster.start("b").await];
        at_rest(&cluster, &nodes, fate).await;
        assert_eq!(cluster.audit().await.reigns().len(), 1, "{fate:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_publication_survives_a_lost_reply() {
    for fate in FATES {
        let cluster = Cluster::new();
        let mut nodes = cluster.start_many(2).await;
        tokio::time::sleep(secs(5)).await;
        fate.befall(leader(&nodes), Kind::Publish);
        let before = cluster.audit().await.versions().len();
        nodes.push(cluster.start("z").await);
        at_rest(&cluster, &nodes, fate).await;
        assert_eq!(cluster.audit().await.versions().len(), before + 1, "{fate:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn p4_an_acknowledgement_survives_a_lost_reply() {
    for fate in FATES {
        let cluster = Cluster::new();
        let nodes = cluster.start_many(3).await;
        for node in &nodes {
            fate.befall(node, Kind::Acknowledge);
        }
        let version = nodes[2].cluster_change().await.unwrap();
        at_rest(&cluster, &nodes, fate).await;
        for node in &nodes {
            let ready = |event: &Event| matches!(event, Event::Ready { version: this } if *this == version);
            assert_eq!(node.log.count(ready), 1, "{fate:?}");
        }
    }
}

/// An acknowledgement is applied so late that the node has acknowledged a newer version too.
#[tokio::test(start_paused = true)]
async fn p4_an_acknowledgement_may_be_applied_after_the_next_one() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(3).await;
    let node = followers(&nodes)[0];
    node.line.hold_next_commit_matching(of(Kind::Acknowledge));
    nodes[0].cluster_change().await.unwrap();
    nodes[0].cluster_change().await.unwrap();
    stable(&nodes).await;
    let late = node.line.deliver_held().await;
    assert!(late[0].is_err(), "{late:?}");
    stable(&nodes).await;
    cluster.audit().await;
}

#[tokio::test(start_paused = true)]
async fn p4_a_confirmation_survives_a_lost_reply() {
    for fate in FATES {
        let cluster = Cluster::new();
        let nodes = cluster.start_many(2).await;
        fate.befall(leader(&nodes), Kind::Confirm);
        let version = nodes[1].cluster_change().await.unwrap();
        at_rest(&cluster, &nodes, fate).await;
        let announced = cluster.seen.announced();
        assert_eq!(announced.last().unwrap().0, version, "{fate:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_resignation_survives_a_lost_reply() {
    for fate in FATES {
        let cluster = Cluster::new();
        let nodes = cluster.start_many(3).await;
        let old = leader(&nodes);
        fate.befall(old, Kind::Resign);
        soon("the end of the lead", old.resign()).await.unwrap();
        assert!(!old.is_leader());
        let others = nodes.iter().filter(|node| node.name() != old.name());
        let waits = others.map(async |node| {
            node.until("another leads", |status| {
                status
                    .leader
                    .as_ref()
                    .and_then(|leader| leader.name.as_ref())
                    .is_some_and(|name| name != old.name())
            })
            .await
        });
        futures_util::future::join_all(waits).await;
        at_rest(&cluster, &nodes, fate).await;
        assert!(!old.is_leader());
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_survives_a_lost_reply() {
    for fate in FATES {
        let cluster = Cluster::new();
        let nodes = cluster.start_many(2).await;
        tokio::time::sleep(secs(5)).await;
        let before = cluster.audit().await.versions().len();
        let node = followers(&nodes)[0];
        fate.befall(node, Kind::Ask);
        node.cluster_change().await.unwrap();
        at_rest(&cluster, &nodes, fate).await;
        assert_eq!(cluster.audit().await.versions().len(), before + 1, "{fate:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_of_metadata_survives_a_lost_reply() {
    for fate in FATES {
        let cluster = Cluster::new();
        let nodes = cluster.start_many(2).await;
        for node in &nodes {
            fate.befall(node, Kind::Replace);
            node.set_metadata([("zone".to_owned(), "b".to_owned())].into()).await.unwrap();
        }
        at_rest(&cluster, &nodes, fate).await;
        assert!(nodes[0].nodes().iter().all(|node| node.metadata["zone"] == "b"));
    }
}

/// A lease whose ID was lost expires by itself, and the node gets another one.
#[tokio::test(start_paused = true)]
async fn a_grant_survives_a_lost_reply() {
    let cluster = Cluster::new();
    let (line, builder) = cluster.builder("a");
    line.lose_replies(Call::Grant, 1);
    let node = start(line, builder).await;
    stable([&node]).await;
    assert_eq!(cluster.store.lease_count(), 2);
    tokio::time::sleep(secs(16)).await;
    assert_eq!(cluster.store.lease_count(), 1);
    // A renewal and a revocation take effect without a reply.
    node.line.lose_replies(Call::Renew, 1);
    tokio::time::sleep(secs(30)).await;
    node.line.lose_replies(Call::Revoke, 1);
    node.stop().await.unwrap();
    assert_eq!(cluster.store.lease_count(), 0);
}

/// All nodes lose every second reply of every call for a while.
#[tokio::test(start_paused = true)]
async fn the_cluster_survives_the_loss_of_every_second_reply() {
    for seed in 0..5 {
        let cluster = Cluster::new();
        let nodes = cluster.start_many(4).await;
        for node in &nodes {
            for (call, count) in [(Call::Commit, 5), (Call::Renew, 1), (Call::Read, 1), (Call::Watch, 1)] {
                node.line.lose_replies(call, (count + seed) % (count + 1));
            }
        }
        nodes[seed % 4].line.break_watches();
        let version = nodes[(seed + 1) % 4].cluster_change().await.unwrap();
        assert!(stable(&nodes).await >= version);
        cluster.audit().await;
    }
}
