use std::time::Duration;

use crate::{MemoryStore, state::Settings};

/// Builds a [`MemoryStore`] with settings other than the defaults.
///
/// ```
/// # use std::time::Duration;
/// # use clustering_memory::MemoryStore;
/// // Keeps only a short history, as a store under heavy load would, and grants no lease shorter than etcd's minimum.
/// let store = MemoryStore::builder().history(100).smallest_ttl(Duration::from_secs(2)).build();
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct MemoryStoreBuilder {
    settings: Settings,
}

impl MemoryStoreBuilder {
    /// Sets the number of recent revisions whose changes are kept; older revisions are compacted at once. The default
    /// is 10,000.
    ///
    /// With 0, no change can be delivered: every watch with a change under its prefix ends with `Compacted`.
    pub fn history(mut self, revisions: usize) -> Self {
        self.settings.history = revisions;
        self
    }

    /// Sets the shortest TTL that the store grants; shorter requests are raised to it. The default is zero, which
    /// grants every TTL as requested.
    pub fn smallest_ttl(mut self, ttl: Duration) -> Self {
        self.settings.smallest_ttl = ttl;
        self
    }

    /// Creates the store, empty and at revision 0.
    pub fn build(self) -> MemoryStore {
        MemoryStore::with_settings(self.settings)
    }
}
