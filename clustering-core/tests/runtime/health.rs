//! P11: a node that is not healthy gives up its session.

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use clustering_core::{Clustering, Event, Health, HealthChecks, LostReason};
use clustering_memory::MemoryStore;

use tokio::sync::watch;

use crate::common::{Cluster, Node, leader, ms, secs, soon, stable, start};

const CHECKS: HealthChecks = HealthChecks { interval: secs(2), deadline: secs(1), failures: 3 };

/// Behaviour of a node's health check.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Passes,
    Fails,
    Panics,
    Hangs,
}

/// A health check whose behaviour the test sets, with the number of its calls.
#[derive(Clone)]
struct FakeCheck {
    state: Arc<Mutex<State>>,
    calls: watch::Sender<usize>,
}

impl FakeCheck {
    fn new(state: State) -> Self {
        FakeCheck { state: Arc::new(Mutex::new(state)), calls: watch::Sender::new(0) }
    }

    fn is(&self, state: State) {
        *self.state.lock().unwrap() = state;
    }

    fn calls(&self) -> usize {
        *self.calls.borrow()
    }

    /// Waits until the check has been called `calls` times in total.
    async fn called(&self, calls: usize) {
        soon("a check", self.calls.subscribe().wait_for(|count| *count >= calls)).await.unwrap();
    }

    async fn check(self) -> Result<(), &'static str> {
        self.calls.send_modify(|calls| *calls += 1);
        let state = *self.state.lock().unwrap();
        match state {
            State::Passes => Ok(()),
            State::Fails => Err("ill"),
            State::Panics => panic!("in the check"),
            State::Hangs => pending().await,
        }
    }
}

async fn checked(cluster: &Cluster, name: &str) -> (Node, FakeCheck) {
    let check = FakeCheck::new(State::Passes);
    let asked = check.clone();
    let (line, builder) = cluster.builder_with(name, |builder| {
        builder.health(move || asked.clone().check()).configure(|config| config.health = Some(CHECKS))
    });
    (start(line, builder).await, check)
}

fn is_lost(event: &Event) -> bool {
    *event == Event::SessionLost { reason: LostReason::Unhealthy }
}

#[tokio::test(start_paused = true)]
async fn p11_an_unhealthy_leader_gives_up_its_session_and_rejoins_when_it_is_healthy() {
    for (state, says) in [
        (State::Fails, "ill"),
        (State::Panics, "it panicked: in the check"),
        (State::Hangs, "the check did not answer within 1s"),
    ] {
        let cluster = Cluster::new();
        let (a, check) = checked(&cluster, "a").await;
        let b = cluster.start("b").await;
        let version = stable([&a, &b]).await;
        let before = cluster.store.stats();
        check.is(state);
        let ill = tokio::time::Instant::now();
        let (failures, reason) = a
            .log
            .next_of("the verdict", |event| match event {
                Event::Unhealthy { failures, reason } => Some((*failures, reason.clone())),
                _ => None,
            })
            .await;
        assert!(!a.is_leader() && a.term().is_none(), "from the moment at which it is unhealthy");
        assert_eq!((failures, reason.as_str()), (3, says));
        // One interval until the next check, and three checks of at most one interval each.
        assert!(ill.elapsed() <= CHECKS.interval * 4, "{state:?} took {:?}", ill.elapsed());
        a.log.next("the session is over", is_lost).await;
        b.leads().await;
        let after = stable([&b]).await;
        assert!(after > version);
        let stats = cluster.store.stats().since(&before);
        assert_eq!(
            (stats.revokes, stats.expiries),
            (1, 0),
            "the lease is revoked and does not expire: {stats:?}"
        );
        let status = a.now();
        assert_eq!(status.health, Health::Unhealthy { reason });
        assert!(!a.is_member() && !a.owns("anything"));
        // It does not rejoin before it is healthy.
        tokio::time::sleep(secs(60)).await;
        assert_eq!(b.nodes().len(), 1);
        check.is(State::Passes);
        a.log.next("healthy", |event| *event == Event::Healthy).await;
        a.log.next("again", |event| matches!(event, Event::Rejoined { .. })).await;
        stable([&a, &b]).await;
        assert_eq!(leader(&[a.clone(), b.clone()]).name(), b.name());
        assert_eq!(a.log.count(is_lost), 1);
        cluster.audit().await;
    }
}

