use std::net::SocketAddr;

use thiserror::Error;

use crate::{config::InvalidConfig, event::StopReason, machine::RequestError, name::InvalidInput};

/// Reason why a node did not start. Nothing of the node is left, except possibly a lease that could not be revoked and
/// expires by itself.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StartError {
    /// A field is invalid. The store was not called.
    #[error(transparent)]
    Input(#[from] InvalidInput),
    /// The times of the configuration cannot work together. The store was not called.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// The operating system provided no entropy for the node's ULIDs.
    #[error("cannot read entropy from the operating system: {0}")]
    Randomness(String),
    /// `start` was called outside of a tokio runtime.
    #[error("no tokio runtime is running: call `start` inside one, for example under `#[tokio::main]`")]
    NoRuntime,
    /// The socket for [crash detection](crate::CrashDetection) could not be opened. The store was not called.
    #[error("cannot listen on {address} for crash detection: {reason}: {advice}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The operating system's error.
        reason: String,
        /// Advice on how to solve the problem.
        advice: &'static str,
    },
    /// The store refuses this node. An operator has to correct credentials, permissions or limits.
    #[error("cannot start: {0}")]
    Refused(String),
    /// The node ended before it became a member.
    #[error("the node ended before it became a member: {0}")]
    Stopped(StopReason),
}

/// The node has ended, so it cannot answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the node has ended: {0}")]
pub struct Ended(
    /// Why the node ended.
    pub StopReason,
);

/// A callback of a node waited for something that happens only after the callback has returned. It would wait forever.
///
/// Only code that the callback itself runs is recognized. A task that the callback has spawned may wait, but the
/// callback must not wait for that task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "a callback must not wait for its own node: return from the callback first, or spawn a task that waits"
)]
pub struct InCallback;

/// Reason why a wait for a node ended without a result.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The node has ended.
    #[error(transparent)]
    Ended(#[from] Ended),
    /// A callback of the node waited for the node.
    #[error(transparent)]
    InCallback(#[from] InCallback),
}

/// Problem that occurred while a node ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StopError {
    /// The store did not revoke the lease in time, and its TTL has not passed yet: other nodes see this node until then,
    /// or for another TTL if the store itself was down; see [`stop`](crate::Clustering::stop).
    #[error("the store did not revoke the lease in time: other nodes see this node until its TTL has passed")]
    LeaseNotGivenBack,
    /// A callback of the node awaited the node's end. The node has begun to stop, but it ends only after the callback
    /// has returned.
    #[error(
        "the node has begun to stop, but a callback must not wait for the end of its own node: return from the callback"
    )]
    InCallback,
}

/// Reason why the metadata could not be changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// The metadata is invalid. The store was not called.
    #[error(transparent)]
    Input(#[from] InvalidInput),
    /// The node did not carry out the request.
    #[error(transparent)]
    Request(#[from] RequestError),
}
