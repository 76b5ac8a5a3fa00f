//! Tests that each method of `TestCluster` does what it documents, and that failures are reported with enough detail.

#![allow(clippy::unwrap_used, reason = "a panic fails the test, also in helpers")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use clustering_core::{
    Clustering, CrashDetection, Event, Outcome, Stabilization, StartError,
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
async fn a_crashed_node_is_removed_when_its_lease_expires_and_rejoins_after_a_restart() {
    let cluster = three().await;
    assert_eq!(cluster.names(), ["n0", "n1", "n2"]);
    assert_eq!((cluster.leader().as_deref(), cluster.followers().len()), (Some("n0"), 2));
    let (begun, dead) = (Instant::now(), cluster.node("n0"));
    cluster.crash("n0");
    assert_eq!(cluster.running(), ["n1", "n2"]);
    cluster.wait_stable().await.unwrap();
    assert!(begun.elapsed() > TTL * 2 / 3 && begun.elapsed() < TTL + secs(1), "{:?}", begun.elapsed());
    assert_eq!(cluster.store().lease_count(), 2);
    // The crashed node does not run: it does not even notice that its session has ended.
    cluster.advance(secs(60)).await;
    assert_eq!(dead.status().get().phase, Phase::Member);
    cluster.restart("n0");
    cluster.wait_stable().await.unwrap();
    assert_eq!(cluster.running().len(), 3);
    let ledger = cluster.settle().await.unwrap();
    assert_eq!(ledger.present().reigns().len(), 2);
    assert_eq!(cluster.store().lease_count(), 3);
}

#[tokio::test(start_paused = true)]
async fn crash_detection_is_off_because_sockets_do_not_follow_the_paused_clock() {
    let start = |process: Process| process.builder().detect_crashes(CrashDetection::new()).start();
    let cluster = TestCluster::start(3, start).await.unwrap();
    cluster.wait_stable().await.unwrap();
    let begun = Instant::now();
    cluster.crash("n0");
    cluster.wait_stable().await.unwrap();
    assert!(begun.elapsed() > TTL * 2 / 3, "{:?}", begun.elapsed());
    cluster.settle().await.unwrap();
}

