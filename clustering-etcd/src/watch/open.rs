//! Opening a watch, for the first time or to go on.

use std::sync::Arc;

use clustering_core::store::{Revision, StoreError};
use etcd_client::{GetOptions, ResponseHeader, WatchOptions, WatchResponse, WatchStream};

use crate::{
    connection::Connection,
    failure::{Failure, Outcome},
    members::Clients,
    operation::Operation,
    wire::{Range, revision},
};

/// What is watched, and by which connection.
pub(super) struct Watched {
    prefix: String,
    range: Range,
    pub(super) connection: Arc<Connection>,
}

/// What came of opening a watch.
pub(super) enum Opening {
    Opened(Box<Opened>),
    /// The store stands before the revision that was to be watched after, or has another history.
    Rewound(Revision),
}

/// Which etcd it is, as its replies tell. Of one that was wiped, or restored by etcd's own tools, the term begins anew, and
/// its cluster may have another number; where a backup of the disk was put back neither need show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct History {
    cluster: u64,
    /// Of etcd's own elections: it only ever grows.
    pub(super) term: u64,
}

impl History {
    fn of(header: Option<&ResponseHeader>) -> Self {
        let (cluster, term) = header.map_or((0, 0), |header| (header.cluster_id(), header.raft_term()));
        History { cluster, term }
    }

    /// Somebody has seen it in that term.
    pub(super) fn seen_in(&mut self, term: u64) {
        self.term = self.term.max(term);
    }

    /// Whether what `later` tells of cannot have come after this.
    fn is_gone(self, later: History) -> bool {
        later.cluster != self.cluster || later.term < self.term
    }
}

/// A watch as etcd opened it.
pub(super) struct Opened {
    pub(super) stream: WatchStream,
    pub(super) member: usize,
    /// Where the member stood when it opened the watch. The cluster may be further.
    stands: i64,
    pub(super) history: History,
    /// The first message, where it ends the watch rather than opens it.
    pub(super) compacted: Option<i64>,
}

impl Watched {
    pub(super) fn new(prefix: &str, connection: Arc<Connection>) -> Self {
        Watched { prefix: prefix.to_owned(), range: connection.wire().range(prefix), connection }
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Opens a watch of what comes after a revision of that history, if it is known, at a member that answers.
    pub(super) async fn open(&self, after: i64, of: Option<History>) -> Result<Opening, StoreError> {
        // One less than etcd can count, so that there is a revision after it.
        let after = after.min(i64::MAX - 1);
        let mut opened = self.open_from(after + 1).await?;
        if opened.stands > after.max(1) {
            // There may be changes to catch up with. Etcd ends a watch as compacted only if it begins *before* the
            // revision up to which was compacted, but a deletion of just that revision is gone as well (measured with
            // 3.4.23 and 3.5.1; mended in 3.5.16). Beginning one revision early makes etcd judge rightly. It is not
            // done at once because it makes etcd look for old changes, which takes it up to 100 ms.
            opened = self.open_from(after.max(1)).await?;
        }
        let gone = |stands, history| stands < after || of.is_some_and(|of| of.is_gone(history));
        if gone(opened.stands, opened.history) {
            // The member may only lag behind.
            let (stands, history) = self.newest().await?;
            if gone(stands, history) {
                return Ok(Opening::Rewound(revision(stands)));
            }
        }
        Ok(Opening::Opened(Box::new(opened)))
    }

    /// Opens a watch from the revision `start` on, which is not 0 (that would mean "from now").
    async fn open_from(&self, start: i64) -> Result<Opened, StoreError> {
        let open = |clients| open_at(clients, self.range.clone(), start);
        self.connection.call(Operation::Watch(&self.prefix), open).await
    }

    /// The revision at which the cluster, not only the member that answers, stands, and its history.
    async fn newest(&self) -> Result<(i64, History), StoreError> {
        let operation = Operation::Watch(&self.prefix);
        let read = self.connection.call(operation, |mut clients| {
            let Range { first, end } = self.range.clone();
            let options = GetOptions::new().with_range(end).with_count_only();
            async move { Ok(clients.kv.get(first, Some(options)).await?) }
        });
        let read = read.await?;
        let stands = operation.revision(read.header().map(ResponseHeader::revision))?;
        Ok((stands, History::of(read.header())))
    }
}

async fn open_at(mut clients: Clients, range: Range, start: i64) -> Result<Opened, Failure> {
    // While nothing changes etcd gives a sign of life by itself, every 10 minutes unless its operator says otherwise.
    let options = WatchOptions::new().with_range(range.end).with_start_revision(start).with_progress_notify();
    let mut stream = clients.watch.watch(range.first, Some(options)).await?;
    let Some(message) = stream.message().await? else {
        return Err(Failure::new(Outcome::Lost, "the server ended the watch before it began"));
    };
    let compacted = (message.compact_revision() > 0).then(|| message.compact_revision());
    if message.canceled() && compacted.is_none() {
        let outcome = match message.cancel_reason().contains("permission denied") {
            true => Outcome::ForbiddenOrLoggedOut,
            // The token, where it is told apart.
            false => Outcome::LoggedOut,
        };
        return Err(Failure::new(outcome, reason(&message)));
    }
    let stands = message.header().map_or(0, ResponseHeader::revision);
    let history = History::of(message.header());
    Ok(Opened { stream, member: clients.member, stands, history, compacted })
}

/// Why etcd canceled a watch, in words.
pub(super) fn reason(message: &WatchResponse) -> &str {
    words(message.cancel_reason())
}

/// The words of a reason, without the code of the status that etcd prints before them.
fn words(reason: &str) -> &str {
    reason.split_once(" desc = ").map_or(reason, |(_, words)| words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_cluster_or_an_older_term_is_another_history() {
        let before = History { cluster: 7, term: 4 };
        let gone = |cluster, term| before.is_gone(History { cluster, term });
        assert_eq!([gone(7, 4), gone(7, 5), gone(7, 3), gone(8, 5)], [false, false, true, true]);
    }

    #[test]
    fn a_reason_is_told_in_words() {
        let printed = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
        assert_eq!(words(printed), "etcdserver: permission denied");
        assert_eq!(words("etcdserver: no leader"), "etcdserver: no leader");
    }
}
