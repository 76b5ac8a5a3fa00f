//! Authentication: the permissions that suffice, the errors of rejected calls, and the replacement of tokens.

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

#[path = "common/users.rs"]
mod users;

use std::time::{Duration, Instant};

use clustering_etcd::{
    Clustering, Credentials, EtcdStore, Keyspace, Namespace, NodeName,
    store::{CoordinationStore, CoordinationStoreExt, ErrorKind, Guard, StoreError, Txn},
};
use clustering_testkit::etcd::EtcdServer;
use etcd_client::{Permission, PermissionType};
use futures_util::{StreamExt, future::join_all};
use users::{PASSWORD, PREFIX, USER};

/// Time limit for a rejection, which takes one round trip and perhaps one login. Far less than a timeout, and enough
/// for a busy machine.
const AT_ONCE: Duration = Duration::from_millis(800);

async fn store(etcd: &EtcdServer) -> EtcdStore {
    EtcdStore::connect(users::config(etcd)).await.expect("a valid configuration")
}

/// Checks that the call was refused at once, with these parts in its message. Returns the message.
#[track_caller]
fn refused<T>(began: Instant, result: Result<T, StoreError>, parts: &[&str]) -> String {
    let took = began.elapsed();
    let Err(error) = result else { panic!("the call succeeded") };
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{text} does not say {part}");
    }
    assert!(!text.contains(PASSWORD) && !format!("{error:?}").contains(PASSWORD), "{text}");
    assert!(took < AT_ONCE, "{took:?} for {text}");
    text
}

/// Grants exactly the permissions of the documented commands to the role. Returns a store of a user with that role.
async fn documented(etcd: &EtcdServer) -> EtcdStore {
    let mut root = etcd.client().await.unwrap();
    users::withdraw(&mut root).await;
    let documented = include_str!("../src/docs/production.md");
    let prefixes: Vec<_> =
        documented.lines().filter_map(|line| line.split("ingest --prefix=true readwrite ").nth(1)).collect();
    assert!(prefixes.iter().all(|prefix| prefix.starts_with(PREFIX) && *prefix != PREFIX), "{prefixes:?}");
    assert_eq!(prefixes.len(), 3);
    for prefix in prefixes {
        let permission = Permission::new(PermissionType::Readwrite, prefix).with_prefix();
        root.role_grant_permission(USER, permission).await.unwrap();
    }
    let mut config = users::config(etcd);
    config.prefix = String::new();
    config.ttl = Some(Duration::from_secs(7));
    EtcdStore::connect(config).await.unwrap()
}

#[tokio::test]
async fn the_documented_permissions_cover_no_other_namespace() {
    let etcd = users::server(EtcdServer::builder()).await;
    let store = documented(&etcd).await;
    let own = PREFIX.trim_end_matches('/');
    let others =
        ["b", "viewer", "view-1", "already", "ready-1", "prehistory", "history-1", "history0", "nodes", "7"];
    let nested = others.iter().map(|other| format!("{own}/{other}"));
    let others = nested.chain([format!("{own}0"), format!("{own}-1"), "telemetry".into(), "ingest".into()]);
    let node = NodeName::parse("n").unwrap();
    let keys = |namespace: &str| {
        let keys = Keyspace::new(Namespace::parse(namespace).unwrap());
        [
            keys.node_key(&node),
            keys.readiness_key(&node),
            keys.history_key(7),
            keys.election_key().clone(),
            keys.version_key().clone(),
        ]
    };
    for key in keys(own) {
        store.put(&key, "v".into(), None).await.unwrap();
        store.read(&key).await.unwrap();
    }
    for other in others {
        for key in keys(&other) {
            refused(Instant::now(), store.put(&key, "v".into(), None).await, &[USER, &key]);
            refused(Instant::now(), store.delete(&key).await, &[USER, &key]);
            refused(Instant::now(), store.read(&key).await, &[USER, &key]);
        }
    }
}

#[tokio::test]
async fn a_cluster_needs_no_other_permissions_than_the_documented_ones() {
    let etcd = users::server(EtcdServer::builder()).await;
    let mut root = etcd.client().await.unwrap();
    let store = documented(&etcd).await;
    let node = |name: &str| {
        store.node().namespace(PREFIX.trim_end_matches('/')).name(name).uri("http://127.0.0.1").start()
    };
    let (one, two) = (node("one").await.unwrap(), node("two").await.unwrap());
    let version = two.wait_stable().await.unwrap();
    one.status().wait_for(|status| status.stable_version() == Some(version)).await.unwrap();
    assert_eq!(one.nodes().len(), 2);

    // The leases of the nodes have the configured TTL.
    for lease in root.leases().await.unwrap().leases() {
        let lease = root.lease_time_to_live(lease.id(), None).await.unwrap();
        assert_eq!(lease.granted_ttl(), 7);
    }

    let version = one.cluster_change().await.unwrap();
    assert_eq!(one.history().await.unwrap()[0].version, version);
    one.stop().await.unwrap();
    two.stop().await.unwrap();
}

