//! P1 to P8 with the real runtime: clusters of a sample service in storms of random faults, each checked with the
//! promise checkers. For a longer run: `CLUSTERING_SEEDS=10000 cargo test -p clustering-testkit --release --test
//! storms`.

#![allow(clippy::unwrap_used, reason = "a panic fails the test, also in helpers")]

use std::{collections::BTreeSet, sync::Mutex, time::Duration};

use clustering_core::{
    Clustering, Outcome, Stabilization, StartError,
    machine::RequestError,
    store::{CoordinationStoreExt, Effect, Txn},
};
use clustering_testkit::{
    cluster::{Failure, Process, Seeds, Storm, TestCluster, Trouble, seeds},
    history::{Ledger, Observation, WriteOutcome},
};

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Starts a service whose stabilize callback takes some time and sometimes refuses, and whose leader writes under its
/// term.
async fn service(process: Process, ttl: Duration) -> Result<Clustering, StartError> {
    let index = process.index() as u64;
    let stabilize = move |change: Stabilization| async move {
        let version = change.view().revision().get() * 37;
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis((version ^ index) % 700)) => {}
            () = change.superseded() => return Outcome::refused("superseded"),
        }
        // One first attempt in a hundred panics, and a third of the others refuse.
        if (version ^ index) % 100 == 7 && change.attempt() == 1 {
            // Panics without printing a backtrace.
            std::panic::resume_unwind(Box::new("stabilize panics on purpose"));
        }
        if (version ^ index).is_multiple_of(3) && change.attempt() == 1 {
            Outcome::refused("not yet")
        } else {
            Outcome::Ready
        }
    };
    let node = process.builder().ttl(ttl).stabilize(stabilize).start().await?;
    process.spawn(write_as_leader(process.clone(), node.clone()));
    Ok(node)
}

/// Repeatedly takes the term while leader, waits, and then writes under that term. The write must be refused if the
/// lead was lost in between, for example during a pause.
async fn write_as_leader(process: Process, node: Clustering) {
    let key = format!("{}/{}total", node.namespace(), Ledger::LEADER_COMMITS);
    for number in 0.. {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let Some(term) = node.term() else { continue };
        tokio::time::sleep(Duration::from_millis(30)).await;
        let id = format!("{}-{}-{number}", process.name(), node.status().get().revision);
        let value = format!(r#"{{"id":"{id}","term":{}}}"#, term.get());
        let outcome = match node.commit_under(term, Txn::new().put(&*key, value, None)).await {
            Ok(revision) => WriteOutcome::Done(revision),
            Err(RequestError::Store(error)) if error.effect() == Effect::Unknown => {
                WriteOutcome::Unknown(error.to_string())
            }
            Err(error @ (RequestError::Store(_) | RequestError::NotLeader)) => {
                WriteOutcome::Refused(error.to_string())
            }
            Err(error) => WriteOutcome::Unknown(error.to_string()),
        };
        process.observe(Observation::LeaderCommit { id, term, outcome });
    }
}

async fn cluster(seed: u64, nodes: usize) -> Result<TestCluster, Failure> {
    let ttl = secs([2, 5, 15][seed as usize % 3]);
    TestCluster::builder().seed(seed).start(nodes, move |process| service(process, ttl)).await
}

/// Runs a storm, and checks that the cluster then comes to rest with every promise kept.
async fn survives(seed: u64, nodes: usize, storm: Storm) -> Result<Ledger, Failure> {
    let cluster = cluster(seed, nodes).await?;
    cluster.storm(&storm).await?;
    cluster.settle().await?;
    // Requests made during the storm may complete after it. From then on only the leader writes.
    cluster.advance(secs(30)).await;
    let ledger = cluster.settle().await?;
    let version = cluster.wait_stable().await?;
    cluster.advance(secs(60)).await;
    if cluster.wait_stable().await? != version {
        return Err(cluster.failure("a version was published while nothing happened"));
    }
    Ok(ledger)
}

#[test]
fn p1_to_p8_hold_in_any_storm() {
    let reached = Mutex::new((0, 0, 0));
    seeds(0..120, async |seed| {
        let ledger = survives(seed, 3 + seed as usize % 4, Storm::new(seed)).await?;
        let era = ledger.present();
        let mut reached = reached.lock().unwrap();
        reached.0 += era.versions().len();
        reached.1 += era.reigns().len();
        reached.2 += era.leader_commits().len();
        Ok(())
    });
    let (versions, reigns, writes) = reached.into_inner().unwrap();
    println!("{versions} versions, {reigns} reigns, {writes} leader commits");
    assert!(versions > reigns && reigns > 120 && writes > 1000, "{versions}, {reigns}, {writes}");
}

/// The lead is lost again and again, in every possible way.
#[test]
fn p5_p6_no_leader_acts_or_writes_too_late() {
    use Trouble::{CutOff, Expire, Hang, Outage, Pause, Resign};
    seeds(1000..1030, async |seed| {
        let storm = Storm::new(seed).only([Pause, Hang, CutOff, Outage, Resign, Expire]).every(secs(1));
        survives(seed, 3, storm).await.map(drop)
    });
}

/// Replies are lost, commits take effect late and watches break: no operation is done twice or lost.
#[test]
fn p1_p2_p4_hold_on_a_bad_network() {
    use Trouble::{Ask, BadNetwork, WatchGap, WatchLag};
    seeds(2000..2030, async |seed| {
        let storm = Storm::new(seed).only([BadNetwork, WatchGap, WatchLag, Ask]).every(secs(1));
        survives(seed, 5, storm).await.map(drop)
    });
}

/// Nodes join and leave faster than the cluster becomes stable.
#[test]
fn p3_p7_hold_while_nodes_come_and_go() {
    use Trouble::{Crash, Expire, Leave};
    seeds(3000..3020, async |seed| {
        let storm = Storm::new(seed).only([Crash, Leave, Expire]).every(Duration::from_millis(400));
        survives(seed, 6, storm).await.map(drop)
    });
}

fn in_virtual_time<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(test)
}