/// Records that it was dropped, which must not happen in a killed process.
struct Guard(Arc<AtomicBool>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_crashed_process_runs_no_code_and_no_destructors() {
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
    assert_eq!(cluster.store().lease_count(), 0, "the lease expired instead of being revoked");
    assert!(!dropped.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn a_paused_process_does_nothing_and_notices_the_lost_time_when_resumed() {
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
    // Queried from outside, the frozen node knows from the clock alone that it no longer leads (P6).
    cluster.advance(TTL * 2 / 3 + secs(1)).await;
    assert!(!old.is_leader());
    cluster.wait_stable().await.unwrap();
    assert!(cluster.leader().is_some_and(|leader| leader != "n0"));
    assert_eq!(
        (events.try_recv(), ticks.load(Ordering::Relaxed)),
        (Ok(None), ticked),
        "the paused node did something"
    );
    // A write that it was about to make when it was paused is refused (P5).
    let late = Txn::new().put("app/late", "x", None);
    let mut late = Box::pin(async { old.commit_under(term, late).await });
    assert!((&mut late).now_or_never().is_none(), "the write must wait for the paused node");
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
    // One tick was due during the pause, and the next one after it.
    cluster.advance(Duration::from_millis(1100)).await;
    assert!(ticks.load(Ordering::Relaxed) >= ticked + 2);
    cluster.settle().await.unwrap();
}

/// A pause shorter than the lease changes no version.
#[tokio::test(start_paused = true)]
async fn a_short_pause_changes_no_version() {
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
async fn a_pause_also_pauses_callbacks() {
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
async fn a_node_that_is_cut_off_or_hangs_is_removed_and_rejoins() {
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
async fn an_expired_lease_ends_the_session_at_once() {
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
async fn delayed_calls_added_nodes_and_stopped_nodes_work() {
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

/// The service gives its node its own name and namespace, and a seed that would make all lives of a process identical.
#[tokio::test(start_paused = true)]
async fn a_service_may_set_its_own_names_seed_and_other_clusters() {
    let cluster = TestCluster::builder()
        .namespace("telemetry/ingest")
        .start(2, |process: Process| async move {
            let name = format!("ingest-{}", process.index());
            // The service also takes part in another cluster.
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
    assert_eq!(cluster.service("n0").1.namespace().as_str(), "other");
    cluster.restart("n0");
    cluster.settle().await.unwrap();
}

// ---- failure reports -----------------------------------------------------------------------------------------------

fn failure<T>(result: Result<T, Failure>) -> String {
    result.err().expect("the call should fail").to_string()
}

#[tokio::test(start_paused = true)]
async fn a_timeout_names_the_blocking_node() {
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
    for says in ["timed out after 60s", "is stable", "n1 is running, Member", "disk is full", "timeline"] {
        assert!(told.contains(says), "{says}: {told}");
    }
    let told = failure(cluster.settle().await);
    assert!(told.contains("disk is full"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_does_not_start_is_reported() {
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
    assert!(failure(builder.start(1, never).await).contains("the service of n0, which is still starting"));
}

#[tokio::test(start_paused = true)]
async fn a_violation_reported_by_the_service_fails_the_check() {
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

/// A promise of the cluster is broken from outside, with a stability record for a version that not all nodes have
/// acknowledged.
#[tokio::test(start_paused = true)]
async fn a_broken_promise_is_reported_with_its_timeline() {
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
    assert!(told.contains("P4 (stable means everyone) is broken"), "{told}");
    assert!(told.contains(&asked.to_string()) && told.contains("nodes:\n  n0 is running"), "{told}");
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "there is no process \"n7\"; the processes are [\"n0\"]")]
async fn an_unknown_process_name_panics() {
    let cluster = TestCluster::start(1, |process| process.builder().start()).await.unwrap();
    cluster.crash("n7");
}

#[tokio::test]
#[should_panic(expected = "start_paused = true")]
async fn starting_a_cluster_with_a_running_clock_panics() {
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

// ---- virtual time that stands still --------------------------------------------------------------------------------

/// A service whose work on a slot continues after the slot is lost, without ever waiting.
async fn spinning(process: Process) -> Result<Clustering, StartError> {
    let node = process.builder().exclusive(4).start().await?;
    let worker = node.clone();
    node.for_each_held_slot(move |hold| {
        let worker = worker.clone();
        async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(250)) => {}
                    () = hold.lost() => {}
                }
                let _ = worker.commit_as_owner(&hold, Txn::new().put("app/work", "x", None)).await;
            }
        }
    });
    Ok(node)
}

async fn spins() -> TestCluster {
    let builder = TestCluster::builder().standstill(secs(1));
    let cluster = builder.start(1, spinning).await.unwrap();
    cluster.wait_stable().await.unwrap();
    // The first node loses slots.
    cluster.add();
    cluster
}

#[tokio::test(start_paused = true)]
async fn a_service_that_spins_fails_the_test_instead_of_hanging_it() {
    let cluster = spins().await;
    let told = failure(cluster.wait_stable().await);
    for says in
        ["virtual time has stood still for 1s", "a task of n0 is always ready", "`lost()`", "n0 is running"]
    {
        assert!(told.contains(says), "{says}: {told}");
    }
    assert!(failure(cluster.settle().await).contains("has stood still"));
    assert!(failure(cluster.check().await).contains("has stood still"));
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "a task of n0 is always ready")]
async fn a_service_that_spins_ends_an_advance() {
    spins().await.advance(secs(60)).await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_spins_does_not_hang_a_test_that_waits_by_itself() {
    let cluster = spins().await;
    tokio::time::sleep(secs(60)).await;
    assert!(failure(cluster.settle().await).contains("a task of n0 is always ready"));
}

#[tokio::test(start_paused = true)]
async fn a_task_outside_of_all_processes_that_spins_fails_the_test_too() {
    let builder = TestCluster::builder().standstill(secs(1));
    let cluster = builder.start(1, |process| process.builder().start()).await.unwrap();
    let task = tokio::spawn(async {
        loop {
            tokio::task::yield_now().await;
        }
    });
    let told = failure(cluster.storm(&clustering_testkit::cluster::Storm::new(1)).await);
    assert!(told.contains("a task outside of all processes is always ready"), "{told}");
    task.abort();
}

/// Real time passes while virtual time does not, although no task is always ready.
#[tokio::test(start_paused = true)]
async fn blocking_tasks_and_waits_for_other_threads_are_no_standstill() {
    let limit = Duration::from_millis(100);
    let cluster = TestCluster::builder()
        .standstill(limit)
        .start(1, move |process: Process| {
            process
                .builder()
                .stabilize(move |_: Stabilization| async move {
                    // Many short waits, a long one, and a task that blocks the thread.
                    for _ in 0..100 {
                        tokio::task::spawn_blocking(move || std::thread::sleep(limit / 20)).await.unwrap();
                    }
                    tokio::task::spawn_blocking(move || std::thread::sleep(limit * 5)).await.unwrap();
                    std::thread::sleep(limit * 5);
                })
                .start()
        })
        .await
        .unwrap();
    cluster.wait_stable().await.unwrap();
    cluster.settle().await.unwrap();
}

// ---- work that is not reported -------------------------------------------------------------------------------------

/// Runs the ignored test with this name, and returns what it writes directly to standard error.
fn stderr_of(test: &str) -> String {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", test, "--ignored"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn exclusive_cluster(reports: bool) -> impl Future<Output = Result<TestCluster, Failure>> {
    TestCluster::start(2, move |process: Process| async move {
        let node = process.builder().exclusive(4).start().await?;
        node.for_each_held_slot(move |hold| async move {
            let _working = reports.then(|| Process::current().unwrap().working_on_slot(hold.slot()));
            hold.lost().await;
        });
        Ok::<_, StartError>(node)
    })
}

#[test]
#[ignore = "run by `a_test_says_that_no_work_was_reported`"]
fn one_cluster_without_reports() {
    clustering_testkit::cluster::seeds(0..1, async |_| Ok(()));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async { exclusive_cluster(false).await.unwrap().settle().await.unwrap() });
}

#[test]
#[ignore = "run by `a_test_says_that_no_work_was_reported`"]
fn seeds_without_reports() {
    clustering_testkit::cluster::seeds(0..3, async |_| exclusive_cluster(false).await?.settle().await);
}

#[test]
#[ignore = "run by `a_test_says_that_no_work_was_reported`"]
fn seeds_with_one_report() {
    clustering_testkit::cluster::seeds(0..3, async |seed| exclusive_cluster(seed == 1).await?.settle().await);
}

#[test]
#[ignore = "run by `a_test_says_that_no_work_was_reported`"]
fn a_cluster_without_slots() {
    clustering_testkit::cluster::seeds(0..2, async |_| three().await.settle().await);
}

#[test]
fn a_test_says_that_no_work_was_reported() {
    for silent in ["one_cluster_without_reports", "seeds_without_reports"] {
        let said = stderr_of(silent);
        let line = format!("NOT JUDGED: P12 for the work of the service in {silent}: no process");
        assert_eq!(said.matches(&line).count(), 1, "{said}");
    }
    for fine in ["seeds_with_one_report", "a_cluster_without_slots"] {
        assert!(!stderr_of(fine).contains("NOT JUDGED"), "{fine}");
    }
}
