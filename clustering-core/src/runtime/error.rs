use thiserror::Error;

use crate::{config::InvalidConfig, event::StopReason, machine::RequestError, name::InvalidInput};

/// Why a node did not start. Nothing of it is left, save a lease that expires by itself where the store did not take it
/// back.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StartError {
    /// A field cannot be used: nothing was tried.
    #[error(transparent)]
    Input(#[from] InvalidInput),
    /// Times that cannot work together: nothing was tried.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// The operating system gave no randomness for the node's ULIDs.
    #[error("no randomness to be had from the operating system: {0}")]
    Randomness(String),
    /// There is no tokio runtime to run on.
    #[error("no tokio runtime here: call `start` from within one, such as under `#[tokio::main]`")]
    NoRuntime,
    /// The store refuses this node: its credentials, rights or limits need mending.
    #[error("cannot start: {0}")]
    Refused(String),
    /// It ended before it was a member.
    #[error("the node ended before it was a member: {0}")]
    Stopped(StopReason),
}

/// Why there is no answer from the node: it has ended.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the node has ended: {0}")]
pub struct Ended(
    /// Why it ended.
    pub StopReason,
);

/// What went wrong while a node ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StopError {
    /// The store did not revoke the lease in time, and the lease has not expired yet: other nodes see this node until
    /// the TTL has passed.
    #[error(
        "the store did not take the lease back in time: the others see this node until its TTL has passed"
    )]
    LeaseNotGivenBack,
}

/// Why the metadata could not be changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// It cannot be used: nothing was tried.
    #[error(transparent)]
    Input(#[from] InvalidInput),
    /// The request was not granted.
    #[error(transparent)]
    Request(#[from] RequestError),
}
