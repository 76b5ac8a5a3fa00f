//! Tests of `PostgresStore` with real servers that have other settings, fail, or lack something.

#![allow(clippy::unwrap_used, reason = "a panic fails the test, also in helpers")]

mod common;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use clustering_core::{
    Clustering,
    store::{CoordinationStore, CoordinationStoreExt, ErrorKind, Guard, Revision, Txn, WatchEnd},
};
use clustering_postgres::{PostgresConfig, PostgresStore};
use clustering_testkit::{postgres::PostgresServer, proxy::Proxy};
use futures_util::{FutureExt, StreamExt};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

const SECOND: Duration = Duration::from_secs(1);

/// Number of connections of the store to the server.
const CONNECTIONS: &str = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'clustering'";

#[tokio::test]
async fn twenty_nodes_and_their_watches_of_one_process_share_two_connections() {
    let server = common::start().await;
    let store = common::store(&server);
    let mut nodes = Vec::new();
    for number in 0..20 {
        let builder = Clustering::builder(store.clone()).namespace("c").name(format!("n{number}"));
        nodes.push(builder.uri("http://127.0.0.1:1").start().await.unwrap());
    }
    nodes[0].wait_stable().await.unwrap();
    assert_eq!(server.sql(CONNECTIONS).await.unwrap(), "2");
    assert!(store.open_watches() >= 20);
    for node in nodes {
        node.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_dropped_store_closes_its_connections_and_its_watches_keep_them_open() {
    let server = common::start().await;
    let store = common::store(&server);
    let at = store.put("k", "1".into(), None).await.unwrap();
    let mut watch = store.watch("k", at).await.unwrap();
    drop(store);
    let other = common::store(&server);
    let next = other.put("k", "2".into(), None).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().revision, next);
    drop((watch, other));
    let since = Instant::now();
    while server.sql(CONNECTIONS).await.unwrap() != "0" {
        assert!(since.elapsed() < SECOND * 20, "the connections are still open");
        tokio::time::sleep(SECOND / 50).await;
    }
}

#[tokio::test]
async fn an_overdue_lease_does_not_end_if_the_clock_of_the_server_was_set() {
    let server = common::start().await;
    let lease = "INSERT INTO clustering.lease VALUES (7, '10 s', clock_timestamp() - interval '1 s')";
    server.sql(lease).await.unwrap();
    let sweep = async |anchor: &str, elapsed_s: u32| {
        let text = format!(
            "SELECT clustering.sweep(clock_timestamp() - interval '{anchor}', {elapsed_s}000000, 500)"
        );
        server.sql(&text).await.unwrap()
    };
    // By its own clock the process has watched for 5 s, but the server's clock has advanced by 20 s.
    assert_eq!(sweep("20 s", 5).await, "0");
    // The lease was renewed before this process began to watch, 3 s ago.
    assert_eq!(sweep("3 s", 3).await, "0");
    assert_eq!(sweep("20 s", 20).await, "1");
    assert_eq!(sweep("20 s", 20).await, "0", "it has ended");
}

#[tokio::test]
async fn several_processes_end_a_lease_once_and_in_time() {
    let server = common::start().await;
    let stores = [(); 8].map(|()| common::store(&server));
    for store in &stores {
        store.check().await.unwrap();
    }
    let lease = stores[0].grant_lease(SECOND).await.unwrap();
    let at = stores[0].commit(Txn::new().put("a", "", lease.id).put("b", "", lease.id)).await.unwrap();
    let mut watch = stores[1].watch("", at).await.unwrap();
    let since = Instant::now();
    let batch = watch.next().await.unwrap().unwrap();
    assert_eq!((batch.revision, batch.changes.len()), (at.next(), 2));
    let took = since.elapsed();
    assert!(took > SECOND && took < SECOND + PostgresStore::LEASE_SLACK, "{took:?}");
    assert_eq!(stores[0].renew_lease(lease.id).await.unwrap_err().kind(), ErrorKind::LeaseNotFound);
}

#[tokio::test]
async fn a_change_of_sixteen_long_keys_wakes_the_watches_although_it_does_not_fit_into_a_notification() {
    let server = common::start().await;
    let store = common::store(&server);
    let mut watch = store.watch("k", Revision::ZERO).await.unwrap();
    assert!(watch.next().now_or_never().is_none());
    let keys = (0..16).map(|number| format!("k{number:0>511}"));
    let txn = keys.fold(Txn::new(), |txn, key| txn.put(key, "", None));
    store.commit(txn).await.unwrap();
    let batch = tokio::time::timeout(SECOND, watch.next()).await.expect("woken at once").unwrap().unwrap();
    assert_eq!(batch.changes.len(), 16);
}

#[tokio::test]
async fn foreign_keys_that_are_not_utf8_do_not_hide_later_changes() {
    let server = common::start().await;
    let store = common::store(&server);
    // More than fit into one page of a watch.
    server
        .sql(
            "INSERT INTO clustering.log SELECT n, '\\xff', '', n, NULL FROM generate_series(1, 100) n;
        UPDATE clustering.counter SET revision = 100",
        )
        .await
        .unwrap();
    let at = store.put("k", "1".into(), None).await.unwrap();
    let mut watch = store.watch("", Revision::ZERO).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().revision, at);
}

