//! What a failed call to etcd means: the one table from gRPC codes, etcd's messages and transport errors.

use std::error::Error;

use clustering_core::store::{ErrorKind, StoreError};
use rustls::{AlertDescription, CertificateError, pki_types::ServerName};
use tonic::{Code, Status};

use crate::{connector::NoConnection, operation::Operation, wire::Wire};

/// What became of a call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It never arrived: no connection could be made, or it was lost before the request was sent.
    NeverArrived,
    /// It never arrived: no connection was made, because the two ends do not go together. One has TLS and the other has
    /// not, or one does not accept the other's certificate. Another member may be set up better; if none is, it stays so
    /// until somebody changes the settings.
    Mismatched,
    /// Nobody knows: the request was sent, or may have been, and no reply came.
    Lost,
    /// A read was sent on an established connection, and no reply came in time.
    Slow,
    /// The reply exceeds the size limit of a message.
    TooLarge,
    /// The call was not sent, since the login that it needs has not been answered. The login continues.
    LoginPending,
    /// The server did nothing, because of its state.
    Busy,
    /// The server is out of space. It either refused a change without effect or made it all the same: etcd checks its
    /// quota again when it applies a change, reports an excess, and keeps the change.
    NoSpace,
    /// The cluster has no leader. The server did nothing, except that the previous leader may have renewed the lease.
    NoLeader,
    /// The server did nothing, because the login is missing or no longer valid.
    LoggedOut,
    /// The server did nothing, because it does not accept the login.
    Refused,
    /// The server did nothing: it knows the user, who may not do this.
    Forbidden,
    /// As [`Forbidden`](Self::Forbidden) or [`LoggedOut`](Self::LoggedOut): 3.5.1, among others, says the same of a watch in
    /// both cases.
    ForbiddenOrLoggedOut,
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
/// Any other answer is [`Outcome::Lost`], `Unavailable` in particular: etcd sends it when it gives up waiting for a
/// proposal that may still be applied ("request timed out", "server stopped"), and proxies send it for every failure.
///
/// A row may claim that nothing happened only if etcd never sends that answer after it has applied the call. The source
/// of 3.4.23, 3.5.1, 3.5.29 and 3.6.14 was checked for that:
///
/// - **`database space exceeded` may come after the change was made.** etcd checks its quota twice. The first check
///   (`v3rpc/quota.go`) refuses the request before it is proposed. The second (`quotaApplierV3`) applies the transaction
///   or grants the lease first, and then returns this error if the database had grown beyond the quota meanwhile. Once
///   the alarm is raised, `applierV3Capped` refuses changes without applying them, again with the same text.
///   Revocations, renewals and plain reads are not subject to the quota.
/// - **`no leader` may come after a lease was renewed.** The interceptor refuses unary calls before they start. But a
///   stream of renewals ends with this error whenever its context is cancelled, and a follower returns it if the leader
///   vanishes after a renewal was forwarded to it. Renewals are not proposals, so a forwarded one may have been done.
/// - `too many requests` comes before the proposal. It arrives with the code `Unknown`, because etcd maps it to an error
///   type of its client library instead of a gRPC status.
/// - `corrupt cluster` comes from `applierV3Corrupt`, which applies nothing. The alarm is a log entry too, so all members
///   stop applying at the same entry.
/// - `requested lease not found`, `lease already exists`, `too large lease TTL` and the errors about revisions, keys and
///   sizes come from checks before the first write. If a write of a transaction fails after that, etcd panics.
/// - The errors about users, tokens and rights come before the proposal, or at apply time before the first write. One
///   exception is accepted: since 3.4.42, 3.5.28 and 3.6.9, a follower checks the rights again between two attempts to
///   forward a renewal. A refused renewal may then have been made, if the rights were withdrawn at that very moment.
/// - `not capable` and `not supported for learner` come from the interceptor, before the call is handled.
#[rustfmt::skip]
const ANSWERS: &[(Code, &str, Outcome)] = &[
    (Code::NotFound,           "requested lease not found",             Outcome::LeaseNotFound),

    (Code::OutOfRange,         "required revision has been compacted",  Outcome::RevisionGone),
    (Code::OutOfRange,         "required revision is a future",         Outcome::RevisionGone),
    (Code::OutOfRange,         "decoded message length too large",      Outcome::TooLarge), // by the client's library
    (Code::OutOfRange,         "",                                      Outcome::Invalid), // too large lease TTL

    // No token although authentication is on: it was turned on since the connection was made.
    (Code::InvalidArgument,    "user name is empty",                    Outcome::LoggedOut),
    // The token is older than the last change of users and roles.
    (Code::InvalidArgument,    "revision of auth store is old",         Outcome::LoggedOut),
    (Code::Unknown,            "auth: revision in header is old",       Outcome::LoggedOut), // the same, by 3.5
    (Code::InvalidArgument,    "authentication failed",                 Outcome::Refused),
    (Code::InvalidArgument,    "",                                      Outcome::Invalid),
    (Code::Unauthenticated,    "",                                      Outcome::LoggedOut),
    (Code::PermissionDenied,   "",                                      Outcome::Forbidden),
    (Code::FailedPrecondition, "authentication is not enabled",         Outcome::Refused),
    (Code::FailedPrecondition, "",                                      Outcome::Busy), // not leader; learner

    (Code::ResourceExhausted,  "trying to send message larger than max", Outcome::TooLarge),
    (Code::ResourceExhausted,  "message larger than max",               Outcome::Invalid),
    (Code::ResourceExhausted,  "space exceeded",                        Outcome::NoSpace),
    (Code::ResourceExhausted,  "too many requests",                     Outcome::Busy),
    (Code::Unknown,            "too many requests",                     Outcome::Busy), // the code that etcd sends
    (Code::DataLoss,           "corrupt cluster",                       Outcome::Busy),
    (Code::Unimplemented,      "",                                      Outcome::Invalid), // no etcd, or one before 3.4

    (Code::Unavailable,        "no leader",                             Outcome::NoLeader),
    (Code::Unavailable,        "not capable",                           Outcome::Busy),
    (Code::Unavailable,        "not supported for learner",             Outcome::Busy),
];

