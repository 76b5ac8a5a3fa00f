use clustering_core::store::{LeaseId, StoreError};

/// What was asked of a store since it was made: counters that only grow, also over a
/// [restore](crate::MemoryStore::restore).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Stats {
    /// Commits that changed something. Expiries and revocations are not among them.
    pub commits_effective: u64,
    /// Commits that succeeded and changed nothing: without operations, or with deletes of absent keys alone.
    pub commits_without_effect: u64,
    /// Commits that were refused: by a guard, for want of a lease, or for their size.
    pub commits_refused: u64,
    /// Reads.
    pub reads: u64,
    /// Watches opened, also those that ended at once.
    pub watches: u64,
    /// Leases granted.
    pub grants: u64,
    /// Renewals that succeeded.
    pub renewals: u64,
    /// Leases revoked.
    pub revokes: u64,
    /// Renewals and revocations of leases that had ended.
    pub leases_not_found: u64,
    /// Leases that expired.
    pub expiries: u64,
    /// Batches handed out, over all watches. One that is behind gets some at a time.
    pub batches: u64,
    /// Changes in these batches.
    pub changes: u64,
}

impl Stats {
    /// Counts a lease call that came too late, and makes its error.
    pub(crate) fn lease_not_found(&mut self, id: LeaseId) -> StoreError {
        self.leases_not_found += 1;
        StoreError::lease_not_found(id)
    }

    /// What was asked since `earlier`, which must be an earlier reading of the same store.
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
