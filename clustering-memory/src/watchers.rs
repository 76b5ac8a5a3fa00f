use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    sync::Arc,
};

use clustering_core::store::{Batch, Revision, Signal};

use crate::revisions::History;

/// ID of an open watch, unique within its store.
pub(crate) type WatchId = u64;

/// The open watches, grouped by prefix, so that the cost of a change depends on the number of prefixes and not on the
/// number of watches.
///
/// No method raises or drops a signal, because this may run code of a watch's task, and the store must not be locked
/// then. Signals to be raised are collected for [`take_raised`](Self::take_raised), and signals that are no longer
/// needed are returned to the caller.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    groups: BTreeMap<Arc<str>, Group>,
    last_id: WatchId,
    raised: Vec<Signal>,
}

#[derive(Debug, Default)]
struct Group {
    /// Signals of the open watches of this prefix, in the order in which they were opened.
    signals: BTreeMap<WatchId, Signal>,
    /// The part of the history that concerns this prefix. All watches of the prefix share these batches, and each finds
    /// its next batch by binary search, no matter how many changes were made under other prefixes.
    matching: VecDeque<Batch>,
    /// The last compacted revision that changed something under the prefix. A watch that has not seen this revision has
    /// lost changes. A watch that has seen it can continue, even if it is behind the compaction.
    lost: Revision,
}

/// Error: a watch cannot continue, because changes that it has not yielded yet were compacted.
pub(crate) struct Lost;

fn matching(prefix: &str, batch: &Batch) -> Option<Batch> {
    batch.filtered(|change| change.key().starts_with(prefix))
}

impl Group {
    fn of(prefix: &str, history: &History) -> Self {
        let mut group = Group::default();
        group.index(prefix, history);
        group
    }

    fn index(&mut self, prefix: &str, history: &History) {
        self.matching = history.iter().filter_map(|batch| matching(prefix, batch)).collect();
        self.lost = history.compacted();
    }
}

impl Watchers {
    /// Adds a watch and returns the signal that is raised by changes under its prefix. It must not need any change up
    /// to the compacted revision.
    pub(crate) fn open(&mut self, prefix: &str, history: &History) -> (Arc<str>, WatchId, Signal) {
        self.last_id += 1;
        let prefix = match self.groups.get_key_value(prefix) {
            Some((prefix, _)) => prefix.clone(),
            None => Arc::from(prefix),
        };
        let group = self.groups.entry(prefix.clone()).or_insert_with(|| Group::of(&prefix, history));
        let signal = Signal::new();
        group.signals.insert(self.last_id, signal.clone());
        (prefix, self.last_id, signal)
    }

    /// Removes a watch and returns its signal.
    pub(crate) fn close(&mut self, prefix: &str, id: WatchId) -> Option<Signal> {
        let group = self.groups.get_mut(prefix)?;
        let signal = group.signals.remove(&id);
        if group.signals.is_empty() {
            self.groups.remove(prefix);
        }
        signal
    }

    /// Returns the number of open watches.
    pub(crate) fn len(&self) -> usize {
        self.groups.values().map(|group| group.signals.len()).sum()
    }

    /// Returns the next batch for a watch that has seen everything up to `seen`, or `None` if there is none yet.
    pub(crate) fn next(&self, prefix: &str, seen: Revision) -> Result<Option<Batch>, Lost> {
        let Some(group) = self.groups.get(prefix) else { return Ok(None) };
        if seen < group.lost {
            return Err(Lost);
        }
        let place = group.matching.partition_point(|batch| batch.revision <= seen);
        Ok(group.matching.get(place).cloned())
    }

    /// Handles a new revision: adds its changes to the groups that they concern, and raises the signals of those
    /// groups.
    pub(crate) fn changed(&mut self, history: &History) {
        let Some(newest) = history.newest() else { return };
        for (prefix, group) in &mut self.groups {
            if let Some(batch) = matching(prefix, newest) {
                group.matching.push_back(batch);
                self.raised.extend(group.signals.values().cloned());
            }
        }
    }

    /// Handles a compaction of the history. No signal has to be raised, because a waiting watch has already yielded
    /// all changes under its prefix.
    pub(crate) fn compacted(&mut self, history: &History) {
        for group in self.groups.values_mut() {
            while let Some(batch) = group.matching.front()
                && batch.revision <= history.compacted()
            {
                group.lost = batch.revision;
                group.matching.pop_front();
            }
        }
    }

    /// Handles the replacement of the whole history by a restore, and raises all signals.
    pub(crate) fn replaced(&mut self, history: &History) {
        for (prefix, group) in &mut self.groups {
            group.index(prefix, history);
            self.raised.extend(group.signals.values().cloned());
        }
    }

    /// Takes the signals that the caller must raise once the store is unlocked.
    pub(crate) fn take_raised(&mut self) -> Vec<Signal> {
        mem::take(&mut self.raised)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_removed_with_its_last_watch() {
        let (mut watchers, history) = (Watchers::default(), History::default());
        let (prefix, first, _) = watchers.open("view/", &history);
        let (same, second, _) = watchers.open("view/", &history);
        assert!(Arc::ptr_eq(&prefix, &same), "both watches share one copy of the prefix");
        watchers.close(&prefix, first);
        assert_eq!((watchers.groups.len(), watchers.len()), (1, 1));
        watchers.close(&prefix, second);
        assert_eq!((watchers.groups.len(), watchers.len()), (0, 0));
    }
}
