//! P6 and P7: a node knows when its session is over, and rejoins by itself.

use std::time::Duration;

use clustering_core::{
    Event, NameConflict, StopReason, event::LostReason, machine::Phase, runtime::StartError,
    store::CoordinationStoreExt,
};
use clustering_testkit::faulty::FaultyStore;
use tokio::time::Instant;

use crate::common::{Cluster, TTL, leader, ms, name, secs, soon, stable, start};

/// The clock alone decides, although the status has not changed.
#[tokio::test(start_paused = true)]
async fn p6_leading_ends_at_the_deadline_without_network() {
    for disconnect in [FaultyStore::cut, FaultyStore::hang] {
        let cluster = Cluster::new();
        let node = cluster.start("a").await;
        stable([&node]).await;
        let left = node.leadership_left();
        assert_eq!(left, TTL * 2 / 3);
        disconnect(&node.line);
        let begun = Instant::now();
        tokio::time::advance(left - ms(1)).await;
        assert!(node.is_leader() && node.is_member() && node.owns("key"));
        assert_eq!(node.term(), node.now().active_term);
        assert_eq!(node.leadership_left(), ms(1));
        tokio::time::advance(ms(1)).await;
        // No task has run since, so only the clock can end it.
        assert!(!node.is_leader() && node.term().is_none());
        assert!(node.is_member() && node.owns("key"), "the session outlasts the leadership");
        tokio::time::advance(TTL - left - ms(1)).await;
        assert!(node.is_member() && node.view().is_some() && node.cluster_version().is_some());
        tokio::time::advance(ms(1)).await;
        assert!(!node.is_member() && !node.owns("key") && node.view().is_none());
        assert_eq!((node.session_left(), node.leadership_left()), (Duration::ZERO, Duration::ZERO));
        assert_eq!(begun.elapsed(), TTL);
        node.line.heal();
        node.log.next("back", |event| matches!(event, Event::Rejoined { .. })).await;
        stable([&node]).await;
        assert!(node.is_leader() && node.is_member());
    }
}

/// Tasks that wait for changes of the status are woken by the deadline, although the node receives no input.
#[tokio::test(start_paused = true)]
async fn p6_the_end_of_leadership_wakes_waiting_tasks() {
    let cluster = Cluster::new();
    let node = cluster.start("a").await;
    stable([&node]).await;
    let begun = Instant::now();
    node.line.hang();
    let status = node.until("it does not lead", |status| status.active_term.is_none()).await;
    assert!(status.member && node.is_member());
    assert_eq!(begun.elapsed(), TTL * 2 / 3);
}

/// The deadline counts from the sending of the last successful renewal, not from its reply.
#[tokio::test(start_paused = true)]
async fn p6_the_deadline_counts_from_the_sending_of_a_renewal() {
    let cluster = Cluster::new();
    let node = cluster.start("a").await;
    stable([&node]).await;
    node.line.delay(secs(2));
    // The renewal is sent 5 s after the grant and answered 2 s later.
    tokio::time::sleep(secs(7) - ms(1)).await;
    assert_eq!(node.session_left(), TTL - secs(7) + ms(1));
    tokio::time::sleep(ms(2)).await;
    assert_eq!(node.session_left(), TTL - secs(2) - ms(1));
    assert_eq!(node.leadership_left(), TTL * 2 / 3 - secs(2) - ms(1));
}

/// The TTL that the store granted counts, not the requested one.
#[tokio::test(start_paused = true)]
async fn p6_the_granted_ttl_counts() {
    let store = clustering_memory::MemoryStore::builder().smallest_ttl(secs(60)).build();
    let cluster = Cluster::on(store);
    let node = cluster.start("a").await;
    stable([&node]).await;
    assert_eq!(node.session_left(), secs(60));
    assert_eq!(node.leadership_left(), secs(40));
    let renewals = cluster.store.stats().renewals;
    tokio::time::sleep(secs(119)).await;
    assert_eq!(cluster.store.stats().renewals - renewals, 5);
}

#[tokio::test(start_paused = true)]
async fn p6_leadership_is_suspended_and_resumed_under_the_same_term() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(3).await;
    let node = leader(&nodes);
    let (term, versions) = (node.term().unwrap(), node.log.versions());
    node.line.cut();
    node.log.next("suspended", |event| *event == Event::LeadershipSuspended { term }).await;
    assert!(!node.is_leader());
    node.line.heal();
    node.log.next("resumed", |event| *event == Event::LeadershipResumed { term }).await;
    assert_eq!(node.term(), Some(term));
    tokio::time::sleep(TTL * 2).await;
    assert_eq!(node.log.versions(), versions, "no version was published");
    assert_eq!(node.log.count(|event| matches!(event, Event::SessionLost { .. })), 0);
    cluster.audit().await;
}

