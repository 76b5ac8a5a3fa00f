//! What is particular to etcd, beyond the contract.

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
use clustering_proofs::proxy::Proxy;
use clustering_testkit::etcd::Etcd;
use futures_util::StreamExt;
use tokio::{net::TcpListener, time::Instant};

/// A prefix that no other test, nor another run of this one, has.
fn prefix(test: &str) -> String {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("a clock after 1970");
    format!("server/{test}/{}/", now.as_nanos())
}

/// A store that sees its own keys only.
async fn store(etcd: &dyn Etcd, test: &str) -> EtcdStore {
    let mut config = common::config(etcd);
    config.prefix = prefix(test);
    EtcdStore::connect(config).await.expect("the test server answers")
}

/// The next item of a watch, which has to come in time.
async fn next(watch: &mut WatchStream) -> Result<Batch, WatchEnd> {
    let next = tokio::time::timeout(Duration::from_secs(10), watch.next());
    next.await.expect("the watch says something within 10 s").expect("the watch has not ended")
}

#[tokio::test]
async fn a_compacted_deletion_is_not_skipped() {
    let etcd = common::etcd().await;
    // Etcd up to 3.5.15 opens a watch from the revision up to which was compacted as if nothing were missing, though a
    // deletion of that revision is gone.
    let store = store(&*etcd, "tombstone").await;
    store.put("k", "v".into(), None).await.unwrap();
    let deleted = store.delete("k").await.unwrap();
    let after = Revision::new(deleted.get() - 1);
    etcd.compact_to(deleted).await.unwrap();

    let end = next(&mut store.watch("k", after).await.unwrap()).await;
    let Err(WatchEnd::Compacted { compacted }) = end else { panic!("the deletion is gone, but: {end:?}") };
    assert!(compacted >= deleted, "{compacted} is before {deleted}");
}

#[tokio::test]
async fn a_prefix_separates_and_does_not_show() {
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
    // Guards are about our key, which was created later than theirs.
    let guarded = Txn::new().guard(Guard::created_at("k", at)).delete("k");
    ours.commit(guarded).await.unwrap();
    assert_eq!(theirs.get("k").await.unwrap().expect("theirs stands").value, "theirs");
}

#[tokio::test]
async fn foreign_keys_that_are_not_utf8_are_left_out() {
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
async fn more_leases_than_kept_streams_can_be_renewed() {
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
    // Each by its own stream, and all streams by one.
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
async fn a_dead_member_does_not_matter() {
    let etcd = common::etcd().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = listener.local_addr().unwrap().to_string();
    drop(listener);
    // Where a store begins is left to chance: several of them.
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
async fn a_silent_member_is_left_after_one_call() {
    let etcd = common::etcd().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    for _ in 0..6 {
        let mut config = EtcdConfig::new([address.clone()].into_iter().chain(etcd.endpoints())).unwrap();
        config.prefix = prefix("silent");
        let store = EtcdStore::new(config).unwrap();
        // The caller's patience is shorter than the store's.
        let mut gave_up = 0;
        while tokio::time::timeout(Duration::from_millis(200), store.read("")).await.is_err() {
            gave_up += 1;
        }
        assert!(gave_up <= 1, "{gave_up} calls met the silent member");
        let began = Instant::now();
        store.put("k", "v".into(), None).await.unwrap();
        store.delete("k").await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(1), "the silent member was met again");
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

/// An address at which nothing listens.
async fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port of loopback");
    listener.local_addr().expect("a bound socket has an address").to_string()
}

#[tokio::test]
async fn a_store_can_be_made_and_a_node_waits_while_etcd_is_away() {
    let config = EtcdConfig::new([nowhere().await]).unwrap();
    let store = EtcdStore::connect(config).await.expect("that etcd is away is no error of the configuration");
    let began = Instant::now();
    let error = store.check().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    assert!(error.to_string().contains("check at"), "{error}");
    assert!(
        began.elapsed() < store.config().request_timeout + Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );

    // The node waits, and joins when etcd comes.
    let etcd = common::etcd().await;
    let address = etcd.endpoints()[0].trim_start_matches("http://").to_owned();
    let line = Proxy::to(&address).await.unwrap();
    line.cut();
    let store = EtcdStore::connect(EtcdConfig::new([line.endpoint()]).unwrap()).await.unwrap();
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
    line.heal();
    store.check().await.unwrap();
    let node = tokio::time::timeout(Duration::from_secs(20), start).await.unwrap().unwrap().unwrap();
    node.stop().await.unwrap();
}

#[tokio::test]
async fn a_configuration_that_cannot_work_fails_without_a_look_at_etcd() {
    let mut no_file = EtcdConfig::new([nowhere().await]).unwrap();
    let mut no_user = no_file.clone();
    no_file.tls = Some(Tls::new().ca(Pem::file("/no/such/file")));
    no_user.credentials = Some(Credentials::new("", "hunter2"));
    for (config, says) in [(no_file, "tls.ca"), (no_user, "the user needs a name")] {
        let error = EtcdStore::connect(config).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[tokio::test]
async fn the_keys_of_large_values_are_read_without_them() {
    let etcd = common::etcd().await;
    let namespace = prefix("large");
    let address = etcd.endpoints()[0].trim_start_matches("http://").to_owned();
    let mut client = etcd.client().await.unwrap();
    for number in 0..20 {
        client.put(format!("{namespace}{number:02}"), vec![b'x'; 1 << 20], None).await.unwrap();
    }
    let line = Proxy::to(&address).await.unwrap();
    let mut config = EtcdConfig::new([line.endpoint()]).unwrap();
    (config.prefix, config.page) = (namespace, 7);
    let store = EtcdStore::new(config).unwrap();
    let keys = store.read_keys("").await.unwrap();
    let expected: Vec<_> = (0..20).map(|number| format!("{number:02}")).collect();
    assert_eq!(keys.iter().map(|key| key.as_str()).collect::<Vec<_>>(), expected);
    // A wrapped store leaves the values out too.
    let wrapped: std::sync::Arc<dyn CoordinationStore> = std::sync::Arc::new(store);
    assert_eq!(wrapped.read_keys("1").await.unwrap().len(), 10);
    assert!(line.received() < 100_000, "{} bytes for 30 keys", line.received());
}
