//! A store that is away or hangs, breaks watches, compacts its history, or is restored to an older state.

use std::time::Duration;

use clustering_core::{
    Event, Version,
    event::LostReason,
    store::{CoordinationStoreExt, Revision},
};
use clustering_testkit::faulty::{Call, FaultyStore};

use crate::common::{Cluster, Node, TTL, leader, ms, secs, soon, stable};

fn lost(event: &Event) -> bool {
    matches!(event, Event::SessionLost { .. })
}

/// Disconnects all nodes for the given time.
async fn outage(nodes: &[Node], disconnect: fn(&FaultyStore), away: Duration) {
    nodes.iter().for_each(|node| disconnect(&node.line));
    tokio::time::sleep(away).await;
    nodes.iter().for_each(|node| node.line.heal());
}

/// A store outage must not become a mass restart: sessions, leader, term and version do not change.
#[tokio::test(start_paused = true)]
async fn p6_an_outage_shorter_than_the_ttl_costs_nothing() {
    for disconnect in [FaultyStore::cut, FaultyStore::hang, FaultyStore::hang_replies] {
        let cluster = Cluster::new();
        let nodes = cluster.start_many(3).await;
        let version = stable(&nodes).await;
        let term = leader(&nodes).term();
        // Renewals have just been sent.
        tokio::time::sleep(ms(5_100)).await;
        outage(&nodes, disconnect, secs(11)).await;
        let leading = &nodes[0];
        leading.log.next("suspended", |event| matches!(event, Event::LeadershipSuspended { .. })).await;
        leading.log.next("resumed", |event| matches!(event, Event::LeadershipResumed { .. })).await;
        assert_eq!(leading.term(), term);
        for node in &nodes {
            node.until("the store is back", |status| status.stale_since.is_none()).await;
        }
        tokio::time::sleep(TTL * 2).await;
        assert_eq!(stable(&nodes).await, version);
        for node in &nodes {
            assert_eq!(node.log.count(lost), 0);
            let away = node.log.count(|event| matches!(event, Event::StoreAway { .. }));
            let back = node.log.count(|event| matches!(event, Event::StoreBack { .. }));
            assert_eq!((away, back), (1, 1), "{:#?}", node.log.all());
            assert_eq!(node.stale_for(), None);
        }
        cluster.audit().await;
    }
}

#[tokio::test(start_paused = true)]
async fn p7_nodes_recover_from_an_outage_longer_than_the_ttl() {
    for disconnect in [FaultyStore::cut, FaultyStore::hang, FaultyStore::hang_replies] {
        let cluster = Cluster::new();
        let nodes = cluster.start_many(5).await;
        let before = stable(&nodes).await;
        outage(&nodes, disconnect, secs(120)).await;
        for node in &nodes {
            node.log.next("lost", lost).await;
            node.log.next("back", |event| matches!(event, Event::Rejoined { .. })).await;
        }
        assert!(stable(&nodes).await > before);
        tokio::time::sleep(TTL * 2).await;
        assert_eq!(nodes.iter().map(|node| node.log.count(lost)).collect::<Vec<_>>(), [1; 5]);
        assert_eq!(cluster.store.lease_count(), 5, "no lease is left behind");
        let audit = cluster.audit().await;
        assert!(audit.versions().len() <= 8, "{} versions", audit.versions().len());
        for node in &nodes {
            node.stop().await.unwrap();
        }
        assert_eq!((cluster.store.lease_count(), cluster.store.open_watches()), (0, 0));
    }
}

/// A node that was disconnected receives the missed changes afterwards, in order and each once.
#[tokio::test(start_paused = true)]
async fn p2_nothing_is_lost_by_a_broken_watch() {
    let cluster = Cluster::new();
    let mut nodes = cluster.start_many(3).await;
    let witness = cluster.start("witness").await;
    let all = |nodes: &[Node]| nodes.iter().cloned().chain([witness.clone()]).collect::<Vec<_>>();
    stable(&all(&nodes)).await;
    for round in 0..10 {
        witness.line.break_watches();
        nodes.push(cluster.start(&format!("m{round}")).await);
        if round % 3 == 0 {
            witness.line.cut();
            nodes.remove(1).stop().await.unwrap();
            tokio::time::sleep(secs(3)).await;
            witness.line.heal();
        }
        stable(&all(&nodes)).await;
    }
    let published = cluster.audit().await.versions().len();
    let seen = witness.log.versions();
    assert!(seen.is_sorted_by(|a, b| a < b));
    // It joined as the fourth node, so it did not see the first versions; it saw all versions since then.
    let first = cluster.audit().await.versions().iter().position(|one| one.version == seen[0]).unwrap();
    assert_eq!(seen.len(), published - first);
    assert_eq!(witness.log.count(|event| matches!(event, Event::Resynced { .. })), 0);
}

