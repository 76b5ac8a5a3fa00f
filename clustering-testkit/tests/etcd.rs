//! Tests of the etcd fixtures.

#![allow(clippy::unwrap_used, reason = "helpers panic to fail the test")]

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use clustering_core::store::Revision;
use clustering_testkit::etcd::{EtcdCluster, EtcdServer};

/// Returns the value of a key if it exists.
async fn value(etcd: &EtcdServer, key: &str) -> Option<String> {
    let reply = etcd.client().await.unwrap().get(key, None).await.unwrap();
    reply.kvs().first().map(|kv| kv.value_str().unwrap().to_owned())
}

async fn put(etcd: &EtcdServer, key: &str, value: &str) {
    etcd.client().await.unwrap().put(key, value, None).await.unwrap();
}

/// Returns true if a call is answered within a short time.
async fn answers(etcd: &EtcdServer) -> bool {
    let mut client = etcd.client().await.unwrap();
    tokio::time::timeout(Duration::from_millis(300), client.get("k", None))
        .await
        .is_ok_and(|reply| reply.is_ok())
}

fn folder_of(pid: u32) -> String {
    let arguments = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    let data = arguments.split('\0').skip_while(|argument| *argument != "--data-dir").nth(1).unwrap();
    Path::new(data).parent().unwrap().to_str().unwrap().to_owned()
}

#[tokio::test]
async fn data_and_endpoint_survive_a_restart() {
    let etcd = EtcdServer::start().await.unwrap();
    let (endpoint, first) = (etcd.endpoint(), etcd.pid().unwrap());
    put(&etcd, "k", "v").await;
    let before = etcd.revision().await.unwrap();

    etcd.kill().await.unwrap();
    assert!(etcd.pid().is_none() && !answers(&etcd).await);
    etcd.restart().await.unwrap();
    let second = etcd.pid().unwrap();
    assert_eq!((value(&etcd, "k").await, etcd.revision().await.unwrap()), (Some("v".to_owned()), before));

    etcd.stop().await.unwrap();
    etcd.restart().await.unwrap();
    etcd.restart().await.unwrap();
    assert_eq!((value(&etcd, "k").await.as_deref(), etcd.endpoint()), (Some("v"), endpoint));
    assert!(first != second && etcd.pid() != Some(second));
}

#[tokio::test]
async fn a_paused_server_does_not_answer() {
    let etcd = EtcdServer::start().await.unwrap();
    assert!(answers(&etcd).await);
    etcd.pause().unwrap();
    assert!(!answers(&etcd).await);
    etcd.resume().unwrap();
    assert!(answers(&etcd).await);
    // A paused server can be killed.
    etcd.pause().unwrap();
    etcd.restart().await.unwrap();
    assert!(answers(&etcd).await);
}

#[tokio::test]
async fn a_compacted_revision_cannot_be_read() {
    let etcd = EtcdServer::start().await.unwrap();
    put(&etcd, "k", "1").await;
    put(&etcd, "k", "2").await;
    let compacted = etcd.compact().await.unwrap();
    assert_eq!(compacted, etcd.revision().await.unwrap());
    // Compacting the same revision again is not an error.
    etcd.compact_to(compacted).await.unwrap();

    let old = etcd_client::GetOptions::new().with_revision(i64::try_from(compacted.get()).unwrap() - 1);
    let error = etcd.client().await.unwrap().get("k", Some(old)).await.unwrap_err().to_string();
    assert!(error.contains("compacted"), "{error}");

    let error = etcd.compact_to(Revision::new(1_000)).await.unwrap_err().to_string();
    assert!(error.contains("1000") && error.contains("future revision"), "{error}");
}

#[tokio::test]
async fn a_restored_snapshot_takes_revisions_back() {
    let etcd = EtcdServer::start().await.unwrap();
    put(&etcd, "k", "old").await;
    let then = etcd.revision().await.unwrap();
    let pid = etcd.pid();
    let snapshot = etcd.snapshot().await.unwrap();
    assert_eq!(etcd.pid(), pid);
    put(&etcd, "k", "new").await;

    for _ in 0..2 {
        etcd.restore(&snapshot).await.unwrap();
        assert_eq!((value(&etcd, "k").await.as_deref(), etcd.revision().await.unwrap()), (Some("old"), then));
        put(&etcd, "k", "new again").await;
    }
}

#[tokio::test]
async fn a_wiped_server_is_empty() {
    let etcd = EtcdServer::start().await.unwrap();
    let (endpoint, first) = (etcd.endpoint(), etcd.revision().await.unwrap());
    put(&etcd, "k", "v").await;
    etcd.wipe().await.unwrap();
    assert_eq!((value(&etcd, "k").await, etcd.revision().await.unwrap()), (None, first));
    assert_eq!(etcd.endpoint(), endpoint);
}

#[tokio::test]
async fn metrics_count_calls() {
    let etcd = EtcdServer::start().await.unwrap();
    let puts = async || {
        let labels = [("grpc_method", "Put"), ("grpc_code", "OK")];
        etcd.metrics().await.unwrap().sum("grpc_server_handled_total", &labels)
    };
    let before = puts().await;
    put(&etcd, "k", "v").await;
    put(&etcd, "k", "v").await;
    assert_eq!(puts().await - before, 2.0);
    assert_eq!(etcd.metrics().await.unwrap().get("etcd_server_has_leader", &[]), Some(1.0));
}

