//! Classification of failed calls to etcd.
//!
//! An error of the client library, or of a connection attempt, becomes a [`Failure`]: its [`FailureKind`] tells whether
//! the call may have taken effect and whether it may be made again, and its message tells an operator what to do.

mod advice;
mod answers;
mod no_connection;
#[cfg(test)]
mod tests;

use std::error::Error;

use clustering_core::store::{ErrorKind, StoreError};
use tonic::Status;

use crate::connector::NoConnection;

/// Result of a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// The request was not sent: no connection could be made, or it was lost before.
    NotSent,
    /// The request was not sent, because the TLS settings of both ends do not match: only one of them uses TLS, or one
    /// rejects the other's certificate. Another member may have matching settings. If none has, the failure lasts until
    /// somebody changes the settings.
    SettingsMismatch,
    /// The request was sent, or may have been, and no reply came.
    ReplyLost,
    /// A read was sent on an established connection, and no reply came in time.
    ReadTimedOut,
    /// The reply exceeds the size limit of a message.
    ReplyTooLarge,
    /// The request was not sent, because the login that it needs has not been answered yet. The login continues.
    LoginPending,
    /// The server did nothing, because of its state.
    Busy,
    /// The server is out of space. It either refused a change without effect or made it all the same: etcd checks its
    /// quota again when it applies a change, reports an excess, and keeps the change.
    NoSpace,
    /// The cluster has no leader. The server did nothing, except that the previous leader may have renewed the lease.
    NoLeader,
    /// The server did nothing, because the token is missing or no longer valid.
    TokenRejected,
    /// The server did nothing, because user or password are wrong.
    LoginRejected,
    /// The server did nothing, because the user lacks a permission.
    PermissionDenied,
    /// [`PermissionDenied`](Self::PermissionDenied) or [`TokenRejected`](Self::TokenRejected). Some versions, such as
    /// 3.5.1, end a watch with the same message in both cases.
    PermissionDeniedOrTokenRejected,
    /// The server did nothing, because the request breaks its rules.
    Invalid,
    /// The lease does not exist.
    LeaseNotFound,
    /// The revision to read at was compacted, or the store has not reached it (any more).
    RevisionUnavailable,
}

/// Effect of making a call twice. Determines what a lost reply means, and whether the call may be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetrySafety {
    /// The call changes nothing.
    ReadOnly,
    /// Two calls have the same effect as one.
    Idempotent,
    /// Two calls may have another effect than one.
    NotIdempotent,
}

impl FailureKind {
    fn of_status(status: &Status) -> Self {
        // The client library creates statuses too, from errors of the transport. Only those have a source.
        match status.source() {
            Some(source) => FailureKind::of_transport(source),
            None => answers::classify(status.code(), status.message()),
        }
    }

    /// Classifies an error of the transport: the reply is lost unless it is known that nothing was sent.
    fn of_transport(error: &(dyn Error + 'static)) -> Self {
        if let Some(error) = NoConnection::within(error) {
            return no_connection::classify(error).0;
        }
        // Hyper reports "canceled" only if the connection was lost while the request was waiting for it.
        let is_canceled = |cause: &(dyn Error + 'static)| {
            cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled)
        };
        match causes(error).any(is_canceled) {
            true => FailureKind::NotSent,
            false => FailureKind::ReplyLost,
        }
    }

    /// True if the call may have taken effect, or may still do so.
    pub(crate) fn may_have_happened(self, safety: RetrySafety) -> bool {
        match self {
            // If the reply to a change cannot be read, the change has happened.
            FailureKind::ReplyLost | FailureKind::ReplyTooLarge => safety != RetrySafety::ReadOnly,
            // Etcd does not check its quota for a renewal, the only idempotent call.
            FailureKind::NoSpace => safety == RetrySafety::NotIdempotent,
            FailureKind::NoLeader => safety == RetrySafety::Idempotent,
            FailureKind::NotSent
            | FailureKind::SettingsMismatch
            | FailureKind::ReadTimedOut
            | FailureKind::LoginPending
            | FailureKind::Busy
            | FailureKind::TokenRejected
            | FailureKind::LoginRejected
            | FailureKind::PermissionDenied
            | FailureKind::PermissionDeniedOrTokenRejected
            | FailureKind::Invalid
            | FailureKind::LeaseNotFound
            | FailureKind::RevisionUnavailable => false,
        }
    }

