//! What a failed call to etcd means: the one table from gRPC codes, etcd's messages and transport errors.

use std::error::Error;

use clustering_core::store::{ErrorKind, StoreError};
use tonic::{Code, Status};

/// What became of a call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It never arrived: no connection could be made, or it was lost before the request was sent.
    NeverArrived,
    /// Nobody knows: the request was sent, or may have been, and no reply came.
    Lost,
    /// The server did nothing, because of its state.
    Busy,
    /// The server did nothing, because the login is missing or no longer valid.
    LoggedOut,
    /// The server did nothing, because it does not accept the login.
    Refused,
    /// The server did nothing: it knows the user, who may not do this.
    Forbidden,
    /// The server did nothing, because the request breaks its rules.
    Invalid,
    /// There is no such lease.
    LeaseNotFound,
    /// A read at a revision that was compacted, or that the store does not have (any more).
    RevisionGone,
}

/// What a call does, which decides what a lost reply means and whether trying again is harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// It changes nothing: a lost reply is as good as none.
    Read,
    /// It may have taken effect, and making it twice does no more than once.
    Repeatable,
    /// It may have taken effect, and making it twice is not the same as once.
    Change,
}

/// The table for what a server answered: code, a part of the message, what it means. The first row that fits counts.
/// The texts are those of etcd's `api/v3rpc/rpctypes/error.go`, the same from 3.4 to 3.6.
///
/// `Unavailable` and whatever is not listed is [`Outcome::Lost`]: etcd answers so when it gave up waiting for a proposal
/// that may still be applied ("request timed out", "server stopped"), and proxies do for all that went wrong.
#[rustfmt::skip]
const ANSWERS: &[(Code, &str, Outcome)] = &[
    (Code::NotFound,           "requested lease not found",             Outcome::LeaseNotFound),

    (Code::OutOfRange,         "required revision has been compacted",  Outcome::RevisionGone),
    (Code::OutOfRange,         "required revision is a future",         Outcome::RevisionGone),
    (Code::OutOfRange,         "",                                      Outcome::Invalid), // too large lease TTL

    // No token although authentication is on: it was turned on since the connection was made.
    (Code::InvalidArgument,    "user name is empty",                    Outcome::LoggedOut),
    // The token is older than the last change of users and roles.
    (Code::InvalidArgument,    "revision of auth store is old",         Outcome::LoggedOut),
    (Code::InvalidArgument,    "authentication failed",                 Outcome::Refused),
    (Code::InvalidArgument,    "",                                      Outcome::Invalid),
    (Code::Unauthenticated,    "",                                      Outcome::LoggedOut),
    (Code::PermissionDenied,   "",                                      Outcome::Forbidden),
    (Code::FailedPrecondition, "authentication is not enabled",         Outcome::Refused),
    (Code::FailedPrecondition, "",                                      Outcome::Busy), // not leader; learner

    (Code::ResourceExhausted,  "message larger than max",               Outcome::Invalid),
    (Code::ResourceExhausted,  "",                                      Outcome::Busy), // no space; too many requests
    (Code::DataLoss,           "corrupt cluster",                       Outcome::Busy),
    (Code::Unimplemented,      "",                                      Outcome::Invalid), // no etcd, or one before 3.4

    // These are said before the request is looked at.
    (Code::Unavailable,        "no leader",                             Outcome::Busy),
    (Code::Unavailable,        "not capable",                           Outcome::Busy),
    (Code::Unavailable,        "not supported for learner",             Outcome::Busy),
];

impl Outcome {
    /// What a gRPC status means.
    fn of_status(status: &Status) -> Self {
        // A status with a source was made on this side, from an error of the transport.
        if let Some(source) = status.source() {
            return Outcome::of_transport(source);
        }
        let (code, message) = (status.code(), status.message());
        ANSWERS
            .iter()
            .find(|(of, part, _)| *of == code && message.contains(part))
            .map_or(Outcome::Lost, |(_, _, outcome)| *outcome)
    }

    /// What an error of the transport means: lost, unless it is known that nothing was sent.
    fn of_transport(error: &(dyn Error + 'static)) -> Self {
        let never_sent = causes(error).any(|cause| {
            // A connection that was lost while the request waited for it; hyper says "canceled" for no other reason.
            cause.is::<tonic::ConnectError>()
                || cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled)
        });
        if never_sent { Outcome::NeverArrived } else { Outcome::Lost }
    }

