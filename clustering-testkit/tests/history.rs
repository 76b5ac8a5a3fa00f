//! Journals and the ledger, with real nodes on the memory store.

#![allow(clippy::unwrap_used, reason = "a panic fails the test, also in helpers")]

use std::{
    io::Write,
    sync::{Arc, Mutex},
    time::Duration,
};

use clustering_core::{
    Clustering, NodeName, Stabilization, Stable,
    store::{CoordinationStore, CoordinationStoreExt},
};
use clustering_memory::MemoryStore;
use clustering_testkit::{
    faulty::FaultyStore,
    history::{
        self, Clock, Ending, Entry, FileSink, Journal, Observation, Page,
        ledger::{self, Content},
    },
    promises::{Calm, check, p9_cost},
};

fn name(text: &str) -> NodeName {
    NodeName::parse(text).unwrap()
}

async fn start(store: impl CoordinationStore, journal: &Journal) -> Clustering {
    let node = journal.node().to_string();
    let builder = Clustering::builder(journal.store(store)).name(node).uri("http://host:80").seed(1);
    let stabilize = |stabilization: Stabilization| async move { stabilization.attempt() > 1 };
    journal.attach(builder, stabilize, |_: Stable| async {}).start().await.unwrap()
}

type Kept = Arc<Mutex<Vec<Entry>>>;

struct Cluster {
    store: MemoryStore,
    clock: Clock,
    follower: ledger::Follower,
    line: FaultyStore,
    journals: Vec<Kept>,
}

impl Cluster {
    fn new() -> Self {
        let (store, clock) = (MemoryStore::new(), Clock::tokio());
        let line = FaultyStore::new(store.clone());
        let follower = ledger::follow(line.clone(), "cluster", clock.clone());
        Cluster { store, clock, follower, line, journals: Vec::new() }
    }

    async fn start(&mut self, node: &str) -> Clustering {
        let (journal, kept) = Journal::in_memory(name(node), format!("{node}#1"), self.clock.clone());
        self.journals.push(kept);
        start(self.store.clone(), &journal).await
    }

