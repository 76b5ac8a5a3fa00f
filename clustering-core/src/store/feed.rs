use std::{future::Future, sync::Arc, vec};

use futures_util::{StreamExt, stream};
use tokio::{task::coop::consume_budget, time::Instant};

use super::{Batch, Revision, Signal, WatchEnd, WatchStream};

/// Number of batches that a feed asks for at a time.
const PAGE: usize = 64;

/// The log of a store, as one watch reads it; see [`feed`]. It is dropped when the watch ends or is dropped.
pub trait Log: Send + 'static {
    /// Returns the changes under `prefix` after the revision `after`, oldest first, in at most `limit` batches. Never
    /// returns a part of a revision.
    ///
    /// # Errors
    ///
    /// The reason why the watch cannot continue after `after`. [`WatchEnd::check`] finds out if changes were compacted
    /// or the store was rewound; compare and read in one snapshot of the store. If the page cannot be read, even after
    /// retries, the reason is [`WatchEnd::Disconnected`].
    fn page(
        &mut self,
        prefix: &str,
        after: Revision,
        limit: usize,
    ) -> impl Future<Output = Result<Page, WatchEnd>> + Send;
}

/// A part of a log; see [`Log::page`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The batches, in the order of their revisions.
    pub batches: Vec<Batch>,
    /// Revision up to which nothing is missing. The next page starts after it.
    ///
    /// For a page that ends before the end of the log, it is the revision of the last batch. Otherwise it may be the
    /// store's revision, so that a watch of a quiet prefix is not left behind by a compaction.
    pub reached: Revision,
    /// True if the page ends before the end of the log, so that the feed asks for the next one at once.
    pub more: bool,
    /// Time at which the feed reads the log again even if its signal has not been raised: the next time at which a
    /// lease may expire, or a limit on the delay if a notification is lost.
    pub again: Option<Instant>,
}

/// Returns a watch of `prefix` that reads the changes after the revision `after` page by page from a log.
///
/// It asks for a page when it is polled and has nothing left to deliver, so that a reader that lags costs no memory.
/// After the last page it waits for the signal. The signal must be raised after each change under the prefix, once a
/// page would show the change; raising it more often only costs a page. The first error of [`Log::page`] ends the
/// watch.
///
/// A store also has to [check](WatchEnd::check) `after` when the watch is opened, because the feed only does so when
/// it is polled, and by then the store may have passed a revision that was in the future. In that case, return the
/// watch that [`ended`] creates.
///
/// ```
/// # use std::{sync::{Arc, Mutex}, time::Duration};
/// use clustering_core::store::{Batch, Log, Page, Revision, Signal, WatchEnd, feed};
/// # use clustering_core::store::Change;
/// # use futures_util::StreamExt;
/// # use tokio::time::Instant;
///
/// /// A log in memory that is never compacted.
/// #[derive(Clone, Default)]
/// struct Changes(Arc<Mutex<Vec<Batch>>>);
///
/// impl Log for Changes {
///     async fn page(&mut self, prefix: &str, after: Revision, limit: usize) -> Result<Page, WatchEnd> {
///         let log = self.0.lock().unwrap();
///         let revision = log.last().map_or(Revision::ZERO, |batch| batch.revision);
///         WatchEnd::check(after, Revision::ZERO, revision)?;
///         let under = log.iter().filter(|batch| batch.revision > after).filter_map(|batch| {
///             batch.filtered(|change| change.key().starts_with(prefix))
///         });
///         let mut batches: Vec<Batch> = under.take(limit + 1).collect();
///         let more = batches.len() > limit;
///         batches.truncate(limit);
///         let reached = if more { batches[limit - 1].revision } else { revision };
///         // In case that a notification is lost.
///         Ok(Page { batches, reached, more, again: Some(Instant::now() + Duration::from_secs(10)) })
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let (log, signal) = (Changes::default(), Signal::new());
/// let mut watch = feed(log.clone(), "nodes/", Revision::ZERO, signal.clone());
/// let joined = Batch::new(Revision::new(1), [Change::Delete("nodes/a".into())]);
/// log.0.lock().unwrap().push(joined.clone());
/// signal.raise();
/// assert_eq!(watch.next().await, Some(Ok(joined)));
/// # }
/// ```
pub fn feed(log: impl Log, prefix: impl Into<Arc<str>>, after: Revision, signal: Signal) -> WatchStream {
    let fetched = Vec::new().into_iter();
    let feed = Feed { log, prefix: prefix.into(), after, signal, fetched, more: true, again: None };
    let next = |feed: Option<Feed<_>>| async move { feed?.next().await };
    Box::pin(stream::unfold(Some(feed), next).fuse())
}

