use std::sync::{Mutex, PoisonError};

use clustering_core::store::Signal;
use tokio::time::Instant;

use crate::state::{Settings, State};

/// The state of a store behind its lock, shared by handles and watches.
#[derive(Default)]
pub(crate) struct Shared {
    state: Mutex<State>,
}

impl Shared {
    pub(crate) fn new(settings: Settings) -> Self {
        Shared { state: Mutex::new(State::new(settings)) }
    }

    /// Runs `work` on the current state, after ending all expired leases.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut State, Instant) -> R) -> R {
        self.locked(|state| {
            let now = state.expire();
            work(state, now)
        })
    }

    /// Runs `work` on the state under its lock, and then raises the signals of the affected watches.
    ///
    /// `work` must not raise or drop a signal. That may run code of the watch's task, which may call the store or
    /// drop one of its watches, and would deadlock.
    pub(crate) fn locked<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        let (result, raised) = {
            // A panic under the lock is a bug in this crate. Poisoning would only make every later call panic as well.
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            (work(&mut state), state.watchers.take_raised())
        };
        raised.iter().for_each(Signal::raise);
        result
    }
}