    /// True if the call may be made again, at this member or another: it had no effect and may succeed there, or a
    /// second call does no more than the first.
    pub(crate) fn may_be_repeated(self, safety: RetrySafety) -> bool {
        match self {
            FailureKind::NotSent | FailureKind::SettingsMismatch | FailureKind::Busy => true,
            FailureKind::ReplyLost | FailureKind::NoSpace | FailureKind::NoLeader => {
                safety == RetrySafety::Idempotent || !self.may_have_happened(safety)
            }
            FailureKind::ReadTimedOut
            | FailureKind::ReplyTooLarge
            | FailureKind::LoginPending
            | FailureKind::TokenRejected
            | FailureKind::LoginRejected
            | FailureKind::PermissionDenied
            | FailureKind::PermissionDeniedOrTokenRejected
            | FailureKind::Invalid
            | FailureKind::LeaseNotFound
            | FailureKind::RevisionUnavailable => false,
        }
    }

    /// Returns the kind of the error for the caller.
    fn error_kind(self, safety: RetrySafety) -> ErrorKind {
        if self.may_have_happened(safety) {
            return ErrorKind::OutcomeUnknown;
        }
        match self {
            FailureKind::NotSent | FailureKind::ReplyLost => ErrorKind::Unreachable,
            FailureKind::ReadTimedOut
            | FailureKind::LoginPending
            | FailureKind::Busy
            | FailureKind::NoSpace
            | FailureKind::NoLeader
            | FailureKind::RevisionUnavailable => ErrorKind::Busy,
            FailureKind::SettingsMismatch
            | FailureKind::TokenRejected
            | FailureKind::LoginRejected
            | FailureKind::PermissionDenied
            | FailureKind::PermissionDeniedOrTokenRejected => ErrorKind::Refused,
            FailureKind::ReplyTooLarge | FailureKind::Invalid => ErrorKind::Invalid,
            FailureKind::LeaseNotFound => ErrorKind::LeaseNotFound,
        }
    }
}

/// A failed call: its kind, and a message for operators.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    pub(crate) message: String,
    source: Option<etcd_client::Error>,
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Failure { kind, message: message.into(), source: None }
    }

    /// Converts the failure of a step before the call: nothing of the call itself was sent.
    pub(crate) fn before_the_call(mut self) -> Self {
        self.kind = match self.kind {
            FailureKind::ReplyLost => FailureKind::NotSent,
            FailureKind::NoSpace | FailureKind::NoLeader => FailureKind::Busy,
            other => other,
        };
        self
    }

    /// Converts the failure to an error for the caller. `context` names the call and the member.
    pub(crate) fn into_error(self, safety: RetrySafety, context: &str) -> StoreError {
        let error = StoreError::new(self.kind.error_kind(safety), format!("{context}: {}", self.message));
        match self.source {
            Some(source) => error.with_source(source),
            None => error,
        }
    }
}

impl From<etcd_client::Error> for Failure {
    fn from(error: etcd_client::Error) -> Self {
        use etcd_client::Error as E;
        let (kind, message) = match &error {
            E::GRpcStatus(status) => match status.source() {
                None => (FailureKind::of_status(status), status.message().to_owned()),
                // The message of the status itself is only the outermost one, "transport error".
                Some(source) => (FailureKind::of_status(status), innermost(source)),
            },
            E::TransportError(error) => (FailureKind::of_transport(error), innermost(error)),
            E::IoError(error) => (FailureKind::of_transport(error), error.to_string()),
            // The client library's error for a renewal that etcd answered with a TTL of zero. Its other error of this
            // variant, a request that could not be sent, cannot come before the first reply.
            E::LeaseKeepAliveError(text) if text == "lease not found" => {
                (FailureKind::LeaseNotFound, "the lease does not exist or has expired".to_owned())
            }
            E::InvalidArgs(_) | E::InvalidUri(_) | E::InvalidMetadataValue(_) => {
                (FailureKind::Invalid, error.to_string())
            }
            _ => (FailureKind::ReplyLost, error.to_string()),
        };
        Failure { kind, message, source: Some(error) }
    }
}

impl NoConnection {
    /// Finds the connection failure among the causes of an error.
    fn within<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        causes(error).find_map(|cause| cause.downcast_ref())
    }
}

/// Returns an error and its causes, from the outermost to the innermost.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// Returns the message of the innermost cause, which is the informative one, such as "connection refused".
fn innermost(error: &(dyn Error + 'static)) -> String {
    if let Some(error) = NoConnection::within(error) {
        return no_connection::classify(error).1;
    }
    causes(error).last().map_or_else(String::new, ToString::to_string)
}