#[tokio::test(start_paused = true)]
async fn p7_a_node_that_lost_its_session_rejoins_in_a_newer_version() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(3).await;
    let before = stable(&nodes).await;
    let node = &nodes[1];
    let incarnation = node.now().session.unwrap().incarnation;
    node.line.cut();
    let lost = node.log.next_of("lost", |event| match event {
        Event::SessionLost { reason } => Some(reason.clone()),
        _ => None,
    });
    assert_eq!(lost.await, LostReason::Expired);
    assert!(!node.is_member() && node.cluster_version().is_none() && !node.cluster_consistent());
    let without = stable([&nodes[0], &nodes[2]]).await;
    assert!(without > before);
    node.line.heal();
    node.log.next("back", |event| matches!(event, Event::Rejoined { .. })).await;
    let after = stable(&nodes).await;
    assert!(after > without);
    assert_ne!(node.now().session.unwrap().incarnation, incarnation);
    cluster.audit().await;
}

/// The node is disconnected too briefly for the others to notice. It is in the log under a new session, while the
/// acknowledgement of its old session would still count for the newest version.
#[tokio::test(start_paused = true)]
async fn p7_acknowledgements_of_the_old_session_do_not_count() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(2).await;
    let (node, gate) = cluster.start_gated("z", true).await;
    let all: Vec<_> = nodes.iter().chain([&node]).collect();
    let old = stable(all.clone()).await;
    gate.send(false).unwrap();
    // The acknowledgement of the old session is deleted with its revoked lease.
    let lease = cluster.store.leases().last().unwrap().id;
    use clustering_core::store::CoordinationStore;
    cluster.store.revoke_lease(lease).await.unwrap();
    node.log.next("lost", |event| matches!(event, Event::SessionLost { .. })).await;
    node.log.next("back", |event| matches!(event, Event::Rejoined { .. })).await;
    tokio::time::sleep(secs(20)).await;
    let audit = cluster.audit().await;
    assert_eq!(
        audit.confirmed().last().unwrap().version,
        old,
        "not stable without the acknowledgement of the new session"
    );
    assert_eq!(nodes[0].node_versions().await.unwrap().len(), 2, "the old acknowledgement is gone");
    gate.send(true).unwrap();
    assert!(stable(all).await > old);
    cluster.audit().await;
}

#[tokio::test(start_paused = true)]
async fn p7_a_second_instance_waits_for_the_name() {
    let cluster = Cluster::new();
    let first = cluster.start("a").await;
    let (line, builder) = cluster.builder("a");
    let second = tokio::spawn(start(line, builder.seed(2).uri("http://other:80")));
    tokio::time::sleep(secs(100)).await;
    assert!(!second.is_finished());
    assert_eq!(cluster.store.lease_count(), 2);
    first.stop().await.unwrap();
    let second = soon("the name", second).await.unwrap();
    stable([&second]).await;
    assert_eq!(second.log.count(|event| matches!(event, Event::NameHeld { .. })), 1, "reported once");
    assert_eq!(second.nodes()[0].uri.as_str(), "http://other:80");
    cluster.audit().await;
}

#[tokio::test(start_paused = true)]
async fn p7_a_second_instance_fails_under_the_policy_fail() {
    let cluster = Cluster::new();
    let first = cluster.start("a").await;
    let version = stable([&first]).await;
    let (_, builder) = cluster.builder("a");
    let refused = builder.seed(2).name_conflict(NameConflict::Fail).start().await.unwrap_err();
    let by = first.uri().clone();
    assert_eq!(refused, StartError::Stopped(StopReason::NameTaken { by }));
    assert!(refused.to_string().contains("http://host:80"), "{refused}");
    assert_eq!(cluster.store.lease_count(), 1, "it leaves no lease behind");
    assert_eq!((stable([&first]).await, cluster.store.open_watches()), (version, 2));
}

