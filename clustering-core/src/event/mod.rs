//! Events of a node: every transition that it goes through or sees in the log (P10).

mod kind;
mod reason;
mod serialize;
mod text;

#[cfg(all(test, feature = "metrics"))]
pub(crate) use self::kind::samples;
pub use self::reason::{
    Blocked, Evidence, Holder, Laggard, LostReason, MassFailure, MassFailureKind, StopReason, StoreCall,
};
pub(crate) use self::{
    serialize::milliseconds,
    text::{Causes, brief, counted},
};

use std::time::Duration;

use serde::Serialize;

use self::serialize::text;
use crate::{
    name::{Incarnation, NodeName, NodeUri},
    record::{Cause, Departure},
    slots::{Slot, SlotSet},
    store::{Key, Revision},
    version::{Term, Version},
};

/// A transition of this node, or one that this node saw in the log.
///
/// `Display` gives one line for people. The JSON form is an object with the [kind](Self::kind) under `event`; durations
/// are in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// This node became a member for the first time: its record is in the log.
    Joined {
        /// The incarnation under which it joined.
        incarnation: Incarnation,
    },
    /// This node became a member again, in a new session (P7).
    Rejoined {
        /// The incarnation under which it joined.
        incarnation: Incarnation,
    },
    /// Another process holds this node's name. This node waits until the name is free.
    NameHeld {
        /// The incarnation that holds the name.
        incarnation: Incarnation,
        /// The URI of the process that holds the name.
        uri: NodeUri,
    },
    /// This node's session ended. Until it has rejoined, the node owns no keys and does not lead.
    SessionLost {
        /// Why the session ended.
        reason: LostReason,
    },
    /// This node's health check failed as many times in a row as is configured. The node gives up its session and
    /// rejoins once a check passes (P11).
    Unhealthy {
        /// Number of checks that failed in a row.
        failures: u32,
        /// The reason that the last check gave.
        reason: String,
    },
    /// This node's health check passed for the first time, or for the first time since the node was unhealthy. The node
    /// may join.
    Healthy,
    /// A node joined the cluster.
    NodeUp {
        /// The node's name.
        name: NodeName,
        /// The node's URI.
        uri: NodeUri,
    },
    /// A node's record was replaced: the node was restarted, or it changed its metadata.
    NodeChanged {
        /// The node's name.
        name: NodeName,
        /// The node's URI.
        uri: NodeUri,
    },
    /// A node is no longer present.
    NodeDown {
        /// The node's name.
        name: NodeName,
        /// The way in which the node departed.
        how: Departure,
    },
    /// A node was elected leader, or the leader was lost.
    LeaderChanged {
        /// The new leader; `None` if there is none, or if the election key is unreadable.
        leader: Option<NodeName>,
        /// The new term; `None` if there is no leader.
        term: Option<Term>,
        /// True if the new leader is this node.
        own: bool,
    },
    /// This node leads, but its lease was not renewed in time. It does not act as leader until a renewal succeeds (P6).
    LeadershipSuspended {
        /// The term, which has not ended.
        term: Term,
    },
    /// A renewal succeeded before the session ended. This node acts as leader again, under the same term.
    LeadershipResumed {
        /// The term.
        term: Term,
    },
    /// A new version was published.
    VersionPublished {
        /// The version.
        version: Version,
        /// The revision of the commit that published the version.
        revision: Revision,
        /// Number of nodes in the version's view.
        nodes: usize,
        /// Why the version was published.
        causes: Vec<Cause>,
    },
    /// This node calls its `stabilize` callback.
    Stabilizing {
        /// The version to adapt to.
        version: Version,
        /// Number of the attempt, starting at 1.
        attempt: u32,
    },
    /// This node's `stabilize` callback refused, returned an error, panicked, or exceeded its time limit. It is called
    /// again.
    StabilizeRefused {
        /// The version to adapt to.
        version: Version,
        /// Number of the attempt, starting at 1.
        attempt: u32,
        /// The reason for the refusal.
        reason: String,
        /// Time until the next attempt.
        #[serde(serialize_with = "milliseconds", rename = "retry_in_ms")]
        retry_in: Duration,
    },
    /// A newer version was published, or the session ended, while this node's `stabilize` callback was running. Its
    /// result no longer counts.
    Superseded {
        /// The version that is no longer wanted.
        version: Version,
    },
    /// This node's `stabilize` callback has been running for [`Config::warn_after`](crate::Config::warn_after).
    StabilizeSlow {
        /// The version to adapt to.
        version: Version,
        /// Number of the attempt, starting at 1.
        attempt: u32,
        /// Time for which the callback has been running.
        #[serde(serialize_with = "milliseconds", rename = "running_ms")]
        running: Duration,
    },
    /// This node acknowledged a version, and the store has recorded the acknowledgement.
    Ready {
        /// The version.
        version: Version,
    },
    /// This node lost slots and must let go of them: the newest version takes them away, or the session is ending.
    SlotsLost {
        /// The slots.
        slots: SlotSet,
    },
    /// This node holds further slots.
    SlotsAcquired {
        /// The version that assigns the slots to this node.
        version: Version,
        /// The slots.
        slots: SlotSet,
    },
    /// This node's lease was not renewed in time. Its holds are lost, and it gives out no new ones until a renewal
    /// succeeds.
    HoldsSuspended,
    /// A renewal succeeded before the session ended. This node gives out holds again.
    HoldsResumed,
    /// This node calls its `release` callback.
    Releasing {
        /// The slots to release.
        slots: SlotSet,
        /// Number of the attempt, starting at 1.
        attempt: u32,
    },
    /// This node's `release` callback returned an error, panicked, or exceeded its time limit. It is called again.
    ReleaseRefused {
        /// Number of the attempt, starting at 1.
        attempt: u32,
        /// The error, or the message of the panic.
        reason: String,
        /// Time until the next attempt.
        #[serde(serialize_with = "milliseconds", rename = "retry_in_ms")]
        retry_in: Duration,
    },
    /// This node has not let go of its lost slots for [`Config::warn_after`](crate::Config::warn_after). Until it does,
    /// no node can acquire a slot that has moved.
    ReleaseSlow {
        /// Slots with holds that were not dropped.
        in_use: SlotSet,
        /// True if the `release` callback has not succeeded yet.
        releasing: bool,
        /// Time since the slots were lost.
        #[serde(serialize_with = "milliseconds", rename = "waiting_ms")]
        waiting: Duration,
    },
    /// Work on a lost slot did not end in time and was dropped: a task of
    /// [`for_each_held_slot`](crate::Clustering::for_each_held_slot), or the work of
    /// [`while_held`](crate::Clustering::while_held). Such work should end when [`lost`](crate::Hold::lost) resolves.
    WorkDropped {
        /// The slot.
        slot: Slot,
        /// Time since the work was told that the slot is lost.
        #[serde(serialize_with = "milliseconds", rename = "after_ms")]
        after: Duration,
    },
    /// The leader recorded that all slots that move in a version are released. The new owners may acquire them.
    Released {
        /// The version.
        version: Version,
    },
    /// This node is exclusive, but other nodes of the newest version are not. Until those are replaced, no slot is
    /// handed over, and they may work on keys that exclusive nodes hold.
    NotExclusive {
        /// The version.
        version: Version,
        /// The nodes that are not exclusive, sorted by name.
        nodes: Vec<NodeName>,
    },
    /// An operator cordoned a node, which must not own slots.
    Cordoned {
        /// The node's name.
        name: NodeName,
    },
    /// An operator lifted the cordon of a node.
    Uncordoned {
        /// The node's name.
        name: NodeName,
    },
    /// The slots of an absent node wait for it, because it said that it will be restarted, or because so many nodes
    /// were lost at once that they are expected back.
    SlotsKept {
        /// The name of the absent node.
        name: NodeName,
        /// Time for which its slots wait, counted by the leader.
        #[serde(serialize_with = "milliseconds", rename = "keep_ms")]
        keep: Duration,
    },
    /// This node leads, and the newest version does not become stable, because it has fewer nodes than the
    /// [minimum](crate::Config::min_nodes) of a new cluster.
    WaitingForNodes {
        /// The version.
        version: Version,
        /// Number of nodes in its view.
        nodes: usize,
        /// The minimum.
        min_nodes: u32,
    },
    /// This node leads, and the newest version has fewer nodes than the [minimum](crate::Config::min_nodes) with which
    /// the cluster began. The cluster works on.
    TooFewNodes {
        /// The version.
        version: Version,
        /// Number of nodes in its view.
        nodes: usize,
        /// The minimum.
        min_nodes: u32,
    },
    /// This node found that the process of another node is gone, and removes the node. See
    /// [`Config::crash_detection`](crate::Config::crash_detection).
    ProcessGone {
        /// The name of the node.
        name: NodeName,
        /// The evidence.
        evidence: Evidence,
    },
    /// Another node removed this one as crashed, although its process is alive: something in the network refuses
    /// connections to its endpoint. This node rejoins and no longer offers its endpoint, so that it is not removed
    /// again for that reason.
    FalselyRemoved {
        /// The address of the endpoint.
        address: String,
    },
    /// This node leads and ends the lease of a removed session, because its process still renews it two TTLs after the
    /// removal. The session's slots can be acquired one more TTL later.
    Reclaiming {
        /// The session.
        holder: Holder,
    },
    /// This node leads, and its [assignor](crate::slots::Assignor) is faulty. The slots stay where they are.
    AssignorFailed {
        /// Description of the error in the assignor's result.
        reason: String,
    },
    /// The leader recorded that every node in a version's view has acknowledged it.
    Stable {
        /// The version.
        version: Version,
    },
    /// This node calls its `on_stable` callback, as the leader that recorded the version as stable.
    Announcing {
        /// The version.
        version: Version,
        /// The term under which the version was recorded as stable.
        term: Term,
    },
    /// This node's `on_stable` callback is taking a long time. No later version is announced until it returns.
    AnnouncementSlow {
        /// The version.
        version: Version,
        /// Time for which the callback has been running.
        #[serde(serialize_with = "milliseconds", rename = "running_ms")]
        running: Duration,
    },
    /// This node's `on_stable` callback returned an error, panicked, or exceeded its time limit. It is not called
    /// again for that version.
    AnnouncementFailed {
        /// The version.
        version: Version,
        /// The error, or the message of the panic.
        reason: String,
    },
    /// This node leads, and the newest version has not become stable within
    /// [`Config::warn_after`](crate::Config::warn_after).
    Blocked(Blocked),
    /// This node, as leader, removed a node that kept a version from becoming stable.
    Evicted {
        /// The name of the removed node.
        name: NodeName,
    },
    /// This node leads, and more nodes are failing at once than
    /// [`Config::mass_failure_percent`](crate::Config::mass_failure_percent) allows: they are late, and evictions are
    /// suspended until fewer nodes fail; or they are lost, and their slots wait for them for one more TTL.
    MassFailure(MassFailure),
    /// The mass failure that this node reported as leader is over, or this node no longer leads.
    MassFailureOver {
        /// The kind of the mass failure.
        kind: MassFailureKind,
    },
    /// The store stopped answering. Until it answers again, this node shows the last state that it knows.
    StoreAway {
        /// The error that was seen first.
        reason: String,
    },
    /// The store answers again.
    StoreBack {
        /// Time for which the store did not answer.
        #[serde(serialize_with = "milliseconds", rename = "away_ms")]
        away: Duration,
    },
    /// The store no longer has the changes that this node missed, so this node read a snapshot instead.
    Resynced {
        /// True if the store was restored to an older state.
        rewound: bool,
        /// The revision of the snapshot.
        revision: Revision,
    },
    /// A record of the cluster is unreadable and counts as absent. An unreadable election key still blocks elections.
    Malformed {
        /// The key of the record.
        #[serde(serialize_with = "text")]
        key: Key,
        /// The reason why the record is unreadable.
        reason: String,
    },
    /// Another client overwrote a key that belongs to this node: its record, which this node then rewrites, or the
    /// election key, which this node then vacates by resigning.
    Overwritten {
        /// The key.
        #[serde(serialize_with = "text")]
        key: Key,
    },
    /// The store refused a call of this node. An operator has to correct credentials, permissions or limits; until then
    /// the node retries the call every few seconds.
    StoreRefused {
        /// The error that the store returned.
        reason: String,
    },
    /// A store call that this node needs has kept failing for at least
    /// [`Config::warn_after`](crate::Config::warn_after). The node retries it until it succeeds or is no longer needed.
    CallFailing {
        /// The call.
        call: StoreCall,
        /// Time since its first failure.
        #[serde(serialize_with = "milliseconds", rename = "failing_ms")]
        failing: Duration,
        /// Error of its last failure.
        reason: String,
    },
    /// A store call that was reported as failing has succeeded, or is no longer needed.
    CallRecovered {
        /// The call.
        call: StoreCall,
        /// Time for which it failed.
        #[serde(serialize_with = "milliseconds", rename = "failed_ms")]
        failed: Duration,
    },
    /// This node left the cluster through [`unregister`](crate::Clustering::unregister). It still follows the log.
    Unregistered,
    /// This node has ended.
    Stopped {
        /// Why the node ended.
        reason: StopReason,
    },
}

impl Event {
    /// Returns the version that the event concerns, if it concerns one.
    pub fn version(&self) -> Option<Version> {
        match self {
            Event::VersionPublished { version, .. }
            | Event::Stabilizing { version, .. }
            | Event::StabilizeRefused { version, .. }
            | Event::Superseded { version }
            | Event::StabilizeSlow { version, .. }
            | Event::Ready { version }
            | Event::Stable { version }
            | Event::SlotsAcquired { version, .. }
            | Event::Released { version }
            | Event::NotExclusive { version, .. }
            | Event::WaitingForNodes { version, .. }
            | Event::TooFewNodes { version, .. }
            | Event::Announcing { version, .. }
            | Event::AnnouncementSlow { version, .. }
            | Event::AnnouncementFailed { version, .. }
            | Event::Blocked(Blocked { version, .. })
            | Event::MassFailure(MassFailure { version, .. }) => Some(*version),
            _ => None,
        }
    }
}
