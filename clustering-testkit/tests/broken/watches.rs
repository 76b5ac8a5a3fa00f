//! Stores that break rule 3.

use std::{
    mem,
    sync::{
        Arc,
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
use tokio::{task::yield_now, time::sleep};

use super::{Bend, Item, ready, turned};

/// A bend of the watch alone.
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
    /// Leaves out every tenth batch.
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

/// Cuts a batch into pieces.
fn cut(item: Item, size: usize) -> Vec<Item> {
    match item {
        Ok(Batch { revision, changes }) => {
            changes.chunks(size).map(|some| Ok(Batch::new(revision, some))).collect()
        }
        end => vec![end],
    }
}

watch! {
    /// Sends each change in a batch of its own.
    SplitsRevisions, |store, prefix, after| turned(store.watch(prefix, after).await?, |item| cut(item, 1))
}

watch! {
    /// Sends batches of at most 64 changes.
    SplitsLargeRevisions, |store, prefix, after| turned(store.watch(prefix, after).await?, |item| cut(item, 64))
}

watch! {
    /// Sends two batches that wait in the wrong order.
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
    /// Sends two batches that wait as one.
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
    /// Leaves out what was overwritten in the meantime.
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
    /// Sends no deletions.
    HidesDeletions, |store, prefix, after| turned(store.watch(prefix, after).await?, |item| {
        let Ok(batch) = item else { return Some(item) };
        batch.filtered(|change| matches!(change, Change::Put(_))).map(Ok)
    })
}

watch! {
    /// Sends batches of nothing where something else in the store changed.
    SendsEmptyBatches, |store, prefix, after| {
        let prefix = prefix.to_owned();
        turned(store.watch("", after).await?, move |item| {
            let under = |change: &Change| change.key().starts_with(&prefix);
            Some(item.map(|batch| batch.filtered(under).unwrap_or(Batch::new(batch.revision, []))))
        })
    }
}

watch! {
    /// Sends all changes of a revision that touched the prefix.
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
    /// Takes `a/` for `a`.
    DropsTheSlash, |store, prefix, after| store.watch(prefix.trim_end_matches('/'), after).await?
}

watch! {
    /// Begins with the revision asked for, instead of after it.
    BeginsTooEarly, |store, prefix, after| {
        let before = if after <= store.revision() { after.get().saturating_sub(1) } else { after.get() };
        store.watch(prefix, Revision::new(before)).await?
    }
}

watch! {
    /// Begins now, whatever was asked for.
    HasNoPast, |store, prefix, after| store.watch(prefix, after.max(store.revision())).await?
}

watch! {
    /// Sends what is past and nothing that comes.
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
    /// Keeps 64 batches for a reader that is slow.
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
    /// Takes a batch, and loses it if nobody waits long enough.
    LosesWhatIsNotAwaited, |store, prefix, after| {
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
    /// Leaves out a batch after it was polled in vain four times in a row.
    TiresOfPolls, |store, prefix, after| {
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
    /// Sends what is past, and a moment later begins with what comes.
    LosesTheSeam, |store, prefix, after| {
        let mut inner = store.watch(prefix, after).await?;
        let mut past = Vec::new();
        while let Some(item) = ready(&mut inner) {
            past.push(item);
        }
        yield_now().await;
        match past.last() {
            // The end of a watch has no seam.
            Some(Err(_)) => Box::pin(stream::iter(past)),
            _ => {
                let live = store.watch(prefix, after.max(store.revision())).await?;
                Box::pin(stream::iter(past).chain(live))
            }
        }
    }
}

/// Reads, and a moment later asks at which revision that was.
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
    /// Ends without a word after a while.
    EndsWithoutAWord, |store, prefix, after| Box::pin(store.watch(prefix, after).await?.take(5))
}

watch! {
    /// Loses its connection for no reason, after a while.
    Disconnects, |store, prefix, after| {
        let end = WatchEnd::Disconnected { reason: "a whim".to_owned() };
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
    /// Says of every key that it was created when it was last written.
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
    /// Does not say under which lease a key is.
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

/// A watch that does something else where it should end.
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
    /// Goes on after what was compacted.
    SkipsOverCompaction, |store, prefix, after| {
        let (again, name) = (store.clone(), prefix.to_owned());
        instead(store.watch(prefix, after).await?, move |end| match end {
            WatchEnd::Compacted { compacted } => from(&again, &name, compacted),
            end => Box::pin(stream::iter([Err(end)])),
        })
    }
}

watch! {
    /// Goes on after what was compacted if that was a single revision.
    SkipsTheLastCompactedRevision, |store, prefix, after| {
        let (again, name) = (store.clone(), prefix.to_owned());
        instead(store.watch(prefix, after).await?, move |end| match end {
            WatchEnd::Compacted { compacted } if after.next() == compacted => from(&again, &name, compacted),
            end => Box::pin(stream::iter([Err(end)])),
        })
    }
}

fn from(store: &MemoryStore, prefix: &str, after: Revision) -> WatchStream {
    store
        .watch(prefix, after)
        .now_or_never()
        .expect("a MemoryStore answers at once")
        .expect("it can be watched")
}

watch! {
    /// Waits where it should say that it cannot go on.
    WaitsOverCompaction, |store, prefix, after| {
        instead(store.watch(prefix, after).await?, |end| match end {
            WatchEnd::Compacted { .. } => Box::pin(stream::pending()),
            end => Box::pin(stream::iter([Err(end)])),
        })
    }
}

watch! {
    /// Names a compacted revision from which a watch is compacted again.
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
    /// Says more after its end.
    HasNoEnd, |store, prefix, after| {
        instead(store.watch(prefix, after).await?, |end| Box::pin(stream::iter([Err(end.clone()), Err(end)])))
    }
}

watch! {
    /// Waits for the store to get where the watch begins.
    WaitsForTheFuture, |store, prefix, after| {
        instead(store.watch(prefix, after).await?, |end| match end {
            WatchEnd::Rewound { .. } => Box::pin(stream::pending()),
            end => Box::pin(stream::iter([Err(end)])),
        })
    }
}

watch! {
    /// Begins now where a watch from the future was asked for.
    TakesTheFutureForNow, |store, prefix, after| store.watch(prefix, after.min(store.revision())).await?
}

watch! {
    /// Takes what lies ahead for a lost connection.
    DisconnectsFromTheFuture, |store, prefix, after| {
        instead(store.watch(prefix, after).await?, |end| match end {
            WatchEnd::Rewound { .. } => {
                Box::pin(stream::iter([Err(WatchEnd::Disconnected { reason: "odd".to_owned() })]))
            }
            end => Box::pin(stream::iter([Err(end)])),
        })
    }
}

/// Ends every watch that has not seen the revision that was compacted, though it owes nothing.
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
