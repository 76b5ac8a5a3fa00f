use std::{
    collections::BTreeMap,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use clustering_core::store::{Batch, Revision, WatchEnd, WatchStream};
use futures_util::Stream;

use super::{Control, Link, Met};

type WatchId = u64;

/// Watches that are open through a faulty store, and the faults that apply to them.
#[derive(Debug, Default)]
pub(super) struct Watches {
    open: BTreeMap<WatchId, Open>,
    last_id: WatchId,
    /// Prefix whose watches are stalled.
    stalled: Option<String>,
    woken: Vec<Waker>,
}

#[derive(Debug)]
struct Open {
    prefix: String,
    /// Revision of the last batch that was yielded, or the one that the watch was opened after.
    seen: Revision,
    /// Requested end, which the next poll returns.
    end: Option<WatchEnd>,
    waker: Option<Waker>,
}

impl Watches {
    pub(super) fn open(&mut self, prefix: &str, after: Revision) -> WatchId {
        self.last_id += 1;
        let open = Open { prefix: prefix.to_owned(), seen: after, end: None, waker: None };
        self.open.insert(self.last_id, open);
        self.last_id
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn end_all(&mut self, end: impl Fn(Revision) -> WatchEnd) {
        self.end_under("", end);
    }

    /// Ends the watches whose prefix starts with `prefix`. The first requested end of a watch applies.
    pub(super) fn end_under(&mut self, prefix: &str, end: impl Fn(Revision) -> WatchEnd) {
        for watch in self.open.values_mut().filter(|watch| watch.prefix.starts_with(prefix)) {
            watch.end.get_or_insert_with(|| end(watch.seen));
            self.woken.extend(watch.waker.take());
        }
    }

    pub(super) fn stall(&mut self, prefix: Option<&str>) {
        self.stalled = prefix.map(str::to_owned);
        self.wake_all();
    }

    pub(super) fn wake_all(&mut self) {
        self.woken.extend(self.open.values_mut().filter_map(|watch| watch.waker.take()));
    }

    pub(super) fn take_woken(&mut self) -> Vec<Waker> {
        mem::take(&mut self.woken)
    }

    /// Returns the action for a polled watch and registers its waker for the next command that affects it. Also returns
    /// the replaced waker, which must be dropped after the lock is released.
    fn poll(&mut self, id: WatchId, waker: &Waker) -> (Step, Option<Waker>) {
        let Some(watch) = self.open.get_mut(&id) else { return (Step::Pass, None) };
        if let Some(end) = watch.end.take() {
            return (Step::End(end), None);
        }
        let former = watch.waker.replace(waker.clone());
        let stalled = self.stalled.as_deref().is_some_and(|prefix| watch.prefix.starts_with(prefix));
        (if stalled { Step::Wait } else { Step::Pass }, former)
    }

    /// Returns the end of a watch that met a random fault.
    fn end_of(&self, id: WatchId, met: Met) -> WatchEnd {
        let seen = self.open.get(&id).map_or(Revision::ZERO, |watch| watch.seen);
        match met {
            Met::WatchCompacted => WatchEnd::Compacted { compacted: seen.next() },
            _ => WatchEnd::Disconnected { reason: "random fault".into() },
        }
    }

    fn saw(&mut self, id: WatchId, revision: Revision) {
        if let Some(watch) = self.open.get_mut(&id) {
            watch.seen = revision;
        }
    }
}

enum Step {
    Pass,
    Wait,
    End(WatchEnd),
}

/// Stream that passes another one through, subject to faults.
pub(super) struct FaultyWatch {
    control: Arc<Control>,
    id: WatchId,
    /// The underlying stream, or `None` after the end.
    stream: Option<WatchStream>,
}

impl FaultyWatch {
    pub(super) fn new(control: Arc<Control>, id: WatchId, stream: WatchStream) -> Self {
        FaultyWatch { control, id, stream: Some(stream) }
    }

    /// Releases the underlying stream and unregisters the watch.
    fn close(&mut self) {
        self.stream = None;
        let closed = self.control.locked(|state| state.watches.open.remove(&self.id));
        drop(closed);
    }
}

impl Stream for FaultyWatch {
    type Item = Result<Batch, WatchEnd>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(stream) = &mut this.stream else { return Poll::Ready(None) };
        let (step, former) = this.control.locked(|state| state.watches.poll(this.id, cx.waker()));
        drop(former);
        // Check the link only after the waker is registered, so that later changes of the link wake this watch.
        let step = match (step, this.control.link()) {
            // The watch was opened while the link was being cut.
            (Step::Pass | Step::Wait, Link::Cut) => {
                Step::End(WatchEnd::Disconnected { reason: "the test disconnected this node".into() })
            }
            (Step::Pass, Link::Hung | Link::RepliesHung) => Step::Wait,
            (step, _) => step,
        };
        let item = match step {
            Step::Wait => return Poll::Pending,
            Step::End(end) => Some(Err(end)),
            Step::Pass => {
                let item = std::task::ready!(stream.as_mut().poll_next(cx));
                this.control.locked(|state| {
                    let end = matches!(item, Some(Ok(_))).then(|| state.lot.watch_end()).flatten();
                    end.map_or(item, |met| Some(Err(state.watches.end_of(this.id, met))))
                })
            }
        };
        match &item {
            Some(Ok(batch)) => this.control.locked(|state| state.watches.saw(this.id, batch.revision)),
            Some(Err(_)) | None => this.close(),
        }
        Poll::Ready(item)
    }
}

impl Drop for FaultyWatch {
    fn drop(&mut self) {
        self.close();
    }
}
