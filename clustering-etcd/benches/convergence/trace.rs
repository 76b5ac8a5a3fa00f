//! Traces of joins: the time of each step on the critical path, for both teams.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use clustering_core::store::{
    Change, CoordinationStore, Key, Lease, LeaseId, Operation, Revision, Snapshot, StoreError, Txn,
    WatchStream,
};
use futures_util::StreamExt;
use serde_json::json;

use crate::{
    arguments::Arguments,
    bare::Bare,
    ours::Ours,
    rounds::{Cluster, TTL, Team},
    stores::Server,
    summary::{Summary, round},
};

/// A call, or the change that it makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    Grant,
    Read,
    Watch,
    Join,
    Publish,
    Acknowledge,
    Confirm,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mark {
    Sent(What),
    Answered(What),
    /// A watch has delivered the change.
    Seen(What),
}

/// Marks of all members of a team, with their times.
#[derive(Clone, Default)]
pub(crate) struct Trace(Arc<Mutex<Vec<(Instant, String, Mark)>>>);

impl Trace {
    pub(crate) fn mark(&self, member: &str, mark: Mark) {
        let mut marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        marks.push((Instant::now(), member.to_owned(), mark));
    }

    pub(crate) fn take(&self) -> Vec<(Instant, String, Mark)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl What {
    /// Classifies a change by one of its keys.
    pub(crate) fn of_key(key: &str) -> Self {
        let mut segments = key.rsplit('/');
        match (segments.next(), segments.next()) {
            (Some("stable"), _) => What::Confirm,
            (Some("version"), _) => What::Publish,
            (_, Some("nodes")) => What::Join,
            (_, Some("ready")) => What::Acknowledge,
            _ => What::Other,
        }
    }

    fn of_txn(txn: &Txn) -> Self {
        let puts = txn.operations().iter().filter(|operation| matches!(operation, Operation::Put { .. }));
        puts.map(|put| What::of_key(put.key().as_str()))
            .find(|what| *what != What::Other)
            .unwrap_or(What::Other)
    }
}

/// A store that records its calls and the changes that its watches deliver.
pub(crate) struct Traced {
    pub(crate) store: Arc<dyn CoordinationStore>,
    pub(crate) member: String,
    pub(crate) trace: Trace,
}

impl Traced {
    async fn call<T>(&self, what: What, call: impl Future<Output = T>) -> T {
        self.trace.mark(&self.member, Mark::Sent(what));
        let answer = call.await;
        self.trace.mark(&self.member, Mark::Answered(what));
        answer
    }
}

#[async_trait]
impl CoordinationStore for Traced {
    async fn grant_lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
        self.call(What::Grant, self.store.grant_lease(ttl)).await
    }

    async fn renew_lease(&self, id: LeaseId) -> Result<Duration, StoreError> {
        self.store.renew_lease(id).await
    }

    async fn revoke_lease(&self, id: LeaseId) -> Result<(), StoreError> {
        self.store.revoke_lease(id).await
    }

    async fn read(&self, prefix: &str) -> Result<Snapshot, StoreError> {
        self.call(What::Read, self.store.read(prefix)).await
    }

    async fn read_keys(&self, prefix: &str) -> Result<Vec<Key>, StoreError> {
        self.store.read_keys(prefix).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, StoreError> {
        let stream = self.call(What::Watch, self.store.watch(prefix, after)).await?;
        let (trace, member) = (self.trace.clone(), self.member.clone());
        Ok(Box::pin(stream.inspect(move |batch| {
            let changes = batch.iter().flat_map(|batch| batch.changes.iter());
            for change in changes.filter(|change| matches!(change, Change::Put(_))) {
                trace.mark(&member, Mark::Seen(What::of_key(change.key().as_str())));
            }
        })))
    }

    async fn commit(&self, txn: Txn) -> Result<Revision, StoreError> {
        self.call(What::of_txn(&txn), self.store.commit(txn)).await
    }
}

/// Steps on the critical path of a join, in order. Each lasts from the previous mark to its own.
const STEPS: &[(&str, Which, Mark)] = &[
    ("new node: start → first call", Which::First, Mark::Sent(What::Read)),
    ("etcd: connect, grant and read", Which::Last, Mark::Answered(What::Read)),
    ("new node: → open watch", Which::First, Mark::Sent(What::Watch)),
    ("etcd: open watch", Which::First, Mark::Answered(What::Watch)),
    ("new node: → join", Which::First, Mark::Sent(What::Join)),
    ("etcd: join → event at leader", Which::Leader, Mark::Seen(What::Join)),
    ("leader: → publish", Which::First, Mark::Sent(What::Publish)),
    ("etcd: publish → event at last node", Which::Last, Mark::Seen(What::Publish)),
    ("last node: → acknowledge", Which::Last, Mark::Sent(What::Acknowledge)),
    ("etcd: acknowledge → event at leader", Which::Last, Mark::Seen(What::Acknowledge)),
    ("leader: → confirm", Which::First, Mark::Sent(What::Confirm)),
    ("etcd: confirm → event at last node", Which::Last, Mark::Seen(What::Confirm)),
];

/// The choice of the mark that ends a step, if several members or calls have such a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    First,
    Last,
    /// The mark of the member that publishes.
    Leader,
}

