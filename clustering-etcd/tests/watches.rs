//! Watches survive faults of their connection, their member and etcd, without losing or repeating a change.

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use std::time::Duration;

use clustering_core::store::{
    Batch, CoordinationStore, CoordinationStoreExt, Revision, Txn, WatchEnd, WatchStream,
};
use clustering_etcd::{EtcdConfig, EtcdStore};
use clustering_testkit::etcd::{EtcdCluster, EtcdServer};
use clustering_testkit::proxy::Proxy;
use futures_util::{FutureExt, StreamExt};
use tokio::{task::JoinHandle, time::Instant};

/// Timeout, longer than any operation here takes.
const LONG: Duration = Duration::from_secs(60);

/// Additional time that a busy machine may need.
const BUSY: Duration = Duration::from_secs(30);

/// Waits for the future, or fails with a message that names it.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.unwrap_or_else(|_| panic!("timed out waiting for {what}"))
}

fn store(endpoints: impl IntoIterator<Item = String>) -> EtcdStore {
    EtcdStore::new(config(endpoints)).unwrap()
}

fn config(endpoints: impl IntoIterator<Item = String>) -> EtcdConfig {
    let mut config = EtcdConfig::new(endpoints).unwrap();
    // The store must not bypass proxies.
    config.member_refresh = Duration::ZERO;
    config
}

/// Disables pings, so that dead connections have to be detected in another way.
fn without_pings(mut config: EtcdConfig) -> EtcdConfig {
    config.keep_alive_interval = Duration::from_secs(600);
    config
}

/// Changes two keys per commit, over and over, even while etcd is down. Stops when it is dropped.
struct Writer(JoinHandle<()>);

