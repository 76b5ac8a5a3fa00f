//! `TestCluster` judges P12: at any moment at most one process works on a key, and only while it holds the key.

#![allow(clippy::unwrap_used, reason = "a panic fails the test, also in helpers")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use clustering_core::{Clustering, Hold, StartError, store::CoordinationStore as _};
use clustering_testkit::cluster::{Failure, Process, TestCluster, Working};

const TTL: Duration = Duration::from_secs(5);

const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Starts an exclusive node.
async fn exclusive(process: &Process) -> Result<Clustering, StartError> {
    process.builder().ttl(TTL).exclusive(8).release_timeout(secs(30)).start().await
}

/// Starts nodes that hold keys, but do not work on them.
async fn idle(nodes: usize) -> TestCluster {
    let cluster =
        TestCluster::start(nodes, |process| async move { exclusive(&process).await }).await.unwrap();
    cluster.wait_stable().await.unwrap();
    cluster
}

/// Starts a service that works on each key for as long as it holds the key, and for `delay` after the loss. A correct
/// service ends its work earlier if the hold becomes void.
async fn workers(nodes: usize, delay: Duration, is_proper: bool) -> TestCluster {
    let start = move |process: Process| async move {
        let node = exclusive(&process).await?;
        for key in KEYS {
            if is_proper {
                process.spawn(work(node.clone(), key, delay));
            } else {
                process.spawn(work_carelessly(node.clone(), key, delay));
            }
        }
        Ok::<_, StartError>(node)
    };
    let cluster = TestCluster::start(nodes, start).await.unwrap();
    cluster.wait_stable().await.unwrap();
    cluster
}

