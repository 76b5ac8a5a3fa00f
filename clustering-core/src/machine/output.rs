use std::{fmt, time::Duration};

use thiserror::Error;

use super::{RequestId, Token};
use crate::{
    event::{Event, StopReason},
    store::{Key, LeaseId, Revision, StoreError, Txn},
    version::{Term, Version},
    view::View,
};

/// What the machine wants done. The runtime does it at once, in this order, and reports back under the same token.
///
/// Calls to the store are bounded by their `timeout`: after it the runtime reports
/// [`OutcomeUnknown`](crate::store::ErrorKind::OutcomeUnknown). The machine counts leases from the moment at which it
/// gave the output, which is before the call was sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Grant a lease.
    Grant {
        /// The call.
        token: Token,
        /// For how long.
        ttl: Duration,
        /// How long the call may take.
        timeout: Duration,
    },
    /// Renew the session's lease.
    Renew {
        /// The call.
        token: Token,
        /// The lease.
        lease: LeaseId,
        /// How long the call may take.
        timeout: Duration,
    },
    /// Give a lease back.
    Revoke {
        /// The call.
        token: Token,
        /// The lease.
        lease: LeaseId,
        /// How long the call may take.
        timeout: Duration,
    },
    /// Read all keys under a prefix.
    Read {
        /// The call.
        token: Token,
        /// The prefix.
        prefix: Key,
        /// How long the call may take.
        timeout: Duration,
    },
    /// Open a watch.
    Watch {
        /// The watch.
        token: Token,
        /// The prefix.
        prefix: Key,
        /// After that revision.
        after: Revision,
        /// How long opening it may take.
        timeout: Duration,
    },
    /// Drop a watch, open or opening.
    Unwatch {
        /// The watch.
        token: Token,
    },
    /// Commit.
    Commit {
        /// The call.
        token: Token,
        /// What.
        txn: Txn,
        /// What for.
        purpose: Purpose,
        /// How long the call may take.
        timeout: Duration,
    },
    /// Run the user's stabilize.
    Stabilize {
        /// The run.
        token: Token,
        /// The view to adapt to.
        view: View,
        /// The last view that this process acknowledged.
        previous: Option<View>,
        /// 1 for the first try at this view.
        attempt: u32,
    },
    /// Run the user's `on_stable`.
    Announce {
        /// The run.
        token: Token,
        /// The view of the version that became stable.
        view: View,
        /// The term under which it was recorded.
        term: Term,
    },
    /// Ask the user's health check how the process is. There is one at a time.
    CheckHealth {
        /// The check.
        token: Token,
    },
    /// Tell a running callback that it is superseded. It goes on until it returns.
    Supersede {
        /// The run.
        token: Token,
    },
    /// End a running callback by dropping its future. It still reports that it ended.
    Abort {
        /// The run.
        token: Token,
        /// The reason to report.
        reason: String,
    },
    /// Tell those who listen.
    Event(Event),
    /// Answer a request of the user.
    Reply {
        /// The request.
        id: RequestId,
        /// The answer.
        result: Result<Reply, RequestError>,
    },
    /// The node has ended. Nothing follows.
    Stopped {
        /// Why.
        reason: StopReason,
    },
}

/// What a commit is for. The names are those of the commits in the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Purpose {
    /// Register.
    Join,
    /// Register in place of what stands under the name.
    TakeOver,
    /// Change the own record.
    Rewrite,
    /// Ask for a new version.
    RequestVersion,
    /// Become leader and publish.
    Elect,
    /// Publish a version.
    Publish,
    /// Acknowledge a version, or say why not.
    Acknowledge,
    /// Record that a version is stable.
    Confirm,
    /// Remove a laggard.
    Evict,
    /// Give up the lead.
    Resign,
    /// Leave.
    Leave,
    /// The user's own write.
    LeaderCommit,
}

impl Purpose {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Purpose::Join => "join",
            Purpose::TakeOver => "take over",
            Purpose::Rewrite => "rewrite",
            Purpose::RequestVersion => "ask",
            Purpose::Elect => "elect",
            Purpose::Publish => "publish",
            Purpose::Acknowledge => "acknowledge",
            Purpose::Confirm => "confirm",
            Purpose::Evict => "evict",
            Purpose::Resign => "resign",
            Purpose::Leave => "leave",
            Purpose::LeaderCommit => "fenced write",
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// It is done.
    Done,
    /// That version was published since.
    Version(Version),
    /// It was committed at that revision.
    Committed(Revision),
}

/// Why a request was not granted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum RequestError {
    /// This node does not lead, or may not act as leader for now. Nothing was written.
    #[error("this node does not lead: ask the leader, or wait until this node leads")]
    NotLeader,
    /// The write names a key that is the cluster's own. Nothing was written.
    #[error(
        "{key} is the cluster's own key: write to keys outside of `view/`, `ready/` and `history/` of its namespace"
    )]
    Reserved {
        /// The key.
        key: Key,
    },
    /// The process only observes: it has no place in the cluster to change.
    #[error("this process only observes: it has no name to register")]
    Observer,
    /// The place that was to be taken was given up again before it was.
    #[error("the node was unregistered before it had its place")]
    Unregistered,
    /// What the store said. [`StoreError::effect`] tells whether it may have happened.
    #[error(transparent)]
    Store(StoreError),
    /// The node has ended, or does so before the request is granted. A write that was on its way may have happened.
    #[error("the node has ended: {0}")]
    Stopped(StopReason),
}