impl Writer {
    fn start(store: EtcdStore) -> Self {
        Writer(tokio::spawn(async move {
            for number in 0.. {
                let value = number.to_string();
                let txn = Txn::new().put("k/a", value.clone(), None).put("k/b", value, None);
                // Failed and unknown commits are fine: the test compares with etcd's history.
                let _ = store.commit(txn).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A watch under test, and the batches that it has yielded.
struct Watch {
    stream: WatchStream,
    began: Revision,
    seen: Vec<Batch>,
}

impl Watch {
    async fn open(store: &EtcdStore) -> Self {
        let began = store.read("k/").await.unwrap().revision;
        Watch { stream: store.watch("k/", began).await.unwrap(), began, seen: Vec::new() }
    }

    async fn next(&mut self) -> Result<&Batch, WatchEnd> {
        let next = soon("an item of the watch", self.stream.next()).await;
        self.seen.push(next.expect("a watch yields its end before the stream ends")?);
        Ok(self.seen.last().unwrap())
    }

    /// Receives batches until that revision has been delivered.
    async fn until(&mut self, revision: Revision) {
        while self.next().await.unwrap().revision < revision {}
    }

    /// Receives batches until a change has been delivered that is made now.
    async fn until_now(&mut self, direct: &EtcdStore) {
        let now = soon("a write", write(direct)).await;
        self.until(now).await;
    }

    async fn end(&mut self) -> WatchEnd {
        loop {
            if let Err(end) = self.next().await {
                return end;
            }
        }
    }

    /// Compares all batches with those of a new watch that is not disturbed.
    async fn check_history(mut self, direct: &EtcdStore) {
        self.until_now(direct).await;
        let mut history = direct.watch("k/", self.began).await.unwrap();
        for (place, seen) in self.seen.iter().enumerate() {
            let happened = soon("the history", history.next()).await.unwrap().unwrap();
            assert_eq!(*seen, happened, "batch {place} of {}", self.seen.len());
        }
    }
}

/// Writes until a write succeeds.
async fn write(direct: &EtcdStore) -> Revision {
    loop {
        match direct.put("k/now", "now".into(), None).await {
            Ok(revision) => return revision,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Returns the number of watches that a server has.
async fn watches(etcd: &EtcdServer) -> usize {
    let metrics = etcd.metrics().await.unwrap();
    metrics.get("etcd_debugging_mvcc_watcher_total", &[]).unwrap() as usize
}

/// Waits until a server has `count` watches. Etcd has no event for that, so this polls.
async fn has_watches(etcd: &EtcdServer, count: usize) {
    let began = Instant::now();
    while watches(etcd).await != count {
        assert!(began.elapsed() < LONG, "{} watches instead of {count}", watches(etcd).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Returns the index of the member that serves the only watch.
async fn member_of_the_watch(cluster: &EtcdCluster) -> usize {
    let began = Instant::now();
    loop {
        let mut at = Vec::new();
        for (place, member) in cluster.members().iter().enumerate() {
            if watches(member).await > 0 {
                at.push(place);
            }
        }
        if let [one] = at[..] {
            return one;
        }
        assert!(began.elapsed() < LONG, "the members {at:?} have watches");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_watch_survives_a_connection_that_breaks_repeatedly() {
    let etcd = EtcdServer::start().await.unwrap();
    let (proxy, direct) = (Proxy::to(&etcd.endpoint()).await.unwrap(), store(etcd.endpoints()));
    let mut watch = Watch::open(&store([proxy.endpoint()])).await;
    let _writer = Writer::start(direct.clone());
    for _ in 0..5 {
        watch.until_now(&direct).await;
        let connections = proxy.connections();
        proxy.cut();
        // This change is delivered after the watch has resumed.
        write(&direct).await;
        proxy.heal();
        watch.until_now(&direct).await;
        assert!(proxy.connections() > connections, "the connection did not break");
    }
    watch.check_history(&direct).await;
}

/// Runs on one thread, since the metrics recorder is local to the thread.
#[cfg(feature = "metrics")]
#[tokio::test]
async fn a_resumed_watch_is_counted() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let counted = || {
        let all = snapshotter.snapshot().into_vec();
        let of = |name: &str| name == clustering_etcd::WATCH_RESUMES.name;
        all.into_iter().find(|(key, ..)| of(key.key().name())).map(|(.., value)| value)
    };
    let etcd = EtcdServer::start().await.unwrap();
    let (proxy, direct) = (Proxy::to(&etcd.endpoint()).await.unwrap(), store(etcd.endpoints()));
    let mut watch = Watch::open(&store([proxy.endpoint()])).await;
    watch.until_now(&direct).await;
    assert_eq!(counted(), None);
    proxy.cut();
    // The change is made while the connection is cut.
    write(&direct).await;
    proxy.heal();
    watch.until_now(&direct).await;
    assert!(matches!(counted(), Some(DebugValue::Counter(1..))));
}

#[tokio::test]
async fn a_watch_that_has_not_yielded_anything_resumes_from_its_start() {
    let etcd = EtcdServer::start().await.unwrap();
    let (proxy, direct) = (Proxy::to(&etcd.endpoint()).await.unwrap(), store(etcd.endpoints()));
    write(&direct).await;
    let mut watch = Watch::open(&store([proxy.endpoint()])).await;
    // The watch has not been polled, so it has not noticed the broken connection.
    proxy.cut();
    let first = write(&direct).await;
    write(&direct).await;
    proxy.heal();
    assert_eq!(watch.next().await.unwrap().revision, first);
    watch.check_history(&direct).await;
}

#[tokio::test]
async fn a_watch_survives_a_crash_of_etcd() {
    let etcd = EtcdServer::start().await.unwrap();
    let direct = store(etcd.endpoints());
    let mut watch = Watch::open(&store(etcd.endpoints())).await;
    let _writer = Writer::start(direct.clone());
    watch.until_now(&direct).await;
    etcd.kill().await.unwrap();
    etcd.restart().await.unwrap();
    watch.until_now(&direct).await;
    watch.check_history(&direct).await;
}

#[tokio::test]
async fn a_watch_survives_the_death_of_its_member() {
    let etcd = EtcdCluster::start().await.unwrap();
    let mut watch = Watch::open(&store(etcd.endpoints())).await;
    let at = member_of_the_watch(&etcd).await;
    let others = etcd.endpoints().into_iter().enumerate().filter(|(place, _)| *place != at);
    let direct = store(others.map(|(_, endpoint)| endpoint));
    let _writer = Writer::start(direct.clone());
    watch.until_now(&direct).await;
    etcd[at].kill().await.unwrap();
    watch.until_now(&direct).await;
    watch.check_history(&direct).await;
}

#[tokio::test]
async fn a_watch_survives_the_death_of_etcds_leader() {
    let etcd = EtcdCluster::start().await.unwrap();
    let leader = etcd.wait_for_leader().await.unwrap();
    let others = (0..3).filter(|place| *place != leader).map(|place| etcd[place].endpoint());
    let direct = store(others.clone());
    let mut watch = Watch::open(&store(others)).await;
    let _writer = Writer::start(direct.clone());
    watch.until_now(&direct).await;
    etcd.kill_leader().await.unwrap();
    watch.until_now(&direct).await;
    watch.check_history(&direct).await;
}

/// A member without a leader ends its watches. They resume when there is a leader again.
#[tokio::test]
async fn a_watch_survives_the_loss_of_etcds_quorum() {
    let etcd = EtcdCluster::start().await.unwrap();
    let mut config = config(etcd.endpoints());
    config.watch_resume = LONG;
    let mut watch = Watch::open(&EtcdStore::new(config).unwrap()).await;
    let at = member_of_the_watch(&etcd).await;
    let direct = store([etcd[at].endpoint()]);
    let writer = Writer::start(direct.clone());
    watch.until_now(&direct).await;
    drop(writer);
    let others: Vec<_> = (0..3).filter(|place| *place != at).collect();
    for other in &others {
        etcd[*other].kill().await.unwrap();
    }
    // Wait until the member has ended the watch.
    tokio::select! {
        end = watch.end() => panic!("the watch ended: {end:?}"),
        () = has_watches(&etcd[at], 0) => {}
    }
    etcd.recover().await.unwrap();
    watch.until_now(&direct).await;
    watch.check_history(&direct).await;
}

/// The member hangs, but its connections stay open. A failing call makes the watch check the member, and resume at
/// another.
#[tokio::test]
async fn a_watch_leaves_a_silent_member_in_time_after_a_call_failed_there() {
    let etcd = EtcdCluster::start().await.unwrap();
    let config = without_pings(config(etcd.endpoints()));
    // The failing call, the progress request without a reply, and the pause before the watch is opened again.
    let stated = 2 * config.request_timeout + Duration::from_secs(1);
    let store = EtcdStore::new(config).unwrap();
    let mut watch = Watch::open(&store).await;
    let at = member_of_the_watch(&etcd).await;
    // The member must not be the leader, since an election would take longer.
    if etcd.wait_for_leader().await.unwrap() == at {
        etcd.transfer_leader().await.unwrap();
    }
    etcd[at].pause().unwrap();
    // Without a call, the watch does not notice.
    assert!(watch.next().now_or_never().is_none());
    let failing = Instant::now();
    let error = store.read("k/").await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    let revision = store.put("k/now", "now".into(), None).await.unwrap();
    assert_eq!(watch.next().await.unwrap().revision, revision);
    let took = failing.elapsed();
    println!("measured: a quiet watch left its silent member {took:?} after a call was made there");
    assert!(took < stated + BUSY, "{took:?}");
    etcd[at].resume().unwrap();
    watch.check_history(&store).await;
}

#[tokio::test]
async fn a_watch_that_cannot_resume_ends_in_time() {
    let etcd = EtcdServer::start().await.unwrap();
    let mut config = without_pings(config(etcd.endpoints()));
    config.watch_resume = Duration::from_secs(3);
    let stated = 2 * config.request_timeout + config.watch_resume;
    let store = EtcdStore::new(config).unwrap();
    let mut watch = Watch::open(&store).await;
    etcd.pause().unwrap();
    let failing = Instant::now();
    let (read, end) = tokio::join!(store.read("k/"), watch.end());
    let took = failing.elapsed();
    assert!(read.is_err());
    let WatchEnd::Disconnected { reason } = &end else { panic!("{end:?}") };
    assert!(reason.contains("could not resume the watch within 3s"), "{reason}");
    assert!(took >= Duration::from_secs(3), "the watch ended early: {took:?}");
    assert!(took < stated + BUSY, "{took:?}");
}

#[tokio::test]
async fn changes_that_were_compacted_before_the_watch_resumed_are_not_skipped() {
    let etcd = EtcdServer::start().await.unwrap();
    let (proxy, direct) = (Proxy::to(&etcd.endpoint()).await.unwrap(), store(etcd.endpoints()));
    let mut watch = Watch::open(&store([proxy.endpoint()])).await;
    watch.until_now(&direct).await;
    proxy.cut();
    write(&direct).await;
    direct.delete("k/now").await.unwrap();
    let compacted = etcd.compact().await.unwrap();
    proxy.heal();
    assert_eq!(watch.end().await, WatchEnd::Compacted { compacted });
}

#[tokio::test]
async fn a_wiped_or_restored_etcd_ends_the_watch() {
    for wipe in [true, false] {
        let etcd = EtcdServer::start().await.unwrap();
        let direct = store(etcd.endpoints());
        let backup = etcd.snapshot().await.unwrap();
        let mut watch = Watch::open(&store(etcd.endpoints())).await;
        for _ in 0..5 {
            watch.until_now(&direct).await;
        }
        let before = etcd.revision().await.unwrap();
        match wipe {
            true => etcd.wipe().await.unwrap(),
            false => etcd.restore(&backup).await.unwrap(),
        }
        let now = etcd.revision().await.unwrap();
        assert!(now < before);
        assert_eq!(watch.end().await, WatchEnd::Rewound { revision: now }, "wiped: {wipe}");
    }
}

/// The revision does not reveal the wipe, but the Raft term does, since the previous etcd had more elections.
#[tokio::test]
async fn a_wiped_etcd_with_a_higher_revision_ends_the_watch() {
    let etcd = EtcdServer::start().await.unwrap();
    for _ in 0..2 {
        etcd.restart().await.unwrap();
    }
    let (proxy, direct) = (Proxy::to(&etcd.endpoint()).await.unwrap(), store(etcd.endpoints()));
    let mut watch = Watch::open(&store([proxy.endpoint()])).await;
    watch.until_now(&direct).await;
    let before = etcd.revision().await.unwrap();
    proxy.cut();
    etcd.wipe().await.unwrap();
    let mut now = write(&direct).await;
    while now <= before {
        now = write(&direct).await;
    }
    proxy.heal();
    assert_eq!(watch.end().await, WatchEnd::Rewound { revision: now });
}

/// Progress notifications keep a quiet watch from falling behind the compaction of other changes.
#[tokio::test]
async fn a_quiet_watch_survives_the_compaction_of_other_changes() {
    let etcd = EtcdServer::builder().args(["--experimental-watch-progress-notify-interval=100ms"]);
    let etcd = etcd.start().await.unwrap();
    let (proxy, direct) = (Proxy::to(&etcd.endpoint()).await.unwrap(), store(etcd.endpoints()));
    let mut watch = Watch::open(&store([proxy.endpoint()])).await;
    for _ in 0..5 {
        direct.put("elsewhere", "x".into(), None).await.unwrap();
    }
    // Wait for more notifications, the last of which was sent after these writes.
    let sent = async || {
        let metrics = etcd.metrics().await.unwrap();
        metrics.sum("grpc_server_msg_sent_total", &[("grpc_method", "Watch")])
    };
    let (began, before) = (Instant::now(), sent().await);
    while sent().await < before + 3.0 {
        assert!(began.elapsed() < LONG, "there are no progress notifications");
        assert!(watch.next().now_or_never().is_none(), "a progress notification must not be delivered");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(watch.next().now_or_never().is_none());
    etcd.compact().await.unwrap();
    proxy.cut();
    let at = write(&direct).await;
    proxy.heal();
    assert_eq!(watch.next().await.unwrap().revision, at);
    assert_eq!(watch.seen.len(), 1);
}

#[tokio::test]
async fn a_dropped_watch_is_removed_from_the_server() {
    let etcd = EtcdServer::start().await.unwrap();
    let (proxy, direct) = (Proxy::to(&etcd.endpoint()).await.unwrap(), store(etcd.endpoints()));
    let mut watch = Watch::open(&store([proxy.endpoint()])).await;
    watch.until_now(&direct).await;
    has_watches(&etcd, 1).await;
    // A watch that has resumed has left none behind.
    proxy.cut();
    has_watches(&etcd, 0).await;
    proxy.heal();
    watch.until_now(&direct).await;
    has_watches(&etcd, 1).await;
    drop(watch);
    has_watches(&etcd, 0).await;
}

/// The reply is lost, so that etcd has a watch that the client does not know of yet.
#[tokio::test]
async fn a_watch_that_is_dropped_while_it_resumes_is_removed_from_the_server() {
    let etcd = EtcdServer::start().await.unwrap();
    let proxy = Proxy::to(&etcd.endpoint()).await.unwrap();
    let store = EtcdStore::new(without_pings(config([proxy.endpoint()]))).unwrap();
    let mut watch = Watch::open(&store).await;
    has_watches(&etcd, 1).await;
    proxy.hang_answers();
    tokio::select! {
        end = watch.end() => panic!("the watch ended: {end:?}"),
        // A call without a reply makes the watch check its member.
        () = async { while store.read("k/").await.is_ok() {} has_watches(&etcd, 2).await } => {}
    }
    drop(watch);
    has_watches(&etcd, 0).await;
}
