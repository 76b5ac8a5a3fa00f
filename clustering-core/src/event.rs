//! What happens to a node, as events to subscribe to. Nothing is silent (P10).

use std::{fmt, time::Duration};

use serde::{Serialize, Serializer};

use crate::{
    name::{Incarnation, NodeName, NodeUri},
    record::{Cause, Departure},
    store::{Key, Revision},
    version::{Term, Version},
};

/// A transition, as this node went through it or saw it in the log.
///
/// `Display` gives a line for people; serialized it is an object with its kind under `event`. Durations are
/// serialized in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// This node stands in the log for the first time: it is a member.
    Joined {
        /// The life that began.
        incarnation: Incarnation,
    },
    /// This node is a member again, under a new session (P7).
    Rejoined {
        /// The life that began.
        incarnation: Incarnation,
    },
    /// This node's name is taken, and it waits until the other one is gone.
    NameHeld {
        /// Who holds it.
        incarnation: Incarnation,
        /// Where that one is reached.
        uri: NodeUri,
    },
    /// This node's session is over. It owns nothing and leads nothing until it is a member again.
    SessionLost {
        /// How it ended.
        reason: LostReason,
    },
    /// This node's health checks failed, often enough in a row: it gives up its session, and takes no part until a check
    /// passes (P11).
    Unhealthy {
        /// How many failed in a row.
        failures: u32,
        /// What the last one said.
        reason: String,
    },
    /// This node's health check passed, the first one or the first after it was unhealthy: it takes part.
    Healthy,
    /// A node is present.
    NodeUp {
        /// Its name.
        name: NodeName,
        /// Where it is reached.
        uri: NodeUri,
    },
    /// A node's record was put again: it restarted at once, or changed its metadata.
    NodeChanged {
        /// Its name.
        name: NodeName,
        /// Where it is reached.
        uri: NodeUri,
    },
    /// A node is no longer present.
    NodeDown {
        /// Its name.
        name: NodeName,
        /// How it went.
        how: Departure,
    },
    /// Another leads, or nobody does.
    LeaderChanged {
        /// Who leads. `None` if nobody does, or if the election key cannot be read.
        leader: Option<NodeName>,
        /// The term that began.
        term: Option<Term>,
        /// Whether it is this node.
        own: bool,
    },
    /// This node leads, but could not renew its lease in time: it does not act as leader for now (P6).
    LeadershipSuspended {
        /// Its term, which goes on.
        term: Term,
    },
    /// A renewal succeeded in time: this node acts as leader again, under the same term.
    LeadershipResumed {
        /// Its term.
        term: Term,
    },
    /// A newer version is published.
    VersionPublished {
        /// The version.
        version: Version,
        /// The revision that wrote it.
        revision: Revision,
        /// How many nodes its view has.
        nodes: usize,
        /// Why it was published.
        causes: Vec<Cause>,
    },
    /// A stabilize begins on this node.
    Stabilizing {
        /// For that version.
        version: Version,
        /// 1 for the first try.
        attempt: u32,
    },
    /// A stabilize of this node said no, failed, panicked or was ended for taking too long. It is tried again.
    StabilizeRefused {
        /// For that version.
        version: Version,
        /// Which try it was.
        attempt: u32,
        /// What it gave as the reason.
        reason: String,
        /// How long until the next try.
        #[serde(serialize_with = "milliseconds", rename = "retry_in_ms")]
        retry_in: Duration,
    },
    /// A stabilize of this node runs, or waits for its turn, for a version that is no longer the newest.
    Superseded {
        /// The version that it was for.
        version: Version,
    },
    /// A stabilize of this node takes long.
    StabilizeSlow {
        /// For that version.
        version: Version,
        /// Which try it is.
        attempt: u32,
        /// How long it has run.
        #[serde(serialize_with = "milliseconds", rename = "running_ms")]
        running: Duration,
    },
    /// This node acknowledged that version: the store has it.
    Ready {
        /// The version.
        version: Version,
    },
    /// Every node of that version's view acknowledged it, and the leader recorded so.
    Stable {
        /// The version.
        version: Version,
    },
    /// This node, as the leader that recorded it, calls `on_stable`.
    Announcing {
        /// The version.
        version: Version,
        /// Its term.
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
        /// What the error or the panic said.
        reason: String,
    },
    /// This node leads, and the newest version has not become stable for a while.
    Blocked(Blocked),
    /// This node, as leader, removed one that kept a version from becoming stable.
    Evicted {
        /// Which one.
        name: NodeName,
    },
    /// This node leads and would evict laggards, but more nodes are failing at once than
    /// [`Config::mass_failure_percent`](crate::Config::mass_failure_percent) allows. Evictions are suspended until
    /// fewer nodes fail.
    MassFailure(MassFailure),
    /// The mass failure that this node reported as leader is over, or this node no longer leads.
    MassFailureOver,
    /// The store does not answer: what this node shows is the last that it knew.
    StoreAway {
        /// What was seen of the cause.
        reason: String,
    },
    /// The store answers again.
    StoreBack {
        /// How long it was away.
        #[serde(serialize_with = "milliseconds", rename = "away_ms")]
        away: Duration,
    },
    /// The changes since the last revision seen cannot be had: this node read a snapshot instead.
    Resynced {
        /// Whether the store was restored to an older state.
        rewound: bool,
        /// The snapshot's revision.
        revision: Revision,
    },
    /// A key under the cluster's prefix cannot be read. It counts as absent.
    Malformed {
        /// The key.
        #[serde(serialize_with = "text")]
        key: Key,
        /// What is wrong with it.
        reason: String,
    },
    /// Another client overwrote a key that belongs to this node: its record, which this node then rewrites, or the
    /// election key, which this node then vacates by resigning.
    Overwritten {
        /// The key.
        #[serde(serialize_with = "text")]
        key: Key,
    },
    /// The store refuses a call of this node: its credentials, rights or limits need mending.
    StoreRefused {
        /// What the store said.
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
    /// This node gave up its place by [`unregister`](crate::Clustering::unregister), and only follows the log.
    Unregistered,
    /// This node has ended.
    Stopped {
        /// Why.
        reason: StopReason,
    },
}

