use std::collections::VecDeque;

use clustering_core::store::{Batch, Change, Revision};

/// The changes of the last revisions, one batch per revision and none missing between the compacted revision and
/// the present one. Cloning it clones pointers.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    compacted: Revision,
    batches: VecDeque<Batch>,
}

impl History {
    /// The revision at which the store stands; 0 before the first change.
    pub(crate) fn revision(&self) -> Revision {
        Revision::new(self.compacted.get() + self.batches.len() as u64)
    }

    /// The last revision whose changes are gone; 0 if none are.
    pub(crate) fn compacted(&self) -> Revision {
        self.compacted
    }

    /// How many revisions still have their changes.
    pub(crate) fn len(&self) -> usize {
        self.batches.len()
    }

    /// Adds what the next revision changed.
    pub(crate) fn push(&mut self, changes: Vec<Change>) {
        self.batches.push_back(Batch::new(self.revision().next(), changes));
    }

    /// Forgets the changes up to and with `revision`, or all if it lies ahead. Those forgotten before stay so.
    pub(crate) fn compact(&mut self, revision: Revision) {
        let target = revision.min(self.revision()).max(self.compacted);
        self.batches.drain(..(target.get() - self.compacted.get()) as usize);
        self.compacted = target;
    }

    /// What the present revision changed, unless that is compacted.
    pub(crate) fn newest(&self) -> Option<&Batch> {
        self.batches.back()
    }

    /// All that is kept, oldest first.
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
    fn a_record_stands_under_its_revision() {
        let history = of(3);
        assert_eq!(history.revision(), Revision::new(3));
        let third = Batch::new(Revision::new(3), [Change::Delete("3".into())]);
        assert_eq!((history.newest(), history.iter().last()), (Some(&third), Some(&third)));
        assert_eq!(history.iter().map(|batch| batch.revision.get()).collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn compaction_leaves_the_revision_and_the_later_records() {
        let mut history = of(5);
        history.compact(Revision::new(3));
        assert_eq!((history.revision(), history.compacted()), (Revision::new(5), Revision::new(3)));
        assert_eq!(history.iter().map(|batch| batch.revision.get()).collect::<Vec<_>>(), [4, 5]);
        assert_eq!(*history.iter().next().unwrap().changes, [Change::Delete("4".into())]);
    }

    #[test]
    fn compaction_never_goes_back_and_stops_at_the_present() {
        let mut history = of(5);
        history.compact(Revision::new(4));
        history.compact(Revision::new(2));
        assert_eq!(history.compacted(), Revision::new(4));
        history.compact(Revision::new(99));
        assert_eq!((history.revision(), history.compacted()), (Revision::new(5), Revision::new(5)));
    }
}
