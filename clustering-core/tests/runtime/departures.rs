//! The causes of a version tell how the nodes departed that it no longer contains: left, evicted, or session ended.

use clustering_core::{
    Backoff, Builder, Cause, Departure, Event, Operator,
    config::{HealthChecks, Laggards},
    store::ErrorKind,
};
use clustering_testkit::faulty::{Call, FaultyStore};
use futures_util::FutureExt;
use tokio::{sync::watch, time::Instant};

use crate::common::{Cluster, Kind, Node, TTL, followers, leader, ms, name, of, secs, stable};

/// Starts three nodes and waits until they are at rest.
async fn three() -> (Cluster, Vec<Node>) {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(3).await;
    tokio::time::sleep(secs(10)).await;
    (cluster, nodes)
}

fn take(nodes: &mut Vec<Node>, leads: bool) -> Node {
    let place = nodes.iter().position(|node| node.is_leader() == leads).unwrap();
    nodes.remove(place)
}

/// Waits until these nodes are the cluster, and returns the causes of the newest version, except elections.
async fn causes(nodes: &[Node]) -> Vec<Cause> {
    stable(nodes).await;
    let causes = nodes[0].view().unwrap().causes().to_vec();
    causes.into_iter().filter(|cause| !matches!(cause, Cause::Elected(_))).collect()
}