#[tokio::test]
async fn a_change_whose_notification_is_lost_is_delivered_once_the_store_listens_again() {
    let server = common::start().await;
    let store = common::store(&server);
    store.check().await.unwrap();
    let mut watch = store.watch("k", Revision::ZERO).await.unwrap();
    assert!(watch.next().now_or_never().is_none());
    server
        .sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'clustering';
            SELECT clustering.commit('{}', '{}', '{}', '{k}', '{1}', '{NULL}', '{}')",
        )
        .await
        .unwrap();
    let batch = tokio::time::timeout(SECOND * 5, watch.next()).await.expect("read again at once");
    assert_eq!(batch.unwrap().unwrap().revision, Revision::new(1));
}

#[tokio::test]
async fn calls_and_watches_continue_after_a_restart_of_the_server() {
    let server = common::start().await;
    let store = common::store(&server);
    let at = store.put("k", "1".into(), None).await.unwrap();
    let mut watch = store.watch("k", at).await.unwrap();
    server.kill().await.unwrap();
    let error = store.read("").await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unreachable), "{error}");
    server.restart().await.unwrap();
    let since = Instant::now();
    let next = loop {
        match store.put("k", "2".into(), None).await {
            Ok(revision) => break revision,
            Err(error) => assert!(error.is_transient() && since.elapsed() < SECOND * 10, "{error}"),
        }
        tokio::time::sleep(SECOND / 50).await;
    };
    assert_eq!(watch.next().await.unwrap().unwrap().revision, next);
}

