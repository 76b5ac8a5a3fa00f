use std::{collections::BTreeMap, sync::Arc};

use super::{
    ClusterState, LeaderReport, Malformed, NodeReport, Readiness, Report, RequestReport, VersionReport,
};
use crate::{
    event::Laggard,
    keyspace::{KeyKind, Keyspace},
    name::NodeName,
    node::Node,
    record::{
        DepartureRecord, LeaderRecord, ReadinessOutcome, ReadinessRecord, RequestRecord, StableRecord,
        VersionRecord, decode, decode_node,
    },
    store::{Entry, Key, LeaseId, Revision},
    version::{Term, Version},
};

/// A key as it stands, whether its value can be read or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredRecord<T> {
    pub(super) created: Revision,
    pub(super) modified: Revision,
    pub(super) lease: Option<LeaseId>,
    pub(super) record: Option<T>,
}

/// The records of a cluster, each read once.
///
/// Unlike a node's fold this knows no cut: a snapshot does not tell who was present when the version was written. Who
/// stands now with a record from before it was; who has gone since, the leader publishes in a moment.
#[derive(Clone, Debug)]
pub(super) struct Records {
    keyspace: Keyspace,
    pub(super) leader: Option<StoredRecord<LeaderRecord>>,
    pub(super) version: Option<StoredRecord<VersionRecord>>,
    pub(super) stable: Option<StoredRecord<StableRecord>>,
    pub(super) request: Option<StoredRecord<RequestRecord>>,
    pub(super) gone: Option<StoredRecord<DepartureRecord>>,
    pub(super) nodes: BTreeMap<NodeName, Arc<Node>>,
    pub(super) ready: BTreeMap<NodeName, StoredRecord<ReadinessRecord>>,
    pub(super) malformed: BTreeMap<Key, String>,
}

impl Records {
    pub(super) fn new(keyspace: Keyspace) -> Self {
        Records {
            keyspace,
            leader: None,
            version: None,
            stable: None,
            request: None,
            gone: None,
            nodes: BTreeMap::new(),
            ready: BTreeMap::new(),
            malformed: BTreeMap::new(),
        }
    }

