use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use clustering_core::{
    Event, Holder, Incarnation, LostReason, NodeName, StopReason, Term, Version, View, store::Revision,
};
use serde::{Deserialize, Serialize};

use super::{Moment, StoreAnswer, StoreCall};

/// Identifies one life of a node's process. Each start begins a new life, and two instances under one name are two
/// lives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Life(Arc<str>);

impl<T: Into<Arc<str>>> From<T> for Life {
    fn from(text: T) -> Self {
        Life(text.into())
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Observation of one life of a node, with its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Time on the shared clock. For a question to the node (such as: is it the leader?), the time at which it was
    /// asked.
    pub at: Moment,
    /// Name of the node.
    pub node: NodeName,
    /// Life of the node.
    pub life: Life,
    /// The observation itself.
    #[serde(flatten)]
    pub observation: Observation,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = format!("{}#{}", self.node, self.life);
        write!(f, "{:>14}  {label:<16} {}", self.at, self.observation)
    }
}

/// Node in a view or record, with the fields that P1 promises to be the same for all nodes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Member {
    /// Name of the node.
    pub name: NodeName,
    /// URI at which the node is reached.
    pub uri: String,
    /// Incarnation, which distinguishes the lives under one name.
    pub incarnation: Incarnation,
    /// Metadata of the node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// Outcome of a callback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The callback accepted.
    Ready,
    /// The callback refused for this reason.
    Refused(String),
    /// The callback was dropped before its end, or it panicked.
    Dropped,
}

/// Outcome of a leader commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteOutcome {
    /// The write took effect at this revision.
    Done(Revision),
    /// The write did not take effect, and never will.
    Refused(String),
    /// The write may have taken effect, or may still do so.
    Unknown(String),
}

/// Node whose acknowledgement is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Name of the node.
    pub name: NodeName,
    /// Reason that its stabilize gave, if it refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// Something that one life of a node saw or did, in the detail needed to check the promises.