/// Durations of the steps, and of the rest until every member saw the stable version.
fn steps(marks: &[(Instant, String, Mark)], began: Instant, all: Duration) -> Vec<(&'static str, Duration)> {
    let leader = marks.iter().find(|(_, _, mark)| *mark == Mark::Sent(What::Publish));
    let leader = leader.map_or("", |(_, member, _)| member.as_str());
    let mut previous = began;
    let mut steps = Vec::new();
    for (name, which, wanted) in STEPS {
        let mut found = marks
            .iter()
            .filter(|(_, member, mark)| mark == wanted && (*which != Which::Leader || member == leader));
        let found = if *which == Which::Last { found.next_back() } else { found.next() };
        let Some((at, ..)) = found else { continue };
        steps.push((*name, at.saturating_duration_since(previous)));
        previous = *at;
    }
    steps.push(("last node: → sees stable", (began + all).saturating_duration_since(previous)));
    steps
}

pub(crate) async fn run(arguments: &Arguments, server: &Server, nodes: usize) {
    let (ours, bare) = (Trace::default(), Trace::default());
    let namespace = |team: &str| format!("trace/{team}-{nodes}");
    let connect = server.connect.clone();
    let team = Ours { connect, namespace: namespace("ours"), ttl: TTL, trace: Some(ours.clone()) };
    let mut ours_cluster = Cluster::start(team, nodes - 1).await;
    let endpoints = server.endpoint.iter().cloned().collect();
    let team = Bare { endpoints, namespace: namespace("bare"), ttl: TTL, trace: Some(bare.clone()) };
    let mut bare_cluster = Cluster::start(team, nodes - 1).await;
    let mut all = BTreeMap::<_, (Vec<_>, Vec<_>)>::new();
    for turn in 0..=arguments.rounds {
        let mine = joined(&mut ours_cluster, &ours).await;
        let theirs = joined(&mut bare_cluster, &bare).await;
        // The first round is a warm-up.
        if turn == 0 {
            continue;
        }
        for (place, (name, time)) in mine.into_iter().enumerate() {
            all.entry((place, name)).or_default().0.push(time);
        }
        for (place, (name, time)) in theirs.into_iter().enumerate() {
            all.entry((place, name)).or_default().1.push(time);
        }
    }
    report(arguments, nodes, &all);
    ours_cluster.stop().await;
    bare_cluster.stop().await;
}

/// CPU time of all threads of this process, in the resolution of the scheduler.
fn cpu_time() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let used = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok());
    used.filter_map(|used| used.split_whitespace().next()?.parse().ok()).map(Duration::from_nanos).sum()
}

/// Traces a join, and lets a follower leave afterwards.
async fn joined<T: Team>(cluster: &mut Cluster<T>, trace: &Trace) -> Vec<(&'static str, Duration)> {
    cluster.calm_down().await;
    trace.take();
    let (began, cpu) = (Instant::now(), cpu_time());
    let sample = cluster.join().await;
    let mut steps = steps(&trace.take(), began, sample.all);
    steps.push(("in total", sample.all));
    steps.push(("CPU time of all nodes", cpu_time().saturating_sub(cpu)));
    cluster.leave(false).await;
    steps
}

type Times = BTreeMap<(usize, &'static str), (Vec<Duration>, Vec<Duration>)>;

fn report(arguments: &Arguments, nodes: usize, all: &Times) {
    let median = |times: &[Duration]| match times.is_empty() {
        true => 0.0,
        false => Summary::of(times.iter().copied()).median,
    };
    for ((_, name), (ours, bare)) in all {
        let (ours, bare) = (median(ours), median(bare));
        if arguments.json {
            let line =
                json!({ "nodes": nodes, "step": name, "clustering_ms": round(ours), "bare_ms": round(bare) });
            println!("{line}");
        } else {
            println!(
                "{nodes:4} nodes, {name:38} clustering {ours:7.3} bare {bare:7.3} more {:7.3}",
                ours - bare
            );
        }
    }
}
