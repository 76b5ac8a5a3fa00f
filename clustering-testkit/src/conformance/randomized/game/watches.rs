use clustering_core::store::{Revision, WatchEnd};

use super::{super::steps::From, Game};
use crate::conformance::{Harness, scene::show_batch, watch::Watch};

/// A watch of the case.
pub(super) struct Open {
    pub(super) watch: Watch,
    /// It was opened from before the last compaction: then it may end, whether it owes something from there or not.
    from_behind: bool,
    /// It owes changes that were compacted before it was opened.
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
            let end = watch.end("Rewound from a watch after a revision that is far ahead").await;
            self.scene.check(
                matches!(end, WatchEnd::Rewound { .. }),
                "Rewound from a watch after a revision that is far ahead",
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

    /// Takes all that the watch owes, and compares it.
    pub(super) async fn drain(&mut self, number: usize) {
        let Some(Open { mut watch, from_behind, owes_what_is_gone }) = self.watches[number].take() else {
            return;
        };
        let what = format!("watch {number}, of {:?} after revision {}", watch.prefix, watch.seen);
        if owes_what_is_gone {
            let end =
                watch.end(&format!("Compacted from {what}: changes up to {} are gone", self.compacted)).await;
            self.scene.check(
                matches!(end, WatchEnd::Compacted { .. }),
                format!("Compacted from {what}"),
                format!("ended it with {end:?}"),
            );
            return;
        }
        let owed = self.model.changes(&watch.prefix, watch.seen);
        for batch in &owed {
            // What it owes may have been compacted since it was opened.
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
