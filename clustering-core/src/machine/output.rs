//! Outputs of the machine.

use std::{fmt, time::Duration};

use thiserror::Error;

use super::token::{RequestId, Token};
use crate::{
    event::{Event, StopReason},
    node::Endpoint,
    slots::SlotSet,
    store::{Key, LeaseId, Revision, StoreError, Txn},
    version::{Term, Version},
    view::View,
};

/// An output of the machine. The runtime executes outputs at once and in order, and reports the results of calls under
/// their tokens.
///
/// Calls to the store are limited by their `timeout`. After it, the runtime reports
/// [`OutcomeUnknown`](crate::store::ErrorKind::OutcomeUnknown). The machine counts the time of leases from the moment
/// of the output, which is before the call was sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Grant a lease.
    Grant {
        /// Token of the call.
        token: Token,
        /// TTL of the lease.
        ttl: Duration,
        /// Time limit of the call.
        timeout: Duration,
    },
    /// Renew the lease of the session.
    Renew {
        /// Token of the call.
        token: Token,
        /// The lease.
        lease: LeaseId,
        /// Time limit of the call.
        timeout: Duration,
    },
    /// Revoke a lease.
    Revoke {
        /// Token of the call.
        token: Token,
        /// The lease.
        lease: LeaseId,
        /// Time limit of the call.
        timeout: Duration,
    },
    /// Read all keys under a prefix.
    Read {
        /// Token of the call.
        token: Token,
        /// The prefix.
        prefix: Key,
        /// Time limit of the call.
        timeout: Duration,
    },
    /// Open a watch.
    Watch {
        /// Token of the watch.
        token: Token,
        /// The prefix.
        prefix: Key,
        /// The watch yields changes of later revisions than this one.
        after: Revision,
        /// Time limit for the opening.
        timeout: Duration,
    },
    /// Drop a watch that is open or being opened.
    Unwatch {
        /// Token of the watch.
        token: Token,
    },
    /// Commit a transaction.
    Commit {
        /// Token of the call.
        token: Token,
        /// The transaction.
        txn: Txn,
        /// Purpose of the commit.
        purpose: Purpose,
        /// Time limit of the call.
        timeout: Duration,
    },
    /// Run the user's `stabilize`. There is at most one run at a time.
    Stabilize {
        /// Token of the run.
        token: Token,
        /// The view to adapt to.
        view: View,
        /// The last view to which this process has adapted.
        previous: Option<View>,
        /// Number of the attempt at this view, from 1.
        attempt: u32,
        /// The slots that the node gains and keeps; `None` on a node that is not exclusive.
        slots: Option<SlotChange>,
    },
    /// End the outstanding holds of these slots: they are [lost](crate::Hold::lost). Report at once which of the slots
    /// are still in use, and again whenever that changes. An empty report ends the call.
    Retract {
        /// Token of the call.
        token: Token,
        /// The slots.
        slots: SlotSet,
    },
    /// Run the user's `release`. There is at most one run at a time.
    Release {
        /// Token of the run.
        token: Token,
        /// The slots to let go of.
        slots: SlotSet,
        /// The lease under which the slots were held.
        lease: LeaseId,
        /// The view that takes the slots away; `None` if the session ends.
        view: Option<View>,
        /// Number of the attempt, from 1.
        attempt: u32,
    },
    /// Run the user's `on_stable`. There is at most one run at a time.
    Announce {
        /// Token of the run.
        token: Token,
        /// The view of the version that became stable.
        view: View,
        /// The term under which that was recorded.
        term: Term,
    },
    /// Run the user's health check. There is at most one run at a time.
    CheckHealth {
        /// Token of the check.
        token: Token,
    },
    /// Tell a running callback that it is superseded. It keeps running until it returns.
    Supersede {
        /// Token of the run.
        token: Token,
    },
    /// Cancel a running callback by dropping its future. Its end is reported nevertheless.
    Abort {
        /// Token of the run.
        token: Token,
        /// The reason to report.
        reason: String,
    },
    /// From now on, watch exactly the processes at these endpoints, and report those that are gone with
    /// [`Input::ProcessGone`](super::Input::ProcessGone).
    WatchProcesses {
        /// The endpoints, sorted.
        endpoints: Vec<Endpoint>,
    },
    /// Send an event to its subscribers.
    Event(Event),
    /// Answer a request of the user.
    Reply {
        /// The request.
        id: RequestId,
        /// The answer.
        reply: Reply,
    },
    /// The node has ended. This is the last output.
    Stopped {
        /// The reason.
        reason: StopReason,
    },
}

