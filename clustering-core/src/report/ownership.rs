//! Slots and their hand-over in a report.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde::Serialize;

use super::{ClusterState, NodeReport, Readiness, Report, records::Records};
use crate::{
    event::{Holder, Laggard, milliseconds},
    name::NodeName,
    node::Node,
    record::{Cause, CordonRecord, HoldsRecord, StoredRecord},
    slots::{Slot, SlotCount, SlotSet},
    store::LeaseId,
    view::View,
};

/// The slots of an exclusive cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SlotsReport {
    /// The number of slots; `None` if no version has assigned slots yet.
    pub count: Option<SlotCount>,
    /// True if slots are handed over in the newest version, because all its nodes are exclusive. Otherwise no slots are
    /// acquired.
    pub has_handover: bool,
    /// The nodes of the newest version that are not exclusive, sorted by name.
    pub not_exclusive: Vec<NodeName>,
    /// True if the leader recorded that the moving slots of the newest version are released, so that their new owners
    /// may acquire them.
    pub released: bool,
    /// Sessions without a present node that may still hold keys. No moving slot of a later version is acquired before
    /// they have ended.
    pub standing: Vec<StandingReport>,
    /// The slots that no node owns, and that wait for no node.
    pub unowned: SlotSet,
    /// The absent nodes whose slots wait for them, sorted by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<KeptReport>,
    /// The slots that move in the newest version. `None` if the previous version is not known, for example in a report
    /// from a single read.
    pub moves: Option<Vec<Move>>,
}

/// A session without a present node that may still hold keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StandingReport {
    /// The session.
    #[serde(flatten)]
    pub holder: Holder,
    /// The URI of the session's node, as the node wrote it.
    pub uri: Option<String>,
    /// Lifetime of the session's lease without a renewal; `None` if the session's key is malformed.
    #[serde(serialize_with = "maybe_milliseconds", rename = "ttl_ms")]
    pub ttl: Option<Duration>,
    /// True if the leader ends the session, because its process renews the lease although the node was removed. The
    /// slots can be acquired one TTL after the leader has revoked the lease.
    pub reclaimed: bool,
}

/// Slots that wait for an absent node, which is expected to come back. Until then they have no owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct KeptReport {
    /// The name of the absent node.
    pub name: NodeName,
    /// The slots.
    pub slots: SlotSet,
    /// Time for which the slots wait after the newest version was published. A leader that is elected in the meantime
    /// starts counting again.
    #[serde(serialize_with = "milliseconds", rename = "keep_ms")]
    pub keep: Duration,
}

/// Slots that move from one node to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Move {
    /// The node that owned the slots; `None` if no node did.
    pub from: Option<NodeName>,
    /// The node that owns the slots in the newest version; `None` if no node does.
    pub to: Option<NodeName>,
    /// The slots.
    pub slots: SlotSet,
}

/// The progress of a hand-over on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Handover {
    /// The node may still hold slots that the newest version takes from it.
    Holding,
    /// The node no longer holds any of these slots, and has not acknowledged the version yet.
    Released,
    /// The node acknowledged the version.
    Ready,
}

/// The cordon of a node, which may be absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CordonReport {
    /// The node's name.
    pub name: NodeName,
    /// The operator who cordoned the node.
    pub by: String,
    /// The reason that the operator gave.
    pub why: String,
}

/// The request of an operator to a node to leave in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DrainReport {
    /// The operator.
    pub by: String,
    /// The reason that the operator gave.
    pub why: String,
}

impl Report {
    /// Returns the slot of the key, if the cluster hands slots over. Otherwise keys are owned by
    /// [placement](Self::placement).
    pub fn slot_of(&self, key: impl AsRef<[u8]>) -> Option<Slot> {
        let slots = self.slots.as_ref().filter(|slots| slots.has_handover)?;
        Some(slots.count?.slot_of(key))
    }

    /// Returns the present node that owns the slot in the newest version.
    pub fn owner_of(&self, slot: Slot) -> Option<&NodeReport> {
        self.nodes.iter().find(|node| node.slots.contains(slot))
    }
}

