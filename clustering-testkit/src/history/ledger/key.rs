use clustering_core::NodeName;

use super::Ledger;

/// Meaning of a key in the cluster's namespace.
pub(super) enum Key {
    Node(NodeName),
    Leader,
    Version,
    Ready(NodeName),
    Stable,
    Request,
    /// The last graceful departure, written together with the change that it explains.
    Gone,
    /// A version's entry in the history, written together with the change that it describes.
    History,
    LeaderCommit(String),
    Other(String),
}

impl Key {
    /// Parses a key that is given without the namespace.
    pub(super) fn parse(key: &str) -> Self {
        let name = |prefix: &str| NodeName::parse(key.strip_prefix(prefix)?).ok();
        match key {
            "view/leader" => Key::Leader,
            "view/version" => Key::Version,
            "view/stable" => Key::Stable,
            "view/request" => Key::Request,
            "view/gone" => Key::Gone,
            _ => match (name("view/nodes/"), name("ready/")) {
                (Some(node), _) => Key::Node(node),
                (_, Some(node)) => Key::Ready(node),
                _ if key.starts_with("history/") => Key::History,
                _ if key.starts_with(Ledger::LEADER_COMMITS) => Key::LeaderCommit(key.to_owned()),
                _ => Key::Other(key.to_owned()),
            },
        }
    }

    /// Returns the place of the key in the order in which the changes of one revision are applied. A version's view
    /// includes all node records of its revision, and an election and its version share one revision.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Key::Node(_) => 0,
            Key::Leader => 1,
            Key::Version => 2,
            Key::Ready(_) => 3,
            _ => 4,
        }
    }

    /// True if the cluster itself writes the key.
    pub(super) fn is_own(&self) -> bool {
        !matches!(self, Key::LeaderCommit(_) | Key::Other(_))
    }
}