/// The history of an idle prefix is compacted under a quiet cluster, and then the watches break. The cluster must not
/// rebalance.
#[tokio::test(start_paused = true)]
async fn compaction_under_a_quiet_cluster_causes_no_version() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(3).await;
    let version = stable(&nodes).await;
    tokio::time::sleep(secs(1)).await;
    for number in 0..20 {
        cluster.store.put("elsewhere", number.to_string().into(), None).await.unwrap();
    }
    cluster.store.compact(cluster.store.revision());
    let effective = cluster.store.stats().commits_effective;
    for break_off in [FaultyStore::break_watches, FaultyStore::compact_watches] {
        nodes.iter().for_each(|node| break_off(&node.line));
        for node in &nodes {
            if node.log.count(|event| matches!(event, Event::Resynced { .. })) == 0 {
                tokio::time::sleep(secs(1)).await;
            }
        }
    }
    tokio::time::sleep(secs(30)).await;
    for node in &nodes {
        let resynced = node.log.count(|event| matches!(event, Event::Resynced { rewound: false, .. }));
        assert!(resynced >= 1, "{:#?}", node.log.all());
        assert_eq!(node.log.versions().last(), Some(&version));
        assert!(node.cluster_consistent());
    }
    assert_eq!(cluster.store.stats().commits_effective, effective);
    assert_eq!(cluster.seen.announced().last().map(|(version, ..)| *version), Some(version));
}

/// Versions were published and compacted while a node was disconnected. It cannot know their views, so it requests
/// another version.
#[tokio::test(start_paused = true)]
async fn p1_a_version_whose_cut_a_node_missed_is_replaced_by_another() {
    let cluster = Cluster::new();
    let mut nodes = cluster.start_many(3).await;
    tokio::time::sleep(secs(5)).await;
    let away = nodes.pop().unwrap();
    away.line.cut();
    let missed = nodes[1].request_version("to be missed").await.unwrap();
    cluster.store.compact(cluster.store.revision());
    away.line.heal();
    away.log.next("resynced", |event| matches!(event, Event::Resynced { rewound: false, .. })).await;
    nodes.push(away);
    let version = stable(&nodes).await;
    assert!(version > missed);
    assert!(!nodes[2].log.versions().contains(&missed), "it never knew the view of the missed version");
    assert_eq!(nodes[2].log.count(lost), 0);
}

/// The same for the leader.
#[tokio::test(start_paused = true)]
async fn p1_a_leader_that_missed_a_version_publishes_another() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(3).await;
    let version = stable(&nodes).await;
    tokio::time::sleep(secs(5)).await;
    let leading = leader(&nodes);
    let term = leading.term();
    leading.line.cut();
    // Somebody overwrites the version by hand, and the store compacts that change.
    let record = cluster.store.get("cluster/view/version").await.unwrap().unwrap();
    cluster.store.put("cluster/view/version", record.value, None).await.unwrap();
    cluster.store.compact(cluster.store.revision());
    leading.line.heal();
    leading.log.next("resynced", |event| matches!(event, Event::Resynced { .. })).await;
    let status = leading
        .until("another", |status| status.is_stable() && status.newest.as_ref().unwrap().version() > version)
        .await;
    assert_eq!(status.active_term, term);
    stable(&nodes).await;
}

/// Only the leader's watch of the acknowledgements breaks.
#[tokio::test(start_paused = true)]
async fn p8_acknowledgements_that_a_broken_watch_missed_are_read_again() {
    use clustering_core::store::WatchEnd;

    let cluster = Cluster::new();
    let nodes = cluster.start_many(5).await;
    let leading = leader(&nodes);
    for end in
        [WatchEnd::Compacted { compacted: Revision::new(1) }, WatchEnd::Disconnected { reason: "x".into() }]
    {
        leading.line.stall_watches("cluster/ready/");
        let version = leading.cluster_change().await.unwrap();
        for node in &nodes {
            node.until("ready", |status| status.cluster_version() == Some(version)).await;
        }
        tokio::time::sleep(secs(1)).await;
        assert!(!leading.cluster_consistent());
        leading.line.heal();
        leading.line.end_watches("cluster/ready/", end);
        assert_eq!(stable(&nodes).await, version);
    }
    cluster.audit().await;
}

