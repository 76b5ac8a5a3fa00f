//! P1 to P5, as seen by the callbacks, the events and the store's history. The harness checks the invariants in every
//! test: one view per version, versions in order, one stabilize at a time, `on_stable` at most once.

use std::sync::{Arc, Mutex};

use clustering_core::{
    Clustering, Event, Version,
    machine::RequestError,
    store::{CoordinationStoreExt, ErrorKind},
};

use clustering_testkit::faulty::{Call, FaultyStore};

use crate::common::{Cluster, Kind, followers, leader, ms, name, of, secs, stable, start};

#[tokio::test(start_paused = true)]
async fn p1_all_nodes_are_given_the_same_nodes_for_a_version() {
    let cluster = Cluster::new();
    let mut nodes = cluster.start_many(4).await;
    nodes.push(cluster.start_with("zone", |builder| builder.metadata("zone", "a").weight(3)).await);
    stable(&nodes).await;
    nodes[0].set_metadata([("zone".to_owned(), "b".to_owned())].into()).await.unwrap();
    stable(&nodes).await;
    nodes.remove(1).stop().await.unwrap();
    stable(&nodes).await;
    // The harness compared the views that the callbacks received. The statuses come from each node's own replica.
    let views: Vec<_> =
        nodes.iter().map(|node| serde_json::to_string(node.view().unwrap().nodes()).unwrap()).collect();
    assert!(views.iter().all(|view| *view == views[0]), "{views:#?}");
    // All nodes have the same seed, and yet different incarnations, since IDs also depend on the name.
    let lives: std::collections::BTreeSet<_> =
        nodes[0].nodes().iter().map(|node| node.incarnation.clone()).collect();
    assert_eq!(lives.len(), nodes.len());
    assert_eq!(nodes[3].view().unwrap().get(&name("zone")).unwrap().weight().get(), 3);
    cluster.audit().await;
}

/// Some nodes create versions with today's wall clock, the others with a clock of 2023, and there is one version of the
/// far future.
#[tokio::test(start_paused = true)]
async fn p2_versions_go_forward_with_any_leader_and_any_clocks() {
    let cluster = Cluster::new();
    let future = r#"{"version":"7ZZZZZZZZZZZZZZZZZZZZZZZZ0","term":1,"leader":"gone","cause":[]}"#;
    cluster.store.put("other/view/version", future.into(), None).await.unwrap();
    for namespace in ["cluster", "other"] {
        let mut nodes = Vec::new();
        for number in 0..6 {
            let today = number % 2 == 0;
            let line = FaultyStore::new(cluster.store.clone());
            let builder = Clustering::builder(line.clone()).namespace(namespace).uri("http://host:80");
            // The last node is the witness, which must not lead.
            let priority = if number == 5 { 0 } else { 100 };
            let builder = builder.name(format!("n{number}")).priority(priority);
            nodes.push(start(line, if today { builder } else { builder.seed(number) }).await);
        }
        stable(&nodes).await;
        let witness = nodes.pop().unwrap();
        while !nodes.is_empty() {
            let leading = nodes.iter().position(|node| node.is_leader()).unwrap();
            nodes.remove(leading).stop().await.unwrap();
            stable(nodes.iter().chain([&witness])).await;
        }
        let versions = witness.log.versions();
        assert!(versions.len() >= 5 && versions.is_sorted_by(|a, b| a < b), "{versions:?}");
        witness.stop().await.unwrap();
    }
    assert!(cluster.audit().await.reigns().len() >= 6);
}

#[tokio::test(start_paused = true)]
async fn p2_the_order_continues_after_the_last_node_has_left() {
    let cluster = Cluster::new();
    let mut last: Option<Version> = None;
    for life in 0..4 {
        let node = cluster.start(&format!("n{life}")).await;
        let version = stable([&node]).await;
        assert!(last < Some(version));
        last = Some(version);
        node.stop().await.unwrap();
    }
    cluster.audit().await;
}