    /// The kind of the error that the caller gets.
    fn kind(self, call: Call) -> ErrorKind {
        match self {
            Outcome::NeverArrived => ErrorKind::Unreachable,
            Outcome::Lost if call == Call::Read => ErrorKind::Unreachable,
            Outcome::Lost => ErrorKind::OutcomeUnknown,
            Outcome::Busy | Outcome::RevisionGone => ErrorKind::Busy,
            Outcome::LoggedOut | Outcome::Refused | Outcome::Forbidden => ErrorKind::Refused,
            Outcome::Invalid => ErrorKind::Invalid,
            Outcome::LeaseNotFound => ErrorKind::LeaseNotFound,
        }
    }
}

/// An error and what caused it, from the outermost to the innermost.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// A call that failed: what became of it, and the text for people.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) outcome: Outcome,
    pub(crate) message: String,
    source: Option<etcd_client::Error>,
}

impl Failure {
    pub(crate) fn new(outcome: Outcome, message: impl Into<String>) -> Self {
        Failure { outcome, message: message.into(), source: None }
    }

    /// The error that the caller of `call` gets; `what` says which call, and to whom.
    pub(crate) fn into_error(self, call: Call, what: &str) -> StoreError {
        let error = StoreError::new(self.outcome.kind(call), format!("{what}: {}", self.message));
        match self.source {
            Some(source) => error.with_source(source),
            None => error,
        }
    }
}

impl From<etcd_client::Error> for Failure {
    fn from(error: etcd_client::Error) -> Self {
        use etcd_client::Error as E;
        let (outcome, message) = match &error {
            E::GRpcStatus(status) => match status.source() {
                None => (Outcome::of_status(status), status.message().to_owned()),
                // The status' own message is only the outermost one, "transport error".
                Some(source) => (Outcome::of_status(status), innermost(source)),
            },
            E::TransportError(error) => (Outcome::of_transport(error), innermost(error)),
            E::IoError(error) => (Outcome::of_transport(error), error.to_string()),
            // The client's word for a renewal that was answered with a TTL of zero; its other error of this kind, a
            // request that could not be sent, cannot come before the first answer.
            E::LeaseKeepAliveError(text) if text == "lease not found" => {
                (Outcome::LeaseNotFound, "the lease is unknown or has ended".to_owned())
            }
            E::InvalidArgs(_) | E::InvalidUri(_) | E::InvalidMetadataValue(_) => {
                (Outcome::Invalid, error.to_string())
            }
            _ => (Outcome::Lost, error.to_string()),
        };
        Failure { outcome, message, source: Some(error) }
    }
}

