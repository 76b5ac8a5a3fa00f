use std::{
    collections::VecDeque,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use clustering_core::store::{Batch, Revision, WatchEnd};
use futures_core::Stream;
use tokio::{
    runtime::Handle,
    task::coop::poll_proceed,
    time::{Instant, Sleep, sleep_until},
};

use crate::{backup::Timeline, handle::Shared, watchers::WatchId};

/// The position of a watch in the history.
#[derive(Debug)]
pub(crate) struct Cursor {
    pub(crate) prefix: Arc<str>,
    pub(crate) id: WatchId,
    /// Revision of the last batch yielded, or the revision after which the watch started.
    pub(crate) seen: Revision,
    /// The timeline on which `seen` was last known to be part of the store's history.
    pub(crate) timeline: Timeline,
}

/// The result of opening a watch.
pub(crate) enum Opened {
    Live(Cursor),
    Ended(WatchEnd),
}

/// The stream of one watch. It owns its position in the history and, while it waits, a timer. The store keeps only its
/// waker. Everything is freed when the stream ends or is dropped.
pub(crate) struct MemoryWatch {
    shared: Arc<Shared>,
    phase: Phase,
    /// Batches that were fetched but not yet yielded, so that a watch that is behind need not lock the store for each
    /// batch.
    fetched: VecDeque<Batch>,
    /// Generation of the store's history when `fetched` was filled.
    generation: u64,
    /// Timer that runs while the watch waits, set to the earliest deadline of a lease, because an expiry may change
    /// keys without any call to the store.
    ///
    /// Each watch has its own timer, so that no watch depends on another being polled. The timer is created anew for
    /// each wait, because the stream may have moved to another runtime. It need not be reset when a lease with an
    /// earlier deadline appears: a key under this prefix gets a lease only by a commit, which wakes the watch, and the
    /// expiry of a lease without such keys does not concern the watch.
    timer: Pin<Box<Option<Sleep>>>,
}

enum Phase {
    Live(Cursor),
    /// The watch has ended, but the reason has not been yielded yet.
    Ending(WatchEnd),
    Ended,
}

/// Maximum number of batches that a watch fetches at a time.
const FETCH_LIMIT: usize = 64;

/// The result of [`MemoryWatch::fetch_or_wait`].
enum Fetch {
    /// At least one batch was fetched.
    Fetched,
    /// There is nothing to fetch yet. Carries the earliest deadline of a lease.
    Wait(Option<Instant>),
    End(WatchEnd),
}

impl MemoryWatch {
    pub(crate) fn new(shared: Arc<Shared>, opened: Opened) -> Self {
        let phase = match opened {
            Opened::Live(cursor) => Phase::Live(cursor),
            Opened::Ended(end) => Phase::Ending(end),
        };
        MemoryWatch { shared, phase, fetched: VecDeque::new(), generation: 0, timer: Box::pin(None) }
    }

    /// Returns the next fetched batch. Discards all fetched batches if the store's history has been altered since.
    fn next_fetched(&mut self) -> Option<Batch> {
        if self.generation != self.shared.generation() {
            self.fetched.clear();
        }
        self.fetched.pop_front()
    }

    /// Fetches the next batches, or registers `waker` to be woken when there are any.
    fn fetch_or_wait(
        shared: &Shared,
        cursor: &mut Cursor,
        fetched: &mut VecDeque<Batch>,
        generation: &mut u64,
        waker: &Waker,
    ) -> Fetch {
        let (fetch, former) = shared.locked(|state| {
            // Before `expire`, so that this watch is not woken by expiries that it is about to see anyway.
            let former = state.watchers.stop_waiting(&cursor.prefix, cursor.id);
            state.expire();
            *generation = shared.generation();
            let fetch = match state.fetch(cursor, FETCH_LIMIT, fetched) {
                Ok(true) => Fetch::Fetched,
                Err(end) => Fetch::End(end),
                Ok(false) => {
                    state.watchers.wait(&cursor.prefix, cursor.id, waker.clone());
                    Fetch::Wait(state.leases.next_deadline())
                }
            };
            (fetch, former)
        });
        // Dropped only after the store is unlocked: dropping a waker may run foreign code.
        drop(former);
        fetch
    }

    /// Ends the watch and frees its resources.
    fn end(&mut self) {
        if let Phase::Live(cursor) = mem::replace(&mut self.phase, Phase::Ended) {
            let former = self.shared.locked(|state| state.watchers.close(&cursor.prefix, cursor.id));
            drop(former);
        }
        self.timer.set(None);
    }
}

impl Stream for MemoryWatch {
    type Item = Result<Batch, WatchEnd>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        // A watch with a long backlog must not starve other tasks.
        let turn = ready!(poll_proceed(cx));
        loop {
            if let Some(batch) = this.next_fetched() {
                turn.made_progress();
                if let Phase::Live(cursor) = &mut this.phase {
                    cursor.seen = batch.revision;
                }
                return Poll::Ready(Some(Ok(batch)));
            }
            let cursor = match &mut this.phase {
                Phase::Live(cursor) => cursor,
                Phase::Ending(end) => {
                    let end = end.clone();
                    this.end();
                    return Poll::Ready(Some(Err(end)));
                }
                Phase::Ended => return Poll::Ready(None),
            };
            let (fetched, generation) = (&mut this.fetched, &mut this.generation);
            let deadline = match Self::fetch_or_wait(&this.shared, cursor, fetched, generation, cx.waker()) {
                Fetch::Fetched => continue,
                Fetch::End(end) => {
                    turn.made_progress();
                    this.end();
                    return Poll::Ready(Some(Err(end)));
                }
                Fetch::Wait(deadline) => {
                    // Release the memory of the buffer: many watches wait at the same time, but few are behind.
                    this.fetched.shrink_to(1);
                    deadline
                }
            };
            // Outside of a runtime there is no timer. The lease then ends with the next call to the store.
            let deadline = deadline.filter(|_| Handle::try_current().is_ok());
            this.timer.set(deadline.map(sleep_until));
            match this.timer.as_mut().as_pin_mut() {
                Some(timer) => ready!(timer.poll(cx)),
                None => return Poll::Pending,
            }
        }
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        self.end();
    }
}