///
/// Variants named after an [`Event`] are recorded in the order in which the events occurred. The start of a callback is
/// recorded after all events that preceded the call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "saw", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Observation {
    /// The life began.
    Started {
        /// Time after a renewal during which the node may act as leader, if it is not the default of two thirds of
        /// the TTL.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        leadership: Option<Duration>,
        /// True if the node takes over a name that is held.
        takes_over: bool,
    },
    /// A lease was granted.
    Granted {
        /// Id of the lease.
        lease: u64,
        /// Time at which the lease was requested.
        sent: Moment,
        /// Time to live without a renewal.
        ttl: Duration,
    },
    /// A renewal succeeded.
    Renewed {
        /// Id of the lease.
        lease: u64,
        /// Time at which the renewal was sent.
        sent: Moment,
        /// Remaining time to live after the renewal.
        left: Duration,
    },
    /// A renewal failed, as far as the node knows.
    RenewalFailed {
        /// Id of the lease.
        lease: u64,
        /// Time at which the renewal was sent.
        sent: Moment,
        /// Error of the renewal.
        error: String,
    },
    /// The node joined ([`Event::Joined`]).
    Joined {
        /// Incarnation with which the node joined.
        incarnation: Incarnation,
    },
    /// The node joined again by itself ([`Event::Rejoined`]).
    Rejoined {
        /// Incarnation with which the node joined.
        incarnation: Incarnation,
    },
    /// The node lost its session ([`Event::SessionLost`]).
    SessionLost {
        /// Reason for the loss.
        reason: String,
        /// True if the session was lost because the store was restored to an older state.
        rewound: bool,
    },
    /// The node left the cluster with [`unregister`](clustering_core::Clustering::unregister), and only follows the log
    /// ([`Event::Unregistered`]).
    Unregistered,
    /// The node saw a new version ([`Event::VersionPublished`]).
    VersionPublished {
        /// The version.
        version: Version,
        /// Revision that published the version.
        revision: Revision,
    },
    /// The node decided to call stabilize ([`Event::Stabilizing`]).
    Stabilizing {
        /// Version that the callback is for.
        version: Version,
        /// Number of the attempt, starting at 1.
        attempt: u32,
    },
    /// The stabilize callback was called.
    StabilizeBegan {
        /// Version that the callback is for.
        version: Version,
        /// Revision that published the version.
        revision: Revision,
        /// Number of the attempt, starting at 1.
        attempt: u32,
        /// Nodes as passed to the callback.
        nodes: Vec<Member>,
    },
    /// A running stabilize was told that it is superseded ([`Event::Superseded`]).
    Superseded {
        /// Version that the stabilize is for.
        version: Version,
    },
    /// The stabilize callback ended.
    StabilizeEnded {
        /// Version that the callback is for.
        version: Version,
        /// Number of the attempt, starting at 1.
        attempt: u32,
        /// Outcome of the callback.
        ending: Ending,
        /// True if the callback had been told by then that it is superseded.
        told: bool,
    },
    /// The store accepted this node's acknowledgement ([`Event::Ready`]).
    Ready {
        /// The version.
        version: Version,
    },
    /// The node saw that the version is stable ([`Event::Stable`]).
    Stable {
        /// The version.
        version: Version,
    },
    /// The node decided to call `on_stable` ([`Event::Announcing`]).
    Announcing {
        /// The version.
        version: Version,
        /// Term of the node.
        term: Term,
    },
    /// The `on_stable` callback was called.
    OnStableBegan {
        /// Version that the callback is for.
        version: Version,
        /// Term passed to the callback.
        term: Term,
    },
    /// The `on_stable` callback ended.
    OnStableEnded {
        /// Version that the callback is for.
        version: Version,
        /// Term passed to the callback.
        term: Term,
        /// Outcome of the callback.
        ending: Ending,
    },
    /// The node saw a change of the leader ([`Event::LeaderChanged`]).
    LeaderChanged {
        /// The new leader, if there is one.
        leader: Option<NodeName>,
        /// The new term, if there is a leader.
        term: Option<Term>,
        /// True if the new leader is this node.
        own: bool,
    },
    /// The leader suspended its lead ([`Event::LeadershipSuspended`]).
    LeadershipSuspended {
        /// The term, which continues.
        term: Term,
    },
    /// The leader resumed its lead ([`Event::LeadershipResumed`]).
    LeadershipResumed {
        /// The term.
        term: Term,
    },
    /// The node was asked whether it may act as leader, at the entry's time or later.
    AskedLeader {
        /// The term under which the node may act as leader, or `None` if it may not.
        term: Option<Term>,
        /// End of that permission, as stated by the node, unless its lease is renewed.
        until: Option<Moment>,
    },
    /// A write of this node that is fenced by a term.
    LeaderCommit {
        /// Unique id of the write.
        id: String,
        /// The term.
        term: Term,
        /// Outcome of the write.
        outcome: WriteOutcome,
    },
    /// A call is about to be sent to the store. It is recorded only with
    /// [`RecordingStore::with_calls`](super::RecordingStore::with_calls).
    Called {
        /// Number of the call within this life.
        call: u64,
        /// The call.
        what: StoreCall,
    },
    /// The store answered a call, or the call failed.
    Answered {
        /// Number of the call within this life.
        call: u64,
        /// The answer.
        answer: StoreAnswer,
    },
    /// The node has health checks with these settings. Recorded at the start.
    ChecksHealth {
        /// Time from the start of a check to the start of the next one.
        interval: Duration,
        /// Time limit for a check.
        deadline: Duration,
        /// Number of consecutive failures after which the node counts as unhealthy.
        failures: u32,
    },
    /// The health check was called.
    CheckBegan,
    /// The health check ended.
    CheckEnded {
        /// Outcome of the callback.
        ending: Ending,
    },
    /// The node became unhealthy ([`Event::Unhealthy`]).
    Unhealthy {
        /// Reason given by the last check.
        reason: String,
    },
    /// The node became healthy again ([`Event::Healthy`]).
    Healthy,
    /// The node lost contact with the store ([`Event::StoreAway`]).
    StoreAway {
        /// Symptom of the lost contact.
        reason: String,
    },
    /// The node regained contact with the store ([`Event::StoreBack`]).
    StoreBack {
        /// Duration of the lost contact.
        away: Duration,
    },
    /// The node was asked for its status, and reported that the store does not answer. The other fields are the last
    /// that it knew.
    Stale {
        /// Time since the store last answered.
        away: Duration,
        /// Newest version.
        newest: Option<Version>,
        /// Number of nodes present.
        present: usize,
    },
    /// The node read a new snapshot ([`Event::Resynced`]).
    Resynced {
        /// True if the store was restored to an older state.
        rewound: bool,
        /// Revision of the snapshot.
        revision: Revision,
    },
    /// The leader reported what blocks the newest version from becoming stable ([`Event::Blocked`]).
    Blocked {
        /// Version that is not stable.
        version: Version,
        /// Time since this leader saw the version published.
        since: Duration,
        /// Nodes whose acknowledgements are missing.
        missing: Vec<Missing>,
        /// Sessions outside of the version that may still hold keys. Each is given by its node, or by its lease if the
        /// node is not known.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        holders: Vec<String>,
        /// Minimum size of the cluster, if the version waits for further nodes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        waits_for_nodes: Option<u32>,
    },
    /// The node ended ([`Event::Stopped`]).
    Stopped {
        /// Reason: `asked`, `taken_over`, `name_taken` or `aborted`.
        reason: String,
    },
    /// The process may work on a key from now on (P12). If it already may, this extends the time.
    ///
    /// A process that works on a key in several places at once reports the first start and the last end.
    Holds {
        /// The key, or anything else that only one process may work on at a time.
        key: String,
        /// Time after which the process no longer counts as the holder. `None` if it holds the key until it lets go.
        until: Option<Moment>,
    },
    /// The process no longer works on the key.
    LetGo {
        /// The key.
        key: String,
    },
    /// The life was killed from outside, as by `kill -9`. Recorded by the killer.
    Killed,
    /// Events were lost before they reached the journal, so that no promise can be checked with it any more.
    Missed {
        /// Number of lost events.
        events: u64,
    },
    /// Any other observation, as text.
    Note {
        /// Text of the note.
        text: String,
    },
}

