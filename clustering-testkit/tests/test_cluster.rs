//! `TestCluster`: does each command do what it says, and is what goes wrong told?

#![allow(clippy::unwrap_used, reason = "what is not as expected fails the test, in helpers too")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use clustering_core::{
    Clustering, Event, Outcome, Stabilization, StartError,
    machine::Phase,
    store::{CoordinationStoreExt, Txn},
};
use clustering_testkit::cluster::{Failure, Process, TestCluster};
use futures_util::FutureExt;
use tokio::time::Instant;

const TTL: Duration = Duration::from_secs(15);

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

async fn three() -> TestCluster {
    let cluster = TestCluster::start(3, |process| process.builder().start()).await.unwrap();
    cluster.wait_stable().await.unwrap();
    cluster
}

#[tokio::test(start_paused = true)]
async fn a_crash_is_found_out_by_the_lease_and_a_restart_comes_back() {
    let cluster = three().await;
    assert_eq!(cluster.names(), ["n0", "n1", "n2"]);
    assert_eq!((cluster.leader().as_deref(), cluster.followers().len()), (Some("n0"), 2));
    let (begun, dead) = (Instant::now(), cluster.node("n0"));
    cluster.crash("n0");
    assert_eq!(cluster.running(), ["n1", "n2"]);
    cluster.wait_stable().await.unwrap();
    assert!(begun.elapsed() > TTL * 2 / 3 && begun.elapsed() < TTL + secs(1), "{:?}", begun.elapsed());
    assert_eq!(cluster.store().lease_count(), 2);
    // Nothing of it runs: it does not even notice that its session is over.
    cluster.advance(secs(60)).await;
    assert_eq!(dead.status().get().phase, Phase::Member);
    cluster.restart("n0");
    cluster.wait_stable().await.unwrap();
    assert_eq!(cluster.running().len(), 3);
    let ledger = cluster.settle().await.unwrap();
    assert_eq!(ledger.present().reigns().len(), 2);
    assert_eq!(cluster.store().lease_count(), 3);
}