/// A running stabilize is told that it is superseded, versions published while it runs are skipped, and its result is
/// discarded.
#[tokio::test(start_paused = true)]
async fn p3_one_stabilize_at_a_time_and_only_for_the_newest_version() {
    let cluster = Cluster::new();
    let runs = Arc::new(Mutex::new(Vec::new()));
    let kept = runs.clone();
    let slow = cluster
        .start_with("slow", |builder| {
            builder.stabilize(move |stabilization| {
                let runs = kept.clone();
                async move {
                    let size = stabilization.view().len();
                    runs.lock().unwrap().push((size, "begins"));
                    if size == 2 {
                        stabilization.superseded().await;
                        assert!(stabilization.is_superseded());
                        runs.lock().unwrap().push((size, "is told"));
                        // Further versions are published while it runs.
                        tokio::time::sleep(secs(20)).await;
                    }
                    runs.lock().unwrap().push((size, "ends"));
                }
            })
        })
        .await;
    stable([&slow]).await;
    let mut nodes = vec![cluster.start("b").await];
    slow.log.next("it begins", |event| matches!(event, Event::Stabilizing { .. })).await;
    slow.until("b is there", |status| status.newest.as_ref().unwrap().len() == 2).await;
    for more in ["c", "d", "e"] {
        nodes.push(cluster.start(more).await);
        let count = nodes.len() + 1;
        slow.until("the version is out", |status| status.newest.as_ref().unwrap().len() == count).await;
        assert_eq!(
            slow.now().acknowledged.as_ref().unwrap().len(),
            1,
            "it was not ready at the second version"
        );
    }
    nodes.push(slow.clone());
    let version = stable(&nodes).await;
    let expected =
        [(1, "begins"), (1, "ends"), (2, "begins"), (2, "is told"), (2, "ends"), (5, "begins"), (5, "ends")];
    assert_eq!(*runs.lock().unwrap(), expected);
    assert_eq!(slow.log.count(|event| matches!(event, Event::Superseded { .. })), 1);
    // It was never ready at the version of two nodes.
    assert_eq!(slow.log.count(|event| matches!(event, Event::Ready { .. })), 2);
    assert_eq!(slow.cluster_version(), Some(version));
    cluster.audit().await;
}

/// The stabilize of one node waits for its gate. Until then no version becomes stable.
#[tokio::test(start_paused = true)]
async fn p4_stable_means_everyone() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(3).await;
    let (late, gate) = cluster.start_gated("late", false).await;
    let version = nodes[0].log.next_of("four", |event| match event {
        Event::VersionPublished { nodes: 4, version, .. } => Some(*version),
        _ => None,
    });
    let version = version.await;
    for node in &nodes {
        node.until("it is ready", |status| status.cluster_version() == Some(version)).await;
        assert!(!node.cluster_consistent());
    }
    tokio::time::sleep(secs(25)).await;
    assert!(nodes.iter().all(|node| !node.cluster_consistent() && node.now().stable != Some(version)));
    assert!(cluster.seen.announced().iter().all(|(announced, ..)| *announced != version));
    gate.send(true).unwrap();
    assert_eq!(stable(nodes.iter().chain([&late])).await, version);
    cluster.audit().await;
}

#[tokio::test(start_paused = true)]
async fn p4_on_stable_runs_once_and_only_on_the_leader_that_recorded_it() {
    let cluster = Cluster::new();
    let mut nodes = cluster.start_many(5).await;
    for _ in 0..3 {
        let leading = nodes.iter().position(|node| node.is_leader()).unwrap();
        let version = stable(&nodes).await;
        let announced = nodes[leading].log.next_of("on_stable", |event| match event {
            Event::Announcing { version: this, term } => (*this == version).then_some(*term),
            _ => None,
        });
        let term = announced.await;
        assert_eq!(nodes[leading].term(), Some(term));
        let last = cluster.seen.announced().last().cloned();
        assert_eq!(last, Some((version, term, nodes[leading].name().clone())));
        nodes.remove(leading).stop().await.unwrap();
        stable(&nodes).await;
    }
    let audit = cluster.audit().await;
    let announced: Vec<_> = cluster.seen.announced().iter().map(|(version, ..)| *version).collect();
    let stable: Vec<_> = audit.confirmed().iter().map(|confirmed| confirmed.version).collect();
    assert_eq!(announced, stable, "the callback ran for every stable version");
}

