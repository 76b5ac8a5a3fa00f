use std::{collections::BTreeMap, future::pending, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt};
use tokio::time::Instant;

use super::{MonitorEvent, Readiness, Report, log::Records};
use crate::{
    config::Backoff,
    keyspace::Keyspace,
    name::{Namespace, NodeName},
    node::Node,
    record::{DepartureRecord, ReadinessOutcome},
    store::{
        Batch, Change, CoordinationStore, Entry, Key, Revision, Snapshot, StoreError, WatchEnd, WatchStream,
    },
    version::{Term, Version},
};

/// Between tries of what the store did not answer.
const RETRY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));

/// How much later than the one watch the other may tell what happened before.
const LAG: Duration = Duration::from_millis(250);

/// Follows a cluster without being a node of it: keeps a [`Report`] up to date, and tells what happens.
///
/// It costs two watches and writes nothing. While the store is away it says so and goes on when it is back; where changes
/// were compacted away in between it reads everything anew.
pub struct Monitor {
    store: Arc<dyn CoordinationStore>,
    keyspace: Keyspace,
    records: Records,
    view: Follow,
    ready: Follow,
    /// When versions were published that are not stable yet, as seen here.
    published: BTreeMap<Version, Instant>,
    away: Option<Instant>,
    failures: u32,
    /// When the store is to be asked again.
    again: Option<Instant>,
}

/// One of the two prefixes.
struct Follow {
    prefix: Key,
    revision: Revision,
    watch: Option<WatchStream>,
    /// What the watch said last, to be taken in its turn.
    said: Option<Option<Result<Batch, WatchEnd>>>,
    /// The history after the revision cannot be had; whether because the store was restored.
    lost: Option<bool>,
}

impl Monitor {
    /// Reads what stands, and follows it from there.
    ///
    /// # Errors
    ///
    /// What the store says to the first reads.
    pub async fn start(store: Arc<dyn CoordinationStore>, namespace: &Namespace) -> Result<Self, StoreError> {
        let keyspace = Keyspace::new(namespace.clone());
        let follow = |prefix: &Key| Follow {
            prefix: prefix.clone(),
            revision: Revision::ZERO,
            watch: None,
            said: None,
            lost: None,
        };
        let mut monitor = Monitor {
            store,
            records: Records::new(keyspace.clone()),
            view: follow(keyspace.view_prefix()),
            ready: follow(keyspace.ready_prefix()),
            published: BTreeMap::new(),
            away: None,
            failures: 0,
            again: None,
            keyspace,
        };
        let (view, ready) = monitor.read().await?;
        monitor.take(&view, &ready);
        Ok(monitor)
    }

    /// The cluster as it is known now; `None` if there is none.
    pub fn report(&self) -> Option<Report> {
        self.records.is_something().then(|| self.records.report(self.view.revision))
    }

    /// Whether the store does not answer, so that the report is the last that was known.
    pub fn is_away(&self) -> bool {
        self.away.is_some()
    }

    /// Waits until something happens, and tells what: all that one revision did. Nothing, if the report has changed by what
    /// has no name of its own, such as a key that was deleted by hand.
    ///
    /// Cancel safe. It does not return errors: that the store is away is something that happens.
    pub async fn next(&mut self) -> Vec<MonitorEvent> {
        loop {
            if let Some(again) = self.again {
                tokio::time::sleep_until(again).await;
                self.again = None;
            }
            if let Err(error) = self.open().await {
                self.failures = self.failures.saturating_add(1);
                self.again = Some(Instant::now() + RETRY.after(self.failures));
                if self.away.is_none() {
                    self.away = Some(Instant::now());
                    return vec![MonitorEvent::StoreAway { reason: error.to_string() }];
                }
                continue;
            }
            self.failures = 0;
            if let Some(since) = self.away.take() {
                return vec![MonitorEvent::StoreBack { away: since.elapsed() }];
            }
            if let Some(rewound) = self.view.lost.max(self.ready.lost) {
                // `open` read everything anew.
                self.view.lost = None;
                self.ready.lost = None;
                return vec![MonitorEvent::Resynced { rewound, revision: self.view.revision }];
            }
            tokio::select! {
                biased;
                () = self.ready.fill() => {}
                () = self.view.fill() => {}
            }
            // The two are watched apart: of what has come from both, what happened first.
            self.view.fill().now_or_never();
            self.ready.fill().now_or_never();
            if self.ready.said.is_none() && self.is_stable_early() {
                let _ = tokio::time::timeout(LAG, self.ready.fill()).await;
            }
            let follow = match (self.view.at(), self.ready.at()) {
                (Some(view), Some(ready)) if ready < view => &mut self.ready,
                (None, _) => &mut self.ready,
                _ => &mut self.view,
            };
            if let Some(batch) = follow.accept() {
                return self.fold(&batch);
            }
        }
    }

