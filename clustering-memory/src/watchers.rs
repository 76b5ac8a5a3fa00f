use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    sync::Arc,
    task::Waker,
};

use clustering_core::store::{Batch, Revision};

use crate::revisions::History;

/// ID of an open watch, unique within its store.
pub(crate) type WatchId = u64;

/// The open watches, grouped by prefix, so that the cost of a change depends on the number of prefixes and not on the
/// number of watches.
///
/// No method wakes or drops a waker, because that runs foreign code, which must not find the store locked. Wakers to be
/// woken are collected for [`take_woken`](Self::take_woken), and wakers that are no longer needed are returned to the
/// caller.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    groups: BTreeMap<Arc<str>, Group>,
    last_id: WatchId,
    woken: Vec<Waker>,
}

#[derive(Debug, Default)]
struct Group {
    /// Number of open watches of this prefix.
    open: usize,
    /// Wakers of the watches that were polled and had nothing to yield, in the order in which the watches were opened.
    waiting: BTreeMap<WatchId, Waker>,
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
    /// Adds a watch. It must not need any change up to the compacted revision.
    pub(crate) fn open(&mut self, prefix: &str, history: &History) -> (Arc<str>, WatchId) {
        self.last_id += 1;
        let prefix = match self.groups.get_key_value(prefix) {
            Some((prefix, _)) => prefix.clone(),
            None => Arc::from(prefix),
        };
        let group = self.groups.entry(prefix.clone()).or_insert_with(|| Group::of(&prefix, history));
        group.open += 1;
        (prefix, self.last_id)
    }

    /// Removes a watch and returns its waker if it was waiting.
    pub(crate) fn close(&mut self, prefix: &str, id: WatchId) -> Option<Waker> {
        let group = self.groups.get_mut(prefix)?;
        let waker = group.waiting.remove(&id);
        group.open -= 1;
        if group.open == 0 {
            self.groups.remove(prefix);
        }
        waker
    }

    /// Returns the number of open watches.
    pub(crate) fn len(&self) -> usize {
        self.groups.values().map(|group| group.open).sum()
    }

    /// Returns the batches that a watch has still to yield if it has seen everything up to `seen`.
    pub(crate) fn pending(&self, prefix: &str, seen: Revision) -> Result<impl Iterator<Item = &Batch>, Lost> {
        let group = self.groups.get(prefix);
        if group.is_some_and(|group| seen < group.lost) {
            return Err(Lost);
        }
        Ok(group.into_iter().flat_map(move |group| {
            let place = group.matching.partition_point(|batch| batch.revision <= seen);
            group.matching.range(place..)
        }))
    }

    /// Registers a watch to be woken at the next change under its prefix. It must not be waiting already.
    pub(crate) fn wait(&mut self, prefix: &str, id: WatchId, waker: Waker) {
        if let Some(group) = self.groups.get_mut(prefix) {
            let former = group.waiting.insert(id, waker);
            debug_assert!(former.is_none(), "the former waker would be dropped under the lock");
        }
    }

    /// Undoes [`wait`](Self::wait) and returns the waker, or `None` if the watch was already woken.
    pub(crate) fn stop_waiting(&mut self, prefix: &str, id: WatchId) -> Option<Waker> {
        self.groups.get_mut(prefix)?.waiting.remove(&id)
    }

    /// Handles a new revision: adds its changes to the groups that they concern, and wakes the watches of those groups.
    pub(crate) fn changed(&mut self, history: &History) {
        let Some(newest) = history.newest() else { return };
        for (prefix, group) in &mut self.groups {
            if let Some(batch) = matching(prefix, newest) {
                group.matching.push_back(batch);
                self.woken.extend(mem::take(&mut group.waiting).into_values());
            }
        }
    }

    /// Handles a compaction of the history. No watch has to be woken, because a waiting watch has already yielded all
    /// changes under its prefix.
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

    /// Handles the replacement of the whole history by a restore, and wakes all watches.
    pub(crate) fn replaced(&mut self, history: &History) {
        for (prefix, group) in &mut self.groups {
            group.index(prefix, history);
            self.woken.extend(mem::take(&mut group.waiting).into_values());
        }
    }

    /// Takes the wakers that the caller must wake once the store is unlocked.
    pub(crate) fn take_woken(&mut self) -> Vec<Waker> {
        mem::take(&mut self.woken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_removed_with_its_last_watch() {
        let (mut watchers, history) = (Watchers::default(), History::default());
        let (prefix, first) = watchers.open("view/", &history);
        let (same, second) = watchers.open("view/", &history);
        assert!(Arc::ptr_eq(&prefix, &same), "both watches share one copy of the prefix");
        watchers.close(&prefix, first);
        assert_eq!((watchers.groups.len(), watchers.len()), (1, 1));
        watchers.close(&prefix, second);
        assert_eq!((watchers.groups.len(), watchers.len()), (0, 0));
    }
}