#[tokio::test]
async fn a_wrong_password_is_reported_after_one_login() {
    let etcd = users::server(EtcdServer::builder()).await;
    for (user, password) in [(USER, "wrong"), ("nobody", PASSWORD)] {
        let mut config = users::config(&etcd);
        config.credentials = Some(Credentials::new(user, password));
        // Another member would reject the password too.
        config.endpoints = vec![config.endpoints[0].clone(); 3];
        let before = users::calls(&etcd, "Authenticate").await;
        let began = Instant::now();
        let text = refused(
            began,
            EtcdStore::new(config).unwrap().check().await,
            &["wrong user or password", &format!("{user:?}"), "ETCDCTL_PASSWORD"],
        );
        assert!(!text.contains("lacks a permission"), "{text}");
        assert_eq!(users::calls(&etcd, "Authenticate").await - before, 1.0, "logins are expensive for etcd");
    }
}

#[tokio::test]
async fn missing_credentials_are_reported() {
    let etcd = users::server(EtcdServer::builder()).await;
    let mut config = users::config(&etcd);
    config.credentials = None;
    let parts = ["etcd requires a user", "ETCDCTL_USER"];
    refused(Instant::now(), EtcdStore::new(config).unwrap().check().await, &parts);
}

#[tokio::test]
async fn an_expired_token_is_replaced_without_failing_a_call() {
    let folder = tempfile::tempdir().unwrap();
    let etcd = users::server(users::short_tokens(&folder)).await;
    let store = store(&etcd).await;
    let lease = store.grant_lease(Duration::from_secs(60)).await.unwrap();
    let at = store.put("k", "v".into(), Some(lease.id)).await.unwrap();
    let mut watch = store.watch("", at).await.unwrap();
    store.renew_lease(lease.id).await.unwrap();

    // Each kind of call is made with an expired token.
    users::tokens_expire(&etcd).await;
    let at =
        store.commit(Txn::new().guard(Guard::modified_at("k", at)).put("k", "w", lease.id)).await.unwrap();
    users::tokens_expire(&etcd).await;
    assert_eq!(store.read("").await.unwrap().entries[0].modified, at);
    users::tokens_expire(&etcd).await;
    drop(store.watch("", at).await.unwrap());
    users::tokens_expire(&etcd).await;
    let other = store.grant_lease(Duration::from_secs(60)).await.unwrap();
    users::tokens_expire(&etcd).await;
    store.revoke_lease(other.id).await.unwrap();
    // Streams that were opened before the token expired still work.
    users::tokens_expire(&etcd).await;
    assert_eq!(store.renew_lease(lease.id).await.unwrap(), lease.ttl);
    assert_eq!(watch.next().await.expect("the watch has not ended").unwrap().revision, at);

    // Concurrent calls share one login.
    users::tokens_expire(&etcd).await;
    let before = users::calls(&etcd, "Authenticate").await;
    let puts = join_all((0..20).map(|n| store.put(["a", "b"][n % 2], "v".into(), None))).await;
    assert!(puts.iter().all(Result::is_ok), "{puts:?}");
    assert_eq!(users::calls(&etcd, "Authenticate").await - before, 1.0);
}

#[tokio::test]
async fn a_token_is_replaced_after_a_restart_of_the_member() {
    let etcd = users::server(EtcdServer::builder()).await;
    let store = store(&etcd).await;
    store.put("k", "v".into(), None).await.unwrap();
    // An orderly shutdown: after a crash, etcd would recover the tokens from its log.
    etcd.stop().await.unwrap();
    etcd.restart().await.unwrap();
    let before = users::calls(&etcd, "Authenticate").await;
    store.put("k", "v".into(), None).await.unwrap();
    assert_eq!(users::calls(&etcd, "Authenticate").await - before, 1.0, "the member still knew the token");
}

#[tokio::test]
async fn calls_succeed_at_the_other_members_while_each_member_is_down_in_turn() {
    let etcd = EtcdServer::builder().start_cluster(3).await.unwrap();
    users::introduce(&etcd[0]).await;
    etcd[1].log_in("root", "root");
    etcd[2].log_in("root", "root");
    let mut config = users::config(&etcd[0]);
    config.endpoints = etcd.endpoints().iter().map(|endpoint| endpoint.parse().unwrap()).collect();
    let store = EtcdStore::connect(config).await.unwrap();
    for member in etcd.members() {
        member.kill().await.unwrap();
        etcd.wait_for_leader().await.unwrap();
        etcd.wait_healthy().await.unwrap();
        let at = store.put("k", "v".into(), None).await.unwrap();
        assert!(store.read("").await.unwrap().revision >= at);
        member.restart().await.unwrap();
        etcd.wait_healthy().await.unwrap();
    }
}

