use clustering_core::store::{Revision, Txn};
use futures_util::{StreamExt, stream};

use super::site::Client;
use crate::contract::Contract;

/// Store handle that also applies every successful commit to a [`Contract`].
pub(super) struct Mirrored {
    pub(super) client: Client,
    pub(super) model: Contract,
}

impl Mirrored {
    pub(super) fn new(client: Client) -> Self {
        Mirrored { client, model: Contract::default() }
    }

    /// Commits `txn`. Failure is a violation.
    pub(super) async fn commit(&mut self, txn: Txn) -> Revision {
        let revision = self.client.commit(txn.clone()).await;
        self.model.apply(&txn, revision);
        revision
    }

    /// Commits many transactions concurrently. The store decides their order, and failure is a violation.
    pub(super) async fn commit_all(&mut self, txns: impl IntoIterator<Item = Txn>) {
        const AT_ONCE: usize = 32;
        let commits = txns.into_iter().map(async |txn| (self.client.commit(txn.clone()).await, txn));
        let mut done: Vec<(Revision, Txn)> = stream::iter(commits).buffer_unordered(AT_ONCE).collect().await;
        done.sort_by_key(|(revision, _)| *revision);
        for (revision, txn) in done {
            self.model.apply(&txn, revision);
        }
    }
}