#[tokio::test]
async fn a_failed_start_is_reported_with_its_cause() {
    let error = EtcdServer::builder().args(["--no-such-flag"]).start().await.unwrap_err().to_string();
    assert!(error.contains("no-such-flag") && error.contains("has ended"), "{error}");
    let error = EtcdServer::builder().binary("/nowhere/etcd").start().await.unwrap_err().to_string();
    assert!(error.contains("/nowhere/etcd") && error.contains("apt-get install"), "{error}");
}

#[tokio::test]
async fn operations_on_a_server_that_is_down_report_it() {
    let etcd = EtcdServer::start().await.unwrap();
    etcd.kill().await.unwrap();
    for error in [etcd.pause().unwrap_err(), etcd.wait_healthy().await.unwrap_err()] {
        let error = error.to_string();
        assert!(error.contains("restart it first") && error.contains(etcd.version()), "{error}");
    }
    // The server was killed, so its log has no shutdown messages.
    assert!(etcd.log().contains("serving client traffic"), "{}", etcd.log());
}

#[tokio::test]
async fn a_dropped_server_is_removed() {
    let etcd = EtcdServer::start().await.unwrap();
    let (pid, folder) = (etcd.pid().unwrap(), folder_of(etcd.pid().unwrap()));
    assert!(Path::new(&folder).is_dir());
    drop(etcd);
    assert!(!Path::new(&folder).exists() && !Path::new(&format!("/proc/{pid}")).exists());
}

#[tokio::test]
async fn the_environment_of_the_test_does_not_reach_the_server() {
    let etcd = EtcdServer::start().await.unwrap();
    let environment = fs::read_to_string(format!("/proc/{}/environ", etcd.pid().unwrap())).unwrap();
    let names: Vec<_> = environment.split('\0').filter_map(|variable| variable.split('=').next()).collect();
    assert!(
        !names.contains(&"CARGO_MANIFEST_DIR") && !names.iter().any(|name| name.starts_with("ETCD")),
        "{names:?}"
    );
}

#[tokio::test]
async fn many_servers_start_at_once() {
    let began = Instant::now();
    let servers = futures_util::future::join_all((0..8).map(|_| EtcdServer::start())).await;
    let mut endpoints: Vec<_> = servers.into_iter().map(|server| server.unwrap().endpoint()).collect();
    endpoints.sort();
    endpoints.dedup();
    assert_eq!(endpoints.len(), 8);
    println!("8 servers in {:?}", began.elapsed());
}

#[tokio::test]
async fn a_cluster_elects_another_leader() {
    let etcd = EtcdCluster::start().await.unwrap();
    assert_eq!((etcd.members().len(), etcd.endpoints().len()), (3, 3));
    put(&etcd[0], "k", "v").await;
    assert_eq!(value(&etcd[1], "k").await.as_deref(), Some("v"));

    let first = etcd.wait_for_leader().await.unwrap();
    let second = etcd.transfer_leader().await.unwrap();
    assert_ne!(second, first);
    assert_eq!(etcd.kill_leader().await.unwrap(), second);
    let third = etcd.wait_for_leader().await.unwrap();
    assert_ne!(third, second);
    etcd.wait_healthy().await.unwrap();
    put(&etcd[third], "k", "without one").await;

    etcd[second].restart().await.unwrap();
    etcd[second].wait_healthy().await.unwrap();
    assert_eq!(value(&etcd[second], "k").await.as_deref(), Some("without one"));
    let error = etcd[second].wipe().await.unwrap_err().to_string();
    assert!(error.contains("member of a cluster"), "{error}");
}

#[tokio::test]
async fn a_cluster_recovers_from_a_lost_quorum() {
    let etcd = EtcdCluster::start().await.unwrap();
    etcd.lose_quorum().await.unwrap();
    let left: Vec<_> = etcd.members().iter().filter(|member| member.pid().is_some()).collect();
    assert_eq!(left.len(), 1);
    assert!(!answers(left[0]).await);
    etcd.recover().await.unwrap();
    for member in etcd.members() {
        put(member, "k", member.name()).await;
    }
}

/// The fixtures can be used in tests on several threads.
#[test]
fn futures_can_be_sent() {
    fn sent<T: Send>(_: impl FnOnce() -> T) {}
    sent(EtcdServer::start);
    sent(EtcdCluster::start);
    async fn verbs(etcd: EtcdServer, cluster: EtcdCluster) {
        etcd.restart().await.unwrap();
        etcd.stop().await.unwrap();
        etcd.restore(&etcd.snapshot().await.unwrap()).await.unwrap();
        etcd.wipe().await.unwrap();
        etcd.compact().await.unwrap();
        etcd.metrics().await.unwrap();
        cluster.transfer_leader().await.unwrap();
        cluster.recover().await.unwrap();
        cluster.lose_quorum().await.unwrap();
    }
    fn sent_with<T: Send>(_: impl FnOnce(EtcdServer, EtcdCluster) -> T) {}
    sent_with(verbs);
}