    pub(super) fn read<'a>(
        keyspace: &Keyspace,
        view: impl IntoIterator<Item = &'a Entry>,
        ready: impl IntoIterator<Item = &'a Entry>,
    ) -> Self {
        let mut records = Records::new(keyspace.clone());
        view.into_iter().chain(ready).for_each(|entry| records.put(entry));
        records
    }

    pub(super) fn keyspace(&self) -> &Keyspace {
        &self.keyspace
    }

    pub(super) fn put(&mut self, entry: &Entry) {
        self.malformed.remove(&entry.key);
        if let Some(name) = self.keyspace.acknowledger(&entry.key) {
            let standing = self.standing(entry, decode(&entry.value));
            self.ready.insert(name, standing);
            return;
        }
        match self.keyspace.kind_of(&entry.key) {
            KeyKind::Node(name) => match decode_node(name.clone(), entry) {
                Ok(node) => drop(self.nodes.insert(name, Arc::new(node))),
                Err(reason) => {
                    self.nodes.remove(&name);
                    self.malformed.insert(entry.key.clone(), reason);
                }
            },
            KeyKind::Leader => self.leader = Some(self.standing(entry, decode(&entry.value))),
            KeyKind::Version => self.version = Some(self.standing(entry, decode(&entry.value))),
            KeyKind::Stable => self.stable = Some(self.standing(entry, decode(&entry.value))),
            KeyKind::Request => self.request = Some(self.standing(entry, decode(&entry.value))),
            KeyKind::Departure => self.gone = Some(self.standing(entry, decode(&entry.value))),
            KeyKind::BadName(reason) => drop(self.malformed.insert(entry.key.clone(), reason)),
            KeyKind::Unknown => {}
        }
    }

    pub(super) fn delete(&mut self, key: &Key) {
        self.malformed.remove(key);
        if let Some(name) = self.keyspace.acknowledger(key) {
            self.ready.remove(&name);
            return;
        }
        match self.keyspace.kind_of(key) {
            KeyKind::Node(name) => drop(self.nodes.remove(&name)),
            KeyKind::Leader => self.leader = None,
            KeyKind::Version => self.version = None,
            KeyKind::Stable => self.stable = None,
            KeyKind::Request => self.request = None,
            KeyKind::Departure => self.gone = None,
            KeyKind::BadName(_) | KeyKind::Unknown => {}
        }
    }

    fn standing<T>(&mut self, entry: &Entry, record: Result<T, String>) -> StoredRecord<T> {
        let record = record.map_err(|reason| self.malformed.insert(entry.key.clone(), reason));
        StoredRecord {
            created: entry.created,
            modified: entry.modified,
            lease: entry.lease,
            record: record.ok(),
        }
    }

    /// Whether there is anything that makes it a cluster.
    pub(super) fn is_something(&self) -> bool {
        let keys = self.leader.is_some() || self.version.is_some() || self.stable.is_some();
        // Under `ready/` alone anybody may have written anything.
        let view = self.keyspace.view_prefix().as_str();
        let malformed = self.malformed.keys().any(|key| key.starts_with(view) && self.keyspace.is_own(key));
        keys || self.request.is_some() || !self.nodes.is_empty() || malformed
    }

    pub(super) fn label(&self) -> Option<Version> {
        Some(self.version.as_ref()?.record.as_ref()?.version)
    }

    /// What that node said of the newest version, as the leader judges it: in the session that stands, and after the
    /// version was written. A label may be written twice, by hand; revisions are not.
    pub(super) fn readiness(&self, node: &Node) -> Readiness {
        let Some(version) = &self.version else { return Readiness::New };
        if node.modified > version.modified {
            return Readiness::New;
        }
        let of_this_cut = |answer: &&StoredRecord<ReadinessRecord>| {
            answer.lease == node.lease && answer.modified > version.modified
        };
        let answer = self.ready.get(&node.name).filter(of_this_cut).and_then(|answer| answer.record.as_ref());
        match answer.filter(|answer| Some(answer.version) == self.label()) {
            None => Readiness::Stabilizing,
            Some(answer) if answer.outcome == ReadinessOutcome::Ready => Readiness::Ready,
            Some(answer) => {
                Readiness::Refused(answer.detail.clone().unwrap_or_else(|| "without a reason".to_owned()))
            }
        }
    }

    /// Whether the newest version is recorded as stable.
    pub(super) fn is_stable(&self) -> bool {
        let (Some(version), Some(stable)) = (&self.version, &self.stable) else { return false };
        let says_so = stable.record.as_ref().map(|record| record.version) == self.label();
        says_so && stable.record.is_some() && stable.modified > version.modified
    }

    fn open_request(&self) -> Option<&StoredRecord<RequestRecord>> {
        let seen = self.version.as_ref().map_or(Revision::ZERO, |version| version.modified);
        self.request.as_ref().filter(|request| request.modified > seen)
    }

    fn condition(&self, nodes: &[NodeReport]) -> ClusterState {
        let unreadable = |standing: Option<bool>| standing == Some(false);
        if nodes.is_empty() {
            return ClusterState::Empty;
        }
        if unreadable(self.leader.as_ref().map(|leader| leader.record.is_some()))
            || unreadable(self.version.as_ref().map(|version| version.record.is_some()))
        {
            return ClusterState::Unreadable;
        }
        if self.leader.is_none() {
            return ClusterState::Leaderless;
        }
        let changed: Vec<_> = nodes
            .iter()
            .filter(|node| node.readiness == Readiness::New)
            .map(|node| node.name.clone())
            .collect();
        let asked = self.open_request().is_some();
        let stable = self.is_stable();
        // A snapshot does not tell who is no longer there; the record of what became stable tells how many there were.
        let had = self.stable.as_ref().and_then(|stable| stable.record.as_ref()?.nodes).filter(|_| stable);
        let gone = had.unwrap_or_default().saturating_sub(nodes.len());
        if !changed.is_empty() || gone > 0 || asked {
            return ClusterState::Due { changed, gone, asked };
        }
        if stable {
            return ClusterState::Stable;
        }
        let laggard = |node: &NodeReport| match &node.readiness {
            Readiness::Stabilizing => Some(Laggard { name: node.name.clone(), refused: None }),
            Readiness::Refused(why) => Some(Laggard { name: node.name.clone(), refused: Some(why.clone()) }),
            Readiness::Ready | Readiness::New => None,
        };
        let waiting_for: Vec<_> = nodes.iter().filter_map(laggard).collect();
        match waiting_for.is_empty() {
            true => ClusterState::Confirming,
            false => ClusterState::Adapting { waiting_for },
        }
    }

    pub(super) fn report(&self, revision: Revision) -> Report {
        let leader = self.leader.as_ref().map(|leader| LeaderReport {
            name: leader.record.as_ref().map(|record| record.node.clone()),
            term: Term::new(leader.created),
        });
        let leads = leader.as_ref().and_then(|leader| leader.name.clone());
        // A version that is recorded as stable was acknowledged by all, whatever became of the acknowledgements since.
        let stable = self.is_stable();
        let node = |node: &Arc<Node>| NodeReport {
            readiness: match self.readiness(node) {
                Readiness::Stabilizing | Readiness::Refused(_) if stable => Readiness::Ready,
                readiness => readiness,
            },
            leads: leads.as_ref() == Some(&node.name),
            registered_ms: node.incarnation.as_str().parse().ok().and_then(time_of),
            node: node.clone(),
        };
        let nodes: Vec<_> = self.nodes.values().map(node).collect();
        let version = self.version.as_ref().map(|version| {
            let record = version.record.as_ref();
            VersionReport {
                version: record.map(|record| record.version),
                revision: version.modified,
                // The commit that elects leaves the term out: it is its own revision.
                term: record.map(|record| record.term.unwrap_or_else(|| Term::new(version.modified))),
                leader: record.and_then(|record| record.leader.clone()),
                causes: record.map(|record| record.causes.clone()).unwrap_or_default(),
                published_ms: record.and_then(|record| time_of(record.version)),
            }
        });
        let request = self.open_request().map(|request| RequestReport {
            by: request.record.as_ref().and_then(|record| record.by.clone()),
            why: request.record.as_ref().and_then(|record| record.why.clone()),
        });
        let malformed = self.malformed.iter();
        Report {
            namespace: self.keyspace.namespace().clone(),
            revision,
            condition: self.condition(&nodes),
            leader,
            version,
            stable: self
                .stable
                .as_ref()
                .and_then(|stable| stable.record.as_ref())
                .map(|record| record.version),
            request,
            nodes,
            malformed: malformed
                .map(|(key, reason)| Malformed { key: key.clone(), reason: reason.clone() })
                .collect(),
        }
    }
}

/// Time in a label, in milliseconds since 1970; `None` if the label was not minted by a clock.
fn time_of(label: Version) -> Option<u64> {
    label.is_plausible().then(|| label.minted_ms())
}