/// Whether a value of this kind was dropped: a process that is killed drops nothing.
struct Guard(Arc<AtomicBool>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_crashed_process_runs_no_code_at_all() {
    let dropped = Arc::<AtomicBool>::default();
    let ticks = Arc::<AtomicU64>::default();
    let cluster = {
        let (dropped, ticks) = (dropped.clone(), ticks.clone());
        TestCluster::start(1, move |process: Process| {
            let (guards, ticks) = ([Guard(dropped.clone()), Guard(dropped.clone())], ticks.clone());
            async move {
                let node = process.builder().start().await?;
                let [one, other] = guards;
                process.spawn(async move {
                    let _held = one;
                    loop {
                        tokio::time::sleep(secs(1)).await;
                        ticks.fetch_add(1, Ordering::Relaxed);
                    }
                });
                Ok::<_, StartError>((node, other))
            }
        })
        .await
        .unwrap()
    };
    cluster.advance(secs(10) + Duration::from_millis(1)).await;
    assert_eq!(ticks.load(Ordering::Relaxed), 10);
    cluster.crash("n0");
    cluster.advance(secs(60)).await;
    assert_eq!(ticks.load(Ordering::Relaxed), 10);
    assert_eq!(cluster.store().lease_count(), 0, "the lease ran out: it was not given back");
    assert!(!dropped.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn a_paused_process_stands_still_and_then_sees_how_late_it_is() {
    let ticks = Arc::<AtomicU64>::default();
    let cluster = {
        let ticks = ticks.clone();
        TestCluster::start(3, move |process: Process| {
            let ticks = ticks.clone();
            async move {
                if process.index() == 0 {
                    process.spawn(async move {
                        loop {
                            tokio::time::sleep(secs(1)).await;
                            ticks.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
                process.builder().start().await
            }
        })
        .await
        .unwrap()
    };
    cluster.wait_stable().await.unwrap();
    let old = cluster.node("n0");
    let mut events = old.events();
    let term = old.term().unwrap();
    let ticked = ticks.load(Ordering::Relaxed);
    cluster.pause("n0");
    let begun = Instant::now();
    assert_eq!(cluster.partakers(), ["n1", "n2"]);
    // Asked from outside, the frozen node knows by the clock alone (P6).
    cluster.advance(TTL * 2 / 3 + secs(1)).await;
    assert!(!old.is_leader());
    cluster.wait_stable().await.unwrap();
    assert!(cluster.leader().is_some_and(|leader| leader != "n0"));
    assert_eq!((events.try_recv(), ticks.load(Ordering::Relaxed)), (Ok(None), ticked), "it does nothing");
    // A write that it was about to make when it was stopped is refused (P5).
    let late = Txn::new().put("app/late", "x", None);
    let mut late = Box::pin(async { old.commit_under(term, late).await });
    assert!((&mut late).now_or_never().is_none(), "it waits");
    cluster.resume("n0");
    late.await.unwrap_err();
    cluster.wait_stable().await.unwrap();
    assert!(begun.elapsed() < TTL * 2, "{:?}", begun.elapsed());
    loop {
        let event = events.recv().await.unwrap();
        if matches!(*event, Event::Rejoined { .. }) {
            break;
        }
    }
    // One tick was due while it stood still, and then the next.
    cluster.advance(Duration::from_millis(1100)).await;
    assert!(ticks.load(Ordering::Relaxed) >= ticked + 2);
    cluster.settle().await.unwrap();
}

/// A pause that nobody notices costs nothing.
#[tokio::test(start_paused = true)]
async fn a_short_pause_costs_nothing() {
    let cluster = three().await;
    let version = cluster.wait_stable().await.unwrap();
    for name in cluster.names() {
        cluster.pause(&name);
        cluster.advance(secs(4)).await;
        cluster.resume(&name);
    }
    cluster.advance(TTL * 2).await;
    assert_eq!(cluster.wait_stable().await.unwrap(), version);
    cluster.settle().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn callbacks_stand_still_too() {
    let ended = Arc::<AtomicU64>::default();
    let cluster = {
        let ended = ended.clone();
        TestCluster::start(1, move |process: Process| {
            let ended = ended.clone();
            let stabilize = move |_: Stabilization| {
                let ended = ended.clone();
                async move {
                    tokio::time::sleep(secs(2)).await;
                    ended.fetch_add(1, Ordering::Relaxed);
                }
            };
            process.builder().stabilize(stabilize).start()
        })
        .await
        .unwrap()
    };
    cluster.advance(secs(1)).await;
    cluster.pause("n0");
    cluster.advance(secs(5)).await;
    assert_eq!(ended.load(Ordering::Relaxed), 0);
    cluster.resume("n0");
    cluster.wait_stable().await.unwrap();
    assert_eq!(ended.load(Ordering::Relaxed), 1);
    cluster.settle().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_that_is_cut_off_or_swallowed_is_left_out_and_comes_back() {
    let cluster = three().await;
    type Away = fn(&TestCluster, &str);
    for away in [TestCluster::cut_off as Away, TestCluster::hang as Away] {
        away(&cluster, "n1");
        assert_eq!(cluster.partakers(), ["n0", "n2"]);
        cluster.wait_stable().await.unwrap();
        assert!(!cluster.node("n1").cluster_consistent());
        cluster.reconnect("n1");
        cluster.wait_stable().await.unwrap();
        assert!(cluster.node("n1").cluster_consistent());
    }
    cluster.settle().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_ended_costs_the_session_at_once() {
    let cluster = three().await;
    let (before, begun) = (cluster.wait_stable().await.unwrap(), Instant::now());
    let mut events = cluster.node("n1").events();
    cluster.expire("n1").await;
    while !matches!(*events.recv().await.unwrap(), Event::Rejoined { .. }) {}
    assert!(cluster.wait_stable().await.unwrap() > before);
    assert!(begun.elapsed() < secs(2), "{:?}", begun.elapsed());
    cluster.settle().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn calls_are_delayed_and_nodes_added_and_stopped() {
    let cluster = three().await;
    cluster.delay("n0", secs(1));
    let begun = Instant::now();
    let asked = cluster.node("n0").cluster_change().await.unwrap();
    assert!(begun.elapsed() >= secs(1));
    assert_eq!(cluster.add(), "n3");
    assert!(cluster.wait_stable().await.unwrap() > asked);
    cluster.stop("n0").await.unwrap();
    assert_eq!(
        cluster.wait_stable_of(["n1", "n2", "n3"]).await.unwrap(),
        cluster.wait_stable().await.unwrap()
    );
    assert_eq!(cluster.store().lease_count(), 3);
    cluster.settle().await.unwrap();
}

/// The service gives its node a name and a namespace of its own, and a seed that would make its lives the same.
#[tokio::test(start_paused = true)]
async fn a_service_goes_its_own_ways() {
    let cluster = TestCluster::builder()
        .namespace("telemetry/ingest")
        .start(2, |process: Process| async move {
            let name = format!("ingest-{}", process.index());
            // Another cluster that it is part of.
            let other =
                Clustering::builder(process.store()).namespace("other").uri("http://h:1").start().await?;
            let builder = Clustering::builder(process.store()).namespace("telemetry/ingest").name(name);
            Ok::<_, StartError>((builder.uri("http://host:80").seed(1).start().await?, other))
        })
        .await
        .unwrap();
    cluster.wait_stable().await.unwrap();
    assert_eq!(cluster.node("n1").name().as_str(), "ingest-1");
    assert_eq!(cluster.service("n0").0.nodes().len(), 2);
    assert_eq!(cluster.service("n0").1.service().as_str(), "other");
    cluster.restart("n0");
    cluster.settle().await.unwrap();
}

// ---- what goes wrong is told ---------------------------------------------------------------------------------------

fn failure<T>(result: Result<T, Failure>) -> String {
    result.err().expect("it fails").to_string()
}

#[tokio::test(start_paused = true)]
async fn who_blocks_is_named() {
    let builder = TestCluster::builder().patience(secs(60));
    let cluster = builder
        .start(2, |process: Process| {
            let index = process.index();
            let stabilize = move |_: Stabilization| async move {
                if index == 1 { Outcome::refused("disk is full") } else { Outcome::Ready }
            };
            process.builder().stabilize(stabilize).start()
        })
        .await
        .unwrap();
    let told = failure(cluster.wait_stable().await);
    for says in ["60s passed in vain", "is not stable", "n1 runs, Member", "disk is full", "what happened"] {
        assert!(told.contains(says), "{says}: {told}");
    }
    let told = failure(cluster.settle().await);
    assert!(told.contains("disk is full"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_does_not_start_is_told() {
    type S = TestCluster<Clustering>;
    let start = |uri: &'static str| TestCluster::start(2, move |process| process.builder().uri(uri).start());
    let told = failure::<S>(start("no uri").await);
    assert!(told.contains("n0 did not start: uri \"no uri\""), "{told}");
    let told = failure(
        TestCluster::<()>::start(1, |_| async { Err::<(), _>("the configuration is missing") }).await,
    );
    assert!(told.contains("n0 did not start: the configuration is missing"), "{told}");
    let told =
        failure(TestCluster::<()>::start(1, |_| async { panic!("no luck") as Result<(), String> }).await);
    assert!(told.contains("it panicked: no luck"), "{told}");
    let told = failure(TestCluster::start(1, |process| process.builder().namespace("x").start()).await);
    assert!(told.contains("started no node in the namespace \"cluster\""), "{told}");
    let builder = TestCluster::builder().patience(secs(5));
    let never = |_| std::future::pending::<Result<(), String>>();
    assert!(failure(builder.start(1, never).await).contains("the service of n0, which is starting"));
}

#[tokio::test(start_paused = true)]
async fn what_the_service_says_against_itself_fails_the_check() {
    let cluster = TestCluster::start(1, |process: Process| async move {
        let node = process.builder().start().await?;
        process.note("about to go wrong");
        process.violates("a device was dropped");
        Ok::<_, StartError>(node)
    })
    .await
    .unwrap();
    let told = failure(cluster.check().await);
    for says in ["n0: a device was dropped", "about to go wrong", "VIOLATES"] {
        assert!(told.contains(says), "{told}");
    }
    assert!(failure(cluster.settle().await).contains("a device was dropped"));
}

/// A promise of the cluster that is broken from outside: a record that stands for a version that nobody acknowledged.
#[tokio::test(start_paused = true)]
async fn a_promise_that_is_broken_is_told_with_its_story() {
    let cluster = three().await;
    let version = cluster.wait_stable().await.unwrap();
    cluster.pause("n2");
    let asked = cluster.node("n0").cluster_change().await.unwrap();
    let stable = cluster.store().get("cluster/view/stable").await.unwrap().unwrap();
    let forged = String::from_utf8(stable.value.to_vec()).unwrap();
    let forged = forged.replace(&version.to_string(), &asked.to_string());
    cluster.store().put("cluster/view/stable", forged.into(), None).await.unwrap();
    cluster.resume("n2");
    let told = failure(cluster.settle().await);
    assert!(told.contains("P4, stable means everyone, is broken"), "{told}");
    assert!(told.contains(&asked.to_string()) && told.contains("the nodes:\n  n0 runs"), "{told}");
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "there is no process \"n7\": there are [\"n0\"]")]
async fn an_unknown_name_is_told() {
    let cluster = TestCluster::start(1, |process| process.builder().start()).await.unwrap();
    cluster.crash("n7");
}

#[tokio::test]
#[should_panic(expected = "start_paused = true")]
async fn real_time_is_refused() {
    let _ = TestCluster::start(1, |process| process.builder().start()).await;
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_history() {
    async fn run(seed: u64) -> Vec<String> {
        let builder = TestCluster::builder().seed(seed);
        let cluster = builder.start(5, |process| process.builder().start()).await.unwrap();
        cluster.wait_stable().await.unwrap();
        cluster.crash("n0");
        cluster.pause("n3");
        cluster.wait_stable().await.unwrap();
        cluster.restart("n0");
        cluster.settle().await.unwrap();
        cluster.timeline()
    }
    let first = run(7).await;
    assert!(first.len() > 150, "{}", first.len());
    assert_eq!(first, run(7).await);
    assert_ne!(first, run(8).await);
}
