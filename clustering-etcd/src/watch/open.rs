//! Opens a watch, for the first time or to resume it.

use std::sync::Arc;

use clustering_core::store::{Revision, StoreError};
use etcd_client::{GetOptions, ResponseHeader, WatchOptions, WatchResponse, WatchStream};

use crate::{
    connection::Connection,
    failure::{Failure, FailureKind},
    key_codec::{Range, decode_revision},
    members::Clients,
    operation::Operation,
};

/// The watched range, and the connection.
pub(super) struct Watched {
    prefix: String,
    range: Range,
    pub(super) connection: Arc<Connection>,
}

/// Result of opening a watch.
pub(super) enum Opening {
    Opened(Box<Opened>),
    /// The store has not reached the revision after which to watch, or has another history. Contains its revision.
    Rewound(Revision),
}

/// Identity of an etcd's history, from the headers of its replies. If etcd is wiped, or restored by its own tools,
/// its Raft term starts over, and it may get another cluster ID. If a backup of the disk is put back, neither has to
/// change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct History {
    cluster: u64,
    /// The Raft term, which never decreases.
    pub(super) term: u64,
}

impl History {
    fn of(header: Option<&ResponseHeader>) -> Self {
        let (cluster, term) = header.map_or((0, 0), |header| (header.cluster_id(), header.raft_term()));
        History { cluster, term }
    }

    /// Records that this history has reached a term.
    pub(super) fn advance_to(&mut self, term: u64) {
        self.term = self.term.max(term);
    }

    /// True if `later` cannot belong to the same history.
    fn is_replaced_by(self, later: History) -> bool {
        later.cluster != self.cluster || later.term < self.term
    }
}

/// A watch that etcd has opened.
pub(super) struct Opened {
    pub(super) stream: WatchStream,
    pub(super) member: usize,
    /// Revision of the member when it opened the watch. The cluster may be ahead of it.
    at: i64,
    pub(super) history: History,
    /// Revision up to which the history was compacted, if etcd ended the watch for that reason.
    pub(super) compacted: Option<i64>,
}

impl Watched {
    pub(super) fn new(prefix: &str, connection: Arc<Connection>) -> Self {
        Watched { prefix: prefix.to_owned(), range: connection.codec().range(prefix), connection }
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Opens a watch of the changes after a revision, at a member that answers. `of` is the history of that revision,
    /// if known.
    pub(super) async fn open(&self, after: i64, of: Option<History>) -> Result<Opening, StoreError> {
        // Less than the highest number, so that there is a revision after it.
        let after = after.min(i64::MAX - 1);
        let mut opened = self.open_from(after + 1).await?;
        if opened.at > after.max(1) {
            // There may be changes to catch up with. Etcd reports a watch as compacted only if it starts *before* the
            // compacted revision, although deletions at exactly that revision are lost too (measured with 3.4.23 and
            // 3.5.1; fixed in 3.5.16). Starting one revision earlier makes etcd report it. The first attempt does not
            // do so, because etcd then searches for past changes, which takes up to 100 ms.
            opened = self.open_from(after.max(1)).await?;
        }
        let is_rewound = |at, history| at < after || of.is_some_and(|of| of.is_replaced_by(history));
        if is_rewound(opened.at, opened.history) {
            // The member may only lag behind the cluster.
            let (at, history) = self.newest().await?;
            if is_rewound(at, history) {
                return Ok(Opening::Rewound(decode_revision(at)));
            }
        }
        Ok(Opening::Opened(Box::new(opened)))
    }

    /// Opens a watch of the changes since the revision `start`, inclusive. 0 would mean "from now on".
    async fn open_from(&self, start: i64) -> Result<Opened, StoreError> {
        let open = |clients| open_at(clients, self.range.clone(), start);
        self.connection.call(Operation::Watch(&self.prefix), open).await
    }

    /// Returns the revision of the cluster, not only of the member that answers, and its history.
    async fn newest(&self) -> Result<(i64, History), StoreError> {
        let operation = Operation::Watch(&self.prefix);
        let read = self.connection.call(operation, |mut clients| {
            let Range { first, end } = self.range.clone();
            let options = GetOptions::new().with_range(end).with_count_only();
            async move { Ok(clients.kv.get(first, Some(options)).await?) }
        });
        let read = read.await?;
        let at = operation.revision(read.header().map(ResponseHeader::revision))?;
        Ok((at, History::of(read.header())))
    }
}

async fn open_at(mut clients: Clients, range: Range, start: i64) -> Result<Opened, Failure> {
    // With progress notifications, etcd sends a message to a quiet watch every 10 minutes, by default.
    let options = WatchOptions::new().with_range(range.end).with_start_revision(start).with_progress_notify();
    let mut stream = clients.watch.watch(range.first, Some(options)).await?;
    let Some(message) = stream.message().await? else {
        return Err(Failure::new(FailureKind::ReplyLost, "the server ended the watch before it was open"));
    };
    let compacted = (message.compact_revision() > 0).then(|| message.compact_revision());
    if message.canceled() && compacted.is_none() {
        let kind = match message.cancel_reason().contains("permission denied") {
            true => FailureKind::PermissionDeniedOrTokenRejected,
            // Versions that distinguish the two report the token here.
            false => FailureKind::TokenRejected,
        };
        return Err(Failure::new(kind, reason(&message)));
    }
    let at = message.header().map_or(0, ResponseHeader::revision);
    let history = History::of(message.header());
    Ok(Opened { stream, member: clients.member, at, history, compacted })
}

/// Returns the reason why etcd cancelled a watch.
pub(super) fn reason(message: &WatchResponse) -> &str {
    without_code(message.cancel_reason())
}

/// Removes the code of the gRPC status that etcd prints before its message.
fn without_code(reason: &str) -> &str {
    reason.split_once(" desc = ").map_or(reason, |(_, message)| message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_cluster_or_an_older_term_is_another_history() {
        let before = History { cluster: 7, term: 4 };
        let replaced = |cluster, term| before.is_replaced_by(History { cluster, term });
        assert_eq!(
            [replaced(7, 4), replaced(7, 5), replaced(7, 3), replaced(8, 5)],
            [false, false, true, true]
        );
    }

    #[test]
    fn a_cancel_reason_is_shown_without_its_status_code() {
        let printed = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
        assert_eq!(without_code(printed), "etcdserver: permission denied");
        assert_eq!(without_code("etcdserver: no leader"), "etcdserver: no leader");
    }
}
