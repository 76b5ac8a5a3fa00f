use clustering_core::store::{Batch, CoordinationStore, Revision};
use clustering_memory::MemoryStore;
use clustering_testkit::{
    history::{Entry, Page, ledger::Era},
    promises::check,
};
use futures_util::StreamExt;

use super::soon;

/// Returns every change since the store was created.
pub(crate) async fn history(store: &MemoryStore) -> Vec<Batch> {
    let mut watch = store.watch("", Revision::ZERO).await.unwrap();
    let mut batches: Vec<Batch> = Vec::new();
    while batches.last().is_none_or(|last| last.revision < store.revision()) {
        batches.push(soon("the history", watch.next()).await.unwrap().expect("nothing is compacted"));
    }
    batches
}

/// Checks P1 to P7 for the whole history of the cluster in the namespace `cluster`.
pub(crate) async fn audit(store: &MemoryStore, journals: &[Vec<Entry>]) -> Era {
    let pages: Vec<_> = history(store).await.into_iter().map(|batch| Page::of(None, batch)).collect();
    check("cluster", &pages, journals, None).unwrap().present().clone()
}
