//! Tests of the classification as callers see it: from the error of the client library to the kind of the store error.

use std::error::Error;

use ErrorKind::{Busy, Invalid, LeaseNotFound, OutcomeUnknown, Refused, Unreachable};
use clustering_core::store::ErrorKind;
use rustls::{AlertDescription, CertificateError, pki_types::ServerName};
use tonic::{Code, Status};

use super::*;
use crate::{key_codec::KeyCodec, operation::Operation};

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

/// Checks the error kinds of a change, idempotent or not, and of a read.
#[track_caller]
fn assert_kinds(error: fn() -> etcd_client::Error, change: ErrorKind, read: ErrorKind) {
    assert_each_kind(error, change, change, read);
}

#[track_caller]
fn assert_each_kind(
    error: fn() -> etcd_client::Error,
    not_idempotent: ErrorKind,
    idempotent: ErrorKind,
    read: ErrorKind,
) {
    let kind = |safety| Failure::from(error()).into_error(safety, "commit").kind();
    assert_eq!(kind(RetrySafety::NotIdempotent), not_idempotent, "a change, {}", error());
    assert_eq!(kind(RetrySafety::Idempotent), idempotent, "an idempotent change, {}", error());
    assert_eq!(kind(RetrySafety::ReadOnly), read, "a read, {}", error());
}

