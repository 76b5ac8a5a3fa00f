use std::collections::VecDeque;

use clustering_core::store::{Batch, Change, Revision};

/// The changes of recent revisions, with exactly one batch for each revision after the compacted revision. A clone
/// shares the batches.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    compacted: Revision,
    batches: VecDeque<Batch>,
}

impl History {
    /// Returns the store's current revision, which is 0 before the first change.
    pub(crate) fn revision(&self) -> Revision {
        Revision::new(self.compacted.get() + self.batches.len() as u64)
    }

    /// Returns the last revision whose changes were discarded, or 0 if none were.
    pub(crate) fn compacted(&self) -> Revision {
        self.compacted
    }

    /// Returns the number of revisions whose changes are kept.
    pub(crate) fn len(&self) -> usize {
        self.batches.len()
    }

    /// Appends the changes of the next revision.
    pub(crate) fn push(&mut self, changes: Vec<Change>) {
        self.batches.push_back(Batch::new(self.revision().next(), changes));
    }

    /// Discards the changes up to and including `revision`, or all changes if `revision` lies in the future. Has no
    /// effect if they were already discarded.
    pub(crate) fn compact(&mut self, revision: Revision) {
        let target = revision.min(self.revision()).max(self.compacted);
        self.batches.drain(..(target.get() - self.compacted.get()) as usize);
        self.compacted = target;
    }

    /// Returns the changes of the current revision, or `None` if they were discarded.
    pub(crate) fn newest(&self) -> Option<&Batch> {
        self.batches.back()
    }

    /// Iterates over all changes that are kept, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Batch> {
        self.batches.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(revisions: u64) -> History {
        let mut history = History::default();
        for number in 1..=revisions {
            history.push(vec![Change::Delete(number.to_string().into())]);
        }
        history
    }

    #[test]
    fn each_batch_is_kept_under_its_revision() {
        let history = of(3);
        assert_eq!(history.revision(), Revision::new(3));
        let third = Batch::new(Revision::new(3), [Change::Delete("3".into())]);
        assert_eq!((history.newest(), history.iter().last()), (Some(&third), Some(&third)));
        assert_eq!(history.iter().map(|batch| batch.revision.get()).collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn compaction_keeps_the_revision_and_the_later_batches() {
        let mut history = of(5);
        history.compact(Revision::new(3));
        assert_eq!((history.revision(), history.compacted()), (Revision::new(5), Revision::new(3)));
        assert_eq!(history.iter().map(|batch| batch.revision.get()).collect::<Vec<_>>(), [4, 5]);
        assert_eq!(*history.iter().next().unwrap().changes, [Change::Delete("4".into())]);
    }

    #[test]
    fn compaction_never_moves_back_and_stops_at_the_current_revision() {
        let mut history = of(5);
        history.compact(Revision::new(4));
        history.compact(Revision::new(2));
        assert_eq!(history.compacted(), Revision::new(4));
        history.compact(Revision::new(99));
        assert_eq!((history.revision(), history.compacted()), (Revision::new(5), Revision::new(5)));
    }
}