#[tokio::test(start_paused = true)]
async fn p7_a_second_instance_takes_over_under_the_policy_take_over() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(3).await;
    // The node that is taken over is the leader: it loses leadership together with its name.
    let first = leader(&nodes);
    let (line, builder) = cluster.builder(first.name().as_str());
    let builder = builder.seed(2).uri("http://other:80").name_conflict(NameConflict::TakeOver);
    let second = start(line, builder).await;
    let ended = soon("the end", first.ended()).await.unwrap();
    assert_eq!(ended.0, StopReason::TakenOver { by: second.uri().clone() });
    assert!(!first.is_leader());
    assert_eq!(first.now().phase, Phase::Stopped(ended.0.clone()));
    let rest = nodes.iter().filter(|node| node.name() != first.name());
    stable(rest.chain([&second])).await;
    first.stop().await.unwrap();
    assert_eq!(cluster.store.lease_count(), 3);
    cluster.audit().await;
}

/// Two processes have the same name, and both take over. A process that rejoins and finds another's record stops, so
/// they do not take the name from each other forever.
#[tokio::test(start_paused = true)]
async fn p7_two_processes_that_take_over_do_not_alternate_for_ever() {
    let cluster = Cluster::new();
    let take = |seed| {
        let (line, builder) = cluster.builder("a");
        start(line, builder.seed(seed).name_conflict(NameConflict::TakeOver))
    };
    let first = take(2).await;
    first.line.cut();
    first.log.next("lost", |event| matches!(event, Event::SessionLost { .. })).await;
    let second = take(3).await;
    first.line.heal();
    let ended = soon("the end", first.ended()).await.unwrap();
    assert!(matches!(ended.0, StopReason::TakenOver { .. }), "{ended}");
    stable([&second]).await;
    tokio::time::sleep(TTL * 4).await;
    assert_eq!(second.now().phase, Phase::Member);
    assert_eq!(second.log.count(|event| matches!(event, Event::SessionLost { .. })), 0);
}

/// A process that crashed and is restarted under its name waits for its old lease, at most for one TTL.
#[tokio::test(start_paused = true)]
async fn p7_a_restart_after_a_crash_waits_for_the_lease_to_end() {
    let cluster = Cluster::new();
    let other = cluster.start("b").await;
    let node = cluster.start("a").await;
    stable([&node, &other]).await;
    node.crash();
    let begun = Instant::now();
    let (line, builder) = cluster.builder("a");
    let again = start(line, builder.seed(2)).await;
    assert!(begun.elapsed() <= TTL + ms(1), "{:?}", begun.elapsed());
    stable([&again, &other]).await;
    assert_eq!(
        other.discovery().node(&name("a")).unwrap().incarnation,
        again.now().session.unwrap().incarnation
    );
    cluster.audit().await;
}

/// A record that is put by hand without a lease never expires: a node that wants the name waits and reports it.
#[tokio::test(start_paused = true)]
async fn p7_a_name_held_for_ever_is_reported_and_can_be_freed() {
    let cluster = Cluster::new();
    let record = r#"{"uri":"http://by-hand:80","incarnation":"x"}"#;
    let key = "cluster/view/nodes/a";
    cluster.store.put(key, record.into(), None).await.unwrap();
    let (line, builder) = cluster.builder("a");
    let mut events = builder.events();
    let starting = tokio::spawn(start(line, builder));
    let told = soon("told", async {
        loop {
            if let Event::NameHeld { uri, .. } = &*events.recv().await.unwrap() {
                return uri.to_string();
            }
        }
    });
    assert_eq!(told.await, "http://by-hand:80");
    cluster.store.delete(key).await.unwrap();
    let node = soon("the start", starting).await.unwrap();
    stable([&node]).await;
}

/// While a node is disconnected, another process takes its name. The node waits, and rejoins when that process has
/// left.
#[tokio::test(start_paused = true)]
async fn p7_a_node_waits_for_a_name_that_it_lost_with_its_session() {
    let cluster = Cluster::new();
    let first = cluster.start("a").await;
    stable([&first]).await;
    let (line, builder) = cluster.builder("a");
    let second = tokio::spawn(start(line, builder.seed(2).uri("http://other:80")));
    first.line.hang();
    let second = soon("the name", second).await.unwrap();
    stable([&second]).await;
    first.line.heal();
    first.log.next("held", |event| matches!(event, Event::NameHeld { .. })).await;
    tokio::time::sleep(TTL * 4).await;
    assert_eq!(first.now().phase, Phase::Joining);
    assert!(!first.is_member() && !first.is_leader() && !first.owns("key") && !first.cluster_consistent());
    assert_eq!(first.leader_node().unwrap().uri, *second.uri());
    second.stop().await.unwrap();
    first.log.next("back", |event| matches!(event, Event::Rejoined { .. })).await;
    stable([&first]).await;
    cluster.audit().await;
}
