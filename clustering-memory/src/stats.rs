use clustering_core::store::{LeaseId, StoreError};

/// Counters of the calls made to a store since it was created. They never decrease, not even through a
/// [restore](crate::MemoryStore::restore).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Stats {
    /// Commits that changed something, not counting expiries and revocations of leases.
    pub commits_effective: u64,
    /// Commits that succeeded but changed nothing: they had no operations, or only deleted absent keys.
    pub commits_without_effect: u64,
    /// Commits that failed because of a guard, an ended lease or an invalid transaction.
    pub commits_refused: u64,
    /// Reads.
    pub reads: u64,
    /// Watches opened, including those that ended immediately.
    pub watches: u64,
    /// Leases granted.
    pub grants: u64,
    /// Renewals that succeeded.
    pub renewals: u64,
    /// Leases revoked.
    pub revokes: u64,
    /// Renewals and revocations that failed because the lease had ended.
    pub leases_not_found: u64,
    /// Leases that expired.
    pub expiries: u64,
    /// Batches fetched by all watches. A watch that is behind fetches several batches before it yields the first.
    pub batches: u64,
    /// Changes in these batches.
    pub changes: u64,
}

impl Stats {
    /// Counts a call for a lease that has ended, and returns the error for it.
    pub(crate) fn lease_not_found(&mut self, id: LeaseId) -> StoreError {
        self.leases_not_found += 1;
        StoreError::lease_not_found(id)
    }

    /// Returns the counts since `earlier`, which must be an earlier value from the same store.
    ///
    /// ```
    /// # use clustering_core::store::{CoordinationStore, Txn};
    /// # use clustering_memory::MemoryStore;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = MemoryStore::new();
    /// store.commit(Txn::new().put("a", "1", None)).await?;
    /// let before = store.stats();
    /// store.commit(Txn::new().put("b", "2", None)).await?;
    /// assert_eq!(store.stats().since(&before).commits_effective, 1);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn since(&self, earlier: &Stats) -> Stats {
        let less = u64::saturating_sub;
        Stats {
            commits_effective: less(self.commits_effective, earlier.commits_effective),
            commits_without_effect: less(self.commits_without_effect, earlier.commits_without_effect),
            commits_refused: less(self.commits_refused, earlier.commits_refused),
            reads: less(self.reads, earlier.reads),
            watches: less(self.watches, earlier.watches),
            grants: less(self.grants, earlier.grants),
            renewals: less(self.renewals, earlier.renewals),
            revokes: less(self.revokes, earlier.revokes),
            leases_not_found: less(self.leases_not_found, earlier.leases_not_found),
            expiries: less(self.expiries, earlier.expiries),
            batches: less(self.batches, earlier.batches),
            changes: less(self.changes, earlier.changes),
        }
    }
}
