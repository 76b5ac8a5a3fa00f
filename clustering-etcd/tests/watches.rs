//! Watches go on over whatever happens to their connection, their member and etcd, without a change lost or told twice.

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use std::time::Duration;

use clustering_core::store::{
    Batch, CoordinationStore, CoordinationStoreExt, Revision, Txn, WatchEnd, WatchStream,
};
use clustering_etcd::{EtcdConfig, EtcdStore};
use clustering_proofs::proxy::Proxy;
use clustering_testkit::etcd::{EtcdCluster, EtcdServer};
use futures_util::{FutureExt, StreamExt};
use tokio::{task::JoinHandle, time::Instant};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// How much longer than stated things may take on a machine that is busy with others.
const BUSY: Duration = Duration::from_secs(30);

/// Fails with what was waited for if it does not come.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.unwrap_or_else(|_| panic!("{what} did not come"))
}

fn store(endpoints: impl IntoIterator<Item = String>) -> EtcdStore {
    EtcdStore::new(config(endpoints)).unwrap()
}

fn config(endpoints: impl IntoIterator<Item = String>) -> EtcdConfig {
    let mut config = EtcdConfig::new(endpoints).unwrap();
    // Proxies are not to be gone round.
    config.member_refresh = Duration::ZERO;
    config
}

/// One for whom no connection is ever dead by itself: what is noticed is noticed otherwise.
fn without_pings(mut config: EtcdConfig) -> EtcdConfig {
    config.keep_alive_interval = Duration::from_secs(600);
    config
}

/// Changes two keys in each commit, as fast as etcd lets it, also while etcd is away, until it is dropped.
struct Writer(JoinHandle<()>);