async fn work(node: Clustering, key: &'static str, delay: Duration) {
    loop {
        let run = |hold: Arc<Hold>| async move {
            let _working = Process::current().unwrap().working_on(key);
            hold.lost().await;
            tokio::time::sleep(delay).await;
        };
        if node.while_held(key, run).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn work_carelessly(node: Clustering, key: &'static str, delay: Duration) {
    loop {
        let Ok(hold) = node.wait_hold(key).await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let _working = Process::current().unwrap().working_on(key);
        hold.lost().await;
        tokio::time::sleep(delay).await;
    }
}

/// Returns a process that holds the key, with the hold.
fn holder(cluster: &TestCluster, key: &str) -> (String, Hold) {
    let held = |name: String| cluster.node(&name).hold(key).ok().map(|hold| (name, hold));
    cluster.running().into_iter().find_map(held).unwrap()
}

fn failure<T>(result: Result<T, Failure>) -> String {
    result.err().expect("the check should fail").to_string()
}

fn assert_says(told: &str, says: &[&str]) {
    for says in says {
        assert!(told.contains(says), "{says:?} is missing in: {told}");
    }
}

#[tokio::test(start_paused = true)]
async fn p12_two_processes_that_work_on_one_key_are_reported_with_key_names_and_times() {
    // Without `.exclusive`, only what the service reports is judged.
    let cluster = TestCluster::start(2, |process: Process| async move {
        let node = process.builder().start().await?;
        let begin = secs(3) * process.index() as u32;
        process.clone().spawn(async move {
            tokio::time::sleep(begin).await;
            let _working = process.working_on("device-42");
            tokio::time::sleep(secs(4)).await;
        });
        Ok::<_, StartError>(node)
    })
    .await
    .unwrap();
    cluster.advance(secs(2)).await;
    cluster.check().await.unwrap();
    cluster.advance(secs(2)).await;
    // Both still work.
    let told = failure(cluster.check().await);
    assert_says(&told, &["P12 (one holder) is broken", "device-42", "n0#1", "n1#2", "3.0", "0.0"]);
    cluster.advance(secs(20)).await;
    assert_says(&failure(cluster.settle().await), &["P12 (one holder) is broken", "device-42"]);
}

#[tokio::test(start_paused = true)]
async fn p12_processes_that_work_on_a_key_in_turn_do_not_overlap() {
    let cluster = TestCluster::start(3, |process: Process| async move {
        let node = process.builder().start().await?;
        let begin = secs(3) * process.index() as u32;
        process.clone().spawn(async move {
            let own = process.working_on(process.name());
            tokio::time::sleep(begin).await;
            // One process may work on a key in several places.
            let (first, second) = (process.working_on("device-42"), process.working_on("device-42"));
            drop(first);
            tokio::time::sleep(secs(3)).await;
            drop((second, own));
        });
        Ok::<_, StartError>(node)
    })
    .await
    .unwrap();
    cluster.advance(secs(20)).await;
    cluster.settle().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn p12_a_correct_service_is_not_reported_under_any_fault() {
    let cluster = workers(4, Duration::from_millis(300), true).await;
    for name in cluster.names() {
        cluster.pause(&name);
        cluster.advance(TTL * 3).await;
        cluster.resume(&name);
        cluster.wait_stable().await.unwrap();
        cluster.cut_off(&name);
        cluster.advance(TTL * 3).await;
        cluster.reconnect(&name);
        cluster.wait_stable().await.unwrap();
        cluster.stop(&name).await.unwrap();
        cluster.restart(&name);
        cluster.wait_stable().await.unwrap();
        cluster.crash(&name);
        cluster.wait_stable().await.unwrap();
        cluster.restart(&name);
    }
    cluster.settle().await.unwrap();
    let begins = |line: &&String| KEYS.iter().any(|key| line.ends_with(&format!(" holds {key}")));
    let moves = cluster.timeline().iter().filter(begins).count();
    assert!(moves >= 2 * KEYS.len(), "the keys were taken only {moves} times");
}

#[tokio::test(start_paused = true)]
async fn p12_work_that_continues_after_a_pause_past_the_ttl_is_reported() {
    let cluster = workers(3, secs(1), false).await;
    let (name, hold) = holder(&cluster, "a");
    drop(hold);
    cluster.pause(&name);
    cluster.advance(TTL * 2).await;
    // A paused process does nothing, so nothing is broken yet.
    cluster.check().await.unwrap();
    cluster.resume(&name);
    cluster.advance(secs(2)).await;
    let told = failure(cluster.check().await);
    assert_says(&told, &["P12 (one holder) is broken", &name]);
    assert!(told.contains("its hold has been void since") || told.contains(&format!("{name}#")), "{told}");
}

#[tokio::test(start_paused = true)]
async fn p12_work_that_continues_after_its_hold_is_void_is_reported() {
    // No node takes over the keys: there is only one node.
    let cluster = workers(1, TTL, false).await;
    cluster.cut_off("n0");
    cluster.advance(TTL * 2).await;
    let told = failure(cluster.check().await);
    assert_says(
        &told,
        &["P12 (one holder) is broken", "n0#1 has worked on ", "its hold has been void since"],
    );
}

/// Keys that a test works on instead of the service.
type Works = Arc<Mutex<Vec<Working>>>;

/// Starts two nodes, and returns the handle of each process.
async fn with_processes() -> (TestCluster, Arc<Mutex<Vec<Process>>>) {
    let processes = Arc::<Mutex<Vec<Process>>>::default();
    let given = processes.clone();
    let start = move |process: Process| {
        given.lock().unwrap().push(process.clone());
        async move { exclusive(&process).await }
    };
    let cluster = TestCluster::start(2, start).await.unwrap();
    cluster.wait_stable().await.unwrap();
    (cluster, processes)
}

fn process(processes: &Mutex<Vec<Process>>, name: &str) -> Process {
    processes.lock().unwrap().iter().find(|process| process.name() == name).unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn p12_work_without_a_hold_is_reported_at_once() {
    let (cluster, processes) = with_processes().await;
    let (name, _hold) = holder(&cluster, "a");
    let other = cluster.names().into_iter().find(|other| *other != name).unwrap();
    drop(process(&processes, &name).working_on("a"));
    cluster.check().await.unwrap();
    drop(process(&processes, &other).working_on("a"));
    let told = failure(cluster.check().await);
    assert_says(
        &told,
        &["P12 (one holder) is broken", &format!("{other}#"), "has worked on a ", "the process has no hold"],
    );
}

#[tokio::test(start_paused = true)]
async fn p12_work_that_outlives_its_hold_is_reported_when_the_slot_moves() {
    let (cluster, processes) = with_processes().await;
    let works = Works::default();
    for key in KEYS {
        let (name, hold) = holder(&cluster, key);
        works.lock().unwrap().push(process(&processes, &name).working_on(key));
        drop(hold);
    }
    cluster.advance(secs(1)).await;
    cluster.check().await.unwrap();
    cluster.add();
    cluster.add();
    cluster.wait_stable().await.unwrap();
    cluster.advance(secs(1)).await;
    let told = failure(cluster.check().await);
    assert_says(&told, &["P12 (one holder) is broken", "has worked on ", "the process has no hold of slot"]);
    drop(works);
}

/// A lease that is revoked by hand lets another node acquire slots that the paused node still considers its own.
#[tokio::test(start_paused = true)]
async fn p12_two_nodes_that_hold_one_slot_are_reported_without_help_of_the_service() {
    let cluster = idle(2).await;
    let key = "cluster/view/nodes/n1";
    let entry = cluster.store().read(key).await.unwrap().entries.into_iter().next().unwrap();
    cluster.pause("n1");
    cluster.store().revoke_lease(entry.lease.unwrap()).await.unwrap();
    cluster.advance(secs(1)).await;
    assert!(!cluster.node("n1").held_slots().is_empty(), "n1 cannot know that it has lost its slots");
    let told = failure(cluster.check().await);
    assert_says(&told, &["P12 (one holder) is broken", "[slot ", "n0#1", "n1#2"]);
}

/// Like the previous test, but with [`TestCluster::expire`], which is a fault of the store, not of the service or the
/// library.
#[tokio::test(start_paused = true)]
async fn p12_is_not_judged_under_a_lease_that_the_test_has_expired() {
    let cluster = idle(2).await;
    cluster.pause("n1");
    cluster.expire("n1").await;
    cluster.advance(secs(1)).await;
    cluster.check().await.unwrap();
    cluster.settle().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn p12_a_settled_cluster_holds_every_slot() {
    let cluster = idle(3).await;
    cluster.cut_off("n2");
    // The session of n2 is running out, but it is not over: the version stays stable.
    let gives_nothing = || cluster.node("n2").held_slots().is_empty().then_some(());
    cluster.wait_until("n2 to refuse holds", gives_nothing).await.unwrap();
    cluster.settle().await.unwrap();
    let held: usize = cluster.running().iter().map(|name| cluster.node(name).held_slots().len()).sum();
    assert_eq!(held, 8);
}

#[tokio::test(start_paused = true)]
async fn code_outside_of_a_process_has_no_current_process() {
    assert!(Process::current().is_none());
    let cluster = TestCluster::start(1, |process: Process| async move {
        let node = process.builder().start().await?;
        let name = Process::current().map(|current| current.name().to_owned());
        assert_eq!(name.as_deref(), Some(process.name()));
        let foreign = tokio::spawn(async { Process::current().is_none() }).await;
        assert!(foreign.unwrap(), "a task spawned with tokio::spawn does not belong to the process");
        Ok::<_, StartError>(node)
    })
    .await
    .unwrap();
    cluster.settle().await.unwrap();
}