#[tokio::test]
async fn a_token_is_replaced_after_a_change_of_users_and_roles() {
    let folder = tempfile::tempdir().unwrap();
    let etcd = users::server(users::tokens(&folder, "10m")).await;
    let store = store(&etcd).await;
    let at = store.put("k", "v".into(), None).await.unwrap();

    etcd.client().await.unwrap().role_add("one").await.unwrap();
    store.put("k", "v".into(), None).await.unwrap();
    etcd.client().await.unwrap().role_add("two").await.unwrap();
    store.read("").await.unwrap();
    etcd.client().await.unwrap().role_add("three").await.unwrap();
    let mut watch = store.watch("", at).await.unwrap();
    assert!(watch.next().await.expect("the watch has not ended").is_ok());
}

#[tokio::test]
async fn a_missing_permission_is_reported_with_the_operation_and_its_keys() {
    let etcd = users::server(EtcdServer::builder()).await;
    let mut config = users::config(&etcd);
    config.prefix = "elsewhere/".into();
    // Another member would reject the call too.
    config.endpoints = vec![config.endpoints[0].clone(); 3];
    let store = EtcdStore::connect(config).await.unwrap();
    let denied = format!("the user {USER:?} lacks a permission");

    let before = users::calls(&etcd, "Range").await;
    let began = Instant::now();
    let text = refused(
        began,
        store.read("k/").await,
        &["read at", &denied, "read on all keys under \"elsewhere/k/\""],
    );
    assert!(!text.contains("password"), "{text}");
    assert_eq!(
        users::calls(&etcd, "Range").await - before,
        1.0,
        "a denied call must not be made again at another member"
    );
    let began = Instant::now();
    let watch = store.watch("k/", 0.into()).await;
    refused(began, watch, &["watch at", &denied, "read on all keys under \"elsewhere/k/\""]);
    let began = Instant::now();
    let txn = Txn::new().guard(Guard::absent("a")).put("b", "v", None).delete("c");
    let parts =
        ["commit at", &denied, "read on \"elsewhere/a\" and write on \"elsewhere/b\", \"elsewhere/c\""];
    refused(began, store.commit(txn).await, &parts);

    // A lease of another user, with a key of that user.
    let mut root = etcd.client().await.unwrap();
    let lease = root.lease_grant(60, None).await.unwrap().id();
    let attached = etcd_client::PutOptions::new().with_lease(lease);
    root.put("elsewhere/theirs", "v", Some(attached)).await.unwrap();
    let lease = clustering_etcd::store::LeaseId::new(lease.cast_unsigned());
    let began = Instant::now();
    let parts = ["revoke_lease at", &denied, &format!("write on every key that lease {lease} holds")];
    refused(began, store.revoke_lease(lease).await, &parts);
}

#[tokio::test]
async fn open_watches_and_leases_outlive_a_revoked_permission() {
    let etcd = users::server(EtcdServer::builder()).await;
    let store = store(&etcd).await;
    let lease = store.grant_lease(Duration::from_secs(60)).await.unwrap();
    let at = store.put("k", "v".into(), Some(lease.id)).await.unwrap();
    store.renew_lease(lease.id).await.unwrap();
    let mut watch = store.watch("", at).await.unwrap();

    let mut root = etcd.client().await.unwrap();
    users::withdraw(&mut root).await;
    let denied = format!("the user {USER:?} lacks a permission");
    refused(Instant::now(), store.put("k", "w".into(), None).await, &["commit at", &denied]);
    refused(Instant::now(), store.watch("", at).await, &["watch at", &denied]);
    // Etcd does not check permissions of open watches and renewals, as documented.
    root.put(format!("{PREFIX}k"), "root's", None).await.unwrap();
    let batch = watch.next().await.expect("the watch has not ended").unwrap();
    assert_eq!(batch.changes[0].key().as_str(), "k");
    assert_eq!(store.renew_lease(lease.id).await.unwrap(), lease.ttl);

    users::grant(&mut root).await;
    store.put("k", "w".into(), None).await.unwrap();
}

#[tokio::test]
async fn a_changed_password_is_reported_after_one_login() {
    let etcd = users::server(EtcdServer::builder()).await;
    let store = store(&etcd).await;
    let lease = store.grant_lease(Duration::from_secs(60)).await.unwrap();
    store.put("k", "v".into(), Some(lease.id)).await.unwrap();

    let mut root = etcd.client().await.unwrap();
    root.user_change_password(USER, "changed").await.unwrap();
    let before = users::calls(&etcd, "Authenticate").await;
    // Concurrent calls share one failed login.
    let began = Instant::now();
    let puts = join_all((0..10).map(|_| store.put("k", "w".into(), None))).await;
    for put in puts {
        refused(began, put, &["commit at", "wrong user or password", USER]);
    }
    assert_eq!(users::calls(&etcd, "Authenticate").await - before, 1.0, "logins are expensive for etcd");
    assert_eq!(store.renew_lease(lease.id).await.unwrap(), lease.ttl);

    root.user_change_password(USER, PASSWORD).await.unwrap();
    store.put("k", "w".into(), None).await.unwrap();
}

