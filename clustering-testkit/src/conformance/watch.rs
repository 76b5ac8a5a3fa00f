use std::{collections::BTreeSet, time::Duration};

use clustering_core::store::{Batch, Change, Key, Revision, Txn, WatchEnd, WatchStream};
use futures_util::StreamExt;
use tokio::time::timeout;

use super::{
    Bounds,
    scene::{Rule, Scene, show_batch, show_entry},
    site::Client,
};

/// Watch whose items must arrive in time and are checked on arrival.
pub(super) struct Watch {
    pub(super) stream: WatchStream,
    scene: Scene,
    lag: Duration,
    call_timeout: Duration,
    pub(super) prefix: String,
    /// Revision of the last batch or, before the first batch, the revision that the watch started from.
    pub(super) seen: Revision,
}

impl Watch {
    pub(super) fn new(
        stream: WatchStream,
        scene: Scene,
        bounds: Bounds,
        prefix: &str,
        after: Revision,
    ) -> Self {
        let Bounds { watch_lag: lag, call_timeout, .. } = bounds;
        Watch { stream, scene, lag, call_timeout, prefix: prefix.to_owned(), seen: after }
    }

    /// Returns the next item of the stream, for a change that is already committed: it must arrive within the store's
    /// stated lag from now.
    pub(super) async fn item(&mut self, awaited: &str) -> Option<Result<Batch, WatchEnd>> {
        let lag = self.lag;
        self.item_within(lag, awaited).await
    }

    /// Returns the next item of the stream, which must arrive within `limit`.
    pub(super) async fn item_within(
        &mut self,
        limit: Duration,
        awaited: &str,
    ) -> Option<Result<Batch, WatchEnd>> {
        match timeout(limit, self.stream.next()).await {
            Ok(Some(Ok(batch))) => {
                self.examine(&batch);
                self.seen = batch.revision;
                Some(Ok(batch))
            }
            Ok(item) => item,
            Err(_) => self.scene.broken(
                format!(
                    "the watch of {:?}, at revision {}, delivers within {limit:?}: {awaited}",
                    self.prefix, self.seen
                ),
                "sent nothing",
            ),
        }
    }

    /// Returns the next batch. The end of the watch is a violation.
    pub(super) async fn next(&mut self, awaited: &str) -> Batch {
        let item = self.item(awaited).await;
        self.batch(item, awaited)
    }

    /// Returns the next batch, for a change that another task may still be committing.
    pub(super) async fn next_change(&mut self, awaited: &str) -> Batch {
        self.next_within(self.call_timeout + self.lag, awaited).await
    }

    /// Returns the next batch, which must arrive within `limit`.
    pub(super) async fn next_within(&mut self, limit: Duration, awaited: &str) -> Batch {
        let item = self.item_within(limit, awaited).await;
        self.batch(item, awaited)
    }

    fn batch(&self, item: Option<Result<Batch, WatchEnd>>, awaited: &str) -> Batch {
        let found = match item {
            Some(Ok(batch)) => return batch,
            Some(Err(end)) => format!("ended the watch: {end} ({end:?})"),
            None => "closed the stream without a final item".to_owned(),
        };
        self.scene.broken(awaited, found)
    }

    /// Checks that exactly these batches arrive next.
    pub(super) async fn expect(&mut self, what: &str, batches: &[Batch]) {
        for batch in batches {
            let awaited = format!("{what}: {}", show_batch(batch));
            let found = self.next(&awaited).await;
            self.scene.same_batch(what, batch, &found);
        }
    }

    /// Checks that the watch has nothing left to deliver. This commits another change, which must be the next one to
    /// arrive, so there is no need to wait for a timeout.
    pub(super) async fn expect_nothing(&mut self, what: &str, client: &Client) {
        let key = Key::from(format!("{}~fence", self.prefix));
        let revision = client.commit(Txn::new().put(key.clone(), "fence", None)).await;
        let awaited = format!("{what}: nothing more before the put of {key:?} at revision {revision}");
        let batch = self.next(&awaited).await;
        let alone = matches!(&batch.changes[..], [Change::Put(entry)] if entry.key == key);
        self.scene.check(
            batch.revision == revision && alone,
            awaited,
            format!("sent {}", show_batch(&batch)),
        );
    }

    /// Checks that the watch neither delivers nor ends for some time.
    pub(super) async fn stays_quiet(&mut self, time: Duration, when: &str) {
        if let Ok(item) = timeout(time, self.stream.next()).await {
            self.scene.broken(
                format!("nothing from the watch of {:?} {when}, while its prefix is quiet", self.prefix),
                format!("sent {item:?}"),
            );
        }
    }

    /// Waits for the watch to end with a [`WatchEnd`] as its last item, and returns that item.
    pub(super) async fn end(&mut self, awaited: &str) -> WatchEnd {
        let scene = self.scene;
        match self.item(awaited).await {
            Some(Err(end)) => {
                if let Some(more) = self.item("the stream finishes after its end").await {
                    scene.broken("nothing after the end of a watch", format!("sent {more:?}"));
                }
                end
            }
            Some(Ok(batch)) => scene.broken(awaited, format!("sent {}", show_batch(&batch))),
            None => scene.broken(awaited, "closed the stream without a final item"),
        }
    }

    /// Checks the invariants of every batch.
    fn examine(&self, batch: &Batch) {
        let scene = self.scene.under(Rule::Watches);
        let Batch { revision, changes } = batch;
        scene.check(
            *revision > self.seen,
            format!(
                "a batch after revision {}, up to which the changes were excluded or already sent",
                self.seen
            ),
            format!("sent {}", show_batch(batch)),
        );
        scene.check(
            !changes.is_empty(),
            "a batch holds at least one change",
            format!("sent {}", show_batch(batch)),
        );
        let mut keys = BTreeSet::new();
        for change in &**changes {
            let key = change.key();
            scene.check(
                key.starts_with(&self.prefix),
                format!("a watch of {:?} yields only changes of keys with that prefix", self.prefix),
                format!("sent a change of {key:?}"),
            );
            scene.check(
                keys.insert(key),
                "a batch names a key once",
                format!("named {key:?} twice at revision {revision}"),
            );
            if let Change::Put(entry) = change {
                scene.check(
                    entry.modified == *revision
                        && Revision::ZERO < entry.created
                        && entry.created <= entry.modified,
                    format!(
                        "a put in the batch of revision {revision} has that modification revision and no later creation revision"
                    ),
                    format!("sent {}", show_entry(entry)),
                );
            }
        }
    }
}
