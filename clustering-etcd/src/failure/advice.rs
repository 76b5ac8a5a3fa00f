//! Advice for operators about failures whose message from etcd names neither the cause nor the remedy.

use super::{Failure, FailureKind};
use crate::{key_codec::KeyCodec, operation::Operation};

/// Advice for servers that cannot serve the call now: a part of the server's message, and the advice. The first row
/// that matches applies.
const BUSY: &[(&str, &str)] = &[
    (
        "not supported for learner",
        "this member is a learner, which does not serve clients: add the endpoints of voting members, or promote it \
         (etcdctl member promote)",
    ),
    (
        "space exceeded",
        "free some space (etcdctl compact, defrag), then clear the alarm (etcdctl alarm disarm)",
    ),
    (
        "no leader",
        "a majority of the members must be running and connected: see etcdctl endpoint status --cluster",
    ),
    ("too many requests", "etcd is overloaded: check its log, its disk and its other clients"),
    ("corrupt cluster", "the data of its members differs: see its log and etcdctl alarm list"),
];

/// Part of the client library's message about an HTTP response that is not gRPC.
const NOT_GRPC: &str = "grpc-status header missing";

impl Failure {
    /// Adds advice to the message, where there is some.
    pub(crate) fn advise(&mut self, operation: Operation<'_>, codec: &KeyCodec, user: Option<&str>) {
        let said = &self.message;
        let advised = match (self.kind, user) {
            _ if said.contains(NOT_GRPC) => Some(format!(
                "the answer is not from etcd ({said}): the endpoint belongs to another program, or a proxy in between \
                 does not forward gRPC"
            )),
            (FailureKind::LoginRejected, Some(user)) => Some(login_rejected(said, user)),
            (FailureKind::TokenRejected, user) => Some(token_rejected(said, user)),
            (FailureKind::PermissionDenied | FailureKind::PermissionDeniedOrTokenRejected, user) => {
                Some(permission_denied(said, user, &operation.permissions(codec)))
            }
            (FailureKind::ReplyTooLarge, _) => Some(format!(
                "the reply exceeds the size limit of a message ({said}): read fewer keys at a time (EtcdConfig::page), \
                 or use a longer prefix"
            )),
            (FailureKind::Busy | FailureKind::NoSpace | FailureKind::NoLeader, _) => {
                let row = BUSY.iter().find(|(part, _)| said.contains(part));
                row.map(|(_, advice)| format!("{said}: {advice}"))
            }
            _ => None,
        };
        if let Some(advised) = advised {
            self.message = advised;
        }
    }
}

fn login_rejected(said: &str, user: &str) -> String {
    if said.contains("authentication is not enabled") {
        return format!(
            "credentials are set for the user {user:?}, but etcd has no users ({said}): remove the credentials \
             (ETCDCTL_USER), or enable authentication (etcdctl auth enable)"
        );
    }
    format!(
        "wrong user or password: etcd does not accept this password for {user:?} ({said}): correct the credentials \
         (ETCDCTL_USER, ETCDCTL_PASSWORD)"
    )
}

fn token_rejected(said: &str, user: Option<&str>) -> String {
    match user {
        None => format!(
            "etcd requires a user ({said}): set credentials (ETCDCTL_USER, ETCDCTL_PASSWORD), or a client certificate \
             (ETCDCTL_CERT, ETCDCTL_KEY) whose common name is a user"
        ),
        Some(user) => format!(
            "etcd rejected a token that it had just issued to {user:?} ({said}): the auth token TTL is too short (etcd \
             --auth-token), or its members disagree about tokens"
        ),
    }
}

fn permission_denied(said: &str, user: Option<&str>, needed: &str) -> String {
    let user = match user {
        Some(user) => format!("the user {user:?}"),
        None => "the user, which is the client certificate's common name,".to_owned(),
    };
    format!(
        "{user} lacks a permission ({said}): this needs {needed}; grant it to a role of that user (etcdctl role \
         grant-permission ROLE readwrite --prefix=true PREFIX)"
    )
}
