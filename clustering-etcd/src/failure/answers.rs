//! The table of etcd's error replies.

use tonic::Code;

use super::FailureKind;

/// Error replies: gRPC code, a part of the message, and the kind of failure. The first row that matches applies. The
/// messages are those of etcd's `api/v3rpc/rpctypes/error.go`, which did not change from 3.4 to 3.6.
///
/// Any other reply is [`FailureKind::ReplyLost`], in particular `Unavailable`: etcd sends it when it gives up waiting
/// for a proposal that may still be applied ("request timed out", "server stopped"), and proxies send it for every
/// failure.
///
/// A row may claim that nothing happened only if etcd never sends that reply after it has applied the call. The source
/// of 3.4.23, 3.5.1, 3.5.29 and 3.6.14 was checked for that:
///
/// - **`database space exceeded` may come after the change was made.** etcd checks its quota twice. The first check
///   (`v3rpc/quota.go`) refuses the request before it is proposed. The second (`quotaApplierV3`) applies the
///   transaction or grants the lease first, and then returns this error if the database had grown beyond the quota
///   meanwhile. Once the alarm is raised, `applierV3Capped` refuses changes without applying them, again with the
///   same text. Revocations, renewals and plain reads are not subject to the quota.
/// - **`no leader` may come after a lease was renewed.** The interceptor refuses unary calls before they start. But a
///   stream of renewals ends with this error whenever its context is cancelled, and a follower returns it if the leader
///   vanishes after a renewal was forwarded to it. Renewals are not proposals, so a forwarded one may have been made.
/// - `too many requests` comes before the proposal. It arrives with the code `Unknown`, because etcd maps it to an
///   error type of its client library instead of a gRPC status.
/// - `corrupt cluster` comes from `applierV3Corrupt`, which applies nothing. The alarm is a log entry too, so all
///   members stop applying at the same entry.
/// - `requested lease not found`, `lease already exists`, `too large lease TTL` and the errors about revisions, keys
///   and sizes come from checks before the first write. If a write of a transaction fails after that, etcd panics.
/// - The errors about users, tokens and permissions come before the proposal, or at apply time before the first
///   write. One exception is accepted: since 3.4.42, 3.5.28 and 3.6.9, a follower checks permissions again between
///   two attempts to forward a renewal. A refused renewal may then have been made, if permissions were withdrawn at
///   that very moment.
/// - `not capable` and `not supported for learner` come from the interceptor, before the call is handled.
#[rustfmt::skip]
const ANSWERS: &[(Code, &str, FailureKind)] = &[
    (Code::NotFound,           "requested lease not found",              FailureKind::LeaseNotFound),

    (Code::OutOfRange,         "required revision has been compacted",   FailureKind::RevisionUnavailable),
    (Code::OutOfRange,         "required revision is a future",          FailureKind::RevisionUnavailable),
    (Code::OutOfRange,         "decoded message length too large",       FailureKind::ReplyTooLarge), // by the client library
    (Code::OutOfRange,         "",                                       FailureKind::Invalid), // too large lease TTL

    // No token, although authentication is enabled: it was enabled after the connection was made.
    (Code::InvalidArgument,    "user name is empty",                     FailureKind::TokenRejected),
    // The token is older than the last change of users and roles.
    (Code::InvalidArgument,    "revision of auth store is old",          FailureKind::TokenRejected),
    (Code::Unknown,            "auth: revision in header is old",        FailureKind::TokenRejected), // the same, by 3.5
    (Code::InvalidArgument,    "authentication failed",                  FailureKind::LoginRejected),
    (Code::InvalidArgument,    "",                                       FailureKind::Invalid),
    (Code::Unauthenticated,    "",                                       FailureKind::TokenRejected),
    (Code::PermissionDenied,   "",                                       FailureKind::PermissionDenied),
    (Code::FailedPrecondition, "authentication is not enabled",          FailureKind::LoginRejected),
    (Code::FailedPrecondition, "",                                       FailureKind::Busy), // not leader; learner

    (Code::ResourceExhausted,  "trying to send message larger than max", FailureKind::ReplyTooLarge),
    (Code::ResourceExhausted,  "message larger than max",                FailureKind::Invalid),
    (Code::ResourceExhausted,  "space exceeded",                         FailureKind::NoSpace),
    (Code::ResourceExhausted,  "too many requests",                      FailureKind::Busy),
    (Code::Unknown,            "too many requests",                      FailureKind::Busy), // the code that etcd sends
    (Code::DataLoss,           "corrupt cluster",                        FailureKind::Busy),
    (Code::Unimplemented,      "",                                       FailureKind::Invalid), // not etcd, or before 3.4

    (Code::Unavailable,        "no leader",                              FailureKind::NoLeader),
    (Code::Unavailable,        "not capable",                            FailureKind::Busy),
    (Code::Unavailable,        "not supported for learner",              FailureKind::Busy),
];

pub(super) fn classify(code: Code, message: &str) -> FailureKind {
    let matches = |(of, part, _): &&(Code, &str, FailureKind)| *of == code && message.contains(part);
    ANSWERS.iter().find(matches).map_or(FailureKind::ReplyLost, |(_, _, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::RetrySafety;

    #[test]
    fn no_row_hides_another() {
        for (code, part, kind) in ANSWERS {
            assert_eq!(classify(*code, part), *kind, "{code:?} {part:?}");
        }
    }

    #[test]
    fn only_reads_and_idempotent_calls_are_repeated_after_an_unknown_outcome() {
        use FailureKind::{NotSent, ReadTimedOut, ReplyLost, SettingsMismatch};
        let all = ANSWERS.iter().map(|(_, _, kind)| *kind);
        for kind in all.chain([ReplyLost, ReadTimedOut, NotSent, SettingsMismatch]) {
            let change = RetrySafety::NotIdempotent;
            assert!(!(kind.may_have_happened(change) && kind.may_be_repeated(change)), "{kind:?}");
            assert!(!kind.may_have_happened(RetrySafety::ReadOnly), "{kind:?}");
        }
    }
}
