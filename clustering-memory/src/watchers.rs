use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    sync::Arc,
    task::Waker,
};

use clustering_core::store::{Batch, Revision};

use crate::revisions::History;

/// Names an open watch among those of one store.
pub(crate) type WatchId = u64;

/// The open watches, in one group per prefix: a change costs a look at each prefix, not at each watch.
///
/// No waker is ever woken or dropped in here: that runs foreign code, which must not find the store locked. Those to
/// be woken are kept for [`take_woken`](Self::take_woken), and those no longer needed are returned.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    groups: BTreeMap<Arc<str>, Group>,
    last_id: WatchId,
    woken: Vec<Waker>,
}

#[derive(Debug, Default)]
struct Group {
    /// How many watches of this prefix are open.
    open: usize,
    /// Those that were polled and had nothing to yield, in the order in which they were opened.
    waiting: BTreeMap<WatchId, Waker>,
    /// Of the history what changed something under the prefix. A watch finds its next one by bisection, however much
    /// happened elsewhere, and all watches are handed the same.
    matching: VecDeque<Batch>,
    /// The last such revision that was compacted. A watch that did not see it has lost it; one that is behind the
    /// compaction but owes nothing from before it goes on.
    lost: Revision,
}

/// A watch cannot go on: changes that it owes are compacted.
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
    /// Adds a watch that saw everything up to the compacted revision at least.
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

    /// Removes a watch, and returns its waker if it was waiting.
    pub(crate) fn close(&mut self, prefix: &str, id: WatchId) -> Option<Waker> {
        let group = self.groups.get_mut(prefix)?;
        let waker = group.waiting.remove(&id);
        group.open -= 1;
        if group.open == 0 {
            self.groups.remove(prefix);
        }
        waker
    }

    /// How many are open.
    pub(crate) fn len(&self) -> usize {
        self.groups.values().map(|group| group.open).sum()
    }

    /// What a watch has to yield that saw everything up to `seen`.
    pub(crate) fn owed(&self, prefix: &str, seen: Revision) -> Result<impl Iterator<Item = &Batch>, Lost> {
        let group = self.groups.get(prefix);
        if group.is_some_and(|group| seen < group.lost) {
            return Err(Lost);
        }
        Ok(group.into_iter().flat_map(move |group| {
            let place = group.matching.partition_point(|batch| batch.revision <= seen);
            group.matching.range(place..)
        }))
    }

    /// Has a watch woken at the next change under its prefix. It must not be waiting already.
    pub(crate) fn wait(&mut self, prefix: &str, id: WatchId, waker: Waker) {
        if let Some(group) = self.groups.get_mut(prefix) {
            let former = group.waiting.insert(id, waker);
            debug_assert!(former.is_none(), "a waker would be dropped under the lock");
        }
    }

    /// Takes back [`wait`](Self::wait) and returns its waker, if the watch was not woken yet.
    pub(crate) fn stop_waiting(&mut self, prefix: &str, id: WatchId) -> Option<Waker> {
        self.groups.get_mut(prefix)?.waiting.remove(&id)
    }

    /// Notes what the newest revision changed.
    pub(crate) fn changed(&mut self, history: &History) {
        let Some(newest) = history.newest() else { return };
        for (prefix, group) in &mut self.groups {
            if let Some(batch) = matching(prefix, newest) {
                group.matching.push_back(batch);
                self.woken.extend(mem::take(&mut group.waiting).into_values());
            }
        }
    }

    /// Notes that the history was compacted. Wakes nobody: who waits owes nothing.
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

    /// Notes that the history is another one now, and wakes everybody.
    pub(crate) fn replaced(&mut self, history: &History) {
        for (prefix, group) in &mut self.groups {
            group.index(prefix, history);
            self.woken.extend(mem::take(&mut group.waiting).into_values());
        }
    }

    /// Those to be woken once the store is unlocked.
    pub(crate) fn take_woken(&mut self) -> Vec<Waker> {
        mem::take(&mut self.woken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_goes_with_its_last_watch() {
        let (mut watchers, history) = (Watchers::default(), History::default());
        let (prefix, first) = watchers.open("view/", &history);
        let (same, second) = watchers.open("view/", &history);
        assert!(Arc::ptr_eq(&prefix, &same), "the prefix is kept once");
        watchers.close(&prefix, first);
        assert_eq!((watchers.groups.len(), watchers.len()), (1, 1));
        watchers.close(&prefix, second);
        assert_eq!((watchers.groups.len(), watchers.len()), (0, 0));
    }
}
