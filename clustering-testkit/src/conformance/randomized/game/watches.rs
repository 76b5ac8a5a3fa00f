use clustering_core::store::{Revision, WatchEnd};

use super::{super::steps::From, Game};
use crate::conformance::{Harness, scene::show_batch, watch::Watch};

/// Watch opened by a step of the case.
pub(super) struct Open {
    pub(super) watch: Watch,
    /// True if the watch started before the last compaction at that time. The store may end such a watch even if no
    /// owed change was compacted.
    from_behind: bool,
    /// True if changes that the watch must deliver had been compacted before it was opened.
    owes_what_is_gone: bool,
}

impl<H: Harness> Game<'_, H> {
    pub(super) async fn watch(&mut self, handle: usize, prefix: usize, from: &From) {
        let prefix = self.prefix(prefix);
        let after = match from {
            From::Now => self.known,
            From::Beginning => self.beginning,
            From::Past(back) => self.past(*back),
            From::Before(back) => Revision::new(self.past(*back).get().saturating_sub(1)).max(self.beginning),
            From::Beyond => Revision::new(self.known.get() + 1_000_000),
        };
        let mut watch = self.handles[handle].watch(&prefix, after).await;
        if matches!(from, From::Beyond) {
            let end = watch.end("Rewound from a watch after a revision far beyond the store's").await;
            self.scene.check(
                matches!(end, WatchEnd::Rewound { .. }),
                "Rewound from a watch after a revision far beyond the store's",
                format!("ended it with {end:?}"),
            );
            self.watches.push(None);
            return;
        }
        let owed = self.model.changes(&prefix, after);
        let owes_what_is_gone = owed.iter().any(|batch| batch.revision <= self.compacted);
        let from_behind = after < self.compacted;
        self.watches.push(Some(Open { watch, from_behind, owes_what_is_gone }));
    }

    /// Takes all changes that the watch must deliver and compares them with the model.
    pub(super) async fn drain(&mut self, number: usize) {
        let Some(Open { mut watch, from_behind, owes_what_is_gone }) = self.watches[number].take() else {
            return;
        };
        let what = format!("watch {number}, of {:?} after revision {}", watch.prefix, watch.seen);
        if owes_what_is_gone {
            let end = watch
                .end(&format!("Compacted from {what}: changes up to {} are compacted", self.compacted))
                .await;
            self.scene.check(
                matches!(end, WatchEnd::Compacted { .. }),
                format!("Compacted from {what}"),
                format!("ended it with {end:?}"),
            );
            return;
        }
        let owed = self.model.changes(&watch.prefix, watch.seen);
        for batch in &owed {
            // Owed changes may have been compacted since the watch was opened.
            let may_end = (from_behind && batch == &owed[0]) || batch.revision <= self.compacted;
            match watch.item(&format!("{what}: {}", show_batch(batch))).await {
                Some(Ok(found)) => self.scene.same_batch(&what, batch, &found),
                Some(Err(WatchEnd::Compacted { .. })) if may_end => return,
                other => {
                    self.scene.broken(format!("{what}: {}", show_batch(batch)), format!("sent {other:?}"))
                }
            }
        }
        let from_behind = from_behind && owed.is_empty();
        self.watches[number] = Some(Open { watch, from_behind, owes_what_is_gone });
    }
}
