use std::{collections::BTreeMap, fmt, sync::Arc};

use clustering_core::store::{Entry, Key, Revision};

use crate::{lease::SavedLeases, revisions::History};

/// A copy of a store's entries, history and leases at one moment, to be [restored](crate::MemoryStore::restore) later.
///
/// Taking a backup costs time and memory in proportion to the number of entries and of revisions kept. Values are
/// shared, not copied.
#[derive(Clone)]
pub struct Backup {
    /// Identifies the store that the backup was taken from, and how often that store had been restored by then.
    pub(crate) timeline: Timeline,
    pub(crate) entries: BTreeMap<Key, Entry>,
    pub(crate) history: History,
    pub(crate) leases: SavedLeases,
}

impl Backup {
    /// Returns the store's revision when the backup was taken.
    pub fn revision(&self) -> Revision {
        self.history.revision()
    }
}

impl fmt::Debug for Backup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backup")
            .field("revision", &self.revision())
            .field("entries", &self.entries.len())
            .finish_non_exhaustive()
    }
}

/// The period between two restores of one store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timeline {
    store: Arc<()>,
    restores: usize,
}

/// The restores of one store so far, used to decide if the revisions that a watch has seen are still part of the
/// store's history.
#[derive(Debug, Default)]
pub(crate) struct Restores {
    store: Arc<()>,
    /// For each restore, the last revision that is part of the history both before and after it.
    common: Vec<Revision>,
}

impl Restores {
    /// Returns the current timeline.
    pub(crate) fn timeline(&self) -> Timeline {
        Timeline { store: self.store.clone(), restores: self.common.len() }
    }

    /// Returns the last revision that is certain to be part of both the history on `timeline` and the current history,
    /// or `None` if there has been no restore since.
    pub(crate) fn common_since(&self, timeline: &Timeline) -> Option<Revision> {
        if !Arc::ptr_eq(&self.store, &timeline.store) {
            return Some(Revision::ZERO);
        }
        self.common[timeline.restores..].iter().min().copied()
    }

    /// Records that the current state is about to be replaced by `backup`.
    ///
    /// Usually the two histories share everything up to the backup's revision. They share less if an earlier restore
    /// undid part of the backup's history.
    pub(crate) fn push(&mut self, backup: &Backup) {
        let common = self.common_since(&backup.timeline).unwrap_or(backup.revision());
        self.common.push(common.min(backup.revision()));
    }
}