/// Returns a watch that has ended, for a store that cannot continue after the requested revision.
pub fn ended(end: WatchEnd) -> WatchStream {
    Box::pin(stream::iter([Err(end)]))
}

/// The state of a feed between two items.
struct Feed<L> {
    log: L,
    prefix: Arc<str>,
    /// Revision up to which everything was fetched.
    after: Revision,
    signal: Signal,
    fetched: vec::IntoIter<Batch>,
    /// True if the log may have batches after the fetched ones.
    more: bool,
    again: Option<Instant>,
}

impl<L: Log> Feed<L> {
    /// Returns the next item, and the state unless the feed has ended.
    async fn next(mut self) -> Option<(Result<Batch, WatchEnd>, Option<Self>)> {
        // A watch with a long backlog must not starve other tasks.
        consume_budget().await;
        loop {
            if let Some(batch) = self.fetched.next() {
                return Some((Ok(batch), Some(self)));
            }
            if !self.more {
                self.signal.raised(self.again).await;
            }
            // Clear the signal before the page is read: a change after the page then raises it again and is not
            // missed.
            self.signal.clear();
            match self.log.page(&self.prefix, self.after, PAGE).await {
                Ok(Page { batches, reached, more, again }) => {
                    self.fetched = batches.into_iter();
                    (self.after, self.more, self.again) = (reached, more, again);
                }
                Err(end) => return Some((Err(end), None)),
            }
        }
    }
}