#[tokio::test(start_paused = true)]
async fn p11_a_node_joins_once_its_check_passes() {
    let cluster = Cluster::new();
    let check = FakeCheck::new(State::Fails);
    let asked = check.clone();
    let (line, builder) = cluster.builder_with("a", |builder| builder.health(move || asked.clone().check()));
    let starting = tokio::spawn(start(line, builder));
    tokio::time::sleep(secs(60)).await;
    assert!(!starting.is_finished());
    assert_eq!(cluster.store.stats().grants, 0);
    check.is(State::Passes);
    let node = starting.await.unwrap();
    assert!(node.is_member());
    cluster.audit().await;
}

/// Two failed checks are forgiven when the third passes. At rest, checks cause no other activity.
#[tokio::test(start_paused = true)]
async fn fewer_failures_than_configured_cost_nothing() {
    let cluster = Cluster::new();
    let (a, check) = checked(&cluster, "a").await;
    let version = stable([&a]).await;
    for _ in 0..5 {
        check.is(State::Fails);
        let calls = check.calls();
        check.called(calls + 2).await;
        check.is(State::Passes);
        check.called(calls + 3).await;
    }
    assert!(a.is_leader());
    assert_eq!(a.cluster_version(), Some(version));
    // Not at the very moment of a check, so that it is certain which checks are counted.
    tokio::time::sleep(ms(1)).await;
    let (calls, before) = (check.calls(), cluster.store.stats());
    tokio::time::sleep(secs(600)).await;
    assert_eq!(check.calls() - calls, 300);
    assert_eq!(cluster.store.stats().since(&before).renewals, 120);
    cluster.audit().await;
}

/// A check blocks its thread, so its future cannot be dropped. The node is still found unhealthy, and no second check
/// runs at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p11_a_check_that_blocks_its_thread_fails_and_no_other_starts() {
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    let (blocked, asked) = (Arc::new(Mutex::new(Some(blocked))), Arc::new(AtomicUsize::new(0)));
    let count = asked.clone();
    let builder = Clustering::builder(MemoryStore::new())
        .uri("http://a")
        .health(move || {
            let (blocked, call) = (blocked.clone(), count.fetch_add(1, Ordering::SeqCst));
            async move {
                if call == 1 {
                    let blocked = blocked.lock().unwrap().take().unwrap();
                    // An error means that the test is over.
                    let _ = blocked.recv();
                }
            }
        })
        .configure(|config| {
            let (interval, deadline) = (ms(50), ms(50));
            config.health = Some(HealthChecks { interval, deadline, failures: 3 });
        });
    let mut events = builder.events();
    let node = builder.start().await.unwrap();
    let minute = Duration::from_secs(60);
    let verdict =
        async { while !matches!(*events.recv().await.unwrap(), Event::Unhealthy { failures: 3, .. }) {} };
    tokio::time::timeout(minute, verdict).await.unwrap();
    assert!(!node.is_leader());
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    release.send(()).unwrap();
    let again = async { while !matches!(*events.recv().await.unwrap(), Event::Rejoined { .. }) {} };
    tokio::time::timeout(minute, again).await.unwrap();
    node.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_node_stops_while_its_check_hangs() {
    let cluster = Cluster::new();
    let (a, check) = checked(&cluster, "a").await;
    let calls = check.calls();
    check.is(State::Hangs);
    check.called(calls + 1).await;
    let before = tokio::time::Instant::now();
    soon("the end", a.stop()).await.unwrap();
    assert!(before.elapsed() < ms(100), "{:?}", before.elapsed());
    cluster.audit().await;
}
