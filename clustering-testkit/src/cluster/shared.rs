use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use clustering_core::Clustering;
use clustering_memory::MemoryStore;
use tokio::sync::watch;

use super::{
    Process,
    gate::{Gate, Kept, end_tasks},
    standstill::Standstill,
    unreported::{self, Seen},
};
use crate::{
    faulty::FaultyStore,
    history::{Clock, Moment, ledger::Follower},
};

pub(super) type Factory<S> =
    Arc<dyn Fn(Process) -> Pin<Box<dyn Future<Output = Result<S, String>> + Send>> + Send + Sync>;

/// State shared by the handles of a test cluster and its tasks.
pub(super) struct Shared<S> {
    pub(super) namespace: String,
    pub(super) seed: u64,
    pub(super) store: MemoryStore,
    pub(super) clock: Clock,
    pub(super) follower: Follower,
    pub(super) factory: Factory<S>,
    pub(super) verdicts: Arc<Verdicts>,
    pub(super) seats: Mutex<Seats<S>>,
    /// Counter that is incremented whenever the state of a process changes, to wake waiters.
    pub(super) changed: Arc<watch::Sender<u64>>,
    pub(super) standstill: Standstill,
    /// True if a check of the promises has passed.
    pub(super) was_checked: AtomicBool,
}

/// All processes in the order of their numbers, and the number of lives started so far.
pub(super) struct Seats<S> {
    pub(super) all: Vec<Seat<S>>,
    pub(super) lives: u64,
}

/// One process. Its connection to the store lasts across all its lives.
pub(super) struct Seat<S> {
    pub(super) name: String,
    pub(super) line: FaultyStore,
    /// All lives of the process; the last one is the current one.
    pub(super) gates: Vec<Arc<Gate>>,
    pub(super) stage: Stage<S>,
}

/// State of a process's current life.
pub(super) enum Stage<S> {
    /// The factory's future is running.
    Starting,
    /// The factory returned a service.
    Up(Arc<S>),
    /// The factory returned an error or panicked.
    Failed(String),
    /// The process was killed or stopped gracefully.
    Down,
}

impl<S> Seat<S> {
    /// Returns the gate of the current life, even if that life has ended.
    pub(super) fn gate(&self) -> &Arc<Gate> {
        self.gates.last().expect("each process has been launched once")
    }

    pub(super) fn runs(&self) -> bool {
        matches!(self.stage, Stage::Starting | Stage::Up(_))
    }

    pub(super) fn has_failed(&self) -> bool {
        matches!(self.stage, Stage::Failed(_))
    }

    pub(super) fn node(&self) -> Option<Clustering> {
        self.gate().node().filter(|_| self.runs())
    }

    /// True if the process is running, not paused and connected to the store, so that it can take part in the cluster.
    pub(super) fn takes_part(&self) -> bool {
        self.runs() && !self.gate().is_paused() && self.line.is_connected()
    }
}

impl<S> Shared<S> {
    pub(super) fn seats(&self) -> MutexGuard<'_, Seats<S>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tell_change(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    pub(super) fn journals(&self) -> Vec<Kept> {
        let seats = self.seats();
        seats.all.iter().flat_map(|seat| &seat.gates).flat_map(|gate| gate.journals()).collect()
    }
}

impl<S> Drop for Shared<S> {
    fn drop(&mut self) {
        let seats = self.seats.get_mut().unwrap_or_else(PoisonError::into_inner);
        let gates = || seats.all.iter().flat_map(|seat| &seat.gates);
        if self.was_checked.load(Ordering::Relaxed) {
            let exclusive = gates().any(|gate| gate.is_exclusive());
            unreported::ended(Seen { exclusive, work: gates().any(|gate| gate.has_worked()) });
        }
        gates().for_each(|gate| end_tasks(gate));
    }
}

/// Violations found while the cluster runs.
pub(super) struct Verdicts {
    pub(super) clock: Clock,
    /// Violations of the service's own promises, as reported by the service.
    violations: Mutex<Vec<(Moment, String)>>,
    /// Work without a valid hold (P12).
    without_hold: Mutex<Vec<(Moment, String)>>,
}

impl Verdicts {
    pub(super) fn new(clock: Clock) -> Self {
        Verdicts { clock, violations: Mutex::default(), without_hold: Mutex::default() }
    }

    pub(super) fn violated(&self, what: String) {
        self.push(&self.violations, what);
    }

    /// Adds a report that a process works on a key without a valid hold.
    pub(super) fn worked_without_hold(&self, what: String) {
        self.push(&self.without_hold, what);
    }

    pub(super) fn first_violation(&self) -> Option<(Moment, String)> {
        first(&self.violations)
    }

    pub(super) fn first_without_hold(&self) -> Option<(Moment, String)> {
        first(&self.without_hold)
    }

    fn push(&self, list: &Mutex<Vec<(Moment, String)>>, what: String) {
        list.lock().unwrap_or_else(PoisonError::into_inner).push((self.clock.now(), what));
    }
}

fn first(list: &Mutex<Vec<(Moment, String)>>) -> Option<(Moment, String)> {
    list.lock().unwrap_or_else(PoisonError::into_inner).first().cloned()
}