/// Advice for servers that cannot serve the call now: a part of the server's message, and the advice. The first row that matches applies.
const BUSY: &[(&str, &str)] = &[
    (
        "not supported for learner",
        "this member is a learner, which does not serve clients: give the endpoints of voting members too, or promote it \
         (etcdctl member promote)",
    ),
    (
        "space exceeded",
        "free some space (etcdctl compact, defrag), then clear the alarm (etcdctl alarm disarm)",
    ),
    (
        "no leader",
        "a majority of the members must be up and see each other: see etcdctl endpoint status --cluster",
    ),
    ("too many requests", "etcd is overloaded: see its log, its disk and its other clients"),
    ("corrupt cluster", "the data of its members differs: see its log and etcdctl alarm list"),
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
        if let Some(none) = NoConnection::within(error) {
            return Outcome::of_no_connection(none).0;
        }
        let never_sent = causes(error).any(|cause| {
            // A connection that was lost while the request waited for it; hyper says "canceled" for no other reason.
            cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled)
        });
        if never_sent { Outcome::NeverArrived } else { Outcome::Lost }
    }

    /// The table for connections that could not be made: what it means, and the text that says what to do.
    fn of_no_connection(error: &NoConnection) -> (Self, String) {
        use Outcome::{Mismatched, NeverArrived};
        match error {
            NoConnection::Network(_)
            | NoConnection::Slow { .. }
            | NoConnection::Closed(_)
            | NoConnection::Lost => (NeverArrived, error.to_string()),
            // Also what a server does that is just being stopped, so it is not taken for a refusal.
            NoConnection::ClosedAfterTls { identity: true } => {
                (NeverArrived, format!("{error}: it may not accept the client's certificate, its log tells"))
            }
            NoConnection::ClosedAfterTls { identity: false } => {
                (NeverArrived, format!("{error}: it may want a client certificate, its log tells"))
            }
            NoConnection::SpeaksTls => {
                let advice = "write the endpoint as https://, with the CA as tls.ca (ETCDCTL_CACERT)";
                (Mismatched, format!("{error}, and the endpoint is without: {advice}"))
            }
            NoConnection::SpeaksPlain => {
                let advice = "write the endpoint as http:// and leave the TLS settings out, or turn TLS on there \
                              (etcd --cert-file and --key-file)";
                (Mismatched, format!("{error}, and the endpoint is with it: {advice}"))
            }
            NoConnection::SpeaksOther => {
                let advice =
                    "etcd's clients must be given its client port, and no proxy that speaks only HTTP/1";
                (Mismatched, format!("{error}: {advice}"))
            }
            NoConnection::Tls { error, identity } => Outcome::of_tls(error, *identity),
        }
    }

    /// The table for TLS. `identity` says whether the client had a certificate to show.
    fn of_tls(error: &rustls::Error, identity: bool) -> (Self, String) {
        use AlertDescription as Alert;
        use CertificateError as Certificate;
        let advice = match error {
            rustls::Error::InvalidCertificate(error) => match error {
                Certificate::UnknownIssuer => {
                    "the server's certificate is of a CA that is not trusted here: give the right one as tls.ca \
                     (ETCDCTL_CACERT)"
                        .to_owned()
                }
                // An authority that was made anew under its old name.
                Certificate::BadSignature => {
                    "the server's certificate is of a CA that is not trusted here, though another of the same name is: \
                     give the right one as tls.ca (ETCDCTL_CACERT)"
                        .to_owned()
                }
                Certificate::Expired | Certificate::ExpiredContext { .. } => {
                    "the server's certificate has expired: renew it there (or is this machine's clock wrong?)".to_owned()
                }
                Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => {
                    "the server's certificate is not valid yet: is this machine's clock wrong?".to_owned()
                }
                Certificate::NotValidForNameContext { expected, presented } => {
                    let (expected, presented) = (name(expected), presented.join(", "));
                    format!(
                        "the server's certificate is not for {expected}, but for [{presented}]: write the endpoint by \
                         one of these names, or give one as tls.server_name"
                    )
                }
                other => format!("the server's certificate cannot be used: {other}"),
            },
            rustls::Error::AlertReceived(
                alert @ (Alert::NoCertificate
                | Alert::CertificateRequired
                | Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::AccessDenied
                | Alert::DecryptError),
            ) => match identity {
                false => "the server wants a client certificate: give one as tls.identity (ETCDCTL_CERT and ETCDCTL_KEY)"
                    .to_owned(),
                true => format!(
                    "the server does not accept the client's certificate ({alert:?}): it must not have expired, be for \
                     client authentication, and of a CA that the server trusts (etcd --trusted-ca-file)"
                ),
            },
            rustls::Error::AlertReceived(Alert::HandshakeFailure) if !identity => {
                format!(
                    "the server ended the TLS handshake ({error}): it may want a client certificate (ETCDCTL_CERT and \
                     ETCDCTL_KEY), or no way of TLS that this client knows"
                )
            }
            rustls::Error::AlertReceived(
                Alert::ProtocolVersion | Alert::HandshakeFailure | Alert::InsufficientSecurity | Alert::UnrecognisedName,
            )
            | rustls::Error::PeerIncompatible(_) => {
                format!("the server and this client know no common way to speak TLS, 1.2 or 1.3: {error}")
            }
            // Nothing that settings explain: bytes that were garbled, a server in trouble.
            _ => return (Outcome::NeverArrived, format!("the TLS handshake failed: {error}")),
        };
        (Outcome::Mismatched, advice)
    }

    /// True if the call may have taken effect, or may still do so.
    pub(crate) fn may_have_happened(self, call: Call) -> bool {
        match self {
            // If the reply to a change cannot be read, the change has happened.
            Outcome::Lost | Outcome::TooLarge => call != Call::Read,
            // etcd does not check its quota for a renewal, the only repeatable call.
            Outcome::NoSpace => call == Call::Change,
            Outcome::NoLeader => call == Call::Repeatable,
            Outcome::NeverArrived
            | Outcome::Mismatched
            | Outcome::Slow
            | Outcome::LoginPending
            | Outcome::Busy
            | Outcome::LoggedOut
            | Outcome::Refused
            | Outcome::Forbidden
            | Outcome::ForbiddenOrLoggedOut
            | Outcome::Invalid
            | Outcome::LeaseNotFound
            | Outcome::RevisionGone => false,
        }
    }

    /// True if the call may be made again, at this member or another: it had no effect and may succeed there, or a
    /// second time does no more than the first.
    pub(crate) fn may_be_repeated(self, call: Call) -> bool {
        match self {
            Outcome::NeverArrived | Outcome::Mismatched | Outcome::Busy => true,
            Outcome::Lost | Outcome::NoSpace | Outcome::NoLeader => {
                call == Call::Repeatable || !self.may_have_happened(call)
            }
            Outcome::Slow
            | Outcome::TooLarge
            | Outcome::LoginPending
            | Outcome::LoggedOut
            | Outcome::Refused
            | Outcome::Forbidden
            | Outcome::ForbiddenOrLoggedOut
            | Outcome::Invalid
            | Outcome::LeaseNotFound
            | Outcome::RevisionGone => false,
        }
    }

    /// The kind of the error that the caller gets.
    fn kind(self, call: Call) -> ErrorKind {
        if self.may_have_happened(call) {
            return ErrorKind::OutcomeUnknown;
        }
        match self {
            Outcome::NeverArrived | Outcome::Lost => ErrorKind::Unreachable,
            Outcome::Slow
            | Outcome::LoginPending
            | Outcome::Busy
            | Outcome::NoSpace
            | Outcome::NoLeader
            | Outcome::RevisionGone => ErrorKind::Busy,
            Outcome::Mismatched
            | Outcome::LoggedOut
            | Outcome::Refused
            | Outcome::Forbidden
            | Outcome::ForbiddenOrLoggedOut => ErrorKind::Refused,
            Outcome::TooLarge | Outcome::Invalid => ErrorKind::Invalid,
            Outcome::LeaseNotFound => ErrorKind::LeaseNotFound,
        }
    }
}