/// The text of the innermost cause, which is the one that tells something: "connection refused".
fn innermost(error: &(dyn Error + 'static)) -> String {
    causes(error).last().map_or_else(String::new, ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ErrorKind::{Busy, Invalid, LeaseNotFound, OutcomeUnknown, Refused, Unreachable};

    fn answered(code: Code, message: &str) -> etcd_client::Error {
        etcd_client::Error::GRpcStatus(Status::new(code, message))
    }

    fn of_transport(error: impl Error + Send + Sync + 'static) -> etcd_client::Error {
        etcd_client::Error::GRpcStatus(Status::from_error(Box::new(error)))
    }

    /// Each row: what a change gets, and what a read gets.
    #[track_caller]
    fn means(error: fn() -> etcd_client::Error, change: ErrorKind, read: ErrorKind) {
        let of = |call| Failure::from(error()).into_error(call, "commit").kind();
        assert_eq!(of(Call::Change), change, "a change, {}", error());
        assert_eq!(of(Call::Repeatable), change, "a repeatable change, {}", error());
        assert_eq!(of(Call::Read), read, "a read, {}", error());
    }

    macro_rules! rows {
        ($($name:ident: $error:expr => $change:expr, $read:expr;)+) => {$(
            #[test]
            fn $name() {
                means(|| $error, $change, $read);
            }
        )+};
    }

    rows! {
        lease_not_found: answered(Code::NotFound, "etcdserver: requested lease not found")
            => LeaseNotFound, LeaseNotFound;
        lease_of_zero_ttl: etcd_client::Error::LeaseKeepAliveError("lease not found".into())
            => LeaseNotFound, LeaseNotFound;
        keep_alive_not_sent: etcd_client::Error::LeaseKeepAliveError("channel closed".into())
            => OutcomeUnknown, Unreachable;
        ttl_too_large: answered(Code::OutOfRange, "etcdserver: too large lease TTL") => Invalid, Invalid;
        compacted: answered(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted")
            => Busy, Busy;
        future_revision: answered(Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision")
            => Busy, Busy;
        duplicate_key: answered(Code::InvalidArgument, "etcdserver: duplicate key given in txn request")
            => Invalid, Invalid;
        request_too_large: answered(Code::InvalidArgument, "etcdserver: request is too large") => Invalid, Invalid;
        wrong_password: answered(
            Code::InvalidArgument, "etcdserver: authentication failed, invalid user ID or password"
        ) => Refused, Refused;
        no_login: answered(Code::InvalidArgument, "etcdserver: user name is empty") => Refused, Refused;
        old_login: answered(Code::InvalidArgument, "etcdserver: revision of auth store is old") => Refused, Refused;
        bad_token: answered(Code::Unauthenticated, "etcdserver: invalid auth token") => Refused, Refused;
        no_right: answered(Code::PermissionDenied, "etcdserver: permission denied") => Refused, Refused;
        login_not_wanted: answered(Code::FailedPrecondition, "etcdserver: authentication is not enabled")
            => Refused, Refused;
        not_leader: answered(Code::FailedPrecondition, "etcdserver: not leader") => Busy, Busy;
        no_space: answered(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded") => Busy, Busy;
        too_many_requests: answered(Code::ResourceExhausted, "etcdserver: too many requests") => Busy, Busy;
        message_too_large: answered(
            Code::ResourceExhausted, "grpc: received message larger than max (2097167 vs. 2097152)"
        ) => Invalid, Invalid;
        corrupt: answered(Code::DataLoss, "etcdserver: corrupt cluster") => Busy, Busy;
        not_etcd: answered(Code::Unimplemented, "unknown service etcdserverpb.KV") => Invalid, Invalid;
        no_leader: answered(Code::Unavailable, "etcdserver: no leader") => Busy, Busy;
        not_capable: answered(Code::Unavailable, "etcdserver: not capable") => Busy, Busy;
        learner: answered(Code::Unavailable, "etcdserver: rpc not supported for learner") => Busy, Busy;
        timed_out: answered(Code::Unavailable, "etcdserver: request timed out") => OutcomeUnknown, Unreachable;
        timed_out_leader_failed: answered(
            Code::Unavailable, "etcdserver: request timed out, possibly due to previous leader failure"
        ) => OutcomeUnknown, Unreachable;
        leader_changed: answered(Code::Unavailable, "etcdserver: leader changed") => OutcomeUnknown, Unreachable;
        server_stopped: answered(Code::Unavailable, "etcdserver: server stopped") => OutcomeUnknown, Unreachable;
        proxy_failed: answered(Code::Unavailable, "upstream connect error") => OutcomeUnknown, Unreachable;
        deadline: answered(Code::DeadlineExceeded, "context deadline exceeded") => OutcomeUnknown, Unreachable;
        cancelled: answered(Code::Cancelled, "context canceled") => OutcomeUnknown, Unreachable;
        unknown: answered(Code::Unknown, "raft: stopped") => OutcomeUnknown, Unreachable;
        internal: answered(Code::Internal, "stream terminated by RST_STREAM") => OutcomeUnknown, Unreachable;
        data_loss: answered(Code::DataLoss, "something else") => OutcomeUnknown, Unreachable;

        connection_refused: of_transport(
            tonic::ConnectError(std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into())
        ) => Unreachable, Unreachable;
        connection_broken: of_transport(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
            => OutcomeUnknown, Unreachable;
        timeout_of_the_client: of_transport(tonic::TimeoutExpired(())) => OutcomeUnknown, Unreachable;
        io_error: etcd_client::Error::IoError(std::io::Error::from(std::io::ErrorKind::BrokenPipe))
            => OutcomeUnknown, Unreachable;

        invalid_arguments: etcd_client::Error::InvalidArgs("empty endpoints".into()) => Invalid, Invalid;
        watch_request_not_sent: etcd_client::Error::WatchError("channel closed".into())
            => OutcomeUnknown, Unreachable;
    }

    #[test]
    fn a_local_status_is_not_taken_for_an_answer() {
        // The client makes such a status of an HTTP/2 error; the text of the server's would mean "nothing happened".
        let local = || of_transport(std::io::Error::other("etcdserver: no leader"));
        means(local, OutcomeUnknown, Unreachable);
    }

    #[test]
    fn every_row_is_reached() {
        for (code, part, outcome) in ANSWERS {
            assert_eq!(Outcome::of_status(&Status::new(*code, *part)), *outcome, "{code:?} {part:?}");
        }
    }

    #[test]
    fn the_text_names_the_call_and_the_innermost_cause() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let failure = Failure::from(of_transport(tonic::ConnectError(refused.into())));
        let error = failure.into_error(Call::Read, "read at http://localhost:2379");
        assert_eq!(
            error.to_string(),
            "the store cannot be reached: read at http://localhost:2379: connection refused"
        );
        assert!(error.source().is_some());
    }
}