impl Event {
    /// All [kinds](Self::kind).
    pub const KINDS: &[&str] = &[
        "joined",
        "rejoined",
        "name_held",
        "session_lost",
        "unhealthy",
        "healthy",
        "node_up",
        "node_changed",
        "node_down",
        "leader_changed",
        "leadership_suspended",
        "leadership_resumed",
        "version_published",
        "stabilizing",
        "stabilize_refused",
        "superseded",
        "stabilize_slow",
        "ready",
        "stable",
        "announcing",
        "announcement_slow",
        "announcement_failed",
        "blocked",
        "evicted",
        "mass_failure",
        "mass_failure_over",
        "store_away",
        "store_back",
        "resynced",
        "malformed",
        "overwritten",
        "store_refused",
        "call_failing",
        "call_recovered",
        "unregistered",
        "stopped",
    ];

    /// The version that it is about, if it is about one.
    pub fn version(&self) -> Option<Version> {
        match self {
            Event::VersionPublished { version, .. }
            | Event::Stabilizing { version, .. }
            | Event::StabilizeRefused { version, .. }
            | Event::Superseded { version }
            | Event::StabilizeSlow { version, .. }
            | Event::Ready { version }
            | Event::Stable { version }
            | Event::Announcing { version, .. }
            | Event::AnnouncementSlow { version, .. }
            | Event::AnnouncementFailed { version, .. }
            | Event::Blocked(Blocked { version, .. })
            | Event::MassFailure(MassFailure { version, .. }) => Some(*version),
            _ => None,
        }
    }

