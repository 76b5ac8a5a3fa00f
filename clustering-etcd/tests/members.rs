//! Replacement of etcd members while a store is running.

#[allow(dead_code)]
#[path = "common/pki.rs"]
mod pki;
#[allow(dead_code)]
#[path = "common/users.rs"]
mod users;

use std::time::Duration;

use clustering_etcd::{
    EtcdConfig, EtcdStore, Event,
    store::{CoordinationStore, CoordinationStoreExt, ErrorKind},
};
use clustering_testkit::etcd::{EtcdCluster, EtcdServer};
use clustering_testkit::proxy::Proxy;
use pki::Pki;

/// Timeout, longer than any operation here takes.
const LONG: Duration = Duration::from_secs(60);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.unwrap_or_else(|_| panic!("timed out waiting for {what}"))
}

/// Returns a configuration with these endpoints that reads the member list every second.
fn following(endpoints: &[String]) -> EtcdConfig {
    let mut config = EtcdConfig::new(endpoints).expect("endpoints of a server");
    config.member_refresh = Duration::from_secs(1);
    config
}

/// Waits until the member list has been read twice more, so that the second read started after this call.
async fn list_is_read(etcd: &EtcdServer) {
    let reads = || async {
        let metrics = etcd.metrics().await.expect("etcd serves its metrics");
        metrics.sum("grpc_server_handled_total", &[("grpc_method", "MemberList"), ("grpc_code", "OK")])
    };
    let before = reads().await;
    soon("a read of the member list", async {
        while reads().await < before + 2.0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// Writes until a write succeeds.
async fn writes(store: &EtcdStore, key: &str) {
    let write = async { while store.put(key, "v".into(), None).await.is_err() {} };
    soon("a successful write", write).await;
}

/// Replaces the only member of the cluster.
async fn replace(etcd: &mut EtcdCluster) {
    let new = etcd.add_member().await.expect("a second member");
    list_is_read(&etcd[0]).await;
    etcd.remove_member(0).await.expect("the first member can be removed");
    soon("a leader", etcd[new].wait_healthy()).await.expect("the second one leads");
}

#[tokio::test]
async fn a_node_keeps_its_session_when_the_only_configured_member_is_replaced() {
    let mut etcd = EtcdServer::builder().start_cluster(1).await.unwrap();
    let store = EtcdStore::new(following(&etcd.endpoints())).unwrap();
    let builder = store.node().namespace("c").name("a").uri("http://a.test").ttl(Duration::from_secs(30));
    let mut events = builder.events();
    let node = builder.start().await.unwrap();
    let mut fixed = following(&etcd.endpoints());
    fixed.member_refresh = Duration::ZERO;
    let fixed = EtcdStore::new(fixed).unwrap();
    fixed.check().await.unwrap();

    replace(&mut etcd).await;
    soon("a new version", node.cluster_change()).await.unwrap();
    soon("its acknowledgement", node.wait_stable()).await.unwrap();
    let error = fixed.check().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "following members is turned off: {error}");
    node.stop().await.unwrap();
    while let Ok(event) = events.recv().await {
        assert!(!matches!(&*event, Event::SessionLost { .. }), "{event}");
    }
}

#[tokio::test]
async fn a_replaced_member_is_found_with_tls_and_a_user() {
    let pki = Pki::new();
    let server = pki.server();
    let builder = EtcdServer::builder().tls(server.cert, server.key);
    let mut etcd = builder.start_cluster(1).await.unwrap();
    users::introduce(&etcd[0]).await;
    let mut config = users::config(&etcd[0]);
    config.member_refresh = Duration::from_secs(1);
    config.tls = Some(pki.tls());
    let store = EtcdStore::new(config).unwrap();
    store.check().await.unwrap();
    let new = etcd.add_member().await.unwrap();
    etcd[new].log_in("root", "root");
    list_is_read(&etcd[0]).await;
    etcd.remove_member(0).await.unwrap();
    writes(&store, "k").await;
}

#[tokio::test]
async fn advertised_urls_of_another_cluster_are_not_used() {
    let other = EtcdServer::start().await.unwrap();
    // The URLs of another cluster, and of a port on which nothing listens.
    let advertised = format!("--advertise-client-urls={},http://127.0.0.1:1", other.endpoint());
    let etcd = EtcdServer::builder().args([advertised]).start().await.unwrap();
    let proxy = Proxy::to(&etcd.endpoint()).await.unwrap();
    let store = EtcdStore::new(following(&[proxy.endpoint()])).unwrap();
    writes(&store, "k").await;
    list_is_read(&etcd).await;
    let checks = || async {
        let metrics = other.metrics().await.unwrap();
        metrics.sum("grpc_server_started_total", &[("grpc_method", "Status")])
    };
    let before = checks().await;

    proxy.cut();
    soon("a check of the other cluster", async {
        while checks().await == before {
            let error = store.put("k", "w".into(), None).await.unwrap_err();
            assert!(error.is_transient(), "{error}");
        }
    })
    .await;
    // The store has checked the other cluster, and does not use it.
    for _ in 0..5 {
        store.put("k", "w".into(), None).await.unwrap_err();
    }
    proxy.heal();
    writes(&store, "k").await;
    let at_other = EtcdStore::new(EtcdConfig::new([other.endpoint()]).unwrap()).unwrap();
    assert_eq!(at_other.read("").await.unwrap().entries, []);
}

#[tokio::test]
async fn calls_return_to_the_configured_endpoint_when_it_answers_again() {
    let etcd = EtcdServer::start().await.unwrap();
    let proxy = Proxy::to(&etcd.endpoint()).await.unwrap();
    let store = EtcdStore::new(following(&[proxy.endpoint()])).unwrap();
    writes(&store, "k").await;
    list_is_read(&etcd).await;
    proxy.cut();
    writes(&store, "around the proxy").await;
    proxy.heal();
    let sent = proxy.sent();
    soon("calls through the proxy", async {
        while proxy.sent() < sent + 10_000 {
            writes(&store, "through the proxy").await;
        }
    })
    .await;
}