/// Waits until every node has seen how the given node departed.
async fn heard(nodes: &[Node], gone: &str, wanted: Departure) {
    let is = |event: &Event| matches!(event, Event::NodeDown { name, how } if name == gone && *how == wanted);
    for node in nodes {
        node.log.next("how it went", is).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_unregisters_or_is_dropped_is_reported_as_left() {
    for leads in [false, true] {
        for way in 0..3 {
            let (cluster, mut nodes) = three().await;
            let leaver = take(&mut nodes, leads);
            let gone = leaver.name().clone();
            match way {
                0 => leaver.stop().await.unwrap(),
                1 => leaver.unregister().await.unwrap(),
                _ => drop(leaver.cluster),
            }
            assert_eq!(causes(&nodes).await, [Cause::Left(gone.clone())], "leads: {leads}, way {way}");
            heard(&nodes, gone.as_str(), Departure::Left).await;
            assert_eq!(cluster.store.lease_count(), 2);
            cluster.audit().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_unhealthy_node_is_reported_as_left_and_rejoins_in_the_next_version() {
    let cluster = Cluster::new();
    let mut nodes = cluster.start_many(2).await;
    let (ill, is_ill) = watch::channel(false);
    let checks = HealthChecks { failures: 1, ..HealthChecks::default() };
    let check = move || {
        let ill = *is_ill.borrow();
        async move { !ill }
    };
    nodes.push(
        cluster
            .start_with("z", |builder| builder.health(check).configure(|config| config.health = Some(checks)))
            .await,
    );
    stable(&nodes).await;
    tokio::time::sleep(secs(10)).await;
    ill.send_replace(true);
    heard(&nodes[..2], "z", Departure::Left).await;
    assert_eq!(causes(&nodes[..2]).await, [Cause::Left(name("z"))]);
    ill.send_replace(false);
    stable(&nodes).await;
    cluster.audit().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_crashed_is_reported_as_ended() {
    for leads in [false, true] {
        let (cluster, mut nodes) = three().await;
        let crashed = take(&mut nodes, leads);
        let gone = crashed.name().clone();
        crashed.crash();
        assert_eq!(causes(&nodes).await, [Cause::Ended(gone.clone())]);
        heard(&nodes, gone.as_str(), Departure::Ended).await;
        cluster.audit().await;
    }
}

/// The version after the eviction may be published by another node than the leader that evicted.
#[tokio::test(start_paused = true)]
async fn an_evicted_node_is_reported_as_evicted_by_the_next_leader_too() {
    let cluster = Cluster::new();
    let evicts = |builder: Builder| builder.laggards(Laggards::Evict { after: secs(10) });
    let mut nodes = vec![cluster.start_with("a", evicts).await, cluster.start_with("b", evicts).await];
    stable(&nodes).await;
    let (stuck, _gate) = cluster.start_gated("stuck", false).await;
    stuck
        .until("a version has it", |status| status.newest.as_ref().is_some_and(|view| view.len() == 3))
        .await;
    // The leader removes the laggard, and is gone before it has published a version without it.
    let leading = take(&mut nodes, true);
    leading.line.hold_next_commit_matching(of(Kind::Publish));
    heard(&nodes, "stuck", Departure::Evicted).await;
    let gone = leading.name().clone();
    leading.crash();
    stuck.crash();
    assert_eq!(causes(&nodes).await, [Cause::Ended(gone), Cause::Evicted(name("stuck"))]);
    nodes[0].log.next("evicted", |event| matches!(event, Event::VersionPublished { causes, .. } if causes.contains(&Cause::Evicted(name("stuck"))))).await;
    cluster.audit().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_an_operator_evicted_is_reported_as_evicted() {
    let (cluster, nodes) = three().await;
    let operator = Operator::new(cluster.store.clone(), nodes[0].namespace().clone(), "ops");
    let gone = followers(&nodes)[0].name().clone();
    operator.evict(&gone).await.unwrap();
    let published = |event: &Event| match event {
        Event::VersionPublished { causes, .. } => causes.first() == Some(&Cause::Evicted(gone.clone())),
        _ => false,
    };
    leader(&nodes).log.next("it is told", published).await;
    stable(&nodes).await;
    cluster.audit().await;
}

/// Fate of the commit by which a node leaves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    LosesReply,
    Fails(ErrorKind),
    Hangs,
    ComesLate,
}

#[tokio::test(start_paused = true)]
async fn a_failed_leave_commit_loses_only_the_reason_of_the_departure() {
    let fates = [
        Fate::LosesReply,
        Fate::Fails(ErrorKind::OutcomeUnknown),
        Fate::Fails(ErrorKind::Unreachable),
        Fate::Fails(ErrorKind::Refused),
        Fate::Hangs,
        Fate::ComesLate,
    ];
    for leads in [false, true] {
        for fate in fates {
            let (cluster, mut nodes) = three().await;
            let leaver = take(&mut nodes, leads);
            let gone = leaver.name().clone();
            let line = leaver.line.clone();
            let begun = Instant::now();
            match fate {
                Fate::LosesReply => line.lose_reply_of_next_commit_matching(of(Kind::Leave)),
                Fate::Fails(kind) => line.fail_next_commit_matching(kind, of(Kind::Leave)),
                Fate::Hangs | Fate::ComesLate => line.hold_next_commit_matching(of(Kind::Leave)),
            }
            leaver.stop().await.unwrap();
            let took = begun.elapsed();
            // Its lease was revoked, so the other nodes do not wait for its expiry.
            assert_eq!(cluster.store.lease_count(), 2, "{fate:?}");
            assert!(took <= ms(2_600), "{fate:?} took {took:?}");
            let wanted = match fate {
                Fate::LosesReply => Cause::Left(gone),
                _ => Cause::Ended(gone),
            };
            assert_eq!(causes(&nodes).await, [wanted], "{fate:?}");
            if fate == Fate::ComesLate {
                for late in line.deliver_held().await {
                    assert!(late.is_err(), "{late:?}");
                }
            }
            stable(&nodes).await;
            cluster.audit().await;
        }
    }
}

/// The node ends in time and does not renew its lease meanwhile, so the other nodes notice after its TTL.
#[tokio::test(start_paused = true)]
async fn p6_a_leaving_node_whose_store_is_away_ends_in_time_and_its_lease_expires() {
    for disconnect in [FaultyStore::cut, FaultyStore::hang] {
        let (cluster, mut nodes) = three().await;
        let leaver = take(&mut nodes, true);
        let gone = leaver.name().clone();
        disconnect(&leaver.line);
        let (begun, renewals) = (Instant::now(), leaver.line.attempted(Call::Renew));
        let stopping = leaver.stop();
        tokio::pin!(stopping);
        assert!(stopping.as_mut().now_or_never().is_none());
        // It stops leading when it is told to stop, whatever the store answers.
        tokio::time::sleep(ms(1)).await;
        assert!(!leaver.is_leader());
        let _ = stopping.await;
        assert!(begun.elapsed() <= secs(5), "{:?}", begun.elapsed());
        assert_eq!(leaver.line.attempted(Call::Renew), renewals);
        assert!(leaver.line.attempted(Call::Revoke) > 0, "it tried to revoke its lease");
        assert_eq!(causes(&nodes).await, [Cause::Ended(gone)]);
        assert!(begun.elapsed() <= TTL + secs(2), "{:?}", begun.elapsed());
        cluster.audit().await;
    }
}

/// Each departure in one version is reported with its own reason.
#[tokio::test(start_paused = true)]
async fn nodes_that_depart_together_are_each_reported_with_their_own_reason() {
    let cluster = Cluster::new();
    let gap = Backoff::new(secs(30), secs(30));
    let patient = |builder: Builder| builder.configure(|config| config.publish_gap = gap);
    let mut nodes = vec![cluster.start_with("leader", patient).await];
    nodes[0].leads().await;
    for follower in ["a", "b", "c", "d", "e"] {
        nodes.push(cluster.start(follower).await);
    }
    stable(&nodes).await;
    let followers = nodes.split_off(1);
    let [a, b, c, d, e] = &followers[..] else { unreachable!("five follow") };
    // The next version is delayed for longer than a lease lives.
    a.stop().await.unwrap();
    e.line.cut();
    d.line.cut();
    let operator = Operator::new(cluster.store.clone(), d.namespace().clone(), "ops");
    operator.evict(d.name()).await.unwrap();
    b.stop().await.unwrap();
    c.stop().await.unwrap();
    let told = causes(&nodes).await;
    let name = |node: &Node| node.name().clone();
    let wanted = [
        Cause::Left(name(a)),
        Cause::Left(name(b)),
        Cause::Left(name(c)),
        Cause::Evicted(name(d)),
        Cause::Ended(name(e)),
    ];
    assert_eq!(told[..5], wanted);
    assert!(matches!(&told[5..], [Cause::Asked { .. }]), "{told:?}");
    cluster.audit().await;
}
