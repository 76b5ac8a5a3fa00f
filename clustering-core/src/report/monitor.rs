use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::time::Instant;

use super::{
    MonitorEvent, Readiness, Report,
    records::Records,
    watched::{Gap, Watched},
};
use crate::{
    config::Backoff,
    event::{Event, Holder},
    fold::Changed,
    keyspace::{KeyKind, Keyspace},
    name::{Namespace, NodeName},
    record::{ReadinessOutcome, ReadinessPhase},
    store::{Batch, Change, CoordinationStore, Entry, LeaseId, StoreError},
    version::Version,
};

/// Delay between attempts to reach a store that does not answer.
const RETRY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));

/// Maximum time by which one watch is expected to lag behind the other.
const LAG: Duration = Duration::from_millis(250);

/// Follows a cluster from outside: keeps a [`Report`] up to date and returns what happens as [`MonitorEvent`]s.
///
/// A monitor uses two watches and writes nothing. It reports when the store becomes unavailable and continues when the
/// store is back. If changes were compacted away meanwhile, it reads everything again.
pub struct Monitor {
    store: Arc<dyn CoordinationStore>,
    keyspace: Keyspace,
    records: Records,
    view: Watched,
    ready: Watched,
    /// The newest version until it is stable, and the time at which its publication was seen.
    published: Option<(Version, Instant)>,
    /// The time at which the store became unavailable.
    away_since: Option<Instant>,
    /// Failed attempts in a row to reach the store.
    failures: u32,
    retry_at: Option<Instant>,
}

impl Monitor {
    /// Reads the cluster in `namespace`, and follows it from there.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if one of the first reads fails.
    pub async fn start(store: Arc<dyn CoordinationStore>, namespace: &Namespace) -> Result<Self, StoreError> {
        let keyspace = Keyspace::new(namespace.clone());
        let mut monitor = Monitor {
            store,
            records: Records::new(keyspace.clone()),
            view: Watched::new(keyspace.view_prefix().clone()),
            ready: Watched::new(keyspace.ready_prefix().clone()),
            published: None,
            away_since: None,
            failures: 0,
            retry_at: None,
            keyspace,
        };
        monitor.read().await?;
        Ok(monitor)
    }

    /// Returns the current report, or `None` if there is no cluster in the namespace.
    pub fn report(&self) -> Option<Report> {
        self.records.is_cluster().then(|| self.records.report())
    }

    /// True while the store does not answer, so that the report may be out of date.
    pub fn is_away(&self) -> bool {
        self.away_since.is_some()
    }

    /// Waits until something happens, and returns all events of one revision. The list is empty if the report changed
    /// in a way for which there is no event, for example because a key was deleted by hand.
    ///
    /// Cancel safe. Errors of the store are returned as events.
    pub async fn next(&mut self) -> Vec<MonitorEvent> {
        loop {
            if let Some(at) = self.retry_at {
                tokio::time::sleep_until(at).await;
                self.retry_at = None;
            }
            if let Err(error) = self.connect().await {
                self.failures = self.failures.saturating_add(1);
                self.retry_at = Some(Instant::now() + RETRY.after(self.failures));
                if self.away_since.is_none() {
                    self.away_since = Some(Instant::now());
                    return vec![Event::StoreAway { reason: error.to_string() }.into()];
                }
                continue;
            }
            self.failures = 0;
            if let Some(since) = self.away_since.take() {
                return vec![Event::StoreBack { away: since.elapsed() }.into()];
            }
            if let Some(gap) = self.view.gap().max(self.ready.gap()) {
                self.view.clear_gap();
                self.ready.clear_gap();
                let (rewound, revision) = (gap == Gap::Rewound, self.records.log.revision());
                return vec![Event::Resynced { rewound, revision }.into()];
            }
            if let Some(events) = self.next_batch().await {
                return events;
            }
        }
    }

    /// Opens both watches unless they are open, and first reads everything again if one of them cannot be resumed.
    async fn connect(&mut self) -> Result<(), StoreError> {
        if self.view.needs_snapshot() || self.ready.needs_snapshot() {
            self.read().await?;
        }
        self.view.open(&*self.store).await?;
        self.ready.open(&*self.store).await
    }

    async fn read(&mut self) -> Result<(), StoreError> {
        let view = self.store.read(self.keyspace.view_prefix()).await?;
        let ready = self.store.read(self.keyspace.ready_prefix()).await?;
        self.records = Records::read(&self.keyspace, &view, &ready);
        self.view.reset(view.revision);
        self.ready.reset(ready.revision);
        self.published = None;
        Ok(())
    }