/// The leader is lost after the version was recorded as stable, and before it knows. No other node runs the callback.
#[tokio::test(start_paused = true)]
async fn p4_no_other_node_announces_for_a_leader_lost_between_record_and_callback() {
    let cluster = Cluster::new();
    let old = cluster.start("a").await;
    let (gate, passes) = tokio::sync::watch::channel(());
    let gated = cluster
        .start_with("b", |builder| {
            builder.stabilize(move |stabilization| {
                let mut passes = passes.clone();
                async move {
                    if stabilization.view().len() == 2 {
                        // The leader is lost while this waits, if the gate was opened once.
                        passes.changed().await.unwrap();
                    }
                }
            })
        })
        .await;
    let open = old.until("two", |status| status.newest.as_ref().unwrap().len() == 2).await;
    let version = open.newest.clone().unwrap().version();
    old.line.stall_watches("cluster/view/");
    gate.send(()).unwrap();
    gated.until("it is recorded", |status| status.stable == Some(version)).await;
    assert_ne!(old.now().stable, Some(version));
    old.crash();
    let next = stable([&gated]).await;
    assert!(next > version);
    let announced: Vec<_> = cluster.seen.announced().into_iter().map(|(version, ..)| version).collect();
    assert!(!announced.contains(&version), "no node announced the version");
    assert!(announced.contains(&next), "a newer version follows, and is announced");
    cluster.audit().await;
}

#[tokio::test(start_paused = true)]
async fn p5_a_leader_that_was_cut_off_writes_nothing() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(3).await;
    let old = leader(&nodes);
    let term = old.term().unwrap();
    old.write().await.unwrap();
    old.line.hang();
    old.until("its deadline has passed", |status| status.active_term.is_none()).await;
    assert_eq!(old.write().await, Err(RequestError::NotLeader));
    let rest: Vec<_> = nodes.iter().filter(|node| node.name() != old.name()).collect();
    stable(rest.clone()).await;
    let new = rest.iter().find(|node| node.is_leader()).unwrap();
    assert!(new.term().unwrap() > term, "terms grow");
    new.write().await.unwrap();
    assert_eq!(old.write().await, Err(RequestError::NotLeader));
    old.line.heal();
    old.log.next("it is back", |event| matches!(event, Event::Rejoined { .. })).await;
    assert_eq!(old.write().await, Err(RequestError::NotLeader));
    stable(&nodes).await;
    cluster.audit().await;
}

/// The leader does not know yet that it is deposed, because the log does not reach it. The guard fails.
#[tokio::test(start_paused = true)]
async fn p5_the_term_guards_the_write_of_a_leader_that_does_not_know_it_is_deposed() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(2).await;
    let old = leader(&nodes);
    old.line.stall_watches("");
    let keyspace = old.keyspace().clone();
    cluster.store.delete(keyspace.election_key()).await.unwrap();
    followers(&nodes)[0].leads().await;
    assert!(old.is_leader(), "it does not know yet that it is deposed");
    let refused = old.write().await.unwrap_err();
    let RequestError::Store(error) = &refused else { panic!("{refused}") };
    assert!(matches!(error.kind(), ErrorKind::GuardFailed { .. }), "{error}");
    assert_eq!(cluster.store.get("app/owner").await.unwrap(), None);
    old.line.heal();
    old.until("it knows", |status| status.active_term.is_none()).await;
    stable(&nodes).await;
    cluster.audit().await;
}

#[tokio::test(start_paused = true)]
async fn p5_writes_to_the_clusters_own_keys_and_writes_of_followers_are_refused() {
    use clustering_core::store::Txn;

    let cluster = Cluster::new();
    let nodes = cluster.start_many(2).await;
    let (leader, follower) = (leader(&nodes), followers(&nodes)[0]);
    for key in ["cluster/view/version", "cluster/view/x", "cluster/ready/n000"] {
        let refused = leader.commit_as_leader(Txn::new().delete(key)).await.unwrap_err();
        assert!(matches!(refused, RequestError::Reserved { .. }), "{refused}");
        assert!(refused.to_string().contains(key), "{refused}");
    }
    assert_eq!(follower.write().await, Err(RequestError::NotLeader));
    // The caller's own guards count too.
    let own = Txn::new().guard(clustering_core::store::Guard::absent("app/x")).put("app/x", "1", None);
    leader.commit_as_leader(own.clone()).await.unwrap();
    let refused = leader.commit_as_leader(own).await.unwrap_err();
    assert!(
        matches!(&refused, RequestError::Store(error) if matches!(error.kind(), ErrorKind::GuardFailed { .. }))
    );
    // A write whose reply is lost is neither repeated nor reported as done; the caller has to decide.
    leader.line.lose_reply_of_next_commit_matching(of(Kind::Other));
    leader.line.clear_log();
    let lost = leader.write().await.unwrap_err();
    assert!(
        matches!(&lost, RequestError::Store(error) if error.kind() == ErrorKind::OutcomeUnknown),
        "{lost}"
    );
    tokio::time::sleep(ms(500)).await;
    assert_eq!(leader.line.attempted(Call::Commit), 1);
}