/// Owners of slots and progress of the hand-over, as an outside reader knows them.
///
/// A snapshot does not show the cut of the newest version. Therefore, as in [readiness](Records::readiness), the nodes
/// that have not changed since the version was written count as its nodes.
pub(super) struct Ownership<'a> {
    records: &'a Records,
    members: Vec<&'a Arc<Node>>,
    has_handover: bool,
    owned: BTreeMap<&'a NodeName, SlotSet>,
    unowned: SlotSet,
    kept: Vec<KeptReport>,
}

impl<'a> Ownership<'a> {
    pub(super) fn new(records: &'a Records) -> Self {
        let version = records.log.version_modified();
        let members: Vec<_> = records.log.present().filter(|node| node.modified <= version).collect();
        let mut owned: BTreeMap<&NodeName, Vec<Slot>> = BTreeMap::new();
        let mut unowned = Vec::new();
        let assignment = records.log.slots().and_then(|slots| slots.record.as_ref());
        if let Some(assignment) = assignment {
            let owners = assignment.among(members.iter().map(|node| &node.name));
            for (slot, owner) in assignment.count().iter().zip(owners) {
                match owner {
                    Some(place) => owned.entry(&members[place].name).or_default().push(slot),
                    None => unowned.push(slot),
                }
            }
        }
        let owned = owned.into_iter().map(|(name, slots)| (name, slots.into_iter().collect())).collect();
        let kept = kept(records, &members);
        let is_kept = |slot: &Slot| kept.iter().any(|kept| kept.slots.contains(*slot));
        let unowned = unowned.into_iter().filter(|slot| !is_kept(slot)).collect();
        let has_handover = !members.is_empty() && members.iter().all(|node| is_exclusive(records, node));
        Ownership { records, members, has_handover, owned, unowned, kept }
    }

    /// Returns the number of nodes of the newest version, as far as the report shows.
    pub(super) fn members(&self) -> usize {
        self.members.len()
    }

    /// True if the newest version hands slots over, as far as the report shows.
    pub(super) fn has_handover(&self) -> bool {
        self.has_handover
    }

    /// True if the node is exclusive: its session has a witness.
    pub(super) fn is_exclusive(&self, node: &Node) -> bool {
        is_exclusive(self.records, node)
    }

    pub(super) fn slots_of(&self, name: &NodeName) -> SlotSet {
        self.owned.get(name).cloned().unwrap_or_default()
    }

    /// Returns the progress of the hand-over on a node; `None` if the newest version has no hand-over, or does not
    /// contain this node.
    pub(super) fn handover(&self, node: &Node) -> Option<Handover> {
        if !self.has_handover {
            return None;
        }
        Some(match self.records.readiness(node) {
            Readiness::New => return None,
            Readiness::Ready => Handover::Ready,
            Readiness::Stabilizing | Readiness::Refused(_) if self.records.has_released(node) => {
                Handover::Released
            }
            Readiness::Stabilizing | Readiness::Refused(_) => Handover::Holding,
        })
    }

    pub(super) fn report(&self) -> Option<SlotsReport> {
        let log = &self.records.log;
        if log.slots().is_none() && log.holds().is_empty() {
            return None;
        }
        let lacking = self.members.iter().filter(|node| !self.is_exclusive(node));
        Some(SlotsReport {
            count: log.slots().and_then(|slots| Some(slots.record.as_ref()?.count())),
            has_handover: self.has_handover,
            not_exclusive: lacking.map(|node| node.name.clone()).collect(),
            released: self.records.is_released(),
            standing: self.standing(),
            unowned: self.unowned.clone(),
            kept: self.kept.clone(),
            moves: log.previous().zip(log.newest()).map(|(previous, newest)| moves(previous, newest)),
        })
    }

    /// Returns the sessions without a present node that began before the newest version.
    fn standing(&self) -> Vec<StandingReport> {
        let log = &self.records.log;
        let leases: BTreeSet<LeaseId> = log.present().filter_map(|node| node.lease).collect();
        let is_standing = |(lease, stored): &(&LeaseId, &StoredRecord<HoldsRecord>)| {
            stored.created <= log.version_modified() && !leases.contains(lease)
        };
        log.holds().iter().filter(is_standing).map(|(lease, stored)| standing(*lease, stored)).collect()
    }