    /// Waits for the next batch of either watch, and returns its events; `None` if a watch ended.
    ///
    /// Nothing orders the items of two watches. If items of both are available, the one with the smaller revision is
    /// taken first.
    async fn next_batch(&mut self) -> Option<Vec<MonitorEvent>> {
        tokio::select! {
            biased;
            () = self.ready.wait() => {}
            () = self.view.wait() => {}
        }
        self.view.wait().now_or_never();
        self.ready.wait().now_or_never();
        if self.ready.next_revision().is_none() && self.lacks_acknowledgements() {
            // If they do not come in time, the version is reported as stable before its last acknowledgements.
            let _ = tokio::time::timeout(LAG, self.ready.wait()).await;
        }
        let is_ready_first = match (self.view.next_revision(), self.ready.next_revision()) {
            (Some(view), Some(ready)) => ready < view,
            (view, _) => view.is_none(),
        };
        if is_ready_first {
            let batch = self.ready.take()?;
            Some(self.apply_acknowledgements(&batch))
        } else {
            let batch = self.view.take()?;
            Some(self.apply(&batch))
        }
    }

    /// True if the next batch records a version as stable, but not all acknowledgements have been seen.
    fn lacks_acknowledgements(&self) -> bool {
        let Some(batch) = self.view.peek() else { return false };
        let is_stable = batch.changes.iter().any(|change| change.key() == self.keyspace.stable_key());
        let is_missing = |node| self.records.readiness(node) == Readiness::Stabilizing;
        is_stable && self.records.log.present().any(|node| is_missing(node))
    }

    /// Folds a batch of `{ns}/view/`. The events of one revision are sorted: a new leader, nodes by name, all others.
    fn apply(&mut self, batch: &Batch) -> Vec<MonitorEvent> {
        let reclaimed = self.reclaimed(batch);
        let changed = self.records.apply(batch);
        let mut events: Vec<Event> = Vec::new();
        let mut others = Vec::new();
        for change in changed {
            match change {
                Changed::Up(node) => {
                    events.push(Event::NodeUp { name: node.name.clone(), uri: node.uri.clone() });
                }
                Changed::Renewed(node) => {
                    events.push(Event::NodeChanged { name: node.name.clone(), uri: node.uri.clone() });
                }
                Changed::Down(node, how, _) => events.push(Event::NodeDown { name: node.name.clone(), how }),
                other => others.extend(self.event(other, batch)),
            }
        }
        events.sort_by_key(|event| node_name(event).cloned());
        let mut events: Vec<MonitorEvent> = events.into_iter().map(MonitorEvent::from).collect();
        let is_new_leader = |event: &MonitorEvent| {
            matches!(event, MonitorEvent::Common(Event::LeaderChanged { term: Some(_), .. }))
        };
        let (first, last): (Vec<_>, Vec<_>) = others.into_iter().partition(is_new_leader);
        events.splice(0..0, first);
        events.extend(last);
        if batch.changes.iter().any(|change| change.key() == self.keyspace.version_key()) {
            events.extend(self.shortage());
            events.extend(self.newly_kept());
        }
        events.extend(reclaimed.into_iter().filter_map(|lease| self.reclaiming(lease)));
        events.extend(batch.changes.iter().filter_map(|change| self.drain_requested(change)));
        events
    }

    /// Returns the sessions that the leader begins to end in this batch: it detaches the key of the session from its
    /// lease, so that the key remains until the leader deletes it.
    fn reclaimed(&self, batch: &Batch) -> Vec<LeaseId> {
        let reclaimed = |change: &Change| match change {
            Change::Put(entry) if entry.lease.is_none() => match self.keyspace.kind_of(&entry.key) {
                KeyKind::Holds(lease) => Some(lease),
                _ => None,
            },
            _ => None,
        };
        let holds = self.records.log.holds();
        let is_live = |lease: &LeaseId| holds.get(lease).is_some_and(|stored| stored.lease.is_some());
        batch.changes.iter().filter_map(reclaimed).filter(is_live).collect()
    }

    fn reclaiming(&self, lease: LeaseId) -> Option<MonitorEvent> {
        let stored = self.records.log.holds().get(&lease)?;
        Some(Event::Reclaiming { holder: Holder::new(lease, stored) }.into())
    }

    fn drain_requested(&self, change: &Change) -> Option<MonitorEvent> {
        let Change::Put(entry) = change else { return None };
        let KeyKind::Drain(name) = self.keyspace.kind_of(&entry.key) else { return None };
        let record = self.records.log.drain(&name)?.record.as_ref()?;
        let (by, why) = (record.by.clone(), record.why.clone());
        Some(MonitorEvent::DrainRequested { name, by, why })
    }

