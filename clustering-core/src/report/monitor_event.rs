use std::{fmt, time::Duration};

use serde::{Serialize, Serializer};

use crate::{
    event::{Event, milliseconds},
    name::{NodeName, NodeUri},
    record::{Cause, Departure},
    store::{Key, Revision},
    version::{Term, Version},
};

/// What a [`Monitor`](super::Monitor) saw happen to a cluster.
///
/// `Display` gives a line for people; serialized it is an object with its kind under `event`. Those that a node has too
/// look the same as its [`Event`]s.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum MonitorEvent {
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
    },
    /// Somebody asked for a new version.
    VersionRequested {
        /// Who.
        by: Option<String>,
        /// What they gave as the reason.
        why: Option<String>,
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
    /// A node acknowledged that version.
    NodeReady {
        /// The node.
        name: NodeName,
        /// The version.
        version: Version,
    },
    /// The stabilize of a node said no to that version. It is tried again.
    NodeRefused {
        /// The node.
        name: NodeName,
        /// The version.
        version: Version,
        /// What it gave as the reason.
        reason: Option<String>,
    },
    /// Every node of that version's view acknowledged it, and the leader recorded so.
    Stable {
        /// The version.
        version: Version,
        /// How long after its publication, if the monitor saw both.
        #[serde(serialize_with = "maybe_milliseconds", rename = "took_ms")]
        took: Option<Duration>,
    },
    /// A key under the cluster's prefix cannot be read. It counts as absent.
    Malformed {
        /// The key.
        #[serde(serialize_with = "super::text")]
        key: Key,
        /// What is wrong with it.
        reason: String,
    },
    /// The store does not answer: the report is the last that was known.
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
    /// Changes in between cannot be had: everything was read anew.
    Resynced {
        /// Whether the store was restored to an older state.
        rewound: bool,
        /// The revision that was read.
        revision: Revision,
    },
}

impl fmt::Display for MonitorEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The words of the events, where there are some.
        let event = match self.clone() {
            MonitorEvent::NodeUp { name, uri } => Event::NodeUp { name, uri },
            MonitorEvent::NodeChanged { name, uri } => Event::NodeChanged { name, uri },
            MonitorEvent::NodeDown { name, how } => Event::NodeDown { name, how },
            MonitorEvent::LeaderChanged { leader, term } => Event::LeaderChanged { leader, term, own: false },
            MonitorEvent::VersionPublished { version, revision, nodes, causes } => {
                Event::VersionPublished { version, revision, nodes, causes }
            }
            MonitorEvent::Malformed { key, reason } => Event::Malformed { key, reason },
            MonitorEvent::StoreAway { reason } => Event::StoreAway { reason },
            MonitorEvent::StoreBack { away } => Event::StoreBack { away },
            MonitorEvent::Resynced { rewound, revision } => Event::Resynced { rewound, revision },
            MonitorEvent::VersionRequested { by, why } => {
                let by = by.as_deref().unwrap_or("somebody");
                write!(f, "{by} asks for a new version")?;
                return why.map_or(Ok(()), |why| write!(f, " ({why})"));
            }
            MonitorEvent::NodeReady { name, version } => return write!(f, "{name} is ready at {version}"),
            MonitorEvent::NodeRefused { name, version, reason } => {
                let reason = reason.as_deref().unwrap_or("without a reason");
                return write!(f, "{name} refused {version}: {reason}");
            }
            MonitorEvent::Stable { version, took: None } => return write!(f, "stable at {version}"),
            MonitorEvent::Stable { version, took: Some(took) } => {
                return write!(f, "stable at {version}, after {} ms", took.as_millis());
            }
        };
        event.fmt(f)
    }
}

fn maybe_milliseconds<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => milliseconds(duration, serializer),
        None => serializer.serialize_none(),
    }
}
