use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};

use futures_util::task::AtomicWaker;
use tokio::{
    runtime::Handle,
    time::{Instant, sleep_until},
};

/// Tells a [feed](fn@super::feed) to look at the log again. Clones share one signal.
///
/// A signal that is raised while its feed reads a page is not lost: the feed reads another page.
#[derive(Clone, Debug, Default)]
pub struct Signal(Arc<Raised>);

#[derive(Debug, Default)]
struct Raised {
    raised: AtomicBool,
    waker: AtomicWaker,
}

impl Signal {
    /// Creates a signal that has not been raised.
    pub fn new() -> Self {
        Signal::default()
    }

    /// Raises the signal and wakes its feed. This may run code of the feed's task, so call it without holding a lock.
    pub fn raise(&self) {
        self.0.raise();
    }

    /// Resets the signal before a page is read. If it is raised again from now on, the feed reads another page.
    pub(super) fn clear(&self) {
        self.0.raised.store(false, Ordering::SeqCst);
        // A feed that reads a page need not be woken.
        drop(self.0.waker.take());
    }

    /// Waits until the signal is raised, or until `again`.
    pub(super) async fn raised(&self, again: Option<Instant>) {
        let mut timer = pin!(None);
        poll_fn(|context| {
            self.0.waker.register(context.waker());
            if self.0.raised.load(Ordering::SeqCst) || again.is_some_and(|again| again <= Instant::now()) {
                return Poll::Ready(());
            }
            // A timer belongs to a runtime. The timer is created for each poll, because the watch may have moved to
            // another runtime.
            let again = again.filter(|_| Handle::try_current().is_ok());
            timer.set(again.map(sleep_until));
            timer.as_mut().as_pin_mut().map_or(Poll::Pending, |timer| timer.poll(context))
        })
        .await;
    }
}

impl Raised {
    fn raise(&self) {
        self.raised.store(true, Ordering::SeqCst);
        self.waker.wake();
    }
}

/// The signals of a store's open watches, for a store that learns the keys of a change: a change wakes only the watches
/// of these keys.
///
/// ```
/// use clustering_core::store::Signals;
///
/// let signals = Signals::default();
/// let nodes = signals.subscribe("ingest/view/nodes/");
/// // For each key of a notification:
/// signals.raise("ingest/view/nodes/a");
/// // After notifications may have been lost, for example because the connection was replaced:
/// signals.raise_all();
/// # drop(nodes);
/// ```
#[derive(Debug, Default)]
pub struct Signals(Mutex<Vec<(Arc<str>, Weak<Raised>)>>);

impl Signals {
    /// Returns a signal that is raised by each change of a key that starts with `prefix`, until it is dropped.
    ///
    /// Subscribe before the feed reads its first page, or changes in between are noticed late.
    pub fn subscribe(&self, prefix: &str) -> Signal {
        let signal = Signal::new();
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(_, signal)| signal.strong_count() > 0);
        open.push((prefix.into(), Arc::downgrade(&signal.0)));
        signal
    }

    /// Raises the signals whose prefix `key` starts with.
    pub fn raise(&self, key: &str) {
        self.raise_those(|prefix| key.starts_with(prefix));
    }

    /// Raises all signals.
    pub fn raise_all(&self) {
        self.raise_those(|_| true);
    }

    fn raise_those(&self, concerned: impl Fn(&str) -> bool) {
        let raised: Vec<Arc<Raised>> = {
            let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            open.iter()
                .filter(|(prefix, _)| concerned(prefix))
                .filter_map(|(_, signal)| signal.upgrade())
                .collect()
        };
        raised.iter().for_each(|signal| signal.raise());
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn is_raised(signal: &Signal) -> bool {
        signal.raised(None).now_or_never().is_some()
    }

    #[test]
    fn a_change_raises_only_the_signals_of_its_key() {
        let signals = Signals::default();
        let [nodes, ready, all] = ["view/nodes/", "ready/", ""].map(|prefix| signals.subscribe(prefix));
        signals.raise("view/nodes/a");
        assert_eq!([&nodes, &ready, &all].map(is_raised), [true, false, true]);
        all.clear();
        assert!(!is_raised(&all));
        signals.raise_all();
        assert_eq!([&nodes, &ready, &all].map(is_raised), [true, true, true]);
    }

    #[test]
    fn a_dropped_signal_is_forgotten() {
        let signals = Signals::default();
        drop(signals.subscribe("a"));
        let _kept = signals.subscribe("a");
        assert_eq!(signals.0.lock().unwrap().len(), 1);
    }
}
