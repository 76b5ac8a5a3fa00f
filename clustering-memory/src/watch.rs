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

/// How far a watch has come.
#[derive(Debug)]
pub(crate) struct Cursor {
    pub(crate) prefix: Arc<str>,
    pub(crate) id: WatchId,
    /// The revision of the last batch yielded, or the one that it began after.
    pub(crate) seen: Revision,
    /// When `seen` was last known to be the store's own history.
    pub(crate) time: Timeline,
}

/// What became of the wish to watch.
pub(crate) enum Opened {
    Live(Cursor),
    Ended(WatchEnd),
}

/// The stream of one watch. It owns its place in the history and, while it waits, a timer; the store knows of it
/// only its waker. Dropping it, or its end, frees both.
pub(crate) struct MemoryWatch {
    shared: Arc<Shared>,
    place: Place,
    /// What it was handed and has not yielded yet, so that a watch that is behind need not lock the store for each batch;
    /// and how often the store's history had been upset by then.
    fetched: VecDeque<Batch>,
    upsets: u64,
    /// Set while waiting: to the moment when the next lease expires, for then there may be changes although nobody
    /// calls the store.
    ///
    /// Each watch has its own, rather than one for all, so that none depends on another being polled. It is made anew
    /// for each wait since the stream may have moved to another runtime. It never needs to be woken for a deadline
    /// that comes up later: a key under this prefix comes under a lease only by a commit, which wakes the watch, and
    /// the expiry of a lease without such keys is none of its business.
    timer: Pin<Box<Option<Sleep>>>,
}

enum Place {
    At(Cursor),
    /// The end is known and not yielded yet.
    Ending(WatchEnd),
    Ended,
}

/// How many batches a watch is handed at a time.
const FETCHED: usize = 64;

/// What a look at the store shows.
enum Look {
    /// There was something to fetch.
    Fetched,
    /// Nothing yet; and when the next lease expires.
    Wait(Option<Instant>),
    End(WatchEnd),
}

impl MemoryWatch {
    pub(crate) fn new(shared: Arc<Shared>, opened: Opened) -> Self {
        let place = match opened {
            Opened::Live(cursor) => Place::At(cursor),
            Opened::Ended(end) => Place::Ending(end),
        };
        MemoryWatch { shared, place, fetched: VecDeque::new(), upsets: 0, timer: Box::pin(None) }
    }

    /// Takes the next batch of those that were fetched, unless the store's history is another one since.
    fn next_fetched(&mut self) -> Option<Batch> {
        if self.upsets != self.shared.upsets() {
            self.fetched.clear();
        }
        self.fetched.pop_front()
    }

    /// Fetches what comes next, or asks to be woken for it.
    fn look(
        shared: &Shared,
        cursor: &mut Cursor,
        fetched: &mut VecDeque<Batch>,
        upsets: &mut u64,
        waker: &Waker,
    ) -> Look {
        let (look, former) = shared.locked(|state| {
            // First, so that this watch is not woken by the expiries that it sees now.
            let former = state.watchers.stop_waiting(&cursor.prefix, cursor.id);
            state.expire();
            *upsets = shared.upsets();
            let look = match state.fetch(cursor, FETCHED, fetched) {
                Ok(true) => Look::Fetched,
                Err(end) => Look::End(end),
                Ok(false) => {
                    state.watchers.wait(&cursor.prefix, cursor.id, waker.clone());
                    Look::Wait(state.leases.next_deadline())
                }
            };
            (look, former)
        });
        drop(former);
        look
    }

    /// Frees what the watch held.
    fn end(&mut self) {
        if let Place::At(cursor) = mem::replace(&mut self.place, Place::Ended) {
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
        // A long backlog must not keep the other tasks waiting.
        let turn = ready!(poll_proceed(cx));
        loop {
            if let Some(batch) = this.next_fetched() {
                turn.made_progress();
                if let Place::At(cursor) = &mut this.place {
                    cursor.seen = batch.revision;
                }
                return Poll::Ready(Some(Ok(batch)));
            }
            let cursor = match &mut this.place {
                Place::At(cursor) => cursor,
                Place::Ending(end) => {
                    let end = end.clone();
                    this.end();
                    return Poll::Ready(Some(Err(end)));
                }
                Place::Ended => return Poll::Ready(None),
            };
            let look = Self::look(&this.shared, cursor, &mut this.fetched, &mut this.upsets, cx.waker());
            let deadline = match look {
                Look::Fetched => continue,
                Look::End(end) => {
                    turn.made_progress();
                    this.end();
                    return Poll::Ready(Some(Err(end)));
                }
                Look::Wait(deadline) => {
                    // Many watches wait, few are behind.
                    this.fetched.shrink_to(1);
                    deadline
                }
            };
            // Without a runtime there is no timer: the next call of anybody ends the lease.
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
