use std::time::Duration;

use crate::{MemoryStore, state::Settings};

/// Makes a [`MemoryStore`] that differs from the default.
///
/// ```
/// # use std::time::Duration;
/// # use clustering_memory::MemoryStore;
/// // As forgetful as a store under heavy load, and with the shortest lease that etcd grants.
/// let store = MemoryStore::builder().history(100).smallest_ttl(Duration::from_secs(2)).build();
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until it builds"]
pub struct MemoryStoreBuilder {
    settings: Settings,
}

impl MemoryStoreBuilder {
    /// How many of the last revisions keep their changes; older ones are compacted at once. Default: 10,000.
    ///
    /// With 0 no change can be delivered: every watch that owes one ends with `Compacted`.
    pub fn history(mut self, revisions: usize) -> Self {
        self.settings.history = revisions;
        self
    }

    /// The shortest TTL that is granted: who asks for less gets this. Default: zero, everyone gets what they ask for.
    pub fn smallest_ttl(mut self, ttl: Duration) -> Self {
        self.settings.smallest_ttl = ttl;
        self
    }

    /// The store, empty and at revision 0.
    pub fn build(self) -> MemoryStore {
        MemoryStore::with_settings(self.settings)
    }
}
