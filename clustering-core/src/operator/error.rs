use thiserror::Error;

use crate::{
    name::{Namespace, NodeName},
    store::StoreError,
};

/// Why what an operator asked for is not done.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OperatorError {
    /// Nothing of a cluster stands in that namespace. Nothing happened.
    #[error("there is no cluster in the namespace {0}")]
    NoCluster(Namespace),
    /// Nobody leads. Nothing happened.
    #[error("nobody leads: there is nobody to step down")]
    NoLeader,
    /// That node leads already. Nothing happened.
    #[error("{0} leads already")]
    LeadsAlready(NodeName),
    /// No node of that name is present. Nothing happened.
    #[error("no node {name} is present; there {}", there(present))]
    NotPresent {
        /// The name.
        name: NodeName,
        /// Those that are.
        present: Vec<NodeName>,
    },
    /// The leader is the only node: nobody else could lead. Nothing happened.
    #[error("the leader is the only node: nobody else could lead")]
    Alone,
    /// Nodes are present, whose keys are not to be deleted. Nothing more was deleted.
    #[error("nodes are present: {}", list(.0))]
    NodesPresent(
        /// Which.
        Vec<NodeName>,
    ),
    /// The cluster changed each time before what was decided could be done. Nothing happened.
    #[error("the cluster changed each time before it could be done: try again")]
    Contended,
    /// What the store said.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How many names a message lists.
const LISTED: usize = 10;

fn there(present: &[NodeName]) -> String {
    match present {
        [] => "is none at all".to_owned(),
        [one] => format!("is {one}"),
        many => format!("are {}", list(many)),
    }
}

fn list(names: &[NodeName]) -> String {
    let mut text = names.iter().take(LISTED).map(NodeName::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > LISTED {
        text += &format!(" and {} more", names.len() - LISTED);
    }
    text
}