impl Writer {
    fn start(store: EtcdStore) -> Self {
        Writer(tokio::spawn(async move {
            for number in 0.. {
                let value = number.to_string();
                let txn = Txn::new().put("k/a", value.clone(), None).put("k/b", value, None);
                // It does not matter what became of it: etcd's history tells.
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

/// A watch under test and what it yielded.
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
        let next = soon("something from the watch", self.stream.next()).await;
        self.seen.push(next.expect("a watch says why it ends")?);
        Ok(self.seen.last().unwrap())
    }

    /// Goes on until that revision was delivered.
    async fn until(&mut self, revision: Revision) {
        while self.next().await.unwrap().revision < revision {}
    }

    /// Until something was delivered that happened after now.
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

    /// Compares what was seen with what another watch, which was never broken, says.
    async fn finish_whole(mut self, direct: &EtcdStore) {
        self.until_now(direct).await;
        let mut history = direct.watch("k/", self.began).await.unwrap();
        for (place, seen) in self.seen.iter().enumerate() {
            let happened = soon("the history", history.next()).await.unwrap().unwrap();
            assert_eq!(*seen, happened, "batch {place} of {}", self.seen.len());
        }
    }
}

/// Writes once, however long that takes.
async fn write(direct: &EtcdStore) -> Revision {
    loop {
        match direct.put("k/now", "now".into(), None).await {
            Ok(revision) => return revision,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// How many watches a server has.
async fn watches(etcd: &EtcdServer) -> usize {
    let metrics = etcd.metrics().await.unwrap();
    metrics.get("etcd_debugging_mvcc_watcher_total", &[]).unwrap() as usize
}

/// Waits until a server has so many watches. Etcd has no event for it.
async fn has_watches(etcd: &EtcdServer, count: usize) {
    let began = Instant::now();
    while watches(etcd).await != count {
        assert!(began.elapsed() < LONG, "{} watches instead of {count}", watches(etcd).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The member that serves the only watch.
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
        assert!(began.elapsed() < LONG, "watches at the members {at:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_connection_that_breaks_again_and_again() {
    let etcd = EtcdServer::start().await.unwrap();
    let (proxy, direct) = (Proxy::to(&etcd.endpoint()).await.unwrap(), store(etcd.endpoints()));
    let mut watch = Watch::open(&store([proxy.endpoint()])).await;
    let _writer = Writer::start(direct.clone());
    for _ in 0..5 {
        watch.until_now(&direct).await;
        let connections = proxy.connections();
        proxy.cut();
        // What happens now is told later.
        write(&direct).await;
        proxy.heal();
        watch.until_now(&direct).await;
        assert!(proxy.connections() > connections, "it was not broken");
    }
    watch.finish_whole(&direct).await;
}

/// On one thread, so that what is measured in this test is this test's.
#[cfg(feature = "metrics")]
#[tokio::test]
async fn a_watch_that_goes_on_is_counted() {
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
    // Meanwhile the proxy cuts.
    write(&direct).await;
    proxy.heal();
    watch.until_now(&direct).await;
    assert!(matches!(counted(), Some(DebugValue::Counter(1..))));
}

#[tokio::test]
async fn a_watch_that_never_yielded_goes_on_from_where_it_began() {
    let etcd = EtcdServer::start().await.unwrap();
    let (proxy, direct) = (Proxy::to(&etcd.endpoint()).await.unwrap(), store(etcd.endpoints()));
    write(&direct).await;
    let mut watch = Watch::open(&store([proxy.endpoint()])).await;
    // Nobody looks at it yet, so it does not even know that it was broken.
    proxy.cut();
    let first = write(&direct).await;
    write(&direct).await;
    proxy.heal();
    assert_eq!(watch.next().await.unwrap().revision, first);
    watch.finish_whole(&direct).await;
}

#[tokio::test]
async fn etcd_is_killed_and_restarted() {
    let etcd = EtcdServer::start().await.unwrap();
    let direct = store(etcd.endpoints());
    let mut watch = Watch::open(&store(etcd.endpoints())).await;
    let _writer = Writer::start(direct.clone());
    watch.until_now(&direct).await;
    etcd.kill().await.unwrap();
    etcd.restart().await.unwrap();
    watch.until_now(&direct).await;
    watch.finish_whole(&direct).await;
}

#[tokio::test]
async fn the_member_of_the_watch_dies_and_another_goes_on() {
    let etcd = EtcdCluster::start().await.unwrap();
    let mut watch = Watch::open(&store(etcd.endpoints())).await;
    let at = member_of_the_watch(&etcd).await;
    let others = etcd.endpoints().into_iter().enumerate().filter(|(place, _)| *place != at);
    let direct = store(others.map(|(_, endpoint)| endpoint));
    let _writer = Writer::start(direct.clone());
    watch.until_now(&direct).await;
    etcd[at].kill().await.unwrap();
    watch.until_now(&direct).await;
    watch.finish_whole(&direct).await;
}

#[tokio::test]
async fn the_leader_of_etcd_dies() {
    let etcd = EtcdCluster::start().await.unwrap();
    let leader = etcd.wait_for_leader().await.unwrap();
    let others = (0..3).filter(|place| *place != leader).map(|place| etcd[place].endpoint());
    let direct = store(others.clone());
    let mut watch = Watch::open(&store(others)).await;
    let _writer = Writer::start(direct.clone());
    watch.until_now(&direct).await;
    etcd.kill_leader().await.unwrap();
    watch.until_now(&direct).await;
    watch.finish_whole(&direct).await;
}

/// A member that has lost its leader ends its watches. They go on when there is one again.
#[tokio::test]
async fn etcd_loses_its_quorum_and_gets_it_back() {
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
    // Until the member ends it.
    tokio::select! {
        end = watch.end() => panic!("it ended: {end:?}"),
        () = has_watches(&etcd[at], 0) => {}
    }
    etcd.recover().await.unwrap();
    watch.until_now(&direct).await;
    watch.finish_whole(&direct).await;
}

/// A member that hangs while its connections stand: it is a call that notices, and the watch goes on elsewhere.
#[tokio::test]
async fn a_silent_member_is_left_within_the_stated_time_once_a_call_fails_there() {
    let etcd = EtcdCluster::start().await.unwrap();
    let config = without_pings(config(etcd.endpoints()));
    // A call that fails, a question without an answer, the pause before the next try and that.
    let stated = 2 * config.request_timeout + Duration::from_secs(1);
    let store = EtcdStore::new(config).unwrap();
    let mut watch = Watch::open(&store).await;
    let at = member_of_the_watch(&etcd).await;
    // Not the leader: an election would take its own time.
    if etcd.wait_for_leader().await.unwrap() == at {
        etcd.transfer_leader().await.unwrap();
    }
    etcd[at].pause().unwrap();
    // It is quiet, and nobody asks.
    assert!(watch.next().now_or_never().is_none());
    let failing = Instant::now();
    let error = store.read("k/").await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    let revision = store.put("k/now", "now".into(), None).await.unwrap();
    assert_eq!(watch.next().await.unwrap().revision, revision);
    let took = failing.elapsed();
    println!("measured: a quiet watch left its silent member {took:?} after a call was made there");
    // The machine has other things to do too.
    assert!(took < stated + BUSY, "{took:?}");
    etcd[at].resume().unwrap();
    watch.finish_whole(&store).await;
}

/// With nowhere else to go it ends within the stated time.
#[tokio::test]
async fn a_watch_that_cannot_go_on_says_so_within_the_stated_time() {
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
    assert!(reason.contains("no way to go on within 3s"), "{reason}");
    assert!(took >= Duration::from_secs(3), "it did not try: {took:?}");
    assert!(took < stated + BUSY, "{took:?}");
}

#[tokio::test]
async fn what_was_compacted_meanwhile_is_not_skipped() {
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
async fn an_etcd_that_was_wiped_or_restored_is_not_taken_for_the_one_before() {
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
        let stands = etcd.revision().await.unwrap();
        assert!(stands < before);
        assert_eq!(watch.end().await, WatchEnd::Rewound { revision: stands }, "wiped: {wipe}");
    }
}

/// Its revisions do not tell it from the one before. It was a cluster whose leader had changed now and then.
#[tokio::test]
async fn an_etcd_that_was_wiped_and_has_overtaken_the_one_before_is_known_by_its_term() {
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

/// Etcd tells a quiet watch now and then how far the history has gone, which others make longer. So the watch does not fall
/// behind what is compacted.
#[tokio::test]
async fn a_quiet_watch_keeps_up_with_the_history_of_others() {
    let etcd = EtcdServer::builder().args(["--experimental-watch-progress-notify-interval=100ms"]);
    let etcd = etcd.start().await.unwrap();
    let (proxy, direct) = (Proxy::to(&etcd.endpoint()).await.unwrap(), store(etcd.endpoints()));
    let mut watch = Watch::open(&store([proxy.endpoint()])).await;
    for _ in 0..5 {
        direct.put("elsewhere", "x".into(), None).await.unwrap();
    }
    // Two signs of life more: the second was sent after those writes.
    let signs = async || {
        let metrics = etcd.metrics().await.unwrap();
        metrics.sum("grpc_server_msg_sent_total", &[("grpc_method", "Watch")])
    };
    let (began, before) = (Instant::now(), signs().await);
    while signs().await < before + 3.0 {
        assert!(began.elapsed() < LONG, "no signs of life");
        assert!(watch.next().now_or_never().is_none(), "they are nobody's business");
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
async fn a_watch_that_is_dropped_is_gone_from_the_server() {
    let etcd = EtcdServer::start().await.unwrap();
    let (proxy, direct) = (Proxy::to(&etcd.endpoint()).await.unwrap(), store(etcd.endpoints()));
    let mut watch = Watch::open(&store([proxy.endpoint()])).await;
    watch.until_now(&direct).await;
    has_watches(&etcd, 1).await;
    // One that has gone on after it was broken has left nothing either.
    proxy.cut();
    has_watches(&etcd, 0).await;
    proxy.heal();
    watch.until_now(&direct).await;
    has_watches(&etcd, 1).await;
    drop(watch);
    has_watches(&etcd, 0).await;
}

/// Answers get lost: etcd has a watch that its watcher does not know of yet.
#[tokio::test]
async fn a_watch_that_is_dropped_while_it_resumes_is_gone_from_the_server() {
    let etcd = EtcdServer::start().await.unwrap();
    let proxy = Proxy::to(&etcd.endpoint()).await.unwrap();
    let store = EtcdStore::new(without_pings(config([proxy.endpoint()]))).unwrap();
    let mut watch = Watch::open(&store).await;
    has_watches(&etcd, 1).await;
    proxy.hang_answers();
    tokio::select! {
        end = watch.end() => panic!("it ended: {end:?}"),
        // The call that is not answered makes it doubt.
        () = async { while store.read("k/").await.is_ok() {} has_watches(&etcd, 2).await } => {}
    }
    drop(watch);
    has_watches(&etcd, 0).await;
}
