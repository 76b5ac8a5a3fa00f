use std::{collections::BTreeSet, time::Duration};

use super::{RequestId, Token};
use crate::{
    node::Metadata,
    outcome::Outcome,
    store::{Batch, Lease, Revision, Snapshot, StoreError, Txn, WatchEnd},
};

/// What the machine is told.
///
/// Replies carry the token of the output that they answer. One whose token the machine no longer waits for changes
/// nothing.
#[derive(Clone, Debug)]
pub enum Input {
    /// The time of [`next_wakeup`](super::Machine::next_wakeup) has come. Too early or too often does no harm.
    Tick,
    /// The reply to [`Output::Grant`](super::Output::Grant).
    Granted {
        /// The call.
        token: Token,
        /// What the store said, or what stopped it from saying.
        result: Result<Lease, StoreError>,
    },
    /// The reply to [`Output::Renew`](super::Output::Renew).
    Renewed {
        /// The call.
        token: Token,
        /// The time left, or what went wrong.
        result: Result<Duration, StoreError>,
    },
    /// The reply to [`Output::Revoke`](super::Output::Revoke).
    Revoked {
        /// The call.
        token: Token,
        /// What the store said.
        result: Result<(), StoreError>,
    },
    /// The reply to [`Output::Read`](super::Output::Read).
    Read {
        /// The call.
        token: Token,
        /// What stands there.
        result: Result<Snapshot, StoreError>,
    },
    /// The watch of [`Output::Watch`](super::Output::Watch) is open, or could not be opened.
    WatchOpened {
        /// The watch.
        token: Token,
        /// What the store said.
        result: Result<(), StoreError>,
    },
    /// A watch yielded the changes of one revision.
    Batch {
        /// The watch.
        token: Token,
        /// The changes.
        batch: Batch,
    },
    /// A watch yielded those of several revisions, in their order. Each is taken down as if it had come alone, and what is
    /// so then is looked at once: a node that is behind catches up without acting on what is over.
    Batches {
        /// The watch.
        token: Token,
        /// The changes, each batch of a later revision than the one before.
        batches: Vec<Batch>,
    },
    /// A watch ended.
    WatchEnded {
        /// The watch.
        token: Token,
        /// Why.
        end: WatchEnd,
    },
    /// The reply to [`Output::Commit`](super::Output::Commit).
    Committed {
        /// The call.
        token: Token,
        /// The revision, or what went wrong.
        result: Result<Revision, StoreError>,
    },
    /// The stabilize of [`Output::Stabilize`](super::Output::Stabilize) has ended, whichever way.
    Stabilized {
        /// The run.
        token: Token,
        /// What it said.
        outcome: Outcome,
    },
    /// The callback of [`Output::Announce`](super::Output::Announce) has ended.
    Announced {
        /// The run.
        token: Token,
        /// What the error or the panic said, if it failed.
        result: Result<(), String>,
    },
    /// The check of [`Output::CheckHealth`](super::Output::CheckHealth) has ended, whichever way.
    HealthReported {
        /// The check.
        token: Token,
        /// What is wrong, if the process is not well; what the panic said, if the check panicked.
        result: Result<(), String>,
    },
    /// The user asks for a new version.
    RequestVersion {
        /// The request.
        id: RequestId,
        /// The reason that others will see.
        why: Option<String>,
    },
    /// The user makes this node give up the lead.
    Resign {
        /// The request.
        id: RequestId,
    },
    /// The user writes as leader: only while this node's term lasts.
    CommitAsLeader {
        /// The request.
        id: RequestId,
        /// What to write, with the user's own guards.
        txn: Txn,
    },
    /// The user changes the node's metadata.
    Update {
        /// The request.
        id: RequestId,
        /// All of the new metadata.
        metadata: Metadata,
    },
    /// The user takes the node's place in the cluster, again.
    Register {
        /// The request.
        id: RequestId,
    },
    /// The user gives the node's place up, and only follows the log.
    Unregister {
        /// The request.
        id: RequestId,
    },
    /// The callers of these requests no longer wait for answers. The requests themselves are not cancelled.
    Abandoned {
        /// The requests.
        ids: BTreeSet<RequestId>,
    },
    /// The user ends the node.
    Stop,
}
