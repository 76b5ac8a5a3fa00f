//! Probes, and a rolling update that depends on them.

#![allow(clippy::unwrap_used, reason = "a failed expectation fails the test")]

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, StatusCode},
};
use clustering_core::{Builder, Clustering, Stabilization, probes::Probes};
use clustering_memory::MemoryStore;
use clustering_testkit::faulty::FaultyStore;
use tokio::time::{sleep, timeout};
use tower_service::Service;

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

async fn get(router: &Router, path: &str) -> (StatusCode, String) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = router.clone().call(request).await.unwrap();
    let status = response.status();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn is_ok(router: &Router, path: &str) -> bool {
    get(router, path).await.0 == StatusCode::OK
}

#[track_caller]
fn says(answer: (StatusCode, String), status: u16, text: &str) {
    assert!(answer.0.as_u16() == status && answer.1.starts_with(text), "{answer:?}");
}

fn node(store: &FaultyStore, name: &str) -> Builder {
    Clustering::builder(store.clone()).name(name).uri("http://host")
}

#[tokio::test(start_paused = true)]
async fn the_probes_follow_the_life_of_a_node() {
    let store = FaultyStore::new(MemoryStore::new());
    let probes = Probes::new().metrics(|| "clustering_leader 1\n".to_owned());
    let router: Router = probes.router();
    says(get(&router, "/livez").await, 200, "starting");
    says(get(&router, "/readyz").await, 503, "starting");
    says(get(&router, "/leaderz").await, 503, "starting");
    says(get(&router, "/stablez").await, 503, "starting");
    says(get(&router, "/metrics").await, 200, "clustering_leader 1");
    says(get(&router, "/other").await, 404, "");
    says(get(&router, "/ownz?key=k").await, 409, r#"{"key":"k","why":"starting","message":"#);

    let well = Arc::new(AtomicBool::new(true));
    let check = well.clone();
    let slow = |_: Stabilization| sleep(secs(5));
    let health = move || std::future::ready(check.load(Ordering::Relaxed));
    let a = node(&store, "a").stabilize(slow).health(health).start().await.unwrap();
    probes.follow(&a);
    a.wait_leader().await.unwrap();
    says(get(&router, "/livez").await, 200, "member");
    says(get(&router, "/readyz").await, 503, "adapting to ");
    says(get(&router, "/leaderz").await, 200, "leads, term ");
    a.wait_stable().await.unwrap();
    says(get(&router, "/readyz").await, 200, "ready at ");
    says(get(&router, "/stablez").await, 200, "stable at ");

    // A node is ready when it has adapted itself, whatever the other nodes do.
    let other: Probes = Probes::new();
    let b = node(&store, "b").start().await.unwrap();
    other.follow(&b);
    let mut status = b.status();
    status.wait_for(|status| status.cluster_version().is_some()).await.unwrap();
    assert!(!b.cluster_consistent(), "a needs 5 s to adapt");
    says(get(&other.router(), "/readyz").await, 200, "ready at ");
    says(get(&other.router(), "/leaderz").await, 503, "a leads");
    let (status, why) = get(&other.router(), "/stablez").await;
    assert!(status == StatusCode::SERVICE_UNAVAILABLE && why.ends_with(" is not stable\n"), "{why}");
    sleep(secs(10)).await;
    b.stop().await.unwrap();
    says(get(&other.router(), "/livez").await, 503, "the node has ended: it was asked to stop");
    says(get(&other.router(), "/readyz").await, 503, "the node has ended");
    sleep(secs(10)).await;

    // The store goes away. The process stays live, however long this lasts.
    store.cut();
    let mut status = a.status();
    status.wait_for(|status| status.active_term.is_none()).await.unwrap();
    says(get(&router, "/leaderz").await, 503, "a leads");
    assert!(is_ok(&router, "/readyz").await, "its session is still live");
    sleep(secs(3600)).await;
    says(get(&router, "/readyz").await, 503, "not a member: the store does not answer");
    says(get(&router, "/stablez").await, 503, "not a member: the store does not answer");
    says(get(&router, "/livez").await, 200, "joining");
    store.heal();
    a.wait_stable().await.unwrap();
    says(get(&router, "/readyz").await, 200, "ready at ");

    well.store(false, Ordering::Relaxed);
    sleep(secs(20)).await;
    says(get(&router, "/readyz").await, 503, "not a member: unhealthy: it returned false");
    says(get(&router, "/livez").await, 200, "joining");

    // Probes keep no node alive.
    let mut ended = a.status();
    drop(a);
    while ended.changed().await.is_ok() {}
    says(get(&router, "/livez").await, 503, "the node has ended");
}

/// A pod of a stateful set.
struct Pod {
    cluster: Clustering,
    router: Router,
}

async fn pod(store: &FaultyStore, name: &str, works: bool) -> Pod {
    let probes = Probes::new();
    let stabilize = move |_: Stabilization| async move {
        if !works {
            pending::<()>().await;
        }
    };
    let cluster = node(store, name).stabilize(stabilize).start().await.unwrap();
    probes.follow(&cluster);
    Pod { cluster, router: probes.router() }
}

/// One node's old release hangs, and the new release would not. The update that fixes it must not wait for that node.
#[tokio::test(start_paused = true)]
async fn a_rolling_update_that_waits_for_readiness_does_not_deadlock() {
    let store = FaultyStore::new(MemoryStore::new());
    let mut pods = Vec::new();
    for (name, works) in [("pod-0", false), ("pod-1", true), ("pod-2", true)] {
        pods.push(pod(&store, name, works).await);
    }
    sleep(secs(60)).await;
    assert!(!is_ok(&pods[0].router, "/readyz").await && is_ok(&pods[1].router, "/readyz").await);

    // In the order of a stateful set: from the last pod to the first, each once the previous one is ready.
    for place in (0..3).rev() {
        pods[place].cluster.stop().await.unwrap();
        pods[place] = pod(&store, &format!("pod-{place}"), true).await;
        let ready = async {
            while !is_ok(&pods[place].router, "/readyz").await {
                sleep(secs(1)).await;
            }
        };
        timeout(secs(60), ready).await.expect("the pod becomes ready, so the rollout continues");
        // If it waited for the cluster to be stable, it would wait forever.
        let stable = pods[place].cluster.wait_stable();
        assert_eq!(timeout(secs(600), stable).await.is_ok(), place == 0);
    }
    for pod in &pods {
        assert!(is_ok(&pod.router, "/readyz").await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_program_can_ask_whether_it_may_work_on_a_key_and_where_else_the_key_is() {
    let store = FaultyStore::new(MemoryStore::new());
    let (mut routers, mut nodes): (Vec<Router>, Vec<Clustering>) = Default::default();
    for name in ["a", "b"] {
        let probes = Probes::new();
        let cluster = node(&store, name).exclusive(2).start().await.unwrap();
        probes.follow(&cluster);
        routers.push(probes.router());
        nodes.push(cluster);
    }
    while nodes.iter().any(|node| node.held_slots().len() != 1) {
        sleep(Duration::from_millis(10)).await;
    }
    for (key, path) in
        [("a/b c%", "/ownz?x=1&key=a%2Fb+c%"), ("device-1", "/ownz?key=device-1"), ("", "/ownz?key")]
    {
        let (at, other) = if nodes[0].owns(key) { (0, 1) } else { (1, 0) };
        let hold = nodes[at].hold(key).unwrap();
        let (slot, token) = (hold.slot(), hold.token());
        let held = format!(r#"{{"key":"{key}","slot":{slot},"token":{token}}}"#);
        assert_eq!(get(&routers[at], path).await, (StatusCode::OK, held));
        let (status, body) = get(&routers[other], path).await;
        assert_eq!(status, StatusCode::CONFLICT);
        let start = format!(r#"{{"key":"{key}","slot":{slot},"why":"elsewhere","message":""#);
        let version = nodes[0].newest_version().unwrap();
        let end = format!(r#""node":"{}","uri":"http://host","version":"{version}"}}"#, nodes[at].name());
        assert!(body.starts_with(&start) && body.ends_with(&end), "{body}");
    }
    says(get(&routers[0], "/ownz").await, 400, "name the key");
    says(get(&routers[0], "/ownz?keys=1").await, 400, "name the key");
    nodes[0].stop().await.unwrap();
    says(get(&routers[0], "/ownz?key=k").await, 409, r#"{"key":"k","slot":"#);
    let plain = node(&store, "plain").start().await.unwrap();
    let probes = Probes::new();
    probes.follow(&plain);
    let refused = r#"{"key":"k","why":"not_exclusive","message":""#;
    says(get(&probes.router(), "/ownz?key=k").await, 409, refused);
}