    /// What kind of event it is, as it is serialized under `event`.
    pub fn kind(&self) -> &'static str {
        match self {
            Event::Joined { .. } => "joined",
            Event::Rejoined { .. } => "rejoined",
            Event::NameHeld { .. } => "name_held",
            Event::SessionLost { .. } => "session_lost",
            Event::Unhealthy { .. } => "unhealthy",
            Event::Healthy => "healthy",
            Event::NodeUp { .. } => "node_up",
            Event::NodeChanged { .. } => "node_changed",
            Event::NodeDown { .. } => "node_down",
            Event::LeaderChanged { .. } => "leader_changed",
            Event::LeadershipSuspended { .. } => "leadership_suspended",
            Event::LeadershipResumed { .. } => "leadership_resumed",
            Event::VersionPublished { .. } => "version_published",
            Event::Stabilizing { .. } => "stabilizing",
            Event::StabilizeRefused { .. } => "stabilize_refused",
            Event::Superseded { .. } => "superseded",
            Event::StabilizeSlow { .. } => "stabilize_slow",
            Event::Ready { .. } => "ready",
            Event::Stable { .. } => "stable",
            Event::Announcing { .. } => "announcing",
            Event::AnnouncementSlow { .. } => "announcement_slow",
            Event::AnnouncementFailed { .. } => "announcement_failed",
            Event::Blocked(_) => "blocked",
            Event::Evicted { .. } => "evicted",
            Event::MassFailure(_) => "mass_failure",
            Event::MassFailureOver => "mass_failure_over",
            Event::StoreAway { .. } => "store_away",
            Event::StoreBack { .. } => "store_back",
            Event::Resynced { .. } => "resynced",
            Event::Malformed { .. } => "malformed",
            Event::Overwritten { .. } => "overwritten",
            Event::StoreRefused { .. } => "store_refused",
            Event::CallFailing { .. } => "call_failing",
            Event::CallRecovered { .. } => "call_recovered",
            Event::Unregistered => "unregistered",
            Event::Stopped { .. } => "stopped",
        }
    }
}

/// A call to the store that the protocol needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StoreCall {
    /// Obtains a lease for a new session.
    Grant,
    /// Revokes the lease of an earlier session. The node then rejoins.
    Revoke,
    /// Registers the node.
    Join,
    /// Changes the node's record.
    Rewrite,
    /// Requests a new version.
    RequestVersion,
    /// Makes the node leader and publishes a version.
    Elect,
    /// Publishes a version.
    Publish,
    /// Acknowledges a version, or checks that the acknowledgement was recorded.
    Acknowledge,
    /// Reads and watches the acknowledgements of all nodes, on the leader.
    FollowAcknowledgements,
    /// Records that a version is stable.
    Confirm,
    /// Removes a laggard.
    Evict,
    /// Gives up leadership.
    Resign,
}

impl fmt::Display for StoreCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StoreCall::Grant => "granting a lease",
            StoreCall::Revoke => "giving back an old lease",
            StoreCall::Join => "joining",
            StoreCall::Rewrite => "changing the node's record",
            StoreCall::RequestVersion => "requesting a version",
            StoreCall::Elect => "electing this node",
            StoreCall::Publish => "publishing a version",
            StoreCall::Acknowledge => "acknowledging a version",
            StoreCall::FollowAcknowledgements => "watching the acknowledgements",
            StoreCall::Confirm => "recording that a version is stable",
            StoreCall::Evict => "evicting a laggard",
            StoreCall::Resign => "resigning",
        })
    }
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LostReason {
    /// Its deadline passed without a renewal.
    Expired,
    /// The store no longer knows the lease: it expired, or somebody revoked it.
    LeaseGone,
    /// Somebody deleted the node's record, or made it unreadable, while the lease may live.
    Removed,
    /// The store was restored to an older state.
    Rewound,
    /// The node gave it up, as its health checks failed (P11).
    Unhealthy,
}

impl LostReason {
    /// What kind of reason it is, as it is serialized.
    pub fn kind(&self) -> &'static str {
        match self {
            LostReason::Expired => "expired",
            LostReason::LeaseGone => "lease_gone",
            LostReason::Removed => "removed",
            LostReason::Rewound => "rewound",
            LostReason::Unhealthy => "unhealthy",
        }
    }
}

