use thiserror::Error;

use crate::{
    name::{Namespace, NodeName},
    store::StoreError,
};

/// The reason why a request of an operator failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OperatorError {
    /// There is no cluster in the namespace. Nothing was changed.
    #[error("there is no cluster in the namespace {0}")]
    NoCluster(Namespace),
    /// There is no leader. Nothing was changed.
    #[error("there is no leader that could step down")]
    NoLeader,
    /// The node is the leader already. Nothing was changed.
    #[error("{0} is the leader already")]
    LeadsAlready(NodeName),
    /// No node with that name is present. Nothing was changed.
    #[error("no node {name} is present; there {}", there(present))]
    NotPresent {
        /// The requested name.
        name: NodeName,
        /// The nodes that are present.
        present: Vec<NodeName>,
    },
    /// The leader is the only node, so that no other node could lead. Nothing was changed.
    #[error("the leader is the only node: no other node could lead")]
    Alone,
    /// The node is not cordoned. Nothing was changed.
    #[error("{name} is not cordoned{}", others(cordoned))]
    NotCordoned {
        /// The requested name.
        name: NodeName,
        /// The nodes that are cordoned.
        cordoned: Vec<NodeName>,
    },
    /// The node's record has no lease, so the node has no session to end. Nothing was changed.
    #[error("the record of {0} has no lease, because it was written by hand: evict the node instead")]
    NoSession(NodeName),
    /// Nodes are present, so their keys were not deleted. Other keys may have been deleted before.
    #[error("nodes are present: {}", list(.0))]
    NodesPresent(
        /// The nodes that are present.
        Vec<NodeName>,
    ),
    /// The cluster changed during each of several attempts. Nothing was changed, except that a purge may have deleted
    /// some keys. Try again.
    #[error("the cluster changed during every attempt: try again")]
    Contended,
    /// A call to the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Maximum number of names in a message.
const LISTED: usize = 10;

fn there(present: &[NodeName]) -> String {
    match present {
        [] => "is none at all".to_owned(),
        [one] => format!("is {one}"),
        many => format!("are {}", list(many)),
    }
}

fn others(cordoned: &[NodeName]) -> String {
    match cordoned {
        [] => "; no node is".to_owned(),
        [one] => format!("; {one} is"),
        many => format!("; {} are", list(many)),
    }
}

fn list(names: &[NodeName]) -> String {
    let mut text = names.iter().take(LISTED).map(NodeName::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > LISTED {
        text += &format!(" and {} more", names.len() - LISTED);
    }
    text
}