impl WatchEnd {
    /// Checks that a watch can continue after the revision `after`, on a store at `revision` whose changes up to
    /// `compacted` are gone.
    ///
    /// # Errors
    ///
    /// [`WatchEnd::Rewound`] if `after` is beyond the store's revision, and [`WatchEnd::Compacted`] if changes after it
    /// may be gone.
    pub fn check(after: Revision, compacted: Revision, revision: Revision) -> Result<(), WatchEnd> {
        if after > revision {
            return Err(WatchEnd::Rewound { revision });
        }
        if after < compacted {
            return Err(WatchEnd::Compacted { compacted });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        sync::{
            Mutex,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use futures_util::FutureExt;
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::store::Change;

    /// A log that returns the given pages, and empty pages after them.
    #[derive(Clone, Default)]
    struct Script(Arc<Told>);

    #[derive(Default)]
    struct Told {
        pages: Mutex<VecDeque<Result<Page, WatchEnd>>>,
        /// Revisions after which pages were asked for.
        asked: Mutex<Vec<u64>>,
        /// Number of logs that are open.
        open: AtomicUsize,
        /// Raised while the next page is read.
        meanwhile: Mutex<Option<Signal>>,
    }

    struct Opened(Script);

    impl Script {
        fn open(&self) -> Opened {
            self.0.open.fetch_add(1, Ordering::SeqCst);
            Opened(self.clone())
        }

        fn then(&self, page: Result<Page, WatchEnd>) {
            self.0.pages.lock().unwrap().push_back(page);
        }

        fn asked(&self) -> Vec<u64> {
            self.0.asked.lock().unwrap().clone()
        }
    }

    impl Drop for Opened {
        fn drop(&mut self) {
            self.0.0.open.fetch_sub(1, Ordering::SeqCst);
        }
    }

    impl Log for Opened {
        async fn page(&mut self, prefix: &str, after: Revision, _limit: usize) -> Result<Page, WatchEnd> {
            assert_eq!(prefix, "k");
            let told = &self.0.0;
            told.asked.lock().unwrap().push(after.get());
            let page = told.pages.lock().unwrap().pop_front();
            if let Some(signal) = told.meanwhile.lock().unwrap().take() {
                signal.raise();
            }
            page.unwrap_or(Ok(page_of([], after.get(), false)))
        }
    }

    fn page_of<const N: usize>(revisions: [u64; N], reached: u64, more: bool) -> Page {
        let batches = revisions.map(batch).to_vec();
        Page { batches, reached: Revision::new(reached), more, again: None }
    }

    fn batch(revision: u64) -> Batch {
        Batch::new(Revision::new(revision), [Change::Delete("k".into())])
    }

    fn started(script: &Script) -> (WatchStream, Signal) {
        let signal = Signal::new();
        (feed(script.open(), "k", Revision::ZERO, signal.clone()), signal)
    }

    fn ready(watch: &mut WatchStream) -> Option<Result<Batch, WatchEnd>> {
        watch.next().now_or_never().flatten()
    }

    #[test]
    fn pages_are_read_only_when_nothing_is_left_to_deliver() {
        let script = Script::default();
        script.then(Ok(page_of([1, 3], 3, true)));
        script.then(Ok(page_of([4], 9, false)));
        let (mut watch, signal) = started(&script);
        assert_eq!(script.asked(), [0; 0], "nothing is read before the first poll");
        assert_eq!(ready(&mut watch), Some(Ok(batch(1))));
        assert_eq!(ready(&mut watch), Some(Ok(batch(3))));
        assert_eq!(script.asked(), [0]);
        assert_eq!(ready(&mut watch), Some(Ok(batch(4))));
        assert_eq!((ready(&mut watch), script.asked()), (None, vec![0, 3]), "the last page was complete");
        signal.raise();
        assert_eq!((ready(&mut watch), script.asked()), (None, vec![0, 3, 9]));
    }

    #[test]
    fn a_signal_raised_while_a_page_is_read_causes_another_page() {
        let script = Script::default();
        let (mut watch, signal) = started(&script);
        *script.0.meanwhile.lock().unwrap() = Some(signal);
        script.then(Ok(page_of([], 0, false)));
        script.then(Ok(page_of([1], 1, false)));
        assert_eq!(ready(&mut watch), Some(Ok(batch(1))));
    }

    #[tokio::test]
    async fn a_raised_signal_wakes_a_waiting_watch() {
        let script = Script::default();
        let (mut watch, signal) = started(&script);
        let next = tokio::spawn(async move { watch.next().await });
        while script.asked().is_empty() {
            tokio::task::yield_now().await;
        }
        script.then(Ok(page_of([1], 1, false)));
        signal.raise();
        assert_eq!(next.await.unwrap(), Some(Ok(batch(1))));
    }

    #[tokio::test(start_paused = true)]
    async fn the_log_is_read_again_at_the_time_that_its_page_named() {
        let script = Script::default();
        let again = Some(Instant::now() + Duration::from_secs(10));
        script.then(Ok(Page { again, ..page_of([], 0, false) }));
        script.then(Ok(page_of([1], 1, false)));
        let (mut watch, _signal) = started(&script);
        assert!(timeout(Duration::from_secs(9), watch.next()).await.is_err());
        sleep(Duration::from_secs(2)).await;
        assert_eq!(watch.next().now_or_never().flatten(), Some(Ok(batch(1))));
    }

    #[test]
    fn a_watch_ends_once_with_the_reason_and_frees_the_log() {
        let reasons = [
            WatchEnd::Compacted { compacted: Revision::new(7) },
            WatchEnd::Rewound { revision: Revision::new(3) },
            WatchEnd::Disconnected { reason: "the connection was lost".to_owned() },
        ];
        for end in reasons {
            let script = Script::default();
            script.then(Ok(page_of([5], 5, true)));
            script.then(Err(end.clone()));
            let (mut watch, _signal) = started(&script);
            assert_eq!(ready(&mut watch), Some(Ok(batch(5))));
            assert_eq!(ready(&mut watch), Some(Err(end)));
            assert_eq!(script.0.open.load(Ordering::SeqCst), 0, "the log is dropped with the end");
            assert_eq!(watch.next().now_or_never(), Some(None));
            assert_eq!(watch.next().now_or_never(), Some(None), "polling again does no harm");
        }
    }

    #[test]
    fn dropping_a_watch_frees_the_log() {
        let script = Script::default();
        let (mut watch, _signal) = started(&script);
        assert_eq!(ready(&mut watch), None);
        drop(watch);
        assert_eq!(script.0.open.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_watch_continues_from_the_compacted_revision_up_to_the_stores_own() {
        let check = |after| WatchEnd::check(Revision::new(after), Revision::new(3), Revision::new(5));
        assert_eq!(check(2), Err(WatchEnd::Compacted { compacted: Revision::new(3) }));
        assert_eq!([check(3), check(5)], [Ok(()), Ok(())]);
        assert_eq!(check(6), Err(WatchEnd::Rewound { revision: Revision::new(5) }));
    }
}