impl fmt::Display for LostReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LostReason::Expired => "no renewal succeeded in time",
            LostReason::LeaseGone => "the store no longer knows the lease",
            LostReason::Removed => "the node's record was removed",
            LostReason::Rewound => "the store was restored to an older state",
            LostReason::Unhealthy => "the node is not healthy",
        })
    }
}

/// Why a node ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StopReason {
    /// It was asked to.
    Asked,
    /// Another process took over its name.
    TakenOver {
        /// Where that one is reached.
        by: NodeUri,
    },
    /// Its name is taken, and [`NameConflict::Fail`](crate::NameConflict) is set.
    NameTaken {
        /// Where the one that holds it is reached.
        by: NodeUri,
    },
    /// Its task was ended from outside, in the middle of what it did: the tokio runtime was shut down, or the store's
    /// code panicked. Its lease ends by its TTL.
    Aborted,
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StopReason::Asked => f.write_str("it was asked to stop"),
            StopReason::TakenOver { by } => write!(f, "another process, at {by}, took over its name"),
            StopReason::NameTaken { by } => write!(f, "its name is held by another process, at {by}"),
            StopReason::Aborted => f.write_str(
                "its task was ended from outside: the runtime was shut down, or the store panicked",
            ),
        }
    }
}

/// A version that has not become stable for a while, and who keeps it from that.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Blocked {
    /// The version.
    pub version: Version,
    /// How long ago this leader saw it published.
    #[serde(serialize_with = "milliseconds", rename = "since_ms")]
    pub since: Duration,
    /// The nodes whose acknowledgement is missing, by name.
    pub laggards: Vec<Laggard>,
}

/// A node whose acknowledgement of the newest version is missing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Laggard {
    /// Its name.
    pub name: NodeName,
    /// What its stabilize gave as the reason, if it said no; `None` while it has not answered.
    pub refused: Option<String>,
}