    /// Returns the event for a newest version that has fewer nodes than the minimum size.
    fn shortage(&self) -> Option<MonitorEvent> {
        let (log, nodes) = (&self.records.log, self.records.log.present_count());
        let record = log.version()?.record.as_ref()?;
        let (version, min_nodes) = (record.version, record.min_nodes?);
        let event = match (nodes < min_nodes as usize, record.formed) {
            (false, _) => return None,
            (true, false) => Event::WaitingForNodes { version, nodes, min_nodes },
            (true, true) => Event::TooFewNodes { version, nodes, min_nodes },
        };
        Some(event.into())
    }

    /// Returns an event for each node whose slots wait for it since the newest version.
    fn newly_kept(&self) -> Vec<MonitorEvent> {
        let log = &self.records.log;
        let Some(record) = log.version().and_then(|version| version.record.as_ref()) else {
            return Vec::new();
        };
        let is_new =
            |name: &NodeName| log.previous().is_none_or(|previous| !previous.kept().contains_key(name));
        let event = |(name, keep): (&NodeName, &u64)| {
            Event::SlotsKept { name: name.clone(), keep: Duration::from_millis(*keep) }.into()
        };
        record.kept.iter().filter(|(name, _)| is_new(name)).map(event).collect()
    }

    /// Returns the event for a change other than of a node.
    fn event(&mut self, change: Changed, batch: &Batch) -> Option<MonitorEvent> {
        let log = &self.records.log;
        let event = match change {
            Changed::Leader => {
                let leader = log.leader().and_then(|leader| Some(leader.record.as_ref()?.node.clone()));
                Event::LeaderChanged { leader, term: log.term(), own: false }
            }
            Changed::Version => {
                let record = log.version()?.record.as_ref()?;
                self.published = Some((record.version, Instant::now()));
                Event::VersionPublished {
                    version: record.version,
                    revision: batch.revision,
                    nodes: log.present_count(),
                    causes: record.causes.clone(),
                }
            }
            Changed::Stable => {
                let version = log.stable()?.record.as_ref()?.version;
                let published = self.published.take_if(|(published, _)| *published == version);
                return Some(MonitorEvent::Stable { version, took: published.map(|(_, at)| at.elapsed()) });
            }
            Changed::Request => {
                let record = log.request()?.record.as_ref()?;
                let (by, why) = (record.by.clone(), record.why.clone());
                return Some(MonitorEvent::VersionRequested { by, why });
            }
            Changed::Malformed { key, reason } => Event::Malformed { key, reason },
            Changed::Released => Event::Released { version: log.released()?.record.as_ref()?.version },
            Changed::Cordoned(name) => Event::Cordoned { name },
            Changed::Uncordoned(name) => Event::Uncordoned { name },
            Changed::Other
            | Changed::Up(_)
            | Changed::Renewed(_)
            | Changed::Down(..)
            | Changed::Departed(_) => return None,
        };
        Some(event.into())
    }

    /// Handles a batch of `{ns}/ready/`.
    fn apply_acknowledgements(&mut self, batch: &Batch) -> Vec<MonitorEvent> {
        self.records.apply_acknowledgements(batch);
        let puts = batch.changes.iter().filter_map(|change| match change {
            Change::Put(entry) => Some(entry),
            Change::Delete(_) => None,
        });
        puts.filter_map(|entry| self.acknowledgement(entry)).collect()
    }

    /// Returns the event for an acknowledgement that was put.
    fn acknowledgement(&self, entry: &Entry) -> Option<MonitorEvent> {
        if let Some(reason) = self.records.malformed(&entry.key) {
            return Some(Event::Malformed { key: entry.key.clone(), reason: reason.clone() }.into());
        }
        let name = self.keyspace.acknowledger(&entry.key)?;
        let record = self.records.ready.get(&name)?.record.as_ref()?;
        let (version, reason) = (record.version, record.detail.clone());
        Some(match record.outcome {
            ReadinessOutcome::Pending if record.phase == ReadinessPhase::Released => {
                MonitorEvent::NodeReleased { name, version }
            }
            ReadinessOutcome::Pending => return None,
            ReadinessOutcome::Ready => MonitorEvent::NodeReady { name, version },
            ReadinessOutcome::Failed => MonitorEvent::NodeRefused { name, version, reason },
        })
    }
}

/// Returns the name of the node that joined, changed or left.
fn node_name(event: &Event) -> Option<&NodeName> {
    match event {
        Event::NodeUp { name, .. } | Event::NodeChanged { name, .. } | Event::NodeDown { name, .. } => {
            Some(name)
        }
        _ => None,
    }
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Monitor")
            .field("namespace", self.keyspace.namespace())
            .field("revision", &self.records.log.revision())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A monitor can run in a task of its own.
    #[test]
    fn the_future_of_a_monitor_is_send() {
        fn is_send<T: Send>(value: T) -> T {
            value
        }
        fn next(monitor: &mut Monitor) -> impl Future<Output = Vec<MonitorEvent>> + Send {
            is_send(monitor.next())
        }
        let _ = next;
    }
}