    /// Returns the state of a cluster whose newest version has hand-over and is not released yet.
    pub(super) fn releasing(&self, nodes: &[NodeReport]) -> Option<ClusterState> {
        if !self.has_handover || self.records.is_released() {
            return None;
        }
        let is_awaited =
            |node: &&NodeReport| node.handover == Some(Handover::Holding) && self.may_lose(&node.name);
        let refused = |node: &NodeReport| match &node.readiness {
            Readiness::Refused(reason) => Some(reason.clone()),
            _ => None,
        };
        let laggard = |node: &NodeReport| Laggard { name: node.name.clone(), refused: refused(node) };
        Some(ClusterState::Releasing { waiting_for: nodes.iter().filter(is_awaited).map(laggard).collect() })
    }

    /// True if the node must acknowledge the release of its slots, as far as the report shows. In a version with a
    /// clean start, only nodes that lose slots must do so.
    fn may_lose(&self, name: &NodeName) -> bool {
        let log = &self.records.log;
        let version = log.version().and_then(|version| version.record.as_ref());
        let Some(version) = version.filter(|version| version.clean) else { return true };
        if let Some((previous, newest)) = log.previous().zip(log.newest()) {
            return !previous.slots_of(name).is_subset(&newest.slots_of(name));
        }
        let is_new = |cause: &Cause| matches!(cause, Cause::Joined(joined) if joined == name);
        !version.causes.iter().any(is_new)
    }
}

fn is_exclusive(records: &Records, node: &Node) -> bool {
    node.lease.is_some_and(|lease| records.log.holds().contains_key(&lease))
}

/// Returns the nodes for which slots wait in the newest version.
fn kept(records: &Records, members: &[&Arc<Node>]) -> Vec<KeptReport> {
    let log = &records.log;
    let version = log.version().and_then(|version| version.record.as_ref());
    let assignment = log.slots().and_then(|slots| slots.record.as_ref());
    let Some((version, assignment)) = version.zip(assignment) else { return Vec::new() };
    let absent = version.kept.iter().filter(|(name, _)| members.iter().all(|node| node.name != **name));
    let report = |(name, keep): (&NodeName, &u64)| KeptReport {
        name: name.clone(),
        slots: assignment.of(name).collect(),
        keep: Duration::from_millis(*keep),
    };
    absent.map(report).filter(|kept| !kept.slots.is_empty()).collect()
}

pub(super) fn cordon(name: &NodeName, stored: &StoredRecord<CordonRecord>) -> CordonReport {
    let CordonRecord { by, why } = stored.record.clone().unwrap_or_default();
    CordonReport { name: name.clone(), by, why }
}

fn standing(lease: LeaseId, stored: &StoredRecord<HoldsRecord>) -> StandingReport {
    let record = stored.record.as_ref();
    StandingReport {
        holder: Holder::new(lease, stored),
        uri: record.map(|record| record.uri.clone()),
        ttl: record.map(HoldsRecord::ttl),
        reclaimed: stored.lease.is_none(),
    }
}

/// Returns the slots whose owners differ, grouped by former and new owner.
fn moves(previous: &View, newest: &View) -> Vec<Move> {
    let mut moves: BTreeMap<_, Vec<Slot>> = BTreeMap::new();
    let slots = newest.slot_count().into_iter().flat_map(SlotCount::iter);
    for slot in slots {
        let owner = |view: &View| view.owner_of(slot).map(|node| node.name.clone());
        let (from, to) = (owner(previous), owner(newest));
        if from != to {
            moves.entry((from, to)).or_default().push(slot);
        }
    }
    let one = |((from, to), slots): (_, Vec<Slot>)| Move { from, to, slots: slots.into_iter().collect() };
    moves.into_iter().map(one).collect()
}

fn maybe_milliseconds<S: serde::Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => milliseconds(duration, serializer),
        None => serializer.serialize_none(),
    }
}
