//! Inputs of the machine.

use std::{collections::BTreeSet, time::Duration};

use super::token::{RequestId, Token};
use crate::{
    event::Evidence,
    node::{Metadata, ProcessId},
    outcome::Outcome,
    slots::{Slot, SlotSet},
    store::{Batch, Lease, Revision, Snapshot, StoreError, Txn, WatchEnd},
};

/// An input of the machine: a reply, a change of the log, a request of the user, or the passing of time.
///
/// A reply carries the token of the [`Output`](super::Output) that it answers. A reply with a token that the machine no
/// longer waits for changes nothing.
#[derive(Clone, Debug)]
pub enum Input {
    /// The time of [`next_wakeup`](super::Machine::next_wakeup) has come. Ticks that come too early or too often do no
    /// harm.
    Tick,
    /// Reply to [`Output::Grant`](super::Output::Grant).
    Granted {
        /// Token of the call.
        token: Token,
        /// The lease, or the error.
        result: Result<Lease, StoreError>,
    },
    /// Reply to [`Output::Renew`](super::Output::Renew).
    Renewed {
        /// Token of the call.
        token: Token,
        /// The time that the lease has left, or the error.
        result: Result<Duration, StoreError>,
    },
    /// Reply to [`Output::Revoke`](super::Output::Revoke).
    Revoked {
        /// Token of the call.
        token: Token,
        /// The error, if the call failed.
        result: Result<(), StoreError>,
    },
    /// Reply to [`Output::Read`](super::Output::Read).
    Read {
        /// Token of the call.
        token: Token,
        /// The snapshot, or the error.
        result: Result<Snapshot, StoreError>,
    },
    /// The watch of [`Output::Watch`](super::Output::Watch) is open, or could not be opened.
    WatchOpened {
        /// Token of the watch.
        token: Token,
        /// The error, if the watch could not be opened.
        result: Result<(), StoreError>,
    },
    /// A watch yielded the changes of one revision.
    Batch {
        /// Token of the watch.
        token: Token,
        /// The changes.
        batch: Batch,
    },
    /// A watch yielded the changes of several revisions, in order. All are folded before the machine decides anything,
    /// so that a node that is behind catches up without acting on outdated state.
    Batches {
        /// Token of the watch.
        token: Token,
        /// The changes, in the order of their revisions.
        batches: Vec<Batch>,
    },
    /// A watch ended.
    WatchEnded {
        /// Token of the watch.
        token: Token,
        /// The reason.
        end: WatchEnd,
    },
    /// Reply to [`Output::Commit`](super::Output::Commit).
    Committed {
        /// Token of the call.
        token: Token,
        /// The revision of the commit, or the error.
        result: Result<Revision, StoreError>,
    },
    /// The run of [`Output::Stabilize`](super::Output::Stabilize) ended, or was cancelled.
    Stabilized {
        /// Token of the run.
        token: Token,
        /// Its result.
        outcome: Outcome,
    },
    /// Report for [`Output::Retract`](super::Output::Retract).
    Retracted {
        /// Token of the call.
        token: Token,
        /// The slots that are still in use. An empty set ends the call.
        in_use: SlotSet,
    },
    /// The run of [`Output::Release`](super::Output::Release) ended, or was cancelled.
    Released {
        /// Token of the run.
        token: Token,
        /// Its result.
        outcome: Outcome,
    },
    /// The run of [`Output::Announce`](super::Output::Announce) ended, or was cancelled.
    Announced {
        /// Token of the run.
        token: Token,
        /// The message of the error or the panic, if it failed.
        result: Result<(), String>,
    },
    /// The check of [`Output::CheckHealth`](super::Output::CheckHealth) ended, or was cancelled.
    HealthReported {
        /// Token of the check.
        token: Token,
        /// The message of the error or the panic, if the check failed.
        result: Result<(), String>,
    },
    /// The user requests a new version.
    RequestVersion {
        /// The request, answered with [`Reply::Version`](super::Reply::Version).
        id: RequestId,
        /// The reason that other nodes will see.
        why: Option<String>,
    },
    /// The user makes this node give up the lead.
    Resign {
        /// The request, answered with [`Reply::Done`](super::Reply::Done).
        id: RequestId,
    },
    /// The user commits a transaction that is applied only while this node's term lasts.
    CommitAsLeader {
        /// The request, answered with [`Reply::Committed`](super::Reply::Committed).
        id: RequestId,
        /// The transaction, with the user's own guards.
        txn: Txn,
    },
    /// The user commits a transaction that is applied only while this node holds a slot.
    CommitAsOwner {
        /// The request, answered with [`Reply::Committed`](super::Reply::Committed).
        id: RequestId,
        /// The slot.
        slot: Slot,
        /// The version under which the slot of the user's hold was acquired, which is the hold's token.
        acquired: Revision,
        /// The transaction, with the user's own guards.
        txn: Txn,
    },
    /// The user changes the node's metadata.
    Update {
        /// The request, answered with [`Reply::Done`](super::Reply::Done).
        id: RequestId,
        /// The complete new metadata.
        metadata: Metadata,
    },
    /// The user makes the node a member of the cluster again.
    Register {
        /// The request, answered with [`Reply::Done`](super::Reply::Done).
        id: RequestId,
    },
    /// The user makes the node leave the cluster. The node continues to follow the log.
    Unregister {
        /// The request, answered with [`Reply::Done`](super::Reply::Done).
        id: RequestId,
    },
    /// The callers of these requests are no longer waiting for replies. The requests themselves are not cancelled.
    Abandoned {
        /// The requests.
        ids: BTreeSet<RequestId>,
    },
    /// The user stops the node.
    Stop {
        /// Time for which the slots of the node wait for it to come back; zero if it will not.
        keep: Duration,
    },
    /// Work on a lost slot did not end in time and was dropped.
    WorkDropped {
        /// The slot.
        slot: Slot,
        /// Time since the work was told that the slot is lost.
        after: Duration,
    },
    /// The process at the endpoint of a node that [`Output::WatchProcesses`](super::Output::WatchProcesses) named is
    /// gone.
    ProcessGone {
        /// Identity of the process.
        process: ProcessId,
        /// The evidence.
        evidence: Evidence,
    },
}

impl Input {
    /// Returns the token of the call that the input is about, if it is about one.
    pub(super) fn token(&self) -> Option<Token> {
        match *self {
            Input::Granted { token, .. }
            | Input::Renewed { token, .. }
            | Input::Revoked { token, .. }
            | Input::Read { token, .. }
            | Input::WatchOpened { token, .. }
            | Input::Batch { token, .. }
            | Input::Batches { token, .. }
            | Input::WatchEnded { token, .. }
            | Input::Committed { token, .. }
            | Input::Stabilized { token, .. }
            | Input::Retracted { token, .. }
            | Input::Released { token, .. }
            | Input::Announced { token, .. }
            | Input::HealthReported { token, .. } => Some(token),
            _ => None,
        }
    }

    /// True if no further inputs have this token. A watch continues after it was opened and after each batch, and a
    /// retraction while a slot is in use.
    pub(super) fn ends_call(&self) -> bool {
        match self {
            Input::WatchOpened { result: Ok(()), .. } | Input::Batch { .. } | Input::Batches { .. } => false,
            Input::Retracted { in_use, .. } => in_use.is_empty(),
            _ => true,
        }
    }
}
