//! The state that every concern may read.

use std::{sync::Arc, time::Duration};

use crate::{
    config::Config,
    event::StopReason,
    fold::Fold,
    keyspace::Keyspace,
    name::{NodeName, NodeUri},
    node::{Endpoint, Metadata},
    store::Revision,
    time::Timestamp,
};

/// The identity of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Name of the node, unique in the cluster.
    pub name: NodeName,
    /// URI at which the node can be reached.
    pub uri: NodeUri,
    /// Metadata that the node publishes about itself.
    pub metadata: Metadata,
    /// Where other nodes can find out whether this process is alive; `None` without crash detection.
    pub endpoint: Option<Endpoint>,
}

/// The goal of the node, which only its user changes, except that a node stops when its name is taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Intent {
    /// The node should only follow the log.
    Observe,
    /// The node should be a member of the cluster.
    Register,
    /// The node should leave and end, by the deadline at the latest.
    Stop {
        reason: StopReason,
        deadline: Timestamp,
        /// Time for which the slots of the node wait for it.
        keep: Duration,
    },
    /// The node has ended.
    Stopped { reason: StopReason },
}

/// The configuration, the goal, the folded log and the time of the input that is being handled.
///
/// Every concern reads these, so they are not arguments of their own. They are changed only while an input is routed: a
/// batch is folded, or the user changes the goal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Facts {
    pub(crate) config: Arc<Config>,
    /// The identity of the node; `None` for an observer.
    pub(crate) identity: Option<Identity>,
    pub(crate) intent: Intent,
    pub(crate) fold: Fold,
    /// Time of the last input. Everything that was due by then has been done.
    pub(crate) now: Timestamp,
}

impl Facts {
    pub(crate) fn keys(&self) -> &Keyspace {
        self.fold.keyspace()
    }

    /// Returns the name of the node; `None` for an observer.
    pub(crate) fn name(&self) -> Option<&NodeName> {
        self.identity.as_ref().map(|identity| &identity.name)
    }

    /// Returns the last revision that was folded.
    pub(crate) fn folded(&self) -> Revision {
        self.fold.revision()
    }

    /// True once the node has begun to stop.
    pub(crate) fn is_ending(&self) -> bool {
        matches!(self.intent, Intent::Stop { .. } | Intent::Stopped { .. })
    }

    /// Returns the time for which the slots of this node wait for it after it has left.
    pub(crate) fn keep(&self) -> Duration {
        match self.intent {
            Intent::Stop { keep, .. } => keep,
            _ => Duration::ZERO,
        }
    }

    /// Returns the author to name in a request for a version.
    pub(crate) fn author(&self) -> String {
        self.name().map_or_else(|| "observer".to_owned(), NodeName::to_string)
    }
}
