//! TLS and mutual TLS with a real etcd, and the errors of settings that do not match.

#[allow(dead_code)]
#[path = "common/pki.rs"]
mod pki;

use std::time::{Duration, Instant};

use clustering_etcd::{
    EtcdConfig, EtcdStore, Pem, Tls,
    store::{CoordinationStore, CoordinationStoreExt, ErrorKind, Guard, StoreError, Txn},
};
use clustering_testkit::etcd::EtcdServer;
use etcd_client::UserAddOptions;
use futures_util::StreamExt;
use pki::{Issued, Pki};
use rcgen::date_time_ymd;

/// Time limit for a rejection, which takes a few round trips. Far less than a timeout, and enough for a busy machine.
const AT_ONCE: Duration = Duration::from_millis(800);

fn config(endpoint: &str, tls: impl Into<Option<Tls>>) -> EtcdConfig {
    let mut config = EtcdConfig::new([endpoint]).expect("an endpoint");
    config.tls = tls.into();
    config
}

async fn connect(endpoint: &str, tls: impl Into<Option<Tls>>) -> Result<EtcdStore, StoreError> {
    let store = EtcdStore::connect(config(endpoint, tls)).await?;
    store.check().await.map(|()| store)
}

/// Starts a server that requires client certificates of this CA.
async fn strict(pki: &Pki) -> EtcdServer {
    let server = pki.server();
    EtcdServer::builder().tls(server.cert, server.key).client_ca(pki.ca()).start().await.expect("a server")
}

/// Checks that the connection was refused at once, with these parts in its message.
#[track_caller]
fn refused(began: Instant, result: Result<EtcdStore, StoreError>, parts: &[&str]) {
    let took = began.elapsed();
    let error = result.expect_err("the settings do not match");
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    for part in parts {
        assert!(error.to_string().contains(part), "{error} does not say {part}");
    }
    assert!(took < AT_ONCE, "{took:?} for {error}");
}

#[tokio::test]
async fn everything_works_over_mutual_tls() {
    let pki = Pki::new();
    let etcd = strict(&pki).await;
    let client = pki.client("ingest");
    // The scheme may be omitted, and PEM data may be bytes instead of files.
    let [ca, cert, key] =
        [pki.ca(), client.cert, client.key].map(|path| Pem::bytes(std::fs::read(path).unwrap()));
    let bare = format!("localhost:{}", etcd.port());
    let store = connect(&bare, Tls::new().ca(ca).identity(cert, key)).await.unwrap();

    let lease = store.grant_lease(Duration::from_secs(60)).await.unwrap();
    let at = store.commit(Txn::new().guard(Guard::absent("k")).put("k", "v", lease.id)).await.unwrap();
    assert_eq!(store.read("k").await.unwrap().entries[0].modified, at);
    assert_eq!(store.renew_lease(lease.id).await.unwrap(), lease.ttl);
    let mut watch = store.watch("k", at).await.unwrap();
    store.revoke_lease(lease.id).await.unwrap();
    let batch = watch.next().await.expect("the watch has not ended").unwrap();
    assert_eq!(batch.changes[0].key().as_str(), "k");
}

#[tokio::test]
async fn a_server_certificate_of_an_unknown_ca_is_rejected() {
    let pki = Pki::new();
    let etcd = strict(&pki).await;
    let client = pki.client("ingest");
    for other in [Pki::named("another CA"), Pki::new()] {
        let wrong = pki.mutual(&client).ca(Pem::file(other.ca()));
        let parts = ["issued by a CA that is not trusted here", "ETCDCTL_CACERT"];
        refused(Instant::now(), connect(&etcd.endpoint(), wrong).await, &parts);
    }
}

#[tokio::test]
async fn without_a_configured_ca_only_the_cas_of_the_system_are_trusted() {
    let pki = Pki::new();
    let etcd = strict(&pki).await;
    // On a machine without any CAs, creating the store fails.
    match EtcdStore::new(config(&etcd.endpoint(), None)) {
        Ok(store) => {
            let error = store.read("k").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
            assert!(error.to_string().contains("issued by a CA that is not trusted here"), "{error}");
        }
        Err(error) => assert!(error.to_string().contains("the system has no CA certificates"), "{error}"),
    }
}

#[tokio::test]
async fn a_missing_client_certificate_is_reported() {
    let pki = Pki::new();
    let etcd = strict(&pki).await;
    let parts = ["the server requires a client certificate", "ETCDCTL_CERT"];
    refused(Instant::now(), connect(&etcd.endpoint(), pki.tls()).await, &parts);
}

#[tokio::test]
async fn a_rejected_client_certificate_is_reported() {
    let (pki, other) = (Pki::new(), Pki::new());
    let etcd = strict(&pki).await;
    let stranger = other.client("stranger");
    let expired = pki.issue("expired", &["ingest"], |params| {
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    });
    for client in [stranger, expired] {
        let tls = pki.mutual(&client);
        let parts = ["the server rejected the client's certificate", "--trusted-ca-file"];
        refused(Instant::now(), connect(&etcd.endpoint(), tls).await, &parts);
    }
}