impl Member {
    /// Returns the nodes of a view.
    pub fn all(view: &View) -> Vec<Self> {
        let member = |node: &Arc<clustering_core::Node>| Member {
            name: node.name.clone(),
            uri: node.uri.to_string(),
            incarnation: node.incarnation.clone(),
            metadata: node.metadata.clone(),
        };
        view.iter().map(member).collect()
    }
}

impl From<&Event> for Observation {
    fn from(event: &Event) -> Self {
        match event {
            Event::Joined { incarnation } => Observation::Joined { incarnation: incarnation.clone() },
            Event::Rejoined { incarnation } => Observation::Rejoined { incarnation: incarnation.clone() },
            Event::SessionLost { reason } => Observation::SessionLost {
                reason: reason.to_string(),
                rewound: *reason == LostReason::Rewound,
            },
            Event::Unregistered => Observation::Unregistered,
            Event::VersionPublished { version, revision, .. } => {
                Observation::VersionPublished { version: *version, revision: *revision }
            }
            Event::Stabilizing { version, attempt } => {
                Observation::Stabilizing { version: *version, attempt: *attempt }
            }
            Event::Superseded { version } => Observation::Superseded { version: *version },
            Event::Ready { version } => Observation::Ready { version: *version },
            Event::Stable { version } => Observation::Stable { version: *version },
            Event::Announcing { version, term } => Observation::Announcing { version: *version, term: *term },
            Event::LeaderChanged { leader, term, own } => {
                Observation::LeaderChanged { leader: leader.clone(), term: *term, own: *own }
            }
            Event::LeadershipSuspended { term } => Observation::LeadershipSuspended { term: *term },
            Event::LeadershipResumed { term } => Observation::LeadershipResumed { term: *term },
            Event::Unhealthy { reason, .. } => Observation::Unhealthy { reason: reason.clone() },
            Event::Healthy => Observation::Healthy,
            Event::StoreAway { reason } => Observation::StoreAway { reason: reason.clone() },
            Event::StoreBack { away } => Observation::StoreBack { away: *away },
            Event::Resynced { rewound, revision } => {
                Observation::Resynced { rewound: *rewound, revision: *revision }
            }
            Event::Blocked(blocked) => Observation::Blocked {
                version: blocked.version,
                since: blocked.since,
                missing: blocked
                    .laggards
                    .iter()
                    .map(|laggard| Missing { name: laggard.name.clone(), refused: laggard.refused.clone() })
                    .collect(),
                holders: blocked.holders.iter().map(holder).collect(),
                waits_for_nodes: blocked.waits_for_nodes,
            },
            Event::Stopped { reason } => Observation::Stopped { reason: why_stopped(reason) },
            other => Observation::Note { text: other.to_string() },
        }
    }
}

fn holder(holder: &Holder) -> String {
    holder.node.as_ref().map_or_else(|| holder.lease.to_string(), NodeName::to_string)
}

fn why_stopped(reason: &StopReason) -> String {
    match reason {
        StopReason::Asked => "asked".to_owned(),
        StopReason::TakenOver { .. } => "taken_over".to_owned(),
        StopReason::NameTaken { .. } => "name_taken".to_owned(),
        StopReason::Aborted => "aborted".to_owned(),
        other => other.to_string(),
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Ready => f.write_str("accepted"),
            Ending::Refused(reason) => write!(f, "refused: {reason}"),
            Ending::Dropped => f.write_str("dropped"),
        }
    }
}