/// Simultaneous failure of so many nodes that a common cause is assumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub struct MassFailure {
    /// The newest version.
    pub version: Version,
    /// Number of nodes in its view that are late or refuse it.
    pub failing: usize,
    /// Number of nodes in its view.
    pub nodes: usize,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Joined { incarnation } => write!(f, "joined as {incarnation}"),
            Event::Rejoined { incarnation } => write!(f, "joined again as {incarnation}"),
            Event::NameHeld { uri, .. } => {
                write!(f, "the name is held by {uri}; waiting until that one is gone")
            }
            Event::SessionLost { reason } => write!(f, "session lost: {reason}"),
            Event::Unhealthy { failures: 1, reason } => write!(f, "unhealthy: {reason}"),
            Event::Unhealthy { failures, reason } => {
                write!(f, "unhealthy, {failures} checks in a row: {reason}")
            }
            Event::Healthy => f.write_str("healthy"),
            Event::NodeUp { name, uri } => write!(f, "{name} is present at {uri}"),
            Event::NodeChanged { name, uri } => write!(f, "{name} changed, at {uri}"),
            Event::NodeDown { name, how } => write!(f, "{name} is gone: {how}"),
            Event::LeaderChanged { leader: Some(leader), term: Some(term), own } => {
                write!(f, "{leader} leads, term {term}{}", if *own { " (this node)" } else { "" })
            }
            Event::LeaderChanged { term: Some(term), .. } => {
                write!(f, "an unreadable leader stands, term {term}")
            }
            Event::LeaderChanged { .. } => f.write_str("nobody leads"),
            Event::LeadershipSuspended { term } => {
                write!(f, "leadership suspended, term {term}: no renewal in time")
            }
            Event::LeadershipResumed { term } => write!(f, "leadership resumed, term {term}"),
            Event::VersionPublished { version, nodes, causes, .. } => {
                write!(f, "version {version} of {}: {}", counted(*nodes), Causes(causes))
            }
            Event::Stabilizing { version, attempt } => write!(f, "stabilizing {version}, attempt {attempt}"),
            Event::StabilizeRefused { version, attempt, reason, retry_in } => {
                write!(
                    f,
                    "stabilize of {version} refused, attempt {attempt}: {reason}; again in {:?}",
                    brief(*retry_in)
                )
            }
            Event::Superseded { version } => write!(f, "stabilize of {version} superseded"),
            Event::StabilizeSlow { version, attempt, running } => {
                write!(f, "stabilize of {version}, attempt {attempt}, has run for {:?}", brief(*running))
            }
            Event::Ready { version } => write!(f, "ready at {version}"),
            Event::Stable { version } => write!(f, "stable at {version}"),
            Event::Announcing { version, term } => write!(f, "on_stable of {version}, term {term}"),
            Event::AnnouncementSlow { version, running } => {
                write!(f, "on_stable of {version} has run for {:?}", brief(*running))
            }
            Event::AnnouncementFailed { version, reason } => {
                write!(f, "on_stable of {version} failed: {reason}")
            }
            Event::Blocked(blocked) => blocked.fmt(f),
            Event::Evicted { name } => write!(f, "evicted {name}"),
            Event::MassFailure(failure) => failure.fmt(f),
            Event::MassFailureOver => f.write_str("the mass failure is over: laggards may be evicted again"),
            Event::StoreAway { reason } => write!(f, "the store is away: {reason}"),
            Event::StoreBack { away } => write!(f, "the store is back after {:?}", brief(*away)),
            Event::Resynced { rewound: false, revision } => {
                write!(f, "read a snapshot at revision {revision}")
            }
            Event::Resynced { rewound: true, revision } => {
                write!(f, "the store was restored: read a snapshot at revision {revision}")
            }
            Event::Malformed { key, reason } => write!(f, "cannot read {key}: {reason}"),
            Event::Overwritten { key } => {
                write!(f, "somebody else overwrote {key}, which only this node writes; it is put right")
            }
            Event::StoreRefused { reason } => write!(f, "to be mended: {reason}"),
            Event::CallFailing { call, failing, reason } => {
                write!(f, "{call} has failed for {:?} and is tried again: {reason}", brief(*failing))
            }
            Event::CallRecovered { call, failed } => {
                write!(f, "{call} no longer fails, after {:?}", brief(*failed))
            }
            Event::Unregistered => f.write_str("unregistered"),
            Event::Stopped { reason } => write!(f, "stopped: {reason}"),
        }
    }
}

impl fmt::Display for MassFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MassFailure { version, failing, nodes } = self;
        write!(
            f,
            "mass failure: {failing} of {} late or refusing at {version}; nobody is evicted",
            counted(*nodes)
        )
    }
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has not been stable for {:?}: ", self.version, brief(self.since))?;
        for (place, laggard) in self.laggards.iter().enumerate() {
            let divider = if place == 0 { "" } else { ", " };
            match &laggard.refused {
                Some(reason) => write!(f, "{divider}{} refused ({reason})", laggard.name)?,
                None => write!(f, "{divider}{} has not answered", laggard.name)?,
            }
        }
        Ok(())
    }
}

/// Causes in words.
pub(crate) struct Causes<'a>(pub(crate) &'a [Cause]);

/// So many nodes, in words.
pub(crate) fn counted(nodes: usize) -> String {
    if nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") }
}

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, cause) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str(", ")?;
            }
            cause.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Departure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Departure::Left => "it left",
            Departure::Evicted => "it was evicted",
            Departure::Ended => "its session ended",
        })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Joined(name) => write!(f, "{name} joined"),
            Cause::Left(name) => write!(f, "{name} left"),
            Cause::Ended(name) => write!(f, "{name}'s session ended"),
            Cause::Returned(name) => write!(f, "{name} came back"),
            Cause::Changed(name) => write!(f, "{name} changed"),
            Cause::Evicted(name) => write!(f, "{name} was evicted"),
            Cause::Elected(name) => write!(f, "{name} was elected"),
            Cause::Asked { by, why: Some(why) } => write!(f, "{by} asked ({why})"),
            Cause::Asked { by, why: None } => write!(f, "{by} asked"),
            Cause::Resync => f.write_str("the view before is not known"),
            Cause::Unacknowledged(name) => write!(f, "the acknowledgement of {name} was deleted"),
            Cause::Restored => f.write_str("nodes had seen newer versions"),
            Cause::More(more) => write!(f, "{more} more"),
            Cause::Other(json) => f.write_str(json),
        }
    }
}