#[tokio::test]
async fn the_outcome_of_a_commit_whose_connection_broke_is_unknown() {
    let server = common::start().await;
    let proxy = Proxy::to(&server.address()).await.unwrap();
    let store =
        PostgresStore::new(common::config_at(proxy.endpoint().trim_start_matches("http://"))).unwrap();
    store.check().await.unwrap();
    proxy.hang();
    let commit = store.put("k", "1".into(), None);
    tokio::pin!(commit);
    assert!(tokio::time::timeout(SECOND / 5, &mut commit).await.is_err());
    proxy.cut();
    assert_eq!(commit.await.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
}

#[tokio::test]
async fn a_frozen_server_is_reported_in_time_and_everything_continues_when_it_resumes() {
    let server = common::start().await;
    let store = common::store(&server);
    let at = store.put("k", "1".into(), None).await.unwrap();
    server.pause().unwrap();
    let since = Instant::now();
    let (read, put) = tokio::join!(store.read("k"), store.put("k", "2".into(), None));
    assert!(since.elapsed() < SECOND * 3, "{:?}", since.elapsed());
    assert_eq!(read.unwrap_err().kind(), ErrorKind::Unreachable);
    assert_eq!(put.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    server.resume().unwrap();
    let mut watch = store.watch("k", at).await;
    while let Err(error) = watch {
        assert!(error.is_transient(), "{error}");
        tokio::time::sleep(SECOND / 50).await;
        watch = store.watch("k", at).await;
    }
    // The put was executed or not. Another one follows it in any case.
    let last = store.put("k", "3".into(), None).await.unwrap();
    let mut watch = watch.unwrap();
    while watch.next().await.unwrap().unwrap().revision != last {}
}

#[tokio::test]
async fn a_frozen_server_can_be_stopped_and_restarted() {
    let server = common::start().await;
    let store = common::store(&server);
    store.check().await.unwrap();
    server.pause().unwrap();
    tokio::time::timeout(SECOND * 20, server.restart())
        .await
        .expect("it stops although it is frozen")
        .unwrap();
    assert_eq!(server.sql("SELECT 1").await.unwrap(), "1");
}

#[tokio::test]
async fn a_call_that_waits_for_a_lock_ends_as_busy_and_renewals_do_not_wait() {
    let server = common::start().await;
    let store = common::store(&server);
    let lease = store.grant_lease(SECOND * 60).await.unwrap();
    // A forgotten session of an administrator.
    let config = format!("postgresql://postgres@{}/postgres", server.address());
    let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls).await.unwrap();
    let driver = tokio::spawn(connection);
    client.batch_execute("BEGIN; SELECT * FROM clustering.counter FOR UPDATE").await.unwrap();
    let commit = store.put("k", "1".into(), lease.id.into());
    tokio::pin!(commit);
    assert!(tokio::time::timeout(SECOND / 2, &mut commit).await.is_err());
    let since = Instant::now();
    assert_eq!(store.renew_lease(lease.id).await.unwrap(), lease.ttl);
    assert!(since.elapsed() < SECOND, "{:?}", since.elapsed());
    let error = commit.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    drop(client);
    driver.await.unwrap().unwrap();
    store.put("k", "1".into(), lease.id.into()).await.unwrap();
}

#[tokio::test]
async fn a_restored_backup_ends_watches_that_are_ahead_of_it() {
    let server = common::start().await;
    let store = common::store(&server);
    store.put("k", "1".into(), None).await.unwrap();
    let backup = server.backup().await.unwrap();
    let mut at = Revision::ZERO;
    for _ in 0..5 {
        at = eventually(&store, "k").await;
    }
    let mut watch = store.watch("k", at).await.unwrap();
    server.restore(&backup).await.unwrap();
    assert!(matches!(watch.next().await.unwrap(), Err(WatchEnd::Rewound { .. })));
    assert!(watch.next().await.is_none());
    // The advice for operators: then no watch can take a new change for one that it has seen.
    let mut watch = common::store(&server).watch("k", Revision::new(1)).await.unwrap();
    let moved: u64 = server.sql("SELECT clustering.after_restore()").await.unwrap().parse().unwrap();
    server.sql("NOTIFY clustering, '*'").await.unwrap();
    assert_eq!(watch.next().await.unwrap(), Err(WatchEnd::Compacted { compacted: Revision::new(moved) }));
    assert_eq!(eventually(&store, "k").await, Revision::new(moved + 1));
}

/// Puts the key, as soon as the server can be reached again.
async fn eventually(store: &PostgresStore, key: &str) -> Revision {
    let since = Instant::now();
    loop {
        match store.put(key, "x".into(), None).await {
            Ok(revision) => return revision,
            Err(error) => assert!(error.is_transient() && since.elapsed() < SECOND * 20, "{error}"),
        }
        tokio::time::sleep(SECOND / 50).await;
    }
}

#[tokio::test]
async fn old_changes_are_compacted_by_any_process_and_entries_stay() {
    let server = common::start().await;
    let store = common::store(&server);
    for number in 0..20 {
        store.put("k", format!("{number}").into(), None).await.unwrap();
    }
    // Compacts as the store does once a minute, but with other times.
    let compact = async |keep_ms: u32, grace_ms: u32| {
        server.sql(&format!("SELECT clustering.compact_old({keep_ms}, {grace_ms})")).await.unwrap()
    };
    let remaining = async || server.sql("SELECT count(*) FROM clustering.log").await.unwrap();
    compact(600_000, 0).await;
    assert_eq!(remaining().await, "20", "the changes are not that old");
    compact(0, 0).await;
    assert_eq!(remaining().await, "20", "open watches have time to move on");
    compact(0, 60_000).await;
    assert_eq!(remaining().await, "20", "the time is not over");
    compact(0, 0).await;
    assert_eq!(remaining().await, "0");
    assert_eq!(store.read("k").await.unwrap().entries[0].value, "19");
    let mut late = store.watch("k", Revision::new(19)).await.unwrap();
    let compacted = Revision::new(20);
    assert_eq!(late.next().await.unwrap(), Err(WatchEnd::Compacted { compacted }));
}

/// Checks that the configuration is refused at once, with these parts in the message.
async fn refused(config: PostgresConfig, parts: &[&str]) {
    let store = PostgresStore::connect(config).await.unwrap();
    let since = Instant::now();
    let error = store.check().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    for part in parts {
        assert!(error.to_string().contains(part), "{error} does not say {part}");
    }
    assert!(since.elapsed() < SECOND, "{:?}", since.elapsed());
}

#[tokio::test]
async fn missing_tables_databases_users_and_rights_are_refused_with_advice() {
    let server = PostgresServer::start().await.unwrap();
    refused(common::config(&server), &["PostgresStore::install"]).await;
    let at = |rest: &str| PostgresConfig::parse(&format!("postgresql://{rest}?sslmode=disable")).unwrap();
    let address = server.address();
    refused(
        at(&format!("postgres@{address}/missing")),
        &["\"missing\" does not exist", "create the database"],
    )
    .await;
    refused(at(&format!("stranger@{address}/postgres")), &["\"stranger\" does not exist", "pg_hba.conf"])
        .await;

    // Two services that start at the same time may both install.
    let config = common::config(&server);
    tokio::try_join!(PostgresStore::install(&config), PostgresStore::install(&config)).unwrap();
    server.sql("CREATE ROLE service LOGIN").await.unwrap();
    let service = at(&format!("service@{address}/postgres"));
    refused(service.clone(), &["permission denied", "grant the user the rights"]).await;
    assert_eq!(PostgresStore::install(&service).await.unwrap_err().kind(), ErrorKind::Refused);
    let rights = "GRANT USAGE ON SCHEMA clustering TO service;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA clustering TO service";
    server.sql(rights).await.unwrap();
    let store = PostgresStore::connect(service).await.unwrap();
    store.check().await.unwrap();
    let lease = store.grant_lease(SECOND * 10).await.unwrap();
    store.commit(Txn::new().guard(Guard::absent("k")).put("k", "", lease.id)).await.unwrap();
    store.revoke_lease(lease.id).await.unwrap();
}

#[tokio::test]
async fn a_server_without_free_connections_is_busy() {
    let server = common::start_with(&["max_connections=5", "superuser_reserved_connections=0"]).await;
    let stores = [(); 4].map(|()| Arc::new(common::store(&server)));
    let checks = futures_util::future::join_all(stores.iter().map(|store| store.check())).await;
    let failed: Vec<_> = checks.into_iter().filter_map(Result::err).collect();
    assert!(!failed.is_empty());
    for error in failed {
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
        assert!(error.to_string().contains("too many clients"), "{error}");
    }
}

#[tokio::test]
async fn schemas_are_stores_of_their_own() {
    let server = common::start().await;
    let mut config = common::config(&server);
    config.schema = "other_team".into();
    PostgresStore::install(&config).await.unwrap();
    let (one, other) = (common::store(&server), PostgresStore::new(config).unwrap());
    let at = one.put("k", "1".into(), None).await.unwrap();
    assert_eq!(at, Revision::new(1));
    assert_eq!(other.read("").await.unwrap().entries, []);
    assert_eq!(other.put("k", "2".into(), None).await.unwrap(), Revision::new(1));
}

#[tokio::test]
async fn certificates_are_verified_and_clients_may_have_one() {
    let ca = || {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    };
    let (authority, stranger) = (ca(), ca());
    let issue = |name: &str| {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &authority).unwrap().pem(), key.serialize_pem())
    };
    let server = common::start().await;
    let (certificate, key) = issue("localhost");
    let hba = "hostssl all all all cert\nhostnossl all all all trust\n".to_owned();
    let files = [
        ("ssl_cert_file", certificate),
        ("ssl_key_file", key),
        ("ssl_ca_file", authority.as_ref().pem()),
        ("hba_file", hba),
    ];
    for (setting, content) in files {
        let path = server.file(setting, &content).unwrap();
        server.sql(&format!("ALTER SYSTEM SET {setting} = '{}'", path.display())).await.unwrap();
    }
    server.sql("ALTER SYSTEM SET ssl = on").await.unwrap();
    server.restart().await.unwrap();

    let port = server.address().rsplit_once(':').unwrap().1.to_owned();
    let at = |host: &str, ca: &str| {
        let url =
            format!("postgresql://postgres@{host}:{port}/postgres?sslmode=verify-full&sslrootcert={ca}");
        PostgresConfig::parse(&url).unwrap()
    };
    let own = server.file("own.crt", &authority.as_ref().pem()).unwrap().display().to_string();
    let other = server.file("other.crt", &stranger.as_ref().pem()).unwrap().display().to_string();
    refused(at("127.0.0.1", &own), &["sslrootcert"]).await;
    refused(at("localhost", &other), &["sslrootcert"]).await;
    refused(at("localhost", &own), &["valid client certificate", "pg_hba.conf"]).await;
    let (certificate, key) = issue("postgres");
    let mut config = at("localhost", &own);
    config.identity =
        Some((server.file("client.crt", &certificate).unwrap(), server.file("client.key", &key).unwrap()));
    PostgresStore::connect(config).await.unwrap().check().await.unwrap();

    let plain = common::start().await;
    let mut tls_only = at("localhost", &own);
    tls_only.server = common::config(&plain).server;
    tls_only.server.ssl_mode(tokio_postgres::config::SslMode::Require);
    refused(tls_only, &["does not support TLS", "sslmode"]).await;
}
