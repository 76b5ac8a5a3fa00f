use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use clustering_core::{
    Event, Incarnation, LostReason, NodeName, StopReason, Term, Version, View, store::Revision,
};
use serde::{Deserialize, Serialize};

use super::{Moment, StoreAnswer, StoreCall};

/// One life of a node's process: another after each start. Two instances under one name are two lives.
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

/// What one life of a node saw or did, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When, on the clock that all share. Of a question (is this node leader?): when it was asked.
    pub at: Moment,
    /// The node.
    pub node: NodeName,
    /// Which life of it.
    pub life: Life,
    /// What it saw or did.
    #[serde(flatten)]
    pub observation: Observation,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = format!("{}#{}", self.node, self.life);
        write!(f, "{:>14}  {label:<16} {}", self.at, self.observation)
    }
}

/// A node as a view or a record has it, as far as P1 promises it to be the same for all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub name: NodeName,
    /// Where it is reached.
    pub uri: String,
    /// Which life of that name it is.
    pub incarnation: Incarnation,
    /// What it tells about itself.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// How a callback ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// It said yes.
    Ready,
    /// It said no, for that reason.
    Refused(String),
    /// It was dropped before its end, or it panicked.
    Dropped,
}

/// What became of a fenced write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteOutcome {
    /// It is in the store, at that revision.
    Done(Revision),
    /// It is not, and never will be.
    Refused(String),
    /// It may be.
    Unknown(String),
}

/// A node whose acknowledgement is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Its name.
    pub name: NodeName,
    /// What its stabilize gave as the reason, if it said no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// What one life of a node saw or did: as much as it takes to judge the promises.
///
/// Those named after an [`Event`] stand in the journal in the order in which the node went through them. What a callback
/// was given stands after all events that came before the callback was called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "saw", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Observation {
    /// The life begins.
    Started {
        /// The most of its lease's time that it may act as leader, if another than two thirds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        leadership: Option<Duration>,
        /// Whether it takes over a name that is held.
        takes_over: bool,
    },
    /// A lease was granted.
    Granted {
        /// Which.
        lease: u64,
        /// When it was asked for.
        sent: Moment,
        /// How long it lives without a renewal.
        ttl: Duration,
    },
    /// A renewal succeeded.
    Renewed {
        /// Of which lease.
        lease: u64,
        /// When it was sent.
        sent: Moment,
        /// How long the lease lives from then on.
        left: Duration,
    },
    /// A renewal did not succeed, as far as the node knows.
    RenewalFailed {
        /// Of which lease.
        lease: u64,
        /// When it was sent.
        sent: Moment,
        /// What was said.
        error: String,
    },
    /// [`Event::Joined`]
    Joined {
        /// The life that began in the log.
        incarnation: Incarnation,
    },
    /// [`Event::Rejoined`]
    Rejoined {
        /// The life that began in the log.
        incarnation: Incarnation,
    },
    /// [`Event::SessionLost`]
    SessionLost {
        /// How it ended.
        reason: String,
        /// Whether because the store was restored to an older state.
        rewound: bool,
    },
    /// [`Event::Unregistered`]
    Unregistered,
    /// [`Event::VersionPublished`]
    VersionPublished {
        /// The version.
        version: Version,
        /// The revision that wrote it.
        revision: Revision,
    },
    /// [`Event::Stabilizing`]: the node decided so.
    Stabilizing {
        /// For that version.
        version: Version,
        /// 1 for the first try.
        attempt: u32,
    },
    /// The stabilize callback was called.
    StabilizeBegan {
        /// For that version.
        version: Version,
        /// The revision that wrote it.
        revision: Revision,
        /// 1 for the first try.
        attempt: u32,
        /// The nodes that it was given, as it was given them.
        nodes: Vec<Member>,
    },
    /// [`Event::Superseded`]: a stabilize that runs was told so.
    Superseded {
        /// The version that it is for.
        version: Version,
    },
    /// The stabilize callback ended.
    StabilizeEnded {
        /// For that version.
        version: Version,
        /// 1 for the first try.
        attempt: u32,
        /// What it said.
        ending: Ending,
        /// Whether its token said by then that it is superseded.
        told: bool,
    },
    /// [`Event::Ready`]: the store has this node's acknowledgement.
    Ready {
        /// The version.
        version: Version,
    },
    /// [`Event::Stable`]
    Stable {
        /// The version.
        version: Version,
    },
    /// [`Event::Announcing`]: the node decided to call `on_stable`.
    Announcing {
        /// The version.
        version: Version,
        /// Its term.
        term: Term,
    },
    /// The `on_stable` callback was called.
    OnStableBegan {
        /// For that version.
        version: Version,
        /// The term that it was given.
        term: Term,
    },
    /// The `on_stable` callback ended.
    OnStableEnded {
        /// For that version.
        version: Version,
        /// The term that it was given.
        term: Term,
        /// What it said.
        ending: Ending,
    },
    /// [`Event::LeaderChanged`]
    LeaderChanged {
        /// Who leads.
        leader: Option<NodeName>,
        /// The term that began.
        term: Option<Term>,
        /// Whether it is this node.
        own: bool,
    },
    /// [`Event::LeadershipSuspended`]
    LeadershipSuspended {
        /// The term, which goes on.
        term: Term,
    },
    /// [`Event::LeadershipResumed`]
    LeadershipResumed {
        /// The term.
        term: Term,
    },
    /// The node was asked whether it may act as leader, at the entry's time or later.
    AskedLeader {
        /// What it said: the term if yes.
        term: Option<Term>,
        /// Until when it said that this holds without a renewal.
        until: Option<Moment>,
    },
    /// A write of this node's, fenced by a term, and what became of it.
    FencedWrite {
        /// What tells it from all others.
        id: String,
        /// The term.
        term: Term,
        /// What became of it.
        outcome: WriteOutcome,
    },
    /// A call is about to be sent to the store.
    Called {
        /// Which call of this life.
        call: u64,
        /// What is asked.
        what: StoreCall,
    },
    /// It was answered.
    Answered {
        /// Which call of this life.
        call: u64,
        /// The answer.
        answer: StoreAnswer,
    },
    /// The node's health is checked so, from the start.
    ChecksHealth {
        /// How long after a check began the next one does.
        interval: Duration,
        /// How long a check may take.
        deadline: Duration,
        /// How many failures in a row are enough.
        failures: u32,
    },
    /// The health check was called.
    CheckBegan,
    /// The health check ended.
    CheckEnded {
        /// What it said.
        ending: Ending,
    },
    /// [`Event::Unhealthy`]
    Unhealthy {
        /// What the last check said.
        reason: String,
    },
    /// [`Event::Healthy`]
    Healthy,
    /// [`Event::StoreAway`]
    StoreAway {
        /// What was seen of the cause.
        reason: String,
    },
    /// [`Event::StoreBack`]
    StoreBack {
        /// How long it was away.
        away: Duration,
    },
    /// The node was asked what it knows, and said that the store does not answer: this is the last that it knew.
    Stale {
        /// For how long the store has not answered.
        away: Duration,
        /// The newest version.
        newest: Option<Version>,
        /// How many nodes are present.
        present: usize,
    },
    /// [`Event::Resynced`]
    Resynced {
        /// Whether the store was restored to an older state.
        rewound: bool,
        /// The snapshot's revision.
        revision: Revision,
    },
    /// [`Event::Blocked`]
    Blocked {
        /// The version that is not stable.
        version: Version,
        /// How long ago this leader saw it published.
        since: Duration,
        /// Who keeps it from that.
        missing: Vec<Missing>,
    },
    /// [`Event::Stopped`]
    Stopped {
        /// Why: `asked`, `taken_over`, `name_taken` or `aborted`.
        reason: String,
    },
    /// The life was ended from outside, as by `kill -9`. Written by whoever did it.
    Killed,
    /// That many events did not reach the journal: nothing can be judged by it any more.
    Missed {
        /// How many.
        events: u64,
    },
    /// Anything else, in words.
    Note {
        /// The words.
        text: String,
    },
}

