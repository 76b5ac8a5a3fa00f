//! Behaviour that is specific to etcd, beyond the store contract.

mod common;

use std::time::Duration;

use clustering_core::{
    Event,
    store::{
        Batch, Change, CoordinationStore, CoordinationStoreExt, ErrorKind, Guard, Revision, Txn, WatchEnd,
        WatchStream,
    },
};
use clustering_etcd::{Credentials, EtcdConfig, EtcdStore, Pem, Tls};
use clustering_testkit::etcd::Etcd;
use clustering_testkit::proxy::Proxy;
use futures_util::StreamExt;
use tokio::{net::TcpListener, time::Instant};

/// Returns a prefix that no other test and no other run uses.
fn prefix(test: &str) -> String {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("a clock after 1970");
    format!("server/{test}/{}/", now.as_nanos())
}

/// Returns a store with a prefix of its own.
async fn store(etcd: &dyn Etcd, test: &str) -> EtcdStore {
    let mut config = common::config(etcd);
    config.prefix = prefix(test);
    EtcdStore::connect(config).await.expect("a valid configuration")
}

/// Returns the next item of a watch, or fails after 10 s.
async fn next(watch: &mut WatchStream) -> Result<Batch, WatchEnd> {
    let next = tokio::time::timeout(Duration::from_secs(10), watch.next());
    next.await.expect("the watch yields an item within 10 s").expect("the watch has not ended")
}

#[tokio::test]
async fn a_compacted_deletion_is_not_skipped() {
    let etcd = common::etcd().await;
    // Up to 3.5.15, etcd opens a watch that starts at the compacted revision as if nothing were missing, although
    // deletions at that revision are lost.
    let store = store(&*etcd, "tombstone").await;
    store.put("k", "v".into(), None).await.unwrap();
    let deleted = store.delete("k").await.unwrap();
    let after = Revision::new(deleted.get() - 1);
    etcd.compact_to(deleted).await.unwrap();

    let end = next(&mut store.watch("k", after).await.unwrap()).await;
    let Err(WatchEnd::Compacted { compacted }) = end else {
        panic!("the deletion is lost, but the watch yields {end:?}")
    };
    assert!(compacted >= deleted, "{compacted} is before {deleted}");
}

#[tokio::test]
async fn stores_with_different_prefixes_do_not_see_each_others_keys() {
    let etcd = common::etcd().await;
    let (ours, theirs) = (store(&*etcd, "prefix-ours").await, store(&*etcd, "prefix-theirs").await);
    let from = ours.read("").await.unwrap().revision;
    let mut watch = ours.watch("", from).await.unwrap();
    theirs.put("k", "theirs".into(), None).await.unwrap();
    let at = ours.put("k", "ours".into(), None).await.unwrap();

    let seen = ours.read("").await.unwrap();
    assert_eq!(seen.entries.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["k"]);
    let batch = next(&mut watch).await.unwrap();
    assert_eq!(batch, Batch::new(at, [Change::Put(seen.entries[0].clone())]));
    // Guards refer to our key, which was created later than theirs.
    let guarded = Txn::new().guard(Guard::created_at("k", at)).delete("k");
    ours.commit(guarded).await.unwrap();
    assert_eq!(theirs.get("k").await.unwrap().expect("their key exists").value, "theirs");
}

#[tokio::test]
async fn keys_of_others_that_are_not_utf8_are_skipped() {
    let etcd = common::etcd().await;
    let store = store(&*etcd, "foreign").await;
    let from = store.read("").await.unwrap().revision;
    let mut watch = store.watch("", from).await.unwrap();
    let mut foreign = store.config().prefix.clone().into_bytes();
    foreign.push(0xff);
    etcd.client().await.unwrap().put(foreign, "v", None).await.unwrap();
    let at = store.put("k", "v".into(), None).await.unwrap();

    let batch = next(&mut watch).await.unwrap();
    assert_eq!((batch.revision, batch.changes.len()), (at, 1));
    assert_eq!(store.read("").await.unwrap().entries.len(), 1);
}

#[tokio::test]
async fn a_ttl_is_rounded_up() {
    let etcd = common::etcd().await;
    let store = store(&*etcd, "ttl").await;
    let lease = store.grant_lease(Duration::from_millis(2_001)).await.unwrap();
    assert_eq!(lease.ttl, Duration::from_secs(3));
    assert_eq!(store.renew_lease(lease.id).await.unwrap(), lease.ttl);
    store.revoke_lease(lease.id).await.unwrap();

    let error = store.grant_lease(Duration::MAX).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

#[tokio::test]
async fn more_leases_can_be_renewed_than_the_pool_has_streams() {
    let etcd = common::etcd().await;
    let store = store(&*etcd, "streams").await;
    let mut leases = Vec::new();
    for _ in 0..20 {
        leases.push(store.grant_lease(Duration::from_secs(60)).await.unwrap());
    }
    for _ in 0..3 {
        for lease in &leases {
            assert_eq!(store.renew_lease(lease.id).await.unwrap(), lease.ttl);
        }
    }
    // A revoked lease is not mistaken for another one, and two renewals of one lease may run concurrently.
    let last = leases.pop().expect("20 of them");
    for lease in leases {
        etcd.client().await.unwrap().lease_revoke(i64::try_from(lease.id.get()).unwrap()).await.unwrap();
        let error = store.renew_lease(lease.id).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LeaseNotFound, "{error}");
    }
    let (one, two) = tokio::join!(store.renew_lease(last.id), store.renew_lease(last.id));
    assert_eq!((one.unwrap(), two.unwrap()), (last.ttl, last.ttl));
    store.revoke_lease(last.id).await.unwrap();
}