/// The changes that a version makes to the slots of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SlotChange {
    /// Slots that the node is about to acquire.
    pub gained: SlotSet,
    /// Slots that the version takes from the node. They are already released.
    pub lost: SlotSet,
    /// Slots that the node holds and keeps.
    pub kept: SlotSet,
}

/// Purpose of a commit. The names are those of the commits in the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Purpose {
    /// Registers the node.
    Join,
    /// Registers the node in place of another holder of its name.
    TakeOver,
    /// Changes the node's record.
    Rewrite,
    /// Requests a new version.
    RequestVersion,
    /// Elects this node and publishes a version.
    Elect,
    /// Publishes a version.
    Publish,
    /// Acknowledges a version, or reports the reason for not doing so.
    Acknowledge,
    /// Records that the slots of a version may be acquired.
    Permit,
    /// Ends the witness of a removed session whose process does not follow the log.
    Reclaim,
    /// Records that a version is stable.
    Confirm,
    /// Removes a laggard.
    Evict,
    /// Removes a node whose process is gone.
    RemoveCrashed,
    /// Gives up the lead.
    Resign,
    /// Removes the record of this node, which leaves.
    Leave,
    /// Commits a transaction of the user as leader.
    LeaderCommit,
    /// Commits a transaction of the user as owner of a key.
    OwnerCommit,
}

impl Purpose {
    /// Returns the name of the commit.
    pub const fn name(self) -> &'static str {
        match self {
            Purpose::Join => "join",
            Purpose::TakeOver => "take over",
            Purpose::Rewrite => "rewrite",
            Purpose::RequestVersion => "request version",
            Purpose::Elect => "elect",
            Purpose::Publish => "publish",
            Purpose::Acknowledge => "acknowledge",
            Purpose::Permit => "permit",
            Purpose::Reclaim => "reclaim",
            Purpose::Confirm => "confirm",
            Purpose::Evict => "evict",
            Purpose::RemoveCrashed => "remove crashed",
            Purpose::Resign => "resign",
            Purpose::Leave => "leave",
            Purpose::LeaderCommit => "leader commit",
            Purpose::OwnerCommit => "owner commit",
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The answer to a request: each kind of request has its own type of result.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// Answer to a request that has no result: to resign, update, register or unregister.
    Done(Result<(), RequestError>),
    /// Answer to a request for a version: a version that was published since.
    Version(Result<Version, RequestError>),
    /// Answer to a commit as leader or as owner: its revision.
    Committed(Result<Revision, RequestError>),
}

/// Reason why a request was not granted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum RequestError {
    /// This node does not lead, or may not act as leader at the moment. Nothing was written.
    #[error("this node does not lead: ask the leader, or wait until this node leads")]
    NotLeader,
    /// This node does not hold the key under the given hold any more. Nothing was written.
    #[error("this node no longer holds the key: take a new hold, or ask the key's new owner")]
    NotHeld,
    /// The transaction writes a key that belongs to the cluster. Nothing was written.
    #[error(
        "{key} is the cluster's own key: write to keys outside of `view/`, `ready/` and `history/` of its namespace"
    )]
    Reserved {
        /// The key.
        key: Key,
    },
    /// This process only observes the cluster, and cannot be a member of it.
    #[error("this process only observes: it has no name to register")]
    Observer,
    /// The node was unregistered before it became a member.
    #[error("the node was unregistered before it became a member")]
    Unregistered,
    /// A callback of the node made the request. The request takes effect, but possibly only after the callback has
    /// returned, so the callback must not wait for it.
    #[error(
        "the request takes effect, but a callback must not wait for its own node: return from the callback"
    )]
    InCallback,
    /// The store returned an error. [`StoreError::effect`] tells whether the transaction may have been applied.
    #[error(transparent)]
    Store(StoreError),
    /// The node has ended, or ended before the request was granted. A commit that was in flight may have been applied.
    #[error("the node has ended: {0}")]
    Stopped(StopReason),
}
