//! Stores that break rule 3.

use std::{
    mem,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use clustering_core::store::{
    Batch, Change, CoordinationStore, Revision, Snapshot, StoreError, WatchEnd, WatchStream,
};
use clustering_memory::MemoryStore;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::{
    task::yield_now,
    time::{sleep, timeout},
};

use super::{Bend, Item, ready, turned};

/// Defines a bend that overrides only `watch`.
macro_rules! watch {
    ($(#[$doc:meta])* $name:ident, |$store:ident, $prefix:ident, $after:ident| $body:expr) => {
        $(#[$doc])*
        #[derive(Clone, Default)]
        pub(crate) struct $name;

        #[async_trait]
        impl Bend for $name {
            async fn watch(
                &self,
                $store: &MemoryStore,
                $prefix: &str,
                $after: Revision,
            ) -> Result<WatchStream, StoreError> {
                Ok($body)
            }
        }
    };
}

watch! {
    /// Skips every tenth batch.
    SkipsBatches, |store, prefix, after| {
        let mut count = 0;
        turned(store.watch(prefix, after).await?, move |item| {
            count += 1;
            (count % 10 != 0).then_some(item)
        })
    }
}

watch! {
    /// Sends every fifth batch twice.
    RepeatsBatches, |store, prefix, after| {
        let mut count = 0;
        turned(store.watch(prefix, after).await?, move |item| {
            count += 1;
            vec![item; if count % 5 == 0 { 2 } else { 1 }]
        })
    }
}

/// Splits a batch into batches of `size` changes.
fn cut(item: Item, size: usize) -> Vec<Item> {
    match item {
        Ok(Batch { revision, changes }) => {
            changes.chunks(size).map(|some| Ok(Batch::new(revision, some))).collect()
        }
        end => vec![end],
    }
}

watch! {
    /// Sends each change in its own batch.
    SplitsRevisions, |store, prefix, after| turned(store.watch(prefix, after).await?, |item| cut(item, 1))
}

watch! {
    /// Sends batches of at most 64 changes.
    SplitsLargeRevisions, |store, prefix, after| turned(store.watch(prefix, after).await?, |item| cut(item, 64))
}

watch! {
    /// Swaps two waiting batches.
    Reorders, |store, prefix, after| {
        let inner = store.watch(prefix, after).await?;
        Box::pin(stream::unfold((inner, None), |(mut inner, held)| async move {
            if let Some(held) = held {
                return Some((held, (inner, None)));
            }
            let first = inner.next().await?;
            Some(match ready(&mut inner) {
                Some(second @ Ok(_)) => (second, (inner, Some(first))),
                Some(end) => (first, (inner, Some(end))),
                None => (first, (inner, None)),
            })
        }))
    }
}

watch! {
    /// Merges two waiting batches.
    Coalesces, |store, prefix, after| {
        let inner = store.watch(prefix, after).await?;
        Box::pin(stream::unfold((inner, None), |(mut inner, held)| async move {
            if let Some(held) = held {
                return Some((held, (inner, None)));
            }
            let first = inner.next().await?;
            Some(match (first, ready(&mut inner)) {
                (Ok(first), Some(Ok(second))) => {
                    let stands = |old: &&Change| second.changes.iter().all(|new| new.key() != old.key());
                    let changes = first.changes.iter().filter(stands).chain(&*second.changes).cloned();
                    (Ok(Batch::new(second.revision, changes.collect::<Vec<_>>())), (inner, None))
                }
                (first, held) => (first, (inner, held)),
            })
        }))
    }
}

watch! {
    /// Skips changes that were overwritten while waiting.
    SendsTheLatestOnly, |store, prefix, after| {
        let inner = store.watch(prefix, after).await?;
        Box::pin(stream::unfold((inner, None), |(mut inner, held)| async move {
            if let Some(held) = held {
                return Some((held, (inner, None)));
            }
            let mut item = inner.next().await?;
            loop {
                let same = |old: &Batch, new: &Batch| match (&old.changes[..], &new.changes[..]) {
                    ([Change::Put(old)], [Change::Put(new)]) => old.key == new.key,
                    _ => false,
                };
                match (&item, ready(&mut inner)) {
                    (Ok(old), Some(Ok(new))) if same(old, &new) => item = Ok(new),
                    (_, held) => return Some((item, (inner, held))),
                }
            }
        }))
    }
}

watch! {
    /// Skips deletions.
    HidesDeletions, |store, prefix, after| turned(store.watch(prefix, after).await?, |item| {
        let Ok(batch) = item else { return Some(item) };
        batch.filtered(|change| matches!(change, Change::Put(_))).map(Ok)
    })
}

watch! {
    /// Sends empty batches for changes outside of the prefix.
    SendsEmptyBatches, |store, prefix, after| {
        let prefix = prefix.to_owned();
        turned(store.watch("", after).await?, move |item| {
            let under = |change: &Change| change.key().starts_with(&prefix);
            Some(item.map(|batch| batch.filtered(under).unwrap_or(Batch::new(batch.revision, []))))
        })
    }
}

watch! {
    /// Sends all changes of a revision that touches the prefix.
    SendsTheWholeRevision, |store, prefix, after| {
        let prefix = prefix.to_owned();
        turned(store.watch("", after).await?, move |item| {
            let touched = |batch: &Batch| batch.changes.iter().any(|change| change.key().starts_with(&prefix));
            match &item {
                Ok(batch) if !touched(batch) => None,
                _ => Some(item),
            }
        })
    }
}

watch! {
    /// Treats the prefix `a/` as `a`.
    DropsTheSlash, |store, prefix, after| store.watch(prefix.trim_end_matches('/'), after).await?
}

watch! {
    /// Starts at the requested revision instead of after it.
    BeginsTooEarly, |store, prefix, after| {
        let before = if after <= store.revision() { after.get().saturating_sub(1) } else { after.get() };
        store.watch(prefix, Revision::new(before)).await?
    }
}

watch! {
    /// Starts at the current revision regardless of the requested one.
    HasNoPast, |store, prefix, after| store.watch(prefix, after.max(store.revision())).await?
}

watch! {
    /// Sends past changes but no new ones.
    HasNoFuture, |store, prefix, after| {
        let mut inner = store.watch(prefix, after).await?;
        let mut past = Vec::new();
        while let Some(item) = ready(&mut inner) {
            past.push(item);
        }
        Box::pin(stream::iter(past).chain(stream::pending()))
    }
}

watch! {
    /// Buffers at most 64 batches for a slow reader.
    HasASmallBuffer, |store, prefix, after| {
        let inner = store.watch(prefix, after).await?;
        Box::pin(stream::unfold((inner, Vec::new()), |(mut inner, mut waiting)| async move {
            if waiting.is_empty() {
                waiting.push(inner.next().await?);
            }
            while let Some(item) = ready(&mut inner) {
                waiting.push(item);
            }
            waiting.drain(..waiting.len().saturating_sub(64));
            Some((waiting.remove(0), (inner, waiting)))
        }))
    }
}

watch! {
    /// Drops a batch that it takes in a poll from time to time, and returns `Pending` instead.
    LosesBatchesDuringPolls, |store, prefix, after| {
        let mut inner = store.watch(prefix, after).await?;
        let mut tries = 0_u32;
        Box::pin(stream::poll_fn(move |context| {
            let item = inner.poll_next_unpin(context);
            tries += u32::from(item.is_ready());
            if item.is_ready() && tries.is_multiple_of(5) {
                context.waker().wake_by_ref();
                return std::task::Poll::Pending;
            }
            item
        }))
    }
}

watch! {
    /// Skips a batch after four polls in a row without one.
    LosesABatchAfterIdlePolls, |store, prefix, after| {
        let mut inner = store.watch(prefix, after).await?;
        let mut in_vain = 0;
        Box::pin(stream::poll_fn(move |context| {
            let mut item = inner.poll_next_unpin(context);
            if item.is_ready() && in_vain >= 4 {
                item = inner.poll_next_unpin(context);
            }
            in_vain = if item.is_ready() { 0 } else { in_vain + 1 };
            item
        }))
    }
}

watch! {
    /// Sends past changes, and starts with new changes only a moment later.
    LosesChangesAfterTheReplay, |store, prefix, after| {
        let mut inner = store.watch(prefix, after).await?;
        let mut past = Vec::new();
        while let Some(item) = ready(&mut inner) {
            past.push(item);
        }
        yield_now().await;
        match past.last() {
            // A watch that ended has no new changes.
            Some(Err(_)) => Box::pin(stream::iter(past)),
            _ => {
                let live = store.watch(prefix, after.max(store.revision())).await?;
                Box::pin(stream::iter(past).chain(live))
            }
        }
    }
}

/// Reads, and a moment later asks for the revision of the snapshot.
#[derive(Clone, Default)]
pub(crate) struct NumbersReadsLate;

#[async_trait]
impl Bend for NumbersReadsLate {
    async fn read(&self, store: &MemoryStore, prefix: &str) -> Result<Snapshot, StoreError> {
        let snapshot = store.read(prefix).await?;
        yield_now().await;
        Ok(Snapshot { revision: store.revision(), ..snapshot })
    }
}

watch! {
    /// Closes the stream after a while without a final item.
    EndsSilently, |store, prefix, after| Box::pin(store.watch(prefix, after).await?.take(5))
}

watch! {
    /// Disconnects after a while without a reason.
    Disconnects, |store, prefix, after| {
        let end = WatchEnd::Disconnected { reason: "no reason".to_owned() };
        Box::pin(store.watch(prefix, after).await?.take(5).chain(stream::iter([Err(end)])))
    }
}

watch! {
    /// Delivers later than stated.
    IsLate, |store, prefix, after| {
        Box::pin(store.watch(prefix, after).await?.then(|item| async {
            sleep(Duration::from_millis(5)).await;
            item
        }))
    }
}

watch! {
    /// Shows the modification revision of each key as its creation revision.
    ForgetsCreation, |store, prefix, after| turned(store.watch(prefix, after).await?, |mut item| {
        if let Ok(batch) = &mut item {
            for change in Arc::make_mut(&mut batch.changes) {
                if let Change::Put(entry) = change {
                    entry.created = entry.modified;
                }
            }
        }
        [item]
    })
}

watch! {
    /// Omits the lease of an entry.
    HidesLeases, |store, prefix, after| turned(store.watch(prefix, after).await?, |mut item| {
        if let Ok(batch) = &mut item {
            for change in Arc::make_mut(&mut batch.changes) {
                if let Change::Put(entry) = change {
                    entry.lease = None;
                }
            }
        }
        [item]
    })
}

/// Returns a watch that continues with another stream instead of ending.
fn instead(stream: WatchStream, other: impl FnOnce(WatchEnd) -> WatchStream + Send + 'static) -> WatchStream {
    Box::pin(stream::unfold((stream, Some(other)), |(mut stream, mut other)| async move {
        let mut item = stream.next().await?;
        if let Err(end) = &item
            && let Some(other) = mem::take(&mut other)
        {
            stream = other(end.clone());
            item = stream.next().await?;
        }
        Some((item, (stream, other)))
    }))
}

watch! {
    /// Silently continues after compacted changes.
    SkipsOverCompaction, |store, prefix, after| {
        let (again, name) = (store.clone(), prefix.to_owned());
        instead(store.watch(prefix, after).await?, move |end| match end {
            WatchEnd::Compacted { compacted } => from(&again, &name, compacted),
            end => Box::pin(stream::iter([Err(end)])),
        })
    }
}

watch! {
    /// Silently continues if only a single revision was compacted.
    SkipsTheLastCompactedRevision, |store, prefix, after| {
        let (again, name) = (store.clone(), prefix.to_owned());
        instead(store.watch(prefix, after).await?, move |end| match end {
            WatchEnd::Compacted { compacted } if after.next() == compacted => from(&again, &name, compacted),
            end => Box::pin(stream::iter([Err(end)])),
        })
    }
}

/// Silently continues an open watch that lags behind a single compaction. New watches, and those that lag behind an
/// earlier compaction, end with `Compacted`: such a store deletes the changes at once, but checks watches against the
/// second-to-last compaction.
#[derive(Clone, Default)]
pub(crate) struct ForgetsLaggingWatches(Arc<Mutex<(Revision, Revision)>>);

#[async_trait]
impl Bend for ForgetsLaggingWatches {
    fn compacted(&self, revision: Revision) {
        let mut known = self.0.lock().unwrap();
        *known = (known.1, revision);
    }

    async fn watch(
        &self,
        store: &MemoryStore,
        prefix: &str,
        after: Revision,
    ) -> Result<WatchStream, StoreError> {
        let inner = store.watch(prefix, after).await?;
        let (known, again, name) = (self.0.clone(), store.clone(), prefix.to_owned());
        if after < known.lock().unwrap().1 {
            return Ok(inner);
        }
        Ok(instead(inner, move |end| match end {
            WatchEnd::Compacted { compacted } if after >= known.lock().unwrap().0 => {
                from(&again, &name, compacted)
            }
            end => Box::pin(stream::iter([Err(end)])),
        }))
    }
}

fn from(store: &MemoryStore, prefix: &str, after: Revision) -> WatchStream {
    store
        .watch(prefix, after)
        .now_or_never()
        .expect("a MemoryStore answers immediately")
        .expect("the store can be watched")
}

watch! {
    /// Waits forever instead of ending with `Compacted`.
    WaitsOverCompaction, |store, prefix, after| {
        instead(store.watch(prefix, after).await?, |end| match end {
            WatchEnd::Compacted { .. } => Box::pin(stream::pending()),
            end => Box::pin(stream::iter([Err(end)])),
        })
    }
}

watch! {
    /// Ends with `Compacted`, but names a revision from which a new watch is compacted again.
    NamesTheRevisionAskedFor, |store, prefix, after| {
        instead(store.watch(prefix, after).await?, move |end| match end {
            WatchEnd::Compacted { .. } => {
                Box::pin(stream::iter([Err(WatchEnd::Compacted { compacted: after })]))
            }
            end => Box::pin(stream::iter([Err(end)])),
        })
    }
}

watch! {
    /// Sends another item after its end.
    SendsItemsAfterItsEnd, |store, prefix, after| {
        instead(store.watch(prefix, after).await?, |end| Box::pin(stream::iter([Err(end.clone()), Err(end)])))
    }
}

watch! {
    /// Waits until the store reaches the revision from which the watch starts.
    WaitsForTheFuture, |store, prefix, after| {
        instead(store.watch(prefix, after).await?, |end| match end {
            WatchEnd::Rewound { .. } => Box::pin(stream::pending()),
            end => Box::pin(stream::iter([Err(end)])),
        })
    }
}

watch! {
    /// Starts at the current revision if a later one was requested.
    StartsNowInsteadOfLater, |store, prefix, after| store.watch(prefix, after.min(store.revision())).await?
}

watch! {
    /// Ends with `Disconnected` if a later revision was requested.
    DisconnectsFromTheFuture, |store, prefix, after| {
        instead(store.watch(prefix, after).await?, |end| match end {
            WatchEnd::Rewound { .. } => {
                Box::pin(stream::iter([Err(WatchEnd::Disconnected { reason: "no reason".to_owned() })]))
            }
            end => Box::pin(stream::iter([Err(end)])),
        })
    }
}

/// Ends with `Compacted` any watch that has not seen the compacted revision, even if it is not owed a change.
#[derive(Clone, Default)]
pub(crate) struct CompactsIdleWatches(Arc<AtomicU64>);

#[async_trait]
impl Bend for CompactsIdleWatches {
    fn compacted(&self, revision: Revision) {
        self.0.store(revision.get(), Ordering::SeqCst);
    }

    async fn watch(
        &self,
        store: &MemoryStore,
        prefix: &str,
        after: Revision,
    ) -> Result<WatchStream, StoreError> {
        let (mut seen, compacted) = (after.get(), self.0.clone());
        let stream = store.watch(prefix, after).await?.map(move |item| {
            let compacted = compacted.load(Ordering::SeqCst);
            if seen < compacted {
                return Err(WatchEnd::Compacted { compacted: Revision::new(compacted) });
            }
            if let Ok(batch) = &item {
                seen = batch.revision.get();
            }
            item
        });
        Ok(Box::pin(stream.scan(false, |ended, item| {
            let goes_on = !*ended;
            *ended |= item.is_err();
            async move { goes_on.then_some(item) }
        })))
    }
}

/// Ends with `Compacted` any watch that has not seen the compacted revision, but only if nothing changes under its
/// prefix for a while.
#[derive(Clone, Default)]
pub(crate) struct CompactsQuietWatches(Arc<AtomicU64>);

#[async_trait]
impl Bend for CompactsQuietWatches {
    fn compacted(&self, revision: Revision) {
        self.0.store(revision.get(), Ordering::SeqCst);
    }

    async fn watch(
        &self,
        store: &MemoryStore,
        prefix: &str,
        after: Revision,
    ) -> Result<WatchStream, StoreError> {
        let inner = store.watch(prefix, after).await?;
        let state = (Some(inner), after, self.0.clone());
        Ok(Box::pin(stream::unfold(state, |(inner, seen, compacted)| async move {
            let mut inner = inner?;
            loop {
                match timeout(Duration::from_millis(1), inner.next()).await {
                    Ok(Some(Ok(batch))) => {
                        let seen = batch.revision;
                        return Some((Ok(batch), (Some(inner), seen, compacted)));
                    }
                    Ok(Some(Err(end))) => return Some((Err(end), (None, seen, compacted))),
                    Ok(None) => return None,
                    Err(_) => {
                        let last = Revision::new(compacted.load(Ordering::SeqCst));
                        if seen < last {
                            let end = WatchEnd::Compacted { compacted: last };
                            return Some((Err(end), (None, seen, compacted)));
                        }
                    }
                }
            }
        })))
    }
}
