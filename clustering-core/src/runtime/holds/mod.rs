//! Holds: the right of this process to work on a slot, and the table that gives them out (P12).

mod keeper;
mod table;
mod work;

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use thiserror::Error;

use self::table::Acquisition;
pub use self::work::{HeldTasks, WorkError};
pub(crate) use self::{
    keeper::Keeper,
    table::{Holds, LeaseClock},
    work::{supervise, work},
};
use super::error::InCallback;
use crate::{name::NodeName, node::Node, slots::Slot, store::Revision, version::Version};

/// The right of this process to work on the keys of a slot: while it is [valid](Self::is_valid), no other process holds
/// them (P12).
///
/// Keep the hold for as long as the work takes, and drop it afterwards: a slot is handed over only when all its holds
/// are dropped, so a hold that is never dropped blocks the hand-over until
/// [`Config::release_timeout`](crate::Config::release_timeout) has passed. When [`lost`](Self::lost) resolves, finish
/// the work and drop the hold.
///
/// A hold is for one acquisition of the slot. It does not keep its node alive, and may be moved to any task or thread.
/// None of its methods waits for the store or takes a lock that is held for long.
#[must_use = "a hold that is dropped protects nothing"]
pub struct Hold {
    acquisition: Arc<Acquisition>,
}

impl Hold {
    /// Returns the slot. The hold covers all keys of the slot.
    pub fn slot(&self) -> Slot {
        self.acquisition.slot
    }

    /// Returns the fencing token: the revision of the version under which this process acquired the slot.
    ///
    /// Pass it to other systems with each write. It grows with every change of the holder, so a system that keeps the
    /// largest token of each slot and refuses smaller ones is safe from writes of former holders, even where P12 does
    /// not apply. For writes to the cluster's own store use [`commit_as_owner`](crate::Clustering::commit_as_owner).
    pub fn token(&self) -> Revision {
        self.acquisition.token
    }

    /// Waits until this process must let go of the slot: the slot moves to another node, the node stops, or its session
    /// is running out because no renewal has succeeded for two thirds of the TTL.
    ///
    /// The hold is still valid at that moment. Finish or abort the work, and drop the hold. Once lost, a hold stays
    /// lost, even if a later renewal saves the session; take a new one then. From then on, this method returns at once,
    /// so a loop that waits for it must end: otherwise it keeps a CPU busy. Cancel safe.
    pub async fn lost(&self) {
        self.acquisition.wait_until(Acquisition::is_lost).await;
        // A task that awaits this in a loop must still yield: otherwise it blocks its thread and cannot be dropped.
        tokio::task::coop::consume_budget().await;
    }

    /// True if this process must let go of the slot; see [`lost`](Self::lost).
    pub fn is_lost(&self) -> bool {
        self.acquisition.is_lost()
    }

    /// True if no other process can hold the slot at this moment: one TTL has not passed since the last successful
    /// renewal of the session's lease was sent.
    ///
    /// This is decided by the clock alone, which also counts the time for which the machine was suspended. A hold stays
    /// valid for some time after [`is_lost`](Self::is_lost) becomes true, so that work can be finished in order. Once
    /// the result is false, it stays false, and the work must not have any further effect.
    pub fn is_valid(&self) -> bool {
        self.acquisition.lease.is_valid()
    }

    /// Waits until the hold is [void](Self::is_valid). Cancel safe.
    pub async fn void(&self) {
        loop {
            let woken = self.acquisition.wait_until(|acquisition| !acquisition.lease.is_valid());
            // The driver also wakes at that time, by a clock that counts suspends. This timer is needed after the
            // driver has ended.
            tokio::select! {
                biased;
                () = woken => return,
                () = tokio::time::sleep_until(self.acquisition.lease.void_instant()) => {}
            }
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.acquisition.drop_hold();
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold")
            .field("slot", &self.slot().number())
            .field("token", &self.token())
            .field("lost", &self.acquisition.is_marked())
            .finish_non_exhaustive()
    }
}

/// Reason why this process does not hold a key at the moment.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NotHeld {
    /// The key belongs to another node. Forward the request to that node together with the version, and let that node
    /// call [`wait_hold_at`](crate::Clustering::wait_hold_at).
    #[error(
        "{} owns the key since version {version}: forward the request to {}, with the version",
        node.name, node.uri
    )]
    Elsewhere {
        /// The owner, which may still be waiting for its predecessor to let go of the key.
        node: Arc<Node>,
        /// The newest version that this node knows.
        version: Version,
    },
    /// The key belongs to this node, which must not work on it yet: the former owner has not let go of it, or
    /// `stabilize` has not succeeded. Wait with [`wait_hold`](crate::Clustering::wait_hold).
    #[error("the key is on its way to this node: wait for it with `wait_hold`")]
    Moving,
    /// No node owns the key, because its slot waits for an absent node, which is expected back. If the node does not
    /// come back in time, the slot moves to another node.
    #[error("the key waits for {node}, which is expected back: retry in a moment")]
    Waiting {
        /// The name of the absent node.
        node: NodeName,
        /// The newest version that this node knows.
        version: Version,
    },
    /// No node owns the key: all nodes are cordoned or have the weight 0, or the cluster is new and waits for its
    /// [minimum size](crate::Config::min_nodes).
    #[error(
        "no node owns the key: lift a cordon, give a node a weight above 0, or start the nodes that a new cluster waits for"
    )]
    Unowned,
    /// This node is stopping and no longer acquires keys.
    #[error("this node is stopping: send the request to another node")]
    Stopping,
    /// This node has no session, or its session is running out because the store does not answer.
    #[error("this node's session is over or running out: retry when the node is a member again")]
    NoSession,
    /// Keys are not held, because nodes of the cluster are not exclusive.
    #[error("keys are held only if all nodes are exclusive: call `Builder::exclusive` on {}", list(nodes))]
    NotExclusive {
        /// The nodes that are not exclusive; only this node if it is not exclusive itself.
        nodes: Vec<NodeName>,
    },
    /// A callback of the node waited for a hold. The node acquires keys only after its callbacks have returned.
    #[error(transparent)]
    InCallback(#[from] InCallback),
}

impl NotHeld {
    /// Returns the short name of the reason, such as `elsewhere`.
    pub const fn kind(&self) -> &'static str {
        match self {
            NotHeld::Elsewhere { .. } => "elsewhere",
            NotHeld::Moving => "moving",
            NotHeld::Waiting { .. } => "waiting",
            NotHeld::Unowned => "unowned",
            NotHeld::Stopping => "stopping",
            NotHeld::NoSession => "no_session",
            NotHeld::NotExclusive { .. } => "not_exclusive",
            NotHeld::InCallback(_) => "in_callback",
        }
    }
}

/// Formats the first names, and the number of the others.
fn list(nodes: &[NodeName]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<&str> = nodes.iter().take(SHOWN).map(NodeName::as_str).collect();
    match nodes.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