    fn journals(&self) -> Vec<Vec<Entry>> {
        self.journals.iter().map(|kept| kept.lock().unwrap().clone()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn the_history_of_a_cluster_is_complete_and_keeps_all_promises() {
    let mut cluster = Cluster::new();
    let a = cluster.start("a").await;
    let first = a.wait_stable().await.unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    let b = cluster.start("b").await;
    let second = b.wait_stable_after(first).await.unwrap();
    cluster.follower.settle().await.unwrap();
    let journals = cluster.journals();
    let ledger = check("cluster", &cluster.follower.pages(), &journals, Some(&Calm::of(["a", "b"]))).unwrap();
    let era = ledger.present();
    assert_eq!(era.versions().iter().map(|published| published.version).collect::<Vec<_>>(), [first, second]);
    assert_eq!(era.reigns().len(), 1);
    // Each node refused once and wrote that, which costs two more commits than usual.
    p9_cost::check_change(&ledger, first, second).unwrap_err();

    let has = |journal: &[Entry], wanted: &dyn Fn(&Observation) -> bool| {
        journal.iter().filter(|entry| wanted(&entry.observation)).count()
    };
    for journal in &journals {
        let began = has(journal, &|it| matches!(it, Observation::StabilizeBegan { .. }));
        let no =
            has(journal, &|it| matches!(it, Observation::StabilizeEnded { ending: Ending::Refused(_), .. }));
        assert_eq!(began, no * 2);
        assert!(has(journal, &|it| matches!(it, Observation::Granted { .. })) == 1);
        assert!(journal.is_sorted_by_key(|entry| entry.at));
    }
    assert!(has(&journals[0], &|it| matches!(it, Observation::Renewed { .. })) >= 3);
    assert_eq!(has(&journals[0], &|it| matches!(it, Observation::OnStableEnded { .. })), 2);
    // The journal of a node that leaves has its last event.
    b.stop().await.unwrap();
    assert!(
        cluster.journals()[1]
            .iter()
            .any(|entry| { entry.observation == Observation::Stopped { reason: "asked".into() } })
    );
}

#[tokio::test(start_paused = true)]
async fn a_join_without_refusals_costs_n_plus_3_commits() {
    let mut cluster = Cluster::new();
    let (journal, _) = Journal::in_memory(name("a"), "a", cluster.clock.clone());
    let builder = |journal: &Journal, store: &MemoryStore| {
        Clustering::builder(journal.store(store.clone())).name(journal.node().as_str()).uri("http://host:80")
    };
    let attach = |journal: &Journal| {
        journal.attach(builder(journal, &cluster.store), |_: Stabilization| async {}, |_: Stable| async {})
    };
    let a = attach(&journal).start().await.unwrap();
    let first = a.wait_stable().await.unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    let (journal, _) = Journal::in_memory(name("b"), "b", cluster.clock.clone());
    let b = attach(&journal).start().await.unwrap();
    let second = b.wait_stable_after(first).await.unwrap();
    cluster.follower.settle().await.unwrap();
    assert_eq!(p9_cost::check_change(&cluster.follower.ledger(), first, second).unwrap(), 5);
    cluster.journals.clear();
}

#[tokio::test(start_paused = true)]
async fn a_follower_continues_after_a_disconnect_and_reports_gaps() {
    let mut cluster = Cluster::new();
    let node = cluster.start("a").await;
    node.wait_stable().await.unwrap();
    let gaps = |pages: Vec<Page>| pages.iter().filter(|page| matches!(page.content, Content::Gap(_))).count();
    // Disconnected during a change: nothing is missed.
    cluster.line.cut();
    node.cluster_change().await.unwrap();
    cluster.line.heal();
    cluster.follower.settle().await.unwrap();
    assert_eq!(gaps(cluster.follower.pages()), 0);
    check("cluster", &cluster.follower.pages(), &cluster.journals(), None).unwrap();
    // Compacted without a change of the cluster: nothing is missed.
    node.wait_stable().await.unwrap();
    cluster.follower.settle().await.unwrap();
    cluster.line.cut();
    cluster.store.put("elsewhere", "x".into(), None).await.unwrap();
    cluster.store.compact(cluster.store.revision());
    cluster.line.heal();
    cluster.follower.settle().await.unwrap();
    assert_eq!(gaps(cluster.follower.pages()), 0);
    // Compacted during changes: a gap.
    node.wait_stable().await.unwrap();
    cluster.line.cut();
    let missed = node.cluster_change().await.unwrap();
    node.wait_stable().await.unwrap();
    cluster.store.compact(cluster.store.revision());
    cluster.line.heal();
    cluster.follower.settle().await.unwrap();
    assert_eq!(gaps(cluster.follower.pages()), 1);
    assert!(cluster.follower.ledger().published(missed).is_none());
    // The missing changes don't count as broken promises, and following continues.
    let asked = node.cluster_change().await.unwrap();
    assert_eq!(node.wait_stable().await.unwrap(), asked);
    cluster.follower.settle().await.unwrap();
    let calm = Calm::of(["a"]);
    let ledger = check("cluster", &cluster.follower.pages(), &cluster.journals(), Some(&calm)).unwrap();
    assert_eq!(ledger.present().newest().unwrap().version, asked);
}

#[tokio::test(start_paused = true)]
async fn restoring_the_store_begins_a_new_era() {
    let mut cluster = Cluster::new();
    let node = cluster.start("a").await;
    let version = node.wait_stable().await.unwrap();
    let backup = cluster.store.backup();
    for _ in 0..20 {
        node.cluster_change().await.unwrap();
    }
    let last = node.wait_stable().await.unwrap();
    cluster.follower.settle().await.unwrap();
    cluster.store.restore(&backup);
    cluster.follower.era(1).await;
    let after = node.wait_stable_after(last).await.unwrap();
    cluster.follower.settle().await.unwrap();
    let calm = Calm::of(["a"]);
    let ledger = check("cluster", &cluster.follower.pages(), &cluster.journals(), Some(&calm)).unwrap();
    assert_eq!(ledger.eras().len(), 2);
    assert_eq!(ledger.present().versions().first().unwrap().version, version);
    assert_eq!(ledger.present().newest().unwrap().version, after);
}

#[tokio::test(start_paused = true)]
async fn a_journal_file_is_readable_up_to_its_last_complete_line() {
    let path = std::env::temp_dir().join(format!("clustering-journal-{}", std::process::id()));
    let clock = Clock::tokio();
    let (memory, kept) = Journal::in_memory(name("a"), "a#1", clock.clone());
    let both = {
        let mut file = FileSink::append(&path).unwrap();
        let kept = kept.clone();
        move |entry: &Entry| {
            history::Sink::take(&mut file, entry);
            kept.lock().unwrap().push(entry.clone());
        }
    };
    drop(memory);
    let journal = Journal::new(name("a"), "a#1", clock, both);
    let store = MemoryStore::new();
    let node = start(store.clone(), &journal).await;
    node.wait_stable().await.unwrap();
    journal.ask_leader(&node);
    let other = Journal::in_memory(name("b"), "b#1", Clock::tokio()).0;
    let other = start(store, &other).await;
    other.wait_stable_after(node.cluster_version().unwrap()).await.unwrap();
    other.stop().await.unwrap();
    node.stop().await.unwrap();

    let written = history::read(&path).unwrap();
    assert_eq!(written, *kept.lock().unwrap());
    assert!(written.len() > 20);
    // As if the writer had been killed in the middle of a line.
    std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"at\":7,\"no").unwrap();
    assert_eq!(history::read(&path).unwrap(), written);
    // A complete line that is not an entry was not written by a journal.
    std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"\n").unwrap();
    assert_eq!(history::read(&path).unwrap_err().kind(), std::io::ErrorKind::InvalidData);
    std::fs::remove_file(path).unwrap();
}
