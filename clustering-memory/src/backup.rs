use std::{collections::BTreeMap, fmt, sync::Arc};

use clustering_core::store::{Entry, Key, Revision};

use crate::{lease::SavedLeases, revisions::History};

/// The state of a store at one moment, to [restore](crate::MemoryStore::restore) later: entries, history and leases.
///
/// Taking one costs time and memory in proportion to the number of entries and of revisions kept; values are shared.
#[derive(Clone)]
pub struct Backup {
    /// Tells the store that it was taken from, see [`Timeline`].
    pub(crate) timeline: Timeline,
    pub(crate) entries: BTreeMap<Key, Entry>,
    pub(crate) history: History,
    pub(crate) leases: SavedLeases,
}

impl Backup {
    /// The revision at which it was taken.
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

/// A place between the restores of one store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timeline {
    store: Arc<()>,
    restores: usize,
}

/// Up to which revision what somebody saw is still this store's history, however often it was restored since.
#[derive(Debug, Default)]
pub(crate) struct Restores {
    store: Arc<()>,
    /// For each restore the last revision that stood before it and stands after it.
    common: Vec<Revision>,
}

impl Restores {
    /// The present place.
    pub(crate) fn timeline(&self) -> Timeline {
        Timeline { store: self.store.clone(), restores: self.common.len() }
    }

    /// The last revision that a state of that time and the present one are sure to share; `None` if nothing was
    /// restored since.
    pub(crate) fn common_since(&self, time: &Timeline) -> Option<Revision> {
        if !Arc::ptr_eq(&self.store, &time.store) {
            return Some(Revision::ZERO);
        }
        self.common[time.restores..].iter().min().copied()
    }

    /// Notes that the present state gives way to that of `backup`.
    ///
    /// Usually that cuts off what came after the backup. A backup of a future that was itself cut off shares less.
    pub(crate) fn push(&mut self, backup: &Backup) {
        let common = self.common_since(&backup.timeline).unwrap_or(backup.revision());
        self.common.push(common.min(backup.revision()));
    }
}