impl Member {
    /// The nodes of a view.
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
            },
            Event::Stopped { reason } => Observation::Stopped { reason: why_stopped(reason) },
            other => Observation::Note { text: other.to_string() },
        }
    }
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
            Ending::Ready => f.write_str("yes"),
            Ending::Refused(reason) => write!(f, "no: {reason}"),
            Ending::Dropped => f.write_str("dropped"),
        }
    }
}

impl fmt::Display for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Observation::Started { .. } => f.write_str("started"),
            Observation::Granted { lease, sent, ttl } => {
                write!(f, "lease {lease:x} granted for {ttl:?}, asked for at {sent}")
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
            Observation::VersionPublished { version, revision } => write!(f, "sees {version} @{revision}"),
            Observation::Stabilizing { version, attempt } => {
                write!(f, "decides to stabilize {version}, try {attempt}")
            }
            Observation::StabilizeBegan { version, attempt, nodes, .. } => {
                write!(f, "stabilize of {version}, try {attempt}, is given")?;
                nodes.iter().try_for_each(|node| write!(f, " {}", node.name))
            }
            Observation::Superseded { version } => write!(f, "stabilize of {version} is superseded"),
            Observation::StabilizeEnded { version, attempt, ending, told } => {
                let told = if *told { ", told that it is superseded" } else { "" };
                write!(f, "stabilize of {version}, try {attempt}, ended: {ending}{told}")
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
                let leader = leader.as_ref().map_or("nobody", NodeName::as_str);
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
            Observation::FencedWrite { id, term, outcome } => {
                write!(f, "write {id} under term {term}: {outcome:?}")
            }
            Observation::Called { call, what } => write!(f, "call {call}: {what}"),
            Observation::Answered { call, answer } => write!(f, "call {call} was answered: {answer}"),
            Observation::ChecksHealth { interval, deadline, failures } => {
                write!(f, "is checked every {interval:?}, for {deadline:?}, {failures} failures are enough")
            }
            Observation::CheckBegan => f.write_str("health check began"),
            Observation::CheckEnded { ending } => write!(f, "health check ended: {ending}"),
            Observation::Unhealthy { reason } => write!(f, "is unhealthy: {reason}"),
            Observation::Healthy => f.write_str("is healthy"),
            Observation::StoreAway { reason } => write!(f, "the store is away: {reason}"),
            Observation::StoreBack { away } => write!(f, "the store is back after {away:?}"),
            Observation::Stale { away, newest, present } => {
                let newest = newest.map_or_else(|| "no version".to_owned(), |newest| newest.to_string());
                write!(f, "knows of {newest} and {present} nodes, as of {away:?} ago")
            }
            Observation::Resynced { rewound, revision } => {
                write!(f, "read a snapshot @{revision}{}", if *rewound { " of a store put back" } else { "" })
            }
            Observation::Blocked { version, since, missing } => {
                write!(f, "{version} is blocked for {since:?} by")?;
                missing.iter().try_for_each(|missing| write!(f, " {}", missing.name))
            }
            Observation::Stopped { reason } => write!(f, "stopped: {reason}"),
            Observation::Killed => f.write_str("was killed"),
            Observation::Missed { events } => write!(f, "missed {events} events"),
            Observation::Note { text } => f.write_str(text),
        }
    }
}
