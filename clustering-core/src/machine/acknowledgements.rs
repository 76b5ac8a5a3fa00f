//! Following the acknowledgements of all nodes, `{ns}/ready/`.

use std::collections::BTreeMap;

use super::{
    election::Election,
    facts::Facts,
    follow::Follow,
    outbox::{Call, Outbox},
    timers::Timers,
    token::Token,
};
use crate::{
    event::{Event, StoreCall},
    keyspace::Keyspace,
    name::NodeName,
    record::{ReadinessOutcome, ReadinessRecord, decode},
    store::{Batch, Change, Entry, LeaseId, Revision, Snapshot, StoreError},
    view::View,
};

/// Replica of the keys under `{ns}/ready/`. Only the leader needs it, so only the leader follows that prefix.
///
/// The log and these keys are watched separately, so the two replicas may be at different revisions. An acknowledgement
/// is therefore kept as it is stored, and judged again when either side changes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Acknowledgements {
    follow: Follow,
    stored: BTreeMap<NodeName, StoredAcknowledgement>,
    /// The last revision that was folded.
    revision: Revision,
}

/// A node's acknowledgement of a version, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StoredAcknowledgement {
    pub(crate) modified: Revision,
    lease: Option<LeaseId>,
    /// The decoded value, or `None` if it is malformed.
    record: Option<ReadinessRecord>,
}

/// A change of a node's acknowledgement.
#[derive(Debug)]
pub(crate) struct Changed {
    pub(crate) name: NodeName,
    pub(crate) before: Option<StoredAcknowledgement>,
}

impl StoredAcknowledgement {
    /// Returns the record if it is about the newest version: written in the session that is in its view, and after the
    /// version was published. An operator may write a label twice, but revisions are unique.
    fn valid_in(&self, name: &NodeName, view: &View) -> Option<&ReadinessRecord> {
        let same_session = view.get(name).is_some_and(|node| node.lease == self.lease);
        let is_newer = self.modified > view.revision();
        self.record.as_ref().filter(|record| same_session && is_newer && record.version == view.version())
    }

    /// True if the node is ready at the newest version, and its record has not changed since the version was published.
    pub(crate) fn counts(&self, facts: &Facts, name: &NodeName) -> bool {
        let Some(view) = facts.fold.newest() else { return false };
        let is_ready =
            self.valid_in(name, view).is_some_and(|record| record.outcome == ReadinessOutcome::Ready);
        is_ready && is_as_published(facts, name)
    }

    /// True if the node has released the slots that the newest version takes from it, and its record has not changed
    /// since the version was published.
    pub(crate) fn releases(&self, facts: &Facts, name: &NodeName) -> bool {
        let Some(view) = facts.fold.newest() else { return false };
        self.valid_in(name, view).is_some_and(ReadinessRecord::is_released) && is_as_published(facts, name)
    }

    /// True if the node itself wrote it, in its session of the newest view: under its lease, and well-formed.
    pub(crate) fn is_own(&self, facts: &Facts, name: &NodeName) -> bool {
        let node = facts.fold.newest().and_then(|view| view.get(name));
        self.record.is_some() && node.is_some_and(|node| node.lease == self.lease)
    }
}

/// True if the node's record has not changed since the newest version was published.
pub(crate) fn is_as_published(facts: &Facts, name: &NodeName) -> bool {
    let published = facts.fold.newest().and_then(|view| view.get(name));
    let present = facts.fold.node(name);
    published.is_some_and(|node| present.is_some_and(|present| present.modified == node.modified))
}

impl Acknowledgements {
    pub(crate) fn new(keyspace: &Keyspace) -> Self {
        Acknowledgements {
            follow: Follow::new(keyspace.ready_prefix().clone(), Call::Acknowledgements),
            stored: BTreeMap::new(),
            revision: Revision::ZERO,
        }
    }

    /// True if the acknowledgements were read, or if only those that follow the opening of the watch matter.
    pub(crate) fn is_synced(&self) -> bool {
        self.follow.is_synced()
    }

    /// True if no change was missed since the last snapshot.
    pub(crate) fn is_whole(&self) -> bool {
        self.follow.is_whole()
    }

    pub(crate) fn is_failing(&self) -> bool {
        self.follow.is_failing()
    }

    pub(crate) fn get(&self, name: &NodeName) -> Option<&StoredAcknowledgement> {
        self.stored.get(name)
    }

    /// True if that node's acknowledgement of the newest version says that it is ready, and currently counts.
    pub(crate) fn counts(&self, facts: &Facts, name: &NodeName) -> bool {
        self.get(name).is_some_and(|acknowledgement| acknowledgement.counts(facts, name))
    }