#[tokio::test]
async fn a_server_certificate_for_another_name_is_rejected_unless_that_name_is_configured() {
    let pki = Pki::new();
    let server = pki.issue("server", &["etcd.internal"], |_| {});
    let etcd = EtcdServer::builder().tls(server.cert, server.key).start().await.unwrap();
    let parts = ["is not valid for 127.0.0.1, only for", "etcd.internal", "tls.server_name"];
    refused(Instant::now(), connect(&etcd.endpoint(), pki.tls()).await, &parts);
    connect(&etcd.endpoint(), pki.tls().server_name("etcd.internal")).await.unwrap();
}

#[tokio::test]
async fn a_server_certificate_outside_its_validity_period_is_rejected() {
    let pki = Pki::new();
    for (from, to, says) in [(2020, 2021, "has expired: renew it"), (4000, 4001, "is not valid yet")] {
        let server = pki.issue("server", &["127.0.0.1"], |params| {
            (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
        });
        let etcd = EtcdServer::builder().tls(server.cert, server.key).start().await.unwrap();
        refused(Instant::now(), connect(&etcd.endpoint(), pki.tls()).await, &[says, "clock"]);
    }
}

#[tokio::test]
async fn tls_on_only_one_side_is_reported() {
    let pki = Pki::new();
    let client = pki.client("ingest");
    let (secured, plain) = (strict(&pki).await, EtcdServer::start().await.unwrap());

    let without = format!("127.0.0.1:{}", secured.port());
    refused(Instant::now(), connect(&without, None).await, &["the server speaks TLS", "https://"]);
    let with = format!("127.0.0.1:{}", plain.port());
    let tls = pki.mutual(&client);
    refused(
        Instant::now(),
        connect(&with, tls).await,
        &["the server does not speak TLS", "http://", "--cert-file"],
    );
}

#[tokio::test]
async fn the_next_connection_uses_certificates_that_were_renewed_on_disk() {
    let mut pki = Pki::new();
    let etcd = strict(&pki).await;
    // The store reads copies, as in the volume of a container.
    let volume = tempfile::tempdir().unwrap();
    let place = |name: &str| volume.path().join(name);
    let deliver = |pki: &Pki, client: &Issued| {
        for (from, to) in [(&pki.ca(), "ca.crt"), (&client.cert, "tls.crt"), (&client.key, "tls.key")] {
            std::fs::copy(from, place(to)).unwrap();
        }
    };
    deliver(&pki, &pki.client("ingest"));
    let tls = Tls::new()
        .ca(Pem::file(place("ca.crt")))
        .identity(Pem::file(place("tls.crt")), Pem::file(place("tls.key")));
    let store = connect(&etcd.endpoint(), tls).await.unwrap();

    // Etcd gets certificates of a new CA before the store does.
    pki.renew();
    pki.server();
    let client = pki.client("ingest");
    etcd.restart().await.unwrap();
    let error = store.put("k", "v".into(), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");

    deliver(&pki, &client);
    store.put("k", "v".into(), None).await.unwrap();

    // An incomplete file is ignored.
    std::fs::write(place("tls.key"), "-----BEGIN").unwrap();
    etcd.restart().await.unwrap();
    store.put("k", "v".into(), None).await.unwrap();
}

#[tokio::test]
async fn calls_succeed_although_one_member_has_a_certificate_of_an_unknown_ca() {
    let (pki, other) = (Pki::new(), Pki::new());
    let (good, bad) = (strict(&pki).await, strict(&other).await);
    let client = pki.client("ingest");
    // A store starts with a random member, so try several stores.
    for _ in 0..6 {
        let mut config = config(&good.endpoint(), pki.mutual(&client));
        config.endpoints.insert(0, bad.endpoint().parse().unwrap());
        EtcdStore::new(config).unwrap().put("k", "v".into(), None).await.unwrap();
    }
    // With the other member down, settings are not the only cause, and the error mentions both.
    good.kill().await.unwrap();
    for _ in 0..6 {
        let mut config = config(&good.endpoint(), pki.mutual(&client));
        config.endpoints.push(bad.endpoint().parse().unwrap());
        let error = EtcdStore::new(config).unwrap().check().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
        assert!(error.to_string().contains("issued by a CA that is not trusted here"), "{error}");
    }
}

#[tokio::test]
async fn without_credentials_the_common_name_of_the_certificate_is_the_user() {
    let pki = Pki::new();
    let etcd = strict(&pki).await;
    let mut root = etcd.client().await.unwrap();
    root.user_add("root", "root", None).await.unwrap();
    root.role_add("root").await.unwrap();
    root.user_grant_role("root", "root").await.unwrap();
    let known = Some(UserAddOptions::new().with_no_pwd());
    root.user_add("ingest", "", known).await.unwrap();
    root.auth_enable().await.unwrap();
    let store = connect(&etcd.endpoint(), pki.mutual(&pki.client("ingest"))).await.unwrap();

    let error = store.read("elsewhere/").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(
        error
            .to_string()
            .contains("the user, which is the client certificate's common name, lacks a permission"),
        "{error}"
    );
    etcd.log_in("root", "root");
    etcd.client().await.unwrap().user_grant_role("ingest", "root").await.unwrap();
    store.read("elsewhere/").await.unwrap();
}