/// To the millisecond, for people.
pub(crate) fn brief(duration: Duration) -> Duration {
    Duration::from_millis(duration.as_millis() as u64)
}

pub(crate) fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(duration.as_millis() as u64)
}

fn text<S: Serializer>(key: &Key, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(key)
}

/// One event of each kind, for tests.
#[cfg(test)]
pub(crate) fn samples() -> Vec<Event> {
    let name = || NodeName::parse("n").unwrap();
    let uri = || NodeUri::parse("http://n").unwrap();
    let incarnation = || Incarnation::from("x");
    let (version, term, revision) = (Version::from_u128(1), Term::new(Revision::new(2)), Revision::new(3));
    let (reason, running) = ("why".to_owned(), Duration::from_secs(1));
    vec![
        Event::Joined { incarnation: incarnation() },
        Event::Rejoined { incarnation: incarnation() },
        Event::NameHeld { incarnation: incarnation(), uri: uri() },
        Event::SessionLost { reason: LostReason::Expired },
        Event::Unhealthy { failures: 1, reason: reason.clone() },
        Event::Healthy,
        Event::NodeUp { name: name(), uri: uri() },
        Event::NodeChanged { name: name(), uri: uri() },
        Event::NodeDown { name: name(), how: Departure::Left },
        Event::LeaderChanged { leader: Some(name()), term: Some(term), own: true },
        Event::LeadershipSuspended { term },
        Event::LeadershipResumed { term },
        Event::VersionPublished { version, revision, nodes: 1, causes: vec![Cause::Joined(name())] },
        Event::Stabilizing { version, attempt: 1 },
        Event::StabilizeRefused { version, attempt: 1, reason: reason.clone(), retry_in: running },
        Event::Superseded { version },
        Event::StabilizeSlow { version, attempt: 1, running },
        Event::Ready { version },
        Event::Stable { version },
        Event::Announcing { version, term },
        Event::AnnouncementSlow { version, running },
        Event::AnnouncementFailed { version, reason: reason.clone() },
        Event::Blocked(Blocked { version, since: running, laggards: Vec::new() }),
        Event::Evicted { name: name() },
        Event::MassFailure(MassFailure { version, failing: 3, nodes: 5 }),
        Event::MassFailureOver,
        Event::StoreAway { reason: reason.clone() },
        Event::StoreBack { away: running },
        Event::Resynced { rewound: false, revision },
        Event::Malformed { key: "c/k".into(), reason: reason.clone() },
        Event::Overwritten { key: "c/k".into() },
        Event::StoreRefused { reason: reason.clone() },
        Event::CallFailing { call: StoreCall::Publish, failing: running, reason },
        Event::CallRecovered { call: StoreCall::Publish, failed: running },
        Event::Unregistered,
        Event::Stopped { reason: StopReason::Asked },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_what_is_serialized_and_all_are_listed() {
        let kinds: Vec<_> = samples().iter().map(Event::kind).collect();
        assert_eq!(kinds, Event::KINDS);
        for event in samples() {
            assert_eq!(serde_json::to_value(&event).unwrap()["event"], event.kind());
        }
        for reason in [
            LostReason::Expired,
            LostReason::LeaseGone,
            LostReason::Removed,
            LostReason::Rewound,
            LostReason::Unhealthy,
        ] {
            assert_eq!(serde_json::to_value(&reason).unwrap(), reason.kind());
        }
    }
}
