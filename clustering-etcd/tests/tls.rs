//! TLS and mutual TLS with a real etcd: what works, and what each thing that does not go together is told as.

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

/// What does not go together shows in one round trip, or a few. Far less than a timeout, and enough for a busy machine.
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

/// A server that demands certificates of that authority.
async fn strict(pki: &Pki) -> EtcdServer {
    let server = pki.server();
    EtcdServer::builder().tls(server.cert, server.key).client_ca(pki.ca()).start().await.expect("a server")
}

/// The connection is refused, at once, in these words.
#[track_caller]
fn refused(began: Instant, result: Result<EtcdStore, StoreError>, says: &[&str]) {
    let took = began.elapsed();
    let error = result.expect_err("these two do not go together");
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    for part in says {
        assert!(error.to_string().contains(part), "{error} does not say {part}");
    }
    assert!(took < AT_ONCE, "{took:?} for {error}");
}

#[tokio::test]
async fn everything_works_over_mutual_tls() {
    let pki = Pki::new();
    let etcd = strict(&pki).await;
    let client = pki.client("ingest");
    // The scheme may be left out, and bytes are as good as files.
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
    let batch = watch.next().await.expect("the watch goes on").unwrap();
    assert_eq!(batch.changes[0].key().as_str(), "k");
}

#[tokio::test]
async fn a_server_of_an_unknown_authority_is_refused() {
    let pki = Pki::new();
    let etcd = strict(&pki).await;
    let client = pki.client("ingest");
    for other in [Pki::named("another authority"), Pki::new()] {
        let wrong = pki.mutual(&client).ca(Pem::file(other.ca()));
        let says = ["is of a CA that is not trusted here", "ETCDCTL_CACERT"];
        refused(Instant::now(), connect(&etcd.endpoint(), wrong).await, &says);
    }
}

#[tokio::test]
async fn the_authorities_of_the_system_do_not_know_the_tests() {
    let pki = Pki::new();
    let etcd = strict(&pki).await;
    // A machine without any of them says so earlier.
    match EtcdStore::new(config(&etcd.endpoint(), None)) {
        Ok(store) => {
            let error = store.read("k").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
            assert!(error.to_string().contains("is of a CA that is not trusted here"), "{error}");
        }
        Err(error) => assert!(error.to_string().contains("the system has no CA certificates"), "{error}"),
    }
}

#[tokio::test]
async fn a_client_certificate_that_is_missing_is_asked_for() {
    let pki = Pki::new();
    let etcd = strict(&pki).await;
    let says = ["the server wants a client certificate", "ETCDCTL_CERT"];
    refused(Instant::now(), connect(&etcd.endpoint(), pki.tls()).await, &says);
}

#[tokio::test]
async fn a_client_certificate_that_is_not_good_is_refused() {
    let (pki, other) = (Pki::new(), Pki::new());
    let etcd = strict(&pki).await;
    let stranger = other.client("stranger");
    let expired = pki.issue("expired", &["ingest"], |params| {
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    });
    for client in [stranger, expired] {
        let tls = pki.mutual(&client);
        let says = ["the server does not accept the client's certificate", "--trusted-ca-file"];
        refused(Instant::now(), connect(&etcd.endpoint(), tls).await, &says);
    }
}

#[tokio::test]
async fn a_server_certificate_for_another_name_is_refused_unless_that_name_is_given() {
    let pki = Pki::new();
    let server = pki.issue("server", &["etcd.internal"], |_| {});
    let etcd = EtcdServer::builder().tls(server.cert, server.key).start().await.unwrap();
    let says = ["is not for 127.0.0.1, but for", "etcd.internal", "tls.server_name"];
    refused(Instant::now(), connect(&etcd.endpoint(), pki.tls()).await, &says);
    connect(&etcd.endpoint(), pki.tls().server_name("etcd.internal")).await.unwrap();
}

#[tokio::test]
async fn a_server_certificate_out_of_its_time_is_refused() {
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
async fn tls_on_one_side_only_is_told_as_that() {
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
        &["the server speaks no TLS", "http://", "--cert-file"],
    );
}

#[tokio::test]
async fn certificates_that_are_renewed_on_disk_are_used_by_the_next_connection() {
    let mut pki = Pki::new();
    let etcd = strict(&pki).await;
    // What the store sees is copied from there, as into the volume of a container.
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

    // Everything is of another authority now, and etcd has it already.
    pki.renew();
    pki.server();
    let client = pki.client("ingest");
    etcd.restart().await.unwrap();
    let error = store.put("k", "v".into(), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");

    deliver(&pki, &client);
    store.put("k", "v".into(), None).await.unwrap();

    // A file that is only half there is not used, and does no harm.
    std::fs::write(place("tls.key"), "-----BEGIN").unwrap();
    etcd.restart().await.unwrap();
    store.put("k", "v".into(), None).await.unwrap();
}

#[tokio::test]
async fn one_member_with_a_wrong_certificate_does_not_matter() {
    let (pki, other) = (Pki::new(), Pki::new());
    let (good, bad) = (strict(&pki).await, strict(&other).await);
    let client = pki.client("ingest");
    // Where a store begins is left to chance: several of them.
    for _ in 0..6 {
        let mut config = config(&good.endpoint(), pki.mutual(&client));
        config.endpoints.insert(0, bad.endpoint().parse().unwrap());
        EtcdStore::new(config).unwrap().put("k", "v".into(), None).await.unwrap();
    }
    // With the other one away it is no more a matter of settings alone, and both are told.
    good.kill().await.unwrap();
    for _ in 0..6 {
        let mut config = config(&good.endpoint(), pki.mutual(&client));
        config.endpoints.push(bad.endpoint().parse().unwrap());
        let error = EtcdStore::new(config).unwrap().check().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
        assert!(error.to_string().contains("is of a CA that is not trusted here"), "{error}");
    }
}

#[tokio::test]
async fn the_common_name_is_the_user_where_no_other_is_given() {
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
        error.to_string().contains("the user, by the client certificate's common name, lacks"),
        "{error}"
    );
    etcd.log_in("root", "root");
    etcd.client().await.unwrap().user_grant_role("ingest", "root").await.unwrap();
    store.read("elsewhere/").await.unwrap();
}