/// One test per error: the error kind of a change, and that of a read.
macro_rules! rows {
    ($($name:ident: $error:expr => $change:expr, $read:expr;)+) => {$(
        #[test]
        fn $name() {
            assert_kinds(|| $error, $change, $read);
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
fn a_change_that_exceeds_the_quota_may_have_happened() {
    let full = || answered(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded");
    assert_each_kind(full, OutcomeUnknown, Busy, Busy);
}

#[test]
fn a_renewal_without_a_leader_may_have_happened() {
    let leaderless = || answered(Code::Unavailable, "etcdserver: no leader");
    assert_each_kind(leaderless, Busy, OutcomeUnknown, Busy);
}

#[test]
fn a_call_whose_login_failed_was_not_made() {
    let kinds =
        [(FailureKind::ReplyLost, Unreachable), (FailureKind::NoSpace, Busy), (FailureKind::NoLeader, Busy)];
    for (kind, expected) in kinds {
        for safety in [RetrySafety::NotIdempotent, RetrySafety::Idempotent, RetrySafety::ReadOnly] {
            let failure = Failure::new(kind, "on purpose").before_the_call();
            assert_eq!(failure.into_error(safety, "commit").kind(), expected, "{kind:?} {safety:?}");
        }
    }
}

#[test]
fn a_status_made_by_the_client_library_is_not_a_reply_of_etcd() {
    // The library converts HTTP/2 errors to statuses. From etcd, this text would mean that nothing happened.
    let local = || of_transport(std::io::Error::other("etcdserver: no leader"));
    assert_kinds(local, OutcomeUnknown, Unreachable);
}

#[test]
fn each_settings_mismatch_says_what_to_do() {
    let message = |error: NoConnection| Failure::from(of_transport(error)).message;
    let tls = |error: rustls::Error, identity| message(NoConnection::Tls { error, identity });
    let (rejected, aborted) = (AlertDescription::BadCertificate, AlertDescription::HandshakeFailure);
    for (message, parts) in [
        (message(NoConnection::SpeaksTls), &["speaks TLS", "https://", "tls.ca"][..]),
        (message(NoConnection::SpeaksPlain), &["does not speak TLS", "http://", "--cert-file"]),
        (message(NoConnection::SpeaksOther), &["does not speak HTTP/2", "client port"]),
        (tls(CertificateError::UnknownIssuer.into(), true), &["not trusted here", "ETCDCTL_CACERT"]),
        (
            tls(CertificateError::BadSignature.into(), true),
            &["another CA of the same name", "ETCDCTL_CACERT"],
        ),
        (tls(CertificateError::Expired.into(), true), &["the server's certificate has expired"]),
        (tls(wrong_name().into(), true), &["not valid for etcd-1, only for", "etcd-2", "tls.server_name"]),
        (tls(CertificateError::Revoked.into(), true), &["the server's certificate cannot be used"]),
        (
            tls(rustls::Error::AlertReceived(rejected), false),
            &["requires a client certificate", "ETCDCTL_CERT"],
        ),
        (tls(rustls::Error::AlertReceived(rejected), true), &["rejected the client's", "--trusted-ca-file"]),
        (tls(rustls::Error::AlertReceived(aborted), false), &["may require a client certificate"]),
        (tls(rustls::Error::AlertReceived(aborted), true), &["no TLS version (1.2 or 1.3) and cipher"]),
        (message(NoConnection::ClosedAfterTls { identity: false }), &["may require a client certificate"]),
        (message(NoConnection::ClosedAfterTls { identity: true }), &["may have rejected the client's"]),
    ] {
        for part in parts {
            assert!(message.contains(part), "{message} does not say {part}");
        }
    }
}

/// Returns the error message that the caller sees for a failure of that kind.
fn advised(kind: FailureKind, said: &str, operation: Operation<'_>, user: Option<&str>) -> String {
    let mut failure = Failure::new(kind, said);
    failure.advise(operation, &KeyCodec::new("p/".into()), user);
    failure.into_error(operation.retry_safety(), "read").to_string()
}

#[test]
fn each_rejection_says_what_to_do() {
    let read = Operation::Read("view/");
    let wrong = advised(FailureKind::LoginRejected, "authentication failed", read, Some("me"));
    assert!(wrong.contains("wrong user or password") && wrong.contains("ETCDCTL_PASSWORD"), "{wrong}");
    let needless = advised(FailureKind::LoginRejected, "authentication is not enabled", read, Some("me"));
    assert!(needless.contains("etcd has no users") && !needless.contains("wrong user"), "{needless}");
    let missing = advised(FailureKind::TokenRejected, "user name is empty", read, None);
    assert!(missing.contains("etcd requires a user") && missing.contains("ETCDCTL_USER"), "{missing}");
    let short = advised(FailureKind::TokenRejected, "invalid auth token", read, Some("me"));
    assert!(short.contains("auth token TTL is too short") && !short.contains("wrong user"), "{short}");
    for kind in [FailureKind::PermissionDenied, FailureKind::PermissionDeniedOrTokenRejected] {
        let denied = advised(kind, "permission denied", read, Some("me"));
        assert!(denied.contains("the user \"me\" lacks a permission"), "{denied}");
        assert!(!denied.contains("password"), "{denied}");
        assert!(denied.contains("read on all keys under \"p/view/\""), "{denied}");
        let by_certificate = advised(kind, "permission denied", read, None);
        assert!(by_certificate.contains("the client certificate's common name"), "{by_certificate}");
    }
    let large = advised(FailureKind::ReplyTooLarge, "decoded message length too large", read, None);
    assert!(large.contains("exceeds the size limit of a message") && large.contains("page"), "{large}");
}

#[test]
fn each_busy_server_says_what_to_do() {
    let read = Operation::Read("view/");
    for (kind, said, advice) in [
        (FailureKind::Busy, "etcdserver: rpc not supported for learner", "endpoints of voting members"),
        (FailureKind::NoSpace, "etcdserver: mvcc: database space exceeded", "etcdctl alarm disarm"),
        (FailureKind::NoLeader, "etcdserver: no leader", "a majority of the members"),
        (FailureKind::Busy, "etcdserver: too many requests", "overloaded"),
    ] {
        for operation in [read, Operation::GrantLease, Operation::RenewLease] {
            let busy = advised(kind, said, operation, None);
            assert!(busy.contains(said) && busy.contains(advice), "{busy}");
        }
    }
}

/// The advice depends on the wording of the client library's message, so the test makes a real connection.
#[tokio::test]
async fn an_endpoint_that_is_not_etcd_says_so() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let not_found = hyper::service::service_fn(|_| async {
        let answer = hyper::Response::builder().status(404).body(String::new()).unwrap();
        Ok::<_, std::convert::Infallible>(answer)
    });
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let executor = hyper_util::rt::TokioExecutor::new();
        let http = hyper::server::conn::http2::Builder::new(executor);
        // An error only means that the client has gone.
        let _ = http.serve_connection(hyper_util::rt::TokioIo::new(stream), not_found).await;
    });
    let store = crate::EtcdStore::new(crate::EtcdConfig::new([endpoint]).unwrap()).unwrap();
    let error =
        clustering_core::store::CoordinationStore::read(&store, "view/").await.unwrap_err().to_string();
    assert!(error.contains("the answer is not from etcd") && error.contains("404"), "{error}");
}

#[test]
fn a_failure_without_advice_keeps_its_message() {
    assert_eq!(
        advised(FailureKind::ReplyLost, "no reply", Operation::Read("view/"), Some("me")),
        "the store cannot be reached: read: no reply"
    );
}

#[test]
fn the_message_names_the_call_and_the_innermost_cause() {
    let failure = Failure::from(of_transport(NoConnection::Network("connection refused".into())));
    let error = failure.into_error(RetrySafety::ReadOnly, "read at http://localhost:2379");
    assert_eq!(
        error.to_string(),
        "the store cannot be reached: read at http://localhost:2379: connection refused"
    );
    assert!(error.source().is_some());
}