    /// Whether the next thing to tell is that a version is stable, while acknowledgements of it have yet to come.
    fn is_stable_early(&self) -> bool {
        let Some(Some(Ok(batch))) = &self.view.said else { return false };
        let stable = batch.changes.iter().any(|change| change.key() == self.keyspace.stable_key());
        stable
            && self.records.nodes.values().any(|node| self.records.readiness(node) == Readiness::Stabilizing)
    }

    /// Sees to it that both watches run, after reading anew what cannot be followed any more.
    async fn open(&mut self) -> Result<(), StoreError> {
        let lost = |follow: &Follow| follow.lost.is_some() && follow.watch.is_none();
        if lost(&self.view) || lost(&self.ready) {
            let (view, ready) = self.read().await?;
            self.take(&view, &ready);
        }
        for follow in [&mut self.view, &mut self.ready] {
            if follow.watch.is_none() {
                follow.watch = Some(self.store.watch(&follow.prefix, follow.revision).await?);
            }
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<(Snapshot, Snapshot), StoreError> {
        let view = self.store.read(&self.view.prefix).await?;
        let ready = self.store.read(&self.ready.prefix).await?;
        Ok((view, ready))
    }

    fn take(&mut self, view: &Snapshot, ready: &Snapshot) {
        self.records = Records::read(&self.keyspace, &view.entries, &ready.entries);
        self.published.clear();
        for (follow, snapshot) in [(&mut self.view, view), (&mut self.ready, ready)] {
            follow.revision = snapshot.revision;
            follow.watch = None;
            follow.said = None;
        }
    }

    fn fold(&mut self, batch: &Batch) -> Vec<MonitorEvent> {
        let before = Before::of(&self.records, batch);
        for change in &*batch.changes {
            match change {
                Change::Put(entry) => self.records.put(entry),
                Change::Delete(key) => self.records.delete(key),
            }
        }
        let mut sightings = Vec::new();
        // Who is there first, then what was made of it.
        let gone = self.records.gone.as_ref().filter(|gone| gone.modified == batch.revision);
        let gone = gone.and_then(|gone| gone.record.as_ref());
        for (name, old) in &before.nodes {
            sightings.extend(node_sighting(name, old.as_ref(), self.records.nodes.get(name), gone));
        }
        for change in &*batch.changes {
            if let Change::Put(entry) = change {
                self.see(entry, &mut sightings);
            } else if *change.key() == *self.keyspace.election_key() && before.leader {
                sightings.push(MonitorEvent::LeaderChanged { leader: None, term: None });
            }
        }
        sightings
    }

    /// What a put of one of the cluster's own keys means.
    fn see(&mut self, entry: &Entry, sightings: &mut Vec<MonitorEvent>) {
        let key = &entry.key;
        if let Some(reason) = self.records.malformed.get(key) {
            sightings.push(MonitorEvent::Malformed { key: key.clone(), reason: reason.clone() });
        }
        if key == self.keyspace.election_key() {
            let report = self.records.leader.as_ref();
            let leader = report.and_then(|leader| Some(leader.record.as_ref()?.node.clone()));
            let term = report.map(|leader| Term::new(leader.created));
            sightings.insert(0, MonitorEvent::LeaderChanged { leader, term });
        } else if key == self.keyspace.version_key() {
            let Some(record) = self.records.version.as_ref().and_then(|version| version.record.as_ref())
            else {
                return;
            };
            self.published.clear();
            self.published.insert(record.version, Instant::now());
            sightings.push(MonitorEvent::VersionPublished {
                version: record.version,
                revision: entry.modified,
                nodes: self.records.nodes.len(),
                causes: record.causes.clone(),
            });
        } else if key == self.keyspace.stable_key() {
            let Some(version) = self.records.stable.as_ref().and_then(|stable| stable.record.as_ref()) else {
                return;
            };
            let version = version.version;
            let took = self.published.remove(&version).map(|since| since.elapsed());
            sightings.push(MonitorEvent::Stable { version, took });
        } else if key == self.keyspace.request_key() {
            if let Some(record) = self.records.request.as_ref().and_then(|request| request.record.as_ref()) {
                sightings
                    .push(MonitorEvent::VersionRequested { by: record.by.clone(), why: record.why.clone() });
            }
        } else if let Some(name) = self.keyspace.acknowledger(key)
            && let Some(record) = self.records.ready.get(&name).and_then(|ready| ready.record.as_ref())
        {
            let (version, reason) = (record.version, record.detail.clone());
            sightings.push(match record.outcome {
                ReadinessOutcome::Ready => MonitorEvent::NodeReady { name, version },
                ReadinessOutcome::Failed => MonitorEvent::NodeRefused { name, version, reason },
            });
        }
    }
}

impl Follow {
    /// Waits until the watch has said something. Cancel safe.
    async fn fill(&mut self) {
        if self.said.is_none() {
            self.said = Some(match &mut self.watch {
                Some(watch) => watch.next().await,
                None => pending().await,
            });
        }
    }

    /// The revision of what the watch said; that it ended comes before everything else.
    fn at(&self) -> Option<Revision> {
        self.said.as_ref().map(|said| match said {
            Some(Ok(batch)) => batch.revision,
            _ => Revision::ZERO,
        })
    }

    /// Takes what the watch said; a batch is to be folded.
    fn accept(&mut self) -> Option<Batch> {
        match self.said.take()? {
            Some(Ok(batch)) => {
                self.revision = batch.revision;
                return Some(batch);
            }
            Some(Err(WatchEnd::Compacted { .. })) => self.lost = Some(false),
            Some(Err(WatchEnd::Rewound { .. })) => self.lost = Some(true),
            Some(Err(WatchEnd::Disconnected { .. })) | None => {}
        }
        self.watch = None;
        None
    }
}

/// What stood before a batch, of that which it changes.
struct Before {
    nodes: BTreeMap<NodeName, Option<Arc<Node>>>,
    leader: bool,
}

impl Before {
    fn of(records: &Records, batch: &Batch) -> Self {
        let prefix = records.keyspace().nodes_prefix().as_str();
        let names = batch.changes.iter().filter_map(|change| change.key().strip_prefix(prefix));
        let names = names.filter_map(|name| NodeName::parse(name).ok());
        let nodes = names.map(|name| (name.clone(), records.nodes.get(&name).cloned())).collect();
        Before { nodes, leader: records.leader.is_some() }
    }
}

fn node_sighting(
    name: &NodeName,
    old: Option<&Arc<Node>>,
    new: Option<&Arc<Node>>,
    gone: Option<&DepartureRecord>,
) -> Option<MonitorEvent> {
    let name = name.clone();
    match (old, new) {
        (None, Some(new)) => Some(MonitorEvent::NodeUp { name, uri: new.uri.clone() }),
        (Some(_), Some(new)) => Some(MonitorEvent::NodeChanged { name, uri: new.uri.clone() }),
        (Some(old), None) => Some(MonitorEvent::NodeDown { name, how: DepartureRecord::tells(gone, old) }),
        (None, None) => None,
    }
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Monitor")
            .field("namespace", self.keyspace.namespace())
            .field("revision", &self.view.revision)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    /// It can be followed in a task of its own.
    #[test]
    fn it_goes_from_thread_to_thread() {
        fn is_send<T: Send>(value: T) -> T {
            value
        }
        fn next(monitor: &mut super::Monitor) -> impl Future<Output = Vec<super::MonitorEvent>> + Send {
            is_send(monitor.next())
        }
        let _ = next;
    }
}