#[tokio::test(start_paused = true)]
async fn p7_the_nodes_rejoin_on_a_store_that_was_restored() {
    let cluster = Cluster::new();
    let mut nodes = cluster.start_many(3).await;
    let backup = cluster.store.backup();
    nodes.push(cluster.start("late").await);
    let before = stable(&nodes).await;
    let asked = nodes[1].cluster_change().await.unwrap();
    assert!(asked > before);
    stable(&nodes).await;
    cluster.store.restore(&backup);
    for node in &nodes {
        let rewound = |event: &Event| matches!(event, Event::SessionLost { reason: LostReason::Rewound });
        node.log.next("rewound", rewound).await;
        node.log.next("back", |event| matches!(event, Event::Rejoined { .. })).await;
    }
    let after = stable(&nodes).await;
    assert!(after > asked, "labels continue above those seen before");
    tokio::time::sleep(TTL * 2).await;
    assert_eq!(stable(&nodes).await, after);
    assert_eq!(
        cluster.store.lease_count(),
        nodes.len(),
        "the leases that the backup brought back are given back"
    );
}

/// A node saw a version whose publisher's clock was an hour ahead. The store is restored to an older state, and a
/// process that never saw that version leads.
#[tokio::test(start_paused = true)]
async fn p2_versions_continue_above_those_that_a_node_saw_before_a_restore() {
    let cluster = Cluster::new();
    let a = cluster.start("a").await;
    stable([&a]).await;
    let backup = cluster.store.backup();
    // After this, the node notices that the store was restored.
    for _ in 0..50 {
        cluster.store.put("elsewhere", "x".into(), None).await.unwrap();
    }
    let now = a.now().newest.as_ref().unwrap().version().minted_ms();
    let ahead = Version::from_u128(u128::from(now + 3_600_000) << 80);
    let record = format!(r#"{{"version":"{ahead}","number":2}}"#);
    cluster.store.put("cluster/view/version", record.into(), None).await.unwrap();
    a.until("seen", |status| status.newest.as_ref().is_some_and(|view| view.version() == ahead)).await;

    a.line.cut();
    cluster.store.restore(&backup);
    let new = cluster.start("new").await;
    new.leads().await;
    new.until("stable", |status| status.is_stable()).await;
    assert!(new.now().newest.as_ref().unwrap().version() < ahead, "it does not know the later label yet");
    a.line.heal();
    let after = soon("a stable version", a.wait_stable_after(ahead)).await.unwrap();
    assert_eq!(stable([&a, &new]).await, after);
    tokio::time::sleep(secs(60)).await;
    assert_eq!(stable([&a, &new]).await, after, "it is at rest");
}

/// A request for a version is open while the store is restored.
#[tokio::test(start_paused = true)]
async fn p7_a_request_survives_a_restore_and_costs_one_version() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(3).await;
    let backup = cluster.store.backup();
    for _ in 0..20 {
        nodes[1].cluster_change().await.unwrap();
    }
    stable(&nodes).await;
    let asking = &nodes[1];
    asking.line.cut();
    let asked = tokio::spawn({
        let node = asking.clone();
        async move { node.cluster_change().await }
    });
    tokio::time::sleep(secs(1)).await;
    cluster.store.restore(&backup);
    asking.line.heal();
    let version = asked.await.unwrap().unwrap();
    assert!(stable(&nodes).await >= version);
    tokio::time::sleep(secs(5)).await;
    let before = cluster.store.stats().commits_effective;
    tokio::time::sleep(secs(60)).await;
    assert_eq!(cluster.store.stats().commits_effective, before, "it is at rest");
}

/// The store answers neither the leader nor the followers for longer than their sessions last. Calls do not accumulate.
#[tokio::test(start_paused = true)]
async fn a_store_that_never_answers_is_called_at_a_limited_rate() {
    let cluster = Cluster::new();
    let node = cluster.start("a").await;
    stable([&node]).await;
    node.line.clear_log();
    node.line.hang();
    tokio::time::sleep(secs(600)).await;
    let attempts: usize = Call::ALL.iter().map(|call| node.line.attempted(*call)).sum();
    assert!((60..600).contains(&attempts), "{attempts} calls in ten minutes");
    assert_eq!(node.stale_for().map(|stale| stale > secs(580)), Some(true));
    node.line.heal();
    node.log.next("back", |event| matches!(event, Event::StoreBack { .. })).await;
    stable([&node]).await;
    assert_eq!(cluster.store.lease_count(), 1);
}
