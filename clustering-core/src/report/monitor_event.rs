use std::{fmt, time::Duration};

use serde::{Serialize, Serializer};

use crate::{
    event::{Event, milliseconds},
    name::NodeName,
    version::Version,
};

/// An event that a [`Monitor`](super::Monitor) observed.
///
/// `Display` writes a line for people. Serialized, an event is an object with its kind under `event`; events that nodes
/// report as well are serialized as nodes serialize them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum MonitorEvent {
    /// A node or an operator requested a new version.
    VersionRequested {
        /// The requester.
        by: Option<String>,
        /// The reason given by the requester.
        why: Option<String>,
    },
    /// A node acknowledged a version.
    NodeReady {
        /// The node's name.
        name: NodeName,
        /// The version.
        version: Version,
    },
    /// A node no longer holds any of the slots that a version takes from it.
    NodeReleased {
        /// The node's name.
        name: NodeName,
        /// The version.
        version: Version,
    },
    /// An operator asked a node to leave in order.
    DrainRequested {
        /// The node's name.
        name: NodeName,
        /// The operator.
        by: String,
        /// The reason that the operator gave.
        why: String,
    },
    /// A node's stabilize refused a version. The node will try again.
    NodeRefused {
        /// The node's name.
        name: NodeName,
        /// The version.
        version: Version,
        /// The reason that the node gave.
        reason: Option<String>,
    },
    /// The leader recorded that every node of a version acknowledged it.
    Stable {
        /// The version.
        version: Version,
        /// Time since the version was published, if the monitor saw both.
        #[serde(serialize_with = "maybe_milliseconds", rename = "took_ms")]
        took: Option<Duration>,
    },
    /// An event that nodes report as well: [`NodeUp`](Event::NodeUp), [`NodeChanged`](Event::NodeChanged),
    /// [`NodeDown`](Event::NodeDown), [`LeaderChanged`](Event::LeaderChanged),
    /// [`VersionPublished`](Event::VersionPublished), [`Released`](Event::Released), [`Cordoned`](Event::Cordoned),
    /// [`Uncordoned`](Event::Uncordoned), [`SlotsKept`](Event::SlotsKept),
    /// [`WaitingForNodes`](Event::WaitingForNodes), [`TooFewNodes`](Event::TooFewNodes),
    /// [`Reclaiming`](Event::Reclaiming), [`Malformed`](Event::Malformed), [`StoreAway`](Event::StoreAway),
    /// [`StoreBack`](Event::StoreBack) or [`Resynced`](Event::Resynced). `own` is always false in `LeaderChanged`.
    #[serde(untagged)]
    Common(Event),
}

impl From<Event> for MonitorEvent {
    fn from(event: Event) -> Self {
        MonitorEvent::Common(event)
    }
}

impl fmt::Display for MonitorEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MonitorEvent::VersionRequested { by, why } => {
                let by = by.as_deref().unwrap_or("somebody");
                write!(f, "{by} asks for a new version")?;
                why.as_ref().map_or(Ok(()), |why| write!(f, " ({why})"))
            }
            MonitorEvent::NodeReady { name, version } => write!(f, "{name} is ready at {version}"),
            MonitorEvent::NodeReleased { name, version } => {
                write!(f, "{name} has released the slots that it lost in {version}")
            }
            MonitorEvent::DrainRequested { name, by, why } => {
                write!(f, "{by} asks {name} to leave")?;
                if why.is_empty() { Ok(()) } else { write!(f, " ({why})") }
            }
            MonitorEvent::NodeRefused { name, version, reason } => {
                write!(f, "{name} refused {version}: {}", reason.as_deref().unwrap_or("without a reason"))
            }
            MonitorEvent::Stable { version, took: None } => write!(f, "stable at {version}"),
            MonitorEvent::Stable { version, took: Some(took) } => {
                write!(f, "stable at {version}, after {} ms", took.as_millis())
            }
            MonitorEvent::Common(event) => event.fmt(f),
        }
    }
}

fn maybe_milliseconds<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => milliseconds(duration, serializer),
        None => serializer.serialize_none(),
    }
}