/// Starts the nodes of a cluster at the same time, each on its own store as if it had its own process.
async fn crowd(etcd: &EtcdServer, size: usize) -> Vec<(EtcdStore, Clustering)> {
    let namespace = PREFIX.trim_end_matches('/');
    let start = |number| async move {
        let mut config = users::config(etcd);
        config.prefix = String::new();
        let store = EtcdStore::new(config).expect("a valid configuration");
        let node = store.node().namespace(namespace).name(format!("n{number}")).uri("http://127.0.0.1");
        let node = node.start().await.expect("the node may join");
        (store, node)
    };
    join_all((0..size).map(start)).await
}

/// Etcd finishes the work of a login (bcrypt) even if the client has given up. Repeating a slow login would make etcd
/// even slower.
#[tokio::test]
async fn many_nodes_that_start_or_lose_their_tokens_together_log_in_once_each() {
    const SIZE: usize = 60;
    let etcd = users::server(EtcdServer::builder()).await;
    let before = users::calls(&etcd, "Authenticate").await;
    let began = Instant::now();
    let nodes = crowd(&etcd, SIZE).await;
    println!("measured: {SIZE} nodes with a user are up after {:?}", began.elapsed());
    assert_eq!(users::calls(&etcd, "Authenticate").await - before, SIZE as f64);

    // After an orderly restart etcd has lost all tokens.
    etcd.stop().await.unwrap();
    etcd.restart().await.unwrap();
    let began = Instant::now();
    let write = |number: usize, store: EtcdStore| async move {
        let key = format!("{PREFIX}{number}");
        while store.put(key.as_str(), "v".into(), None).await.is_err_and(|error| error.is_transient()) {}
    };
    join_all(nodes.iter().enumerate().map(|(number, (store, _))| write(number, store.clone()))).await;
    println!("measured: all nodes can write again {:?} after a restart of etcd", began.elapsed());
    let logins = users::calls(&etcd, "Authenticate").await;
    assert!(logins <= SIZE as f64, "{logins} logins of {SIZE} stores");
}

#[tokio::test]
async fn a_login_that_takes_longer_than_a_call_is_not_repeated() {
    // With this cost, a login takes at least half a second.
    let etcd = users::server(EtcdServer::builder().args(["--bcrypt-cost=13"])).await;
    let mut config = users::config(&etcd);
    config.connect_timeout = Duration::from_millis(100);
    config.request_timeout = Duration::from_millis(200);
    // A call at another member would have to log in there.
    config.endpoints = vec![config.endpoints[0].clone(); 3];
    let store = EtcdStore::new(config).unwrap();
    let before = users::calls(&etcd, "Authenticate").await;
    let call = || async {
        let mut pending = 0;
        while let Err(error) = store.check().await {
            assert!(error.is_transient(), "{error}");
            pending += u32::from(error.to_string().contains("has not answered the login yet"));
        }
        pending
    };
    let pending = join_all((0..10).map(|_| call())).await;
    assert!(
        pending.iter().all(|&pending| pending > 0),
        "some calls did not have to wait for the login: {pending:?}"
    );
    assert_eq!(users::calls(&etcd, "Authenticate").await - before, 1.0);
}

#[tokio::test]
async fn calls_with_a_wrong_password_cause_few_logins() {
    let etcd = users::server(EtcdServer::builder()).await;
    let mut config = users::config(&etcd);
    config.credentials = Some(Credentials::new(USER, "wrong"));
    // Etcd takes long to compare passwords on a busy machine, and a call that waits for too long is not refused but busy.
    config.request_timeout = Duration::from_secs(30);
    let store = EtcdStore::new(config).unwrap();
    let before = users::calls(&etcd, "Authenticate").await;
    let began = Instant::now();
    let mut calls = 0;
    while began.elapsed() < Duration::from_secs(3) {
        let refused = join_all((0..10).map(|_| store.check())).await;
        let is_refused =
            |check: &Result<(), StoreError>| check.as_ref().is_err_and(|e| e.kind() == ErrorKind::Refused);
        assert!(refused.iter().all(is_refused), "{refused:?}");
        calls += refused.len();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let logins = users::calls(&etcd, "Authenticate").await - before;
    // Pauses double from 0.1 s.
    assert!(logins <= 8.0, "{logins} logins for {calls} calls within {:?}", began.elapsed());
}