impl NoConnection {
    /// The reason, if it is among the causes of an error.
    fn within<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        causes(error).find_map(|cause| cause.downcast_ref())
    }
}

/// What a certificate should have been for.
fn name(expected: &ServerName<'_>) -> String {
    expected.to_str().into_owned()
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

    /// Converts the failure of a step before the call: nothing of the call itself was sent, so it never arrived.
    pub(crate) fn before_the_call(mut self) -> Self {
        self.outcome = match self.outcome {
            Outcome::Lost => Outcome::NeverArrived,
            Outcome::NoSpace | Outcome::NoLeader => Outcome::Busy,
            other => other,
        };
        self
    }

    /// Says what to do, where etcd refused: its own words name neither the user nor what was missing.
    pub(crate) fn advise(&mut self, operation: Operation<'_>, wire: &Wire, user: Option<&str>) {
        let said = &self.message;
        let message = match (self.outcome, user) {
            (Outcome::Refused, Some(user)) if said.contains("authentication is not enabled") => format!(
                "etcd has no users, but is given the user {user:?} ({said}): leave the credentials (ETCDCTL_USER) out, \
                 or let it have users (etcdctl auth enable)"
            ),
            (Outcome::Refused, Some(user)) => format!(
                "wrong user or password: etcd does not accept this password for {user:?} ({said}): correct the \
                 credentials (ETCDCTL_USER, ETCDCTL_PASSWORD)"
            ),
            (Outcome::LoggedOut, None) => format!(
                "etcd wants to know the user ({said}): give credentials (ETCDCTL_USER, ETCDCTL_PASSWORD), or a client \
                 certificate (ETCDCTL_CERT, ETCDCTL_KEY) whose common name is a user"
            ),
            (Outcome::LoggedOut, Some(user)) => format!(
                "etcd does not accept the token that it gave {user:?} a moment ago ({said}): tokens live too shortly \
                 (etcd --auth-token), or its members disagree about them"
            ),
            (Outcome::Forbidden | Outcome::ForbiddenOrLoggedOut, _) => {
                let whose = user.map_or_else(
                    || "the user, by the client certificate's common name,".to_owned(),
                    |user| format!("the user {user:?}"),
                );
                format!(
                    "{whose} lacks a right ({said}): this takes {}; grant it to a role of that user (etcdctl role \
                     grant-permission ROLE readwrite --prefix=true PREFIX)",
                    operation.rights(wire)
                )
            }
            (Outcome::TooLarge, _) => format!(
                "the reply is larger than a message may be ({said}): read fewer keys at a time (EtcdConfig::page), or a \
                 longer prefix"
            ),
            (Outcome::Busy | Outcome::NoSpace | Outcome::NoLeader, _) => {
                match BUSY.iter().find(|(part, _)| said.contains(part)) {
                    Some((_, advice)) => format!("{said}: {advice}"),
                    None => return,
                }
            }
            _ => return,
        };
        self.message = message;
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
    if let Some(none) = NoConnection::within(error) {
        return Outcome::of_no_connection(none).1;
    }
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

    fn tls(error: impl Into<rustls::Error>) -> etcd_client::Error {
        of_transport(NoConnection::Tls { error: error.into(), identity: true })
    }

    fn alert(alert: AlertDescription) -> etcd_client::Error {
        tls(rustls::Error::AlertReceived(alert))
    }

    fn wrong_name() -> CertificateError {
        let expected = ServerName::try_from("etcd-1").unwrap();
        CertificateError::NotValidForNameContext { expected, presented: vec!["DnsName(\"etcd-2\")".into()] }
    }

    /// Each row: what a change and a repeatable change get, and what a read gets.
    #[track_caller]
    fn means(error: fn() -> etcd_client::Error, change: ErrorKind, read: ErrorKind) {
        means_each(error, change, change, read);
    }

    #[track_caller]
    fn means_each(
        error: fn() -> etcd_client::Error,
        change: ErrorKind,
        repeatable: ErrorKind,
        read: ErrorKind,
    ) {
        let of = |call| Failure::from(error()).into_error(call, "commit").kind();
        assert_eq!(of(Call::Change), change, "a change, {}", error());
        assert_eq!(of(Call::Repeatable), repeatable, "a repeatable change, {}", error());
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
        old_login_3_5: answered(Code::Unknown, "auth: revision in header is old") => Refused, Refused;
        bad_token: answered(Code::Unauthenticated, "etcdserver: invalid auth token") => Refused, Refused;
        no_right: answered(Code::PermissionDenied, "etcdserver: permission denied") => Refused, Refused;
        login_not_wanted: answered(Code::FailedPrecondition, "etcdserver: authentication is not enabled")
            => Refused, Refused;
        not_leader: answered(Code::FailedPrecondition, "etcdserver: not leader") => Busy, Busy;
        too_many_requests: answered(Code::Unknown, "etcdserver: too many requests") => Busy, Busy;
        too_many_requests_of_a_proxy: answered(Code::ResourceExhausted, "too many requests") => Busy, Busy;
        exhausted: answered(Code::ResourceExhausted, "something else") => OutcomeUnknown, Unreachable;
        message_too_large: answered(
            Code::ResourceExhausted, "grpc: received message larger than max (2097167 vs. 2097152)"
        ) => Invalid, Invalid;
        reply_too_large_to_send: answered(
            Code::ResourceExhausted, "grpc: trying to send message larger than max (3000000000 vs. 2147483647)"
        ) => OutcomeUnknown, Invalid;
        reply_too_large_to_decode: answered(
            Code::OutOfRange, "Error, decoded message length too large: found 3000000000 bytes, the limit is: 2147483647"
        ) => OutcomeUnknown, Invalid;
        corrupt: answered(Code::DataLoss, "etcdserver: corrupt cluster") => Busy, Busy;
        not_etcd: answered(Code::Unimplemented, "unknown service etcdserverpb.KV") => Invalid, Invalid;
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
            NoConnection::Network("Connection refused (os error 111)".into())
        ) => Unreachable, Unreachable;
        name_unknown: of_transport(NoConnection::Network("failed to lookup address information".into()))
            => Unreachable, Unreachable;
        connecting_takes_too_long: of_transport(NoConnection::Slow {
            step: "the TLS handshake", after: std::time::Duration::from_secs(1)
        }) => Unreachable, Unreachable;
        closed_at_once: of_transport(NoConnection::Closed("the greeting")) => Unreachable, Unreachable;
        closed_after_tls: of_transport(NoConnection::ClosedAfterTls { identity: true }) => Unreachable, Unreachable;
        tls_unexpected: of_transport(NoConnection::SpeaksTls) => Refused, Refused;
        tls_missing: of_transport(NoConnection::SpeaksPlain) => Refused, Refused;
        not_http2: of_transport(NoConnection::SpeaksOther) => Refused, Refused;
        unknown_ca: tls(CertificateError::UnknownIssuer) => Refused, Refused;
        unknown_ca_of_a_known_name: tls(CertificateError::BadSignature) => Refused, Refused;
        certificate_expired: tls(CertificateError::Expired) => Refused, Refused;
        certificate_not_valid_yet: tls(CertificateError::NotValidYet) => Refused, Refused;
        certificate_for_another: tls(wrong_name()) => Refused, Refused;
        certificate_revoked: tls(CertificateError::Revoked) => Refused, Refused;
        client_certificate_wanted: alert(AlertDescription::CertificateRequired) => Refused, Refused;
        client_certificate_not_accepted: alert(AlertDescription::UnknownCA) => Refused, Refused;
        no_common_tls: alert(AlertDescription::ProtocolVersion) => Refused, Refused;
        server_too_old_for_tls: tls(rustls::PeerIncompatible::ServerDoesNotSupportTls12Or13) => Refused, Refused;
        tls_garbled: tls(rustls::Error::DecryptError) => Unreachable, Unreachable;
        server_in_trouble: alert(AlertDescription::InternalError) => Unreachable, Unreachable;

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
    fn a_change_that_exceeds_the_quota_may_have_been_made() {
        let full = || answered(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded");
        means_each(full, OutcomeUnknown, Busy, Busy);
    }

    #[test]
    fn a_renewal_without_a_leader_may_have_been_made() {
        let leaderless = || answered(Code::Unavailable, "etcdserver: no leader");
        means_each(leaderless, Busy, OutcomeUnknown, Busy);
    }

    #[test]
    fn the_failure_of_a_login_says_that_the_call_was_not_made() {
        for (outcome, kind) in
            [(Outcome::Lost, Unreachable), (Outcome::NoSpace, Busy), (Outcome::NoLeader, Busy)]
        {
            for call in [Call::Change, Call::Repeatable, Call::Read] {
                let failure = Failure::new(outcome, "on purpose").before_the_call();
                assert_eq!(failure.into_error(call, "commit").kind(), kind, "{outcome:?} {call:?}");
            }
        }
    }

    #[test]
    fn only_reads_and_repeatable_calls_are_repeated_after_an_unknown_outcome() {
        let all = ANSWERS.iter().map(|(_, _, outcome)| *outcome);
        for outcome in all.chain([Outcome::Lost, Outcome::Slow, Outcome::NeverArrived, Outcome::Mismatched]) {
            let change = Call::Change;
            assert!(!(outcome.may_have_happened(change) && outcome.may_be_repeated(change)), "{outcome:?}");
            assert!(!outcome.may_have_happened(Call::Read), "{outcome:?}");
        }
    }

    #[test]
    fn a_local_status_is_not_taken_for_an_answer() {
        // The client makes such a status of an HTTP/2 error; the text of the server's would mean "nothing happened".
        let local = || of_transport(std::io::Error::other("etcdserver: no leader"));
        means(local, OutcomeUnknown, Unreachable);
    }

    #[test]
    fn what_does_not_go_together_is_told_with_what_to_do() {
        let told = |error: NoConnection| Failure::from(of_transport(error)).message;
        let tls = |error: rustls::Error, identity| told(NoConnection::Tls { error, identity });
        let (wanted, failed) = (AlertDescription::BadCertificate, AlertDescription::HandshakeFailure);
        for (message, says) in [
            (told(NoConnection::SpeaksTls), &["speaks TLS", "https://", "tls.ca"][..]),
            (told(NoConnection::SpeaksPlain), &["speaks no TLS", "http://", "--cert-file"]),
            (told(NoConnection::SpeaksOther), &["no HTTP/2", "client port"]),
            (tls(CertificateError::UnknownIssuer.into(), true), &["not trusted here", "ETCDCTL_CACERT"]),
            (
                tls(CertificateError::BadSignature.into(), true),
                &["another of the same name", "ETCDCTL_CACERT"],
            ),
            (tls(CertificateError::Expired.into(), true), &["the server's certificate has expired"]),
            (tls(wrong_name().into(), true), &["not for etcd-1, but for", "etcd-2", "tls.server_name"]),
            (tls(CertificateError::Revoked.into(), true), &["the server's certificate cannot be used"]),
            (
                tls(rustls::Error::AlertReceived(wanted), false),
                &["wants a client certificate", "ETCDCTL_CERT"],
            ),
            (tls(rustls::Error::AlertReceived(wanted), true), &["does not accept", "--trusted-ca-file"]),
            (tls(rustls::Error::AlertReceived(failed), false), &["may want a client certificate"]),
            (tls(rustls::Error::AlertReceived(failed), true), &["no common way to speak TLS"]),
            (told(NoConnection::ClosedAfterTls { identity: false }), &["may want a client certificate"]),
            (told(NoConnection::ClosedAfterTls { identity: true }), &["may not accept the client's"]),
        ] {
            for part in says {
                assert!(message.contains(part), "{message} does not say {part}");
            }
        }
    }

    /// What the caller reads of a failure of that outcome.
    fn advised(outcome: Outcome, said: &str, operation: Operation<'_>, user: Option<&str>) -> String {
        let mut failure = Failure::new(outcome, said);
        failure.advise(operation, &Wire::new("p/".into()), user);
        failure.into_error(operation.call(), "read").to_string()
    }

    #[test]
    fn each_refusal_tells_what_to_do() {
        let read = Operation::Read("view/");
        let wrong = advised(Outcome::Refused, "authentication failed", read, Some("me"));
        assert!(wrong.contains("wrong user or password") && wrong.contains("ETCDCTL_PASSWORD"), "{wrong}");
        let needless = advised(Outcome::Refused, "authentication is not enabled", read, Some("me"));
        assert!(needless.contains("etcd has no users") && !needless.contains("wrong user"), "{needless}");
        let missing = advised(Outcome::LoggedOut, "user name is empty", read, None);
        assert!(
            missing.contains("etcd wants to know the user") && missing.contains("ETCDCTL_USER"),
            "{missing}"
        );
        let short = advised(Outcome::LoggedOut, "invalid auth token", read, Some("me"));
        assert!(short.contains("token") && !short.contains("wrong user"), "{short}");
        for outcome in [Outcome::Forbidden, Outcome::ForbiddenOrLoggedOut] {
            let lacks = advised(outcome, "permission denied", read, Some("me"));
            assert!(
                lacks.contains("the user \"me\" lacks a right") && !lacks.contains("password"),
                "{lacks}"
            );
            assert!(lacks.contains("read on all keys under \"p/view/\""), "{lacks}");
            let by_certificate = advised(outcome, "permission denied", read, None);
            assert!(by_certificate.contains("by the client certificate's common name"), "{by_certificate}");
        }
        let large = advised(Outcome::TooLarge, "decoded message length too large", read, None);
        assert!(large.contains("larger than a message may be") && large.contains("page"), "{large}");
        for (outcome, said, advice) in [
            (Outcome::Busy, "etcdserver: rpc not supported for learner", "endpoints of voting members"),
            (Outcome::NoSpace, "etcdserver: mvcc: database space exceeded", "etcdctl alarm disarm"),
            (Outcome::NoLeader, "etcdserver: no leader", "a majority of the members"),
            (Outcome::Busy, "etcdserver: too many requests", "overloaded"),
        ] {
            for operation in [read, Operation::GrantLease, Operation::RenewLease] {
                let busy = advised(outcome, said, operation, None);
                assert!(busy.contains(said) && busy.contains(advice), "{busy}");
            }
        }
        // What is no refusal keeps its words.
        assert_eq!(
            advised(Outcome::Lost, "no reply", read, Some("me")),
            "the store cannot be reached: read: no reply"
        );
    }

    #[test]
    fn every_row_is_reached() {
        for (code, part, outcome) in ANSWERS {
            assert_eq!(Outcome::of_status(&Status::new(*code, *part)), *outcome, "{code:?} {part:?}");
        }
    }

    #[test]
    fn the_text_names_the_call_and_the_innermost_cause() {
        let failure = Failure::from(of_transport(NoConnection::Network("connection refused".into())));
        let error = failure.into_error(Call::Read, "read at http://localhost:2379");
        assert_eq!(
            error.to_string(),
            "the store cannot be reached: read at http://localhost:2379: connection refused"
        );
        assert!(error.source().is_some());
    }
}