#[tokio::test]
async fn calls_succeed_although_one_member_is_dead() {
    let etcd = common::etcd().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = listener.local_addr().unwrap().to_string();
    drop(listener);
    // A store starts with a random member, so try several stores.
    for _ in 0..8 {
        let mut config = EtcdConfig::new([dead.clone()].into_iter().chain(etcd.endpoints())).unwrap();
        config.prefix = prefix("dead");
        let store = EtcdStore::connect(config).await.unwrap();
        let lease = store.grant_lease(Duration::from_secs(60)).await.unwrap();
        for _ in 0..5 {
            store.put("k", "v".into(), Some(lease.id)).await.unwrap();
            store.read("k").await.unwrap();
            store.renew_lease(lease.id).await.unwrap();
        }
        store.revoke_lease(lease.id).await.unwrap();
    }
}

#[tokio::test]
async fn a_silent_member_delays_only_one_call() {
    let etcd = common::etcd().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    for _ in 0..6 {
        let mut config = EtcdConfig::new([address.clone()].into_iter().chain(etcd.endpoints())).unwrap();
        config.prefix = prefix("silent");
        let store = EtcdStore::new(config).unwrap();
        // The caller's timeout is shorter than that of the store.
        let mut timeouts = 0;
        while tokio::time::timeout(Duration::from_millis(200), store.read("")).await.is_err() {
            timeouts += 1;
        }
        assert!(timeouts <= 1, "{timeouts} calls went to the silent member");
        let began = Instant::now();
        store.put("k", "v".into(), None).await.unwrap();
        store.delete("k").await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(1), "another call went to the silent member");
    }
}

#[tokio::test]
async fn credentials_for_a_server_without_users_are_refused() {
    let etcd = common::etcd().await;
    let mut config = common::config(&*etcd);
    config.credentials = Some(Credentials::new("somebody", "hunter2"));
    let error = EtcdStore::new(config).unwrap().check().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    let text = format!("{error} {error:?}");
    assert!(text.contains("authentication is not enabled") && !text.contains("hunter2"), "{text}");
}

/// Returns an address on which nothing listens.
async fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port of loopback");
    listener.local_addr().expect("a bound socket has an address").to_string()
}

#[tokio::test]
async fn a_node_can_be_started_while_etcd_is_away() {
    let config = EtcdConfig::new([nowhere().await]).unwrap();
    let store = EtcdStore::connect(config).await.expect("a store can be created while etcd is away");
    let began = Instant::now();
    let error = store.check().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    assert!(error.to_string().contains("check at"), "{error}");
    assert!(
        began.elapsed() < store.config().request_timeout + Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );

    // The node joins when etcd answers.
    let etcd = common::etcd().await;
    let address = etcd.endpoints()[0].trim_start_matches("http://").to_owned();
    let proxy = Proxy::to(&address).await.unwrap();
    proxy.cut();
    let store = EtcdStore::connect(EtcdConfig::new([proxy.endpoint()]).unwrap()).await.unwrap();
    let namespace = prefix("away");
    let builder = store.node().namespace(namespace.trim_end_matches('/')).name("a").uri("http://a.test");
    let mut events = builder.events();
    let start = tokio::spawn(builder.start());
    loop {
        let event = tokio::time::timeout(Duration::from_secs(20), events.recv()).await.unwrap().unwrap();
        if matches!(&*event, Event::StoreAway { .. }) {
            break;
        }
    }
    proxy.heal();
    store.check().await.unwrap();
    let node = tokio::time::timeout(Duration::from_secs(20), start).await.unwrap().unwrap().unwrap();
    node.stop().await.unwrap();
}

#[tokio::test]
async fn an_invalid_configuration_is_rejected_without_connecting() {
    let mut no_file = EtcdConfig::new([nowhere().await]).unwrap();
    let mut no_user = no_file.clone();
    no_file.tls = Some(Tls::new().ca(Pem::file("/no/such/file")));
    no_user.credentials = Some(Credentials::new("", "hunter2"));
    for (config, says) in [(no_file, "tls.ca"), (no_user, "the user must not be empty")] {
        let error = EtcdStore::connect(config).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[tokio::test]
async fn reading_keys_does_not_transfer_the_values() {
    let etcd = common::etcd().await;
    let namespace = prefix("large");
    let address = etcd.endpoints()[0].trim_start_matches("http://").to_owned();
    let mut client = etcd.client().await.unwrap();
    for number in 0..20 {
        client.put(format!("{namespace}{number:02}"), vec![b'x'; 1 << 20], None).await.unwrap();
    }
    let proxy = Proxy::to(&address).await.unwrap();
    let mut config = EtcdConfig::new([proxy.endpoint()]).unwrap();
    (config.prefix, config.page) = (namespace, 7);
    let store = EtcdStore::new(config).unwrap();
    let keys = store.read_keys("").await.unwrap();
    let expected: Vec<_> = (0..20).map(|number| format!("{number:02}")).collect();
    assert_eq!(keys.iter().map(|key| key.as_str()).collect::<Vec<_>>(), expected);
    // The same applies to a store behind `Arc`.
    let wrapped: std::sync::Arc<dyn CoordinationStore> = std::sync::Arc::new(store);
    assert_eq!(wrapped.read_keys("1").await.unwrap().len(), 10);
    assert!(proxy.received() < 100_000, "{} bytes for 30 keys", proxy.received());
}
