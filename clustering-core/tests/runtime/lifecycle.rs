//! Starting and ending nodes, and the methods of a handle.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use clustering_core::{
    Backoff, Clustering, Config, Ended, Event, Laggards, Metadata, NameConflict, StopReason, WaitError,
    machine::{Phase, RequestError},
    runtime::{EventsError, StopError, UpdateError},
};
use clustering_memory::MemoryStore;
use clustering_testkit::faulty::{Call, FaultyStore};
use futures_util::FutureExt;
use tokio::time::Instant;

use crate::common::{Cluster, TTL, followers, leader, ms, name, secs, soon, stable, start};

/// Waits until the store has no keys and no leases.
async fn all_given_back(cluster: &Cluster) {
    soon("the last lease", async {
        while cluster.store.lease_count() + cluster.store.open_watches() > 0 {
            tokio::time::sleep(ms(1)).await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_revokes_the_lease() {
    let cluster = Cluster::new();
    let node = cluster.start("a").await;
    stable([&node]).await;
    let (log, clone) = (node.log.clone(), node.cluster.clone());
    drop(node);
    tokio::time::sleep(TTL).await;
    assert!(clone.is_leader(), "a clone keeps the node alive");
    let begun = Instant::now();
    drop(clone);
    assert_eq!(**log.ended().await.last().unwrap(), Event::Stopped { reason: StopReason::Asked });
    all_given_back(&cluster).await;
    assert!(begun.elapsed() < ms(10), "without waiting for the TTL");
}

#[tokio::test(start_paused = true)]
async fn a_discovery_keeps_its_node_running_too() {
    let cluster = Cluster::new();
    let node = cluster.start("a").await;
    let discovery = node.discovery();
    drop(node);
    tokio::time::sleep(TTL * 2).await;
    assert_eq!(discovery.nodes().len(), 1);
    drop(discovery);
    all_given_back(&cluster).await;
}

#[tokio::test(start_paused = true)]
async fn dropping_a_start_leaves_nothing_behind() {
    let cluster = Cluster::new();
    // While the store does not answer, at every step of the start.
    for calls in 0..12 {
        let (line, builder) = cluster.builder("a");
        line.delay(ms(100));
        let started = tokio::time::timeout(ms(100 * calls + 50), builder.start()).await;
        drop(started);
        all_given_back(&cluster).await;
    }
    // While another process holds the name.
    let holder = cluster.start("a").await;
    let (_, builder) = cluster.builder("a");
    let waiting = tokio::time::timeout(secs(100), builder.seed(2).start()).await;
    assert!(waiting.is_err());
    holder.stop().await.unwrap();
    all_given_back(&cluster).await;
    // While the store answers nothing: no lease was granted, so nothing is left.
    let (line, builder) = cluster.builder("a");
    line.hang();
    assert!(tokio::time::timeout(secs(100), builder.start()).await.is_err());
    all_given_back(&cluster).await;
    assert!(cluster.audit().await.present().is_empty());
}

#[tokio::test(start_paused = true)]
async fn stopping_several_times_concurrently_or_afterwards_is_harmless() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(2).await;
    let node = &nodes[0];
    let clone = node.cluster.clone();
    let (a, b) = tokio::join!(node.stop(), clone.stop());
    assert_eq!((a, b), (Ok(()), Ok(())));
    assert_eq!(node.stop().await, Ok(()));
    assert_eq!(node.ended().await.unwrap().0, StopReason::Asked);
    assert_eq!(node.now().phase, Phase::Stopped(StopReason::Asked));
    let stopped = RequestError::Stopped(StopReason::Asked);
    assert_eq!(node.cluster_change().await, Err(stopped.clone()));
    assert_eq!(node.write().await, Err(stopped.clone()));
    assert_eq!(node.resign().await, Err(stopped.clone()));
    assert_eq!(node.register().await, Err(stopped.clone()));
    assert_eq!(node.unregister().await, Err(stopped.clone()));
    assert_eq!(node.set_metadata(Metadata::new()).await, Err(UpdateError::Request(stopped)));
    assert!(node.wait_stable().await.unwrap_err().to_string().contains("asked to stop"));
    assert_eq!(soon("the end", node.events().recv()).await, Err(EventsError::Ended));
    assert!(!node.is_leader() && !node.owns("key"));
    stable(&nodes[1..]).await;
}

/// Requests to a node that is stopping are answered, and so are tasks that wait for it.
#[tokio::test(start_paused = true)]
async fn waiting_tasks_and_requests_learn_that_the_node_ended() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(2).await;
    let (line, builder) = cluster.builder("z");
    let node = start(line, builder.stabilize(|_| std::future::pending::<()>())).await;
    node.line.hang();
    let stopped = Err(RequestError::Stopped(StopReason::Asked));
    let waits = async {
        tokio::join!(node.wait_stable(), node.cluster_change(), node.unregister(), node.write(), node.ended())
    };
    let stop = async {
        tokio::time::sleep(secs(1)).await;
        node.stop().await
    };
    let begun = Instant::now();
    let ((stable_at, change, unregister, write, ended), stop) =
        soon("the end", async { tokio::join!(waits, stop) }).await;
    assert_eq!(stop, Err(StopError::LeaseNotGivenBack));
    assert!(begun.elapsed() <= secs(7), "{:?}", begun.elapsed());
    assert_eq!(stable_at.unwrap_err(), WaitError::Ended(ended.unwrap()));
    assert_eq!(change.map(drop), stopped);
    assert_eq!(unregister, stopped);
    assert_eq!(write, Err(RequestError::NotLeader));
    drop(nodes);
}

/// If the session has long expired, or there was none, there is no lease to revoke.
#[tokio::test(start_paused = true)]
async fn a_stop_in_a_long_outage_does_not_wait_for_an_expired_lease() {
    for disconnect in [FaultyStore::cut, FaultyStore::hang] {
        let cluster = Cluster::new();
        let (line, builder) = cluster.builder("a");
        // The session expires while the node stops, so it need not wait any longer.
        let patient = builder.configure(|config| config.stop_timeout = Some(secs(3600)));
        let patient = start(line, patient).await;
        let nodes = [cluster.start("b").await, cluster.start("c").await];
        stable([&patient, &nodes[0], &nodes[1]]).await;
        nodes[1].unregister().await.unwrap();
        for node in &nodes {
            disconnect(&node.line);
        }
        // A grant that was not answered leaves no lease to revoke.
        drop(nodes[1].register().boxed().now_or_never());
        tokio::time::sleep(TTL * 3).await;
        for node in &nodes {
            let begun = Instant::now();
            assert_eq!(node.stop().await, Ok(()), "{}", node.name());
            assert_eq!(begun.elapsed(), secs(0), "{}", node.name());
        }
        disconnect(&patient.line);
        let begun = Instant::now();
        assert_eq!(soon("the end", patient.stop()).await, Ok(()));
        assert!((TTL / 2..TTL * 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    }
}

/// Requests that are repeated and dropped while the store is away result in one version when it is back.
#[tokio::test(start_paused = true)]
async fn requests_that_were_dropped_in_an_outage_are_merged() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(2).await;
    let before = stable(&nodes).await;
    let follower = crate::common::followers(&nodes)[0];
    follower.line.cut();
    for _ in 0..1_000 {
        let _ = tokio::time::timeout(ms(10), follower.cluster_change()).await;
    }
    let published = follower.log.versions().len();
    follower.line.heal();
    assert!(soon("the version", follower.wait_stable_after(before)).await.unwrap() > before);
    tokio::time::sleep(secs(60)).await;
    assert_eq!(follower.log.versions().len(), published + 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_with_the_longest_allowed_times_starts_and_stops() {
    let cluster = Cluster::new();
    let endless = |config: &mut Config| {
        let never = Backoff::new(Duration::MAX, Duration::MAX);
        (config.stabilize_retry, config.publish_gap) = (never, never);
        (config.warn_after, config.stop_timeout) = (Duration::MAX, Some(Duration::MAX));
        (config.stabilize_timeout, config.on_stable_timeout) = (Some(Duration::MAX), Some(Duration::MAX));
        config.laggards = Laggards::Evict { after: Duration::MAX };
    };
    let node = cluster.start_with("a", |builder| builder.configure(endless)).await;
    let first = stable([&node]).await;
    assert!(node.cluster_change().await.unwrap() > first);
    stable([&node]).await;
    tokio::time::sleep(secs(3600)).await;
    node.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stop_while_the_store_is_away_ends_in_time_and_reports_the_remaining_lease() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(2).await;
    for (node, disconnect) in nodes.iter().zip([FaultyStore::cut, FaultyStore::hang]) {
        disconnect(&node.line);
        let begun = Instant::now();
        let error = node.stop().await.unwrap_err();
        assert_eq!(error, StopError::LeaseNotGivenBack);
        assert!(error.to_string().contains("until its TTL"));
        assert_eq!(begun.elapsed(), secs(5));
    }
    all_given_back(&cluster).await;
}

#[tokio::test(start_paused = true)]
async fn unregister_leaves_and_register_rejoins() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(3).await;
    let node = leader(&nodes);
    node.unregister().await.unwrap();
    assert_eq!(cluster.store.lease_count(), 2);
    assert!(!node.is_leader() && !node.is_member() && !node.owns("key") && node.view().is_none());
    node.unregister().await.unwrap();
    let rest: Vec<_> = nodes.iter().filter(|other| other.name() != node.name()).collect();
    let version = stable(rest).await;
    // It still follows the log.
    let status = node.until("the others are stable", |status| status.consistent).await;
    assert_eq!(status.newest.map(|view| view.version()), Some(version));
    assert_eq!(node.nodes().len(), 2);
    assert_eq!(node.now().phase, Phase::Observing);
    assert_eq!(node.write().await, Err(RequestError::NotLeader));
    // It may still request a version, and change the metadata of its next registration.
    assert!(node.cluster_change().await.unwrap() > version);
    node.set_metadata([("zone".to_owned(), "b".to_owned())].into()).await.unwrap();
    node.register().await.unwrap();
    node.register().await.unwrap();
    stable(&nodes).await;
    assert_eq!(node.discovery().node(node.name()).unwrap().metadata["zone"], "b");
    cluster.audit().await;
}

/// Concurrent calls in either order are both answered, and the last one counts.
#[tokio::test(start_paused = true)]
async fn concurrent_unregister_and_register_are_both_answered() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(2).await;
    for delay in [0, 1, 30] {
        nodes[1].line.delay(ms(delay));
        let both = async { tokio::join!(nodes[1].unregister(), nodes[1].register()) };
        assert_eq!(soon("both", both).await, (Ok(()), Ok(())));
        stable(&nodes).await;
        let three = async { tokio::join!(nodes[1].unregister(), nodes[1].register(), nodes[1].unregister()) };
        assert_eq!(soon("all three", three).await, (Ok(()), Err(RequestError::Unregistered), Ok(())));
        assert!(!nodes[1].is_member());
        nodes[1].register().await.unwrap();
        stable(&nodes).await;
    }
    cluster.audit().await;
}

#[tokio::test(start_paused = true)]
async fn set_metadata_makes_a_new_incarnation_and_a_new_version() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(2).await;
    let before = stable(&nodes).await;
    let node = followers(&nodes)[0];
    let incarnation = node.now().session.unwrap().incarnation;
    let zone = |zone: &str| Metadata::from([("zone".to_owned(), zone.to_owned())]);
    node.set_metadata(zone("b")).await.unwrap();
    assert_eq!(
        node.discovery().node(node.name()).unwrap().metadata,
        zone("b"),
        "the log contains the change"
    );
    nodes[0].until("newer", |status| status.newest.as_ref().unwrap().version() > before).await;
    stable(&nodes).await;
    assert_ne!(node.now().session.unwrap().incarnation, incarnation);
    let changed = |event: &Event| matches!(event, Event::NodeChanged { name, .. } if name == node.name());
    assert_eq!(nodes[0].log.count(changed), 1);
    assert_eq!(node.log.count(|event| matches!(event, Event::SessionLost { .. })), 0);
    // Of many concurrent changes the last one counts, and all are answered.
    let (a, b, c) = tokio::join!(
        node.set_metadata(zone("c")),
        node.set_metadata(zone("d")),
        node.set_metadata(zone("e"))
    );
    assert_eq!((a, b, c), (Ok(()), Ok(()), Ok(())));
    assert_eq!(node.discovery().node(node.name()).unwrap().metadata, zone("e"));
    // Across a lost session.
    node.line.cut();
    let changing = tokio::spawn({
        let node = node.clone();
        async move { node.set_metadata([("zone".to_owned(), "f".to_owned())].into()).await }
    });
    tokio::time::sleep(TTL * 3).await;
    node.line.heal();
    soon("the change", changing).await.unwrap().unwrap();
    stable(&nodes).await;
    assert_eq!(nodes[0].discovery().node(node.name()).unwrap().metadata, zone("f"));
    // Invalid metadata is refused at once.
    node.line.clear_log();
    let refused = node.set_metadata([("weight".to_owned(), "heavy".to_owned())].into()).await.unwrap_err();
    assert!(matches!(&refused, UpdateError::Input(error) if error.field == "weight"), "{refused}");
    assert_eq!(node.line.attempted(Call::Commit), 0);
    cluster.audit().await;
}

#[tokio::test(start_paused = true)]
async fn wait_stable_waits_on_any_node() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(3).await;
    let (gated, gate) = cluster.start_gated("z", false).await;
    let begun = Instant::now();
    let waits = async {
        tokio::join!(
            gated.wait_stable(),
            nodes[0].wait_stable(),
            nodes[1].wait_stable(),
            nodes[2].wait_stable()
        )
    };
    let open = async {
        nodes[0].until("four", |status| status.newest.as_ref().unwrap().len() == 4).await;
        tokio::time::sleep(secs(20)).await;
        gate.send(true).unwrap();
    };
    // The version of three nodes may still be stable, so wait for the version of four first.
    nodes[0].until("four", |status| status.newest.as_ref().unwrap().len() == 4).await;
    for node in &nodes {
        node.until("four", |status| status.newest.as_ref().unwrap().len() == 4).await;
    }
    let (versions, ()) = soon("stable", async { tokio::join!(waits, open) }).await;
    assert!(begun.elapsed() >= secs(20));
    let version = versions.0.unwrap();
    assert_eq!((versions.1, versions.2, versions.3), (Ok(version), Ok(version), Ok(version)));
    assert_eq!(gated.view().unwrap().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_never_reads_delays_no_node_and_learns_how_much_it_missed() {
    let cluster = Cluster::new();
    let node = cluster.start("a").await;
    let mut lazy = node.events();
    for _ in 0..1000 {
        node.cluster_change().await.unwrap();
    }
    stable([&node]).await;
    let Err(EventsError::Missed(missed)) = lazy.recv().await else {
        panic!("no missed events were reported")
    };
    let mut kept = 0;
    while lazy.try_recv().unwrap().is_some() {
        kept += 1;
    }
    assert_eq!(kept, 1024);
    assert!(missed > 500 && missed < 10_000, "{missed}");
    node.stop().await.unwrap();
    // It receives the last event, and then the end.
    loop {
        match soon("the end", lazy.recv()).await {
            Ok(event) if matches!(*event, Event::Stopped { .. }) => break,
            other => drop(other.unwrap()),
        }
    }
    assert_eq!(lazy.recv().await, Err(EventsError::Ended));
}

#[tokio::test(start_paused = true)]
async fn no_task_is_left_after_a_stop() {
    let store = MemoryStore::new();
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let builder = |name: &str| Clustering::builder(store.clone()).name(name).uri("http://host:80").seed(1);
    let dropped = Arc::new(AtomicBool::new(false));
    struct Tells(Arc<AtomicBool>);
    impl Drop for Tells {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let tells = dropped.clone();
    let stuck = builder("stuck").stabilize(move |_| {
        let tells = Tells(tells.clone());
        async move {
            let _tells = tells;
            std::future::pending::<()>().await;
        }
    });
    let slow = builder("slow").on_stable(|_| std::future::pending::<()>());
    let (stuck, slow) = (stuck.start().await.unwrap(), slow.start().await.unwrap());
    assert!(tasks() > before);
    let (a, b) = tokio::join!(stuck.stop(), slow.stop());
    assert_eq!((a, b), (Ok(()), Ok(())));
    assert!(dropped.load(Ordering::SeqCst));
    assert_eq!(tasks(), before);
    assert_eq!((store.lease_count(), store.open_watches()), (0, 0));
    // Nor after a start that failed.
    let holder = builder("a").start().await.unwrap();
    let with_one = tasks();
    builder("a").seed(2).name_conflict(NameConflict::Fail).start().await.unwrap_err();
    tokio::task::yield_now().await;
    assert_eq!(tasks(), with_one);
    holder.stop().await.unwrap();
}

/// The runtime that a node runs on is shut down. Handles on other runtimes learn that the node ended, and it neither
/// leads nor owns keys any more.
#[test]
fn a_runtime_that_is_shut_down_ends_its_nodes() {
    let store = MemoryStore::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let builder = Clustering::builder(store.clone()).name("a").uri("http://host:80").ttl(secs(2));
    let mut events = builder.events();
    let node = runtime.block_on(async {
        let node = builder.start().await.unwrap();
        node.wait_stable().await.unwrap();
        node
    });
    assert!(node.is_leader());
    runtime.shutdown_timeout(secs(5));
    assert!(!node.is_leader() && !node.owns("key") && node.term().is_none());
    let elsewhere = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    elsewhere.block_on(async {
        assert_eq!(node.ended().await.unwrap().0, StopReason::Aborted);
        assert_eq!(node.cluster_change().await, Err(RequestError::Stopped(StopReason::Aborted)));
        assert_eq!(node.wait_stable().await.unwrap_err(), WaitError::Ended(Ended(StopReason::Aborted)));
        assert_eq!(node.stop().await, Err(StopError::LeaseNotGivenBack));
        let mut last = None;
        while let Ok(event) = events.recv().await {
            last = Some(event);
        }
        assert_eq!(last.as_deref(), Some(&Event::Stopped { reason: StopReason::Aborted }));
        // The lease expires, and another process may take the name.
        let next = Clustering::builder(store.clone()).name("a").uri("http://host:80").start().await.unwrap();
        next.stop().await.unwrap();
    });
}

/// In real time, callbacks that block one thread each stop neither the other nodes nor their own node's renewals.
#[test]
fn callbacks_that_block_a_thread_do_not_stop_other_nodes() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = MemoryStore::new();
        let builder =
            |name: &str| Clustering::builder(store.clone()).name(name).uri("http://host:80").ttl(secs(1));
        let blocking = builder("a").stabilize(|stabilization| async move {
            if stabilization.view().len() > 1 {
                std::thread::sleep(ms(1_500));
            }
        });
        let mut lost = blocking.events();
        let blocking = blocking.start().await.unwrap();
        blocking.wait_stable().await.unwrap();
        let others = [builder("b").start().await.unwrap(), builder("c").start().await.unwrap()];
        let begun = std::time::Instant::now();
        let mut third = others[0].wait_stable().await.unwrap();
        while others[0].view().is_none_or(|view| view.len() < 3) {
            third = others[0].wait_stable_after(third).await.unwrap();
        }
        assert!(begun.elapsed() >= ms(1_000), "it waited for the one that blocks: {:?}", begun.elapsed());
        assert_eq!(blocking.cluster_version(), Some(third));
        assert!(blocking.is_leader());
        while let Some(event) = lost.try_recv().unwrap() {
            assert!(
                !matches!(*event, Event::SessionLost { .. } | Event::LeadershipSuspended { .. }),
                "{event}"
            );
        }
        for node in others.iter().chain([&blocking]) {
            node.stop().await.unwrap();
        }
        assert_eq!(store.lease_count(), 0);
    });
}

#[tokio::test(start_paused = true)]
async fn after_a_resignation_another_node_leads() {
    let cluster = Cluster::new();
    let nodes = cluster.start_many(3).await;
    let old = leader(&nodes);
    let term = old.term().unwrap();
    assert_eq!(followers(&nodes)[0].resign().await, Err(RequestError::NotLeader));
    let (a, b) = tokio::join!(old.resign(), old.resign());
    assert_eq!((a, b), (Ok(()), Ok(())));
    assert!(!old.is_leader());
    stable(&nodes).await;
    let new = leader(&nodes);
    assert!(new.name() != old.name() && new.term().unwrap() > term);
    tokio::time::sleep(TTL * 3).await;
    assert!(new.is_leader());
    assert_eq!(old.leader_node().unwrap().name, *new.name());
    assert_eq!(
        nodes[0].nodes().iter().map(|node| node.name.clone()).collect::<Vec<_>>(),
        ["n000", "n001", "n002"].map(name)
    );
    cluster.audit().await;
}