    /// True if that node has a current acknowledgement of the newest version that reports its lost slots as released.
    pub(crate) fn releases(&self, facts: &Facts, name: &NodeName) -> bool {
        self.get(name).is_some_and(|acknowledgement| acknowledgement.releases(facts, name))
    }

    /// Returns the reason why that node refused the version, if it did.
    pub(crate) fn refusal(&self, name: &NodeName, view: &View) -> Option<String> {
        let record = self.get(name)?.valid_in(name, view)?;
        if record.outcome != ReadinessOutcome::Failed {
            return None;
        }
        Some(record.detail.clone().unwrap_or_else(|| "without a reason".to_owned()))
    }

    pub(crate) fn timers(&self, election: &Election, timers: &mut Timers) {
        if election.leading().is_some() {
            timers.maybe(self.follow.wakeup());
        }
    }

    /// Follows the acknowledgements while this node leads.
    ///
    /// A candidate opens the watch while its candidacy is in flight: acknowledgements of the version that the election
    /// publishes come right after it, and a store would take far longer to read the prefix once more.
    pub(crate) fn reconcile(&mut self, facts: &Facts, election: &Election, out: &mut Outbox) {
        if election.leading().is_some() {
            self.follow.start(facts.now);
        } else if !election.may_win(facts) {
            return self.stop(out);
        } else if self.follow.start_watching(facts.now) {
            self.revision = facts.folded();
        }
        self.follow.reconcile(self.revision, facts.now, out);
    }

    /// Drops the watch and the acknowledgements, which would become outdated.
    pub(crate) fn stop(&mut self, out: &mut Outbox) {
        self.follow.stop(out);
        self.stored.clear();
        self.revision = Revision::ZERO;
    }

    /// Handles the reply to a read. Returns the acknowledgements that were known before, if a snapshot has replaced
    /// them.
    #[must_use]
    pub(crate) fn on_read(
        &mut self,
        facts: &Facts,
        token: Token,
        result: Result<Snapshot, StoreError>,
        out: &mut Outbox,
    ) -> Option<BTreeMap<NodeName, StoredAcknowledgement>> {
        if !self.follow.is_reading(token) {
            return None;
        }
        let snapshot = match result {
            Ok(snapshot) => snapshot,
            Err(error) => {
                self.follow.read_failed(facts.now);
                out.call_failed(StoreCall::FollowAcknowledgements, &error, facts.now);
                return None;
            }
        };
        self.follow.read(facts.now);
        self.revision = snapshot.revision;
        let before = std::mem::take(&mut self.stored);
        for entry in &snapshot.entries {
            self.put(facts, entry, out);
        }
        Some(before)
    }

    /// Handles the reply to the opening of the watch.
    pub(crate) fn on_opened(
        &mut self,
        facts: &Facts,
        token: Token,
        result: Result<(), StoreError>,
        out: &mut Outbox,
    ) {
        if let Err(error) = self.follow.opened(facts, token, result) {
            out.contact.failed(&error);
            out.call_failed(StoreCall::FollowAcknowledgements, &error, facts.now);
        }
    }

    /// Folds a batch of the watch, and returns its changes.
    #[must_use]
    pub(crate) fn on_batch(
        &mut self,
        facts: &Facts,
        token: Token,
        batch: &Batch,
        out: &mut Outbox,
    ) -> Vec<Changed> {
        if !self.follow.is_watching(token) {
            return Vec::new();
        }
        self.follow.yielded();
        if batch.revision <= self.revision {
            return Vec::new();
        }
        self.revision = batch.revision;
        let change = |change: &Change| match change {
            Change::Put(entry) => self.put(facts, entry, out),
            Change::Delete(key) => {
                let name = facts.keys().acknowledger(key)?;
                let before = self.stored.remove(&name);
                Some(Changed { name, before })
            }
        };
        batch.changes.iter().filter_map(change).collect()
    }

    /// Handles the end of the watch. The order of acknowledgements does not matter, so it is enough to read a snapshot
    /// of those that are stored.
    pub(crate) fn on_watch_ended(&mut self, facts: &Facts, token: Token) {
        if self.follow.is_watching(token) {
            self.follow.gap(facts);
        }
    }

    fn put(&mut self, facts: &Facts, entry: &Entry, out: &mut Outbox) -> Option<Changed> {
        let mut malformed = |reason| out.emit(Event::Malformed { key: entry.key.clone(), reason });
        let Some(name) = facts.keys().acknowledger(&entry.key) else {
            malformed("its last part is no node's name".to_owned());
            return None;
        };
        let record = decode(&entry.value).map_err(malformed).ok();
        let acknowledgement = StoredAcknowledgement { modified: entry.modified, lease: entry.lease, record };
        let before = self.stored.insert(name.clone(), acknowledgement);
        Some(Changed { name, before })
    }
}