impl fmt::Display for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Observation::Started { .. } => f.write_str("started"),
            Observation::Granted { lease, sent, ttl } => {
                write!(f, "lease {lease:x} granted for {ttl:?}, requested at {sent}")
            }
            Observation::Renewed { lease, sent, left } => {
                write!(f, "lease {lease:x} renewed for {left:?}, sent at {sent}")
            }
            Observation::RenewalFailed { lease, sent, error } => {
                write!(f, "lease {lease:x} not renewed, sent at {sent}: {error}")
            }
            Observation::Joined { incarnation } => write!(f, "joined as {incarnation}"),
            Observation::Rejoined { incarnation } => write!(f, "joined again as {incarnation}"),
            Observation::SessionLost { reason, .. } => write!(f, "session lost: {reason}"),
            Observation::Unregistered => f.write_str("unregistered"),
            Observation::VersionPublished { version, revision } => {
                write!(f, "sees {version} published @{revision}")
            }
            Observation::Stabilizing { version, attempt } => {
                write!(f, "decides to stabilize {version}, attempt {attempt}")
            }
            Observation::StabilizeBegan { version, attempt, nodes, .. } => {
                write!(f, "stabilize of {version}, attempt {attempt}, began with")?;
                nodes.iter().try_for_each(|node| write!(f, " {}", node.name))
            }
            Observation::Superseded { version } => write!(f, "stabilize of {version} is superseded"),
            Observation::StabilizeEnded { version, attempt, ending, told } => {
                let told = if *told { ", after it was told that it is superseded" } else { "" };
                write!(f, "stabilize of {version}, attempt {attempt}, ended: {ending}{told}")
            }
            Observation::Ready { version } => write!(f, "ready at {version}"),
            Observation::Stable { version } => write!(f, "sees that {version} is stable"),
            Observation::Announcing { version, term } => {
                write!(f, "decides to announce {version} under term {term}")
            }
            Observation::OnStableBegan { version, term } => {
                write!(f, "on_stable of {version} under term {term} began")
            }
            Observation::OnStableEnded { version, term, ending } => {
                write!(f, "on_stable of {version} under term {term} ended: {ending}")
            }
            Observation::LeaderChanged { leader, term, own } => {
                let leader = leader.as_ref().map_or("no node", NodeName::as_str);
                write!(f, "sees that {leader} leads")?;
                term.map_or(Ok(()), |term| write!(f, ", term {term}"))?;
                f.write_str(if *own { ": itself" } else { "" })
            }
            Observation::LeadershipSuspended { term } => write!(f, "suspends its lead, term {term}"),
            Observation::LeadershipResumed { term } => write!(f, "resumes its lead, term {term}"),
            Observation::AskedLeader { term: Some(term), until } => {
                write!(f, "says that it may act as leader, term {term}")?;
                until.map_or(Ok(()), |until| write!(f, ", until {until}"))
            }
            Observation::AskedLeader { term: None, .. } => f.write_str("says that it may not act as leader"),
            Observation::LeaderCommit { id, term, outcome } => {
                write!(f, "write {id} under term {term}: {outcome:?}")
            }
            Observation::Called { call, what } => write!(f, "call {call}: {what}"),
            Observation::Answered { call, answer } => write!(f, "call {call} was answered: {answer}"),
            Observation::ChecksHealth { interval, deadline, failures } => {
                write!(
                    f,
                    "has health checks every {interval:?}, limit {deadline:?}, unhealthy after {failures}"
                )
            }
            Observation::CheckBegan => f.write_str("health check began"),
            Observation::CheckEnded { ending } => write!(f, "health check ended: {ending}"),
            Observation::Unhealthy { reason } => write!(f, "is unhealthy: {reason}"),
            Observation::Healthy => f.write_str("is healthy"),
            Observation::StoreAway { reason } => write!(f, "cannot reach the store: {reason}"),
            Observation::StoreBack { away } => write!(f, "reaches the store again after {away:?}"),
            Observation::Stale { away, newest, present } => {
                let newest = newest.map_or_else(|| "no version".to_owned(), |newest| newest.to_string());
                write!(
                    f,
                    "knew {newest} and {present} nodes {away:?} ago, and has not reached the store since"
                )
            }
            Observation::Resynced { rewound, revision } => {
                write!(f, "read a snapshot @{revision}{}", if *rewound { " of a restored store" } else { "" })
            }
            Observation::Blocked { version, since, missing, holders, waits_for_nodes } => {
                write!(f, "{version} has been blocked for {since:?} by")?;
                missing.iter().try_for_each(|missing| write!(f, " {}", missing.name))?;
                holders.iter().try_for_each(|holder| write!(f, " {holder} (an earlier session)"))?;
                waits_for_nodes.map_or(Ok(()), |min| write!(f, " its size, which is below {min}"))
            }
            Observation::Holds { key, until } => {
                write!(f, "holds {key}")?;
                until.map_or(Ok(()), |until| write!(f, " until {until}"))
            }
            Observation::LetGo { key } => write!(f, "lets go of {key}"),
            Observation::Stopped { reason } => write!(f, "stopped: {reason}"),
            Observation::Killed => f.write_str("was killed"),
            Observation::Missed { events } => write!(f, "missed {events} events"),
            Observation::Note { text } => f.write_str(text),
        }
    }
}