/// Storms are severe enough: each of these events happens, and the cluster survives it.
#[test]
fn storms_cause_all_kinds_of_trouble() {
    let mut notes = BTreeSet::new();
    for seed in 0..6 {
        in_virtual_time(async {
            let cluster = cluster(seed, 4).await.unwrap();
            cluster.storm(&Storm::new(seed)).await.unwrap();
            cluster.settle().await.unwrap();
            for line in cluster.timeline() {
                for says in [
                    "was killed",
                    "session lost",
                    "joined again",
                    "suspends its lead",
                    "stabilize of",
                    "not renewed",
                    "cannot reach the store",
                    "is superseded",
                    "dropped",
                    "stopped: asked",
                    "Refused",
                    "it panicked",
                    "read a snapshot",
                ] {
                    if line.contains(says) {
                        notes.insert(says);
                    }
                }
            }
        });
    }
    assert_eq!(notes.len(), 13, "{notes:?}");
}

#[test]
fn the_same_seed_gives_the_same_storm() {
    let run = |seed: u64| {
        in_virtual_time(async {
            let cluster = cluster(seed, 4).await.unwrap();
            cluster.storm(&Storm::new(seed)).await.unwrap();
            cluster.settle().await.unwrap();
            let store = cluster.store().clone();
            (cluster.timeline(), store.get("cluster/view/version").await.unwrap())
        })
    };
    let first = run(5);
    assert!(first.0.len() > 300, "{}", first.0.len());
    assert_eq!(first, run(5));
    assert_ne!(first.0, run(6).0);
}

/// A failing seed is reported with a command that reproduces it, and the environment selects seeds.
#[test]
fn a_failing_seed_is_reported_with_the_command() {
    let failed = std::panic::catch_unwind(|| {
        seeds(0..10, async |seed| if seed == 7 { Err("no luck".into()) } else { Ok(()) });
    });
    let told = failed.unwrap_err().downcast::<String>().unwrap();
    // Cargo and nextest provide the package's name in the environment.
    let command = "CLUSTERING_SEED=7 cargo test -p clustering-testkit -- --exact \
                   a_failing_seed_is_reported_with_the_command";
    assert_eq!(told.as_str(), format!("seed 7: no luck\nreproduce: {command}"));
    assert!(Seeds::new(0..3).first_failure(async |_| Ok(())).is_none());
}
