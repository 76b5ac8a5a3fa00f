use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use clustering_core::Clustering;
use clustering_memory::MemoryStore;
use tokio::sync::watch;

use super::{
    Process,
    gate::{Gate, Kept, end_tasks},
};
use crate::{
    faulty::FaultyStore,
    history::{Clock, Moment, ledger::Follower},
};

pub(super) type Factory<S> =
    Arc<dyn Fn(Process) -> Pin<Box<dyn Future<Output = Result<S, String>> + Send>> + Send + Sync>;

/// What a test cluster and its tasks share.
pub(super) struct Shared<S> {
    pub(super) namespace: String,
    pub(super) seed: u64,
    pub(super) store: MemoryStore,
    pub(super) clock: Clock,
    pub(super) follower: Follower,
    pub(super) factory: Factory<S>,
    pub(super) verdicts: Arc<Verdicts>,
    pub(super) seats: Mutex<Seats<S>>,
    /// Counts what happens to processes, for those who wait for something.
    pub(super) changed: Arc<watch::Sender<u64>>,
}

/// All processes, in the order of their numbers.
pub(super) struct Seats<S> {
    pub(super) all: Vec<Seat<S>>,
    pub(super) lives: u64,
}

/// One process: its line to the store stays, its lives come and go.
pub(super) struct Seat<S> {
    pub(super) name: String,
    pub(super) line: FaultyStore,
    /// All lives, the present one last.
    pub(super) gates: Vec<Arc<Gate>>,
    pub(super) stage: Stage<S>,
}

/// What became of a process's present life.
pub(super) enum Stage<S> {
    /// The factory's future runs.
    Starting,
    /// It gave a service.
    Up(Arc<S>),
    /// It gave an error, or panicked.
    Failed(String),
    /// It was killed, or stopped in good order.
    Down,
}

impl<S> Seat<S> {
    /// The present life's gate, whether or not it still runs.
    pub(super) fn gate(&self) -> &Arc<Gate> {
        self.gates.last().expect("each seat is made with a life")
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

    /// Whether the others can hear of it.
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
        seats.all.iter().flat_map(|seat| &seat.gates).for_each(|gate| end_tasks(gate));
    }
}

/// What the service under test said against itself.
pub(super) struct Verdicts {
    pub(super) clock: Clock,
    pub(super) violations: Mutex<Vec<(Moment, String)>>,
}

impl Verdicts {
    pub(super) fn violated(&self, what: String) {
        let violation = (self.clock.now(), what);
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).push(violation);
    }

    pub(super) fn first(&self) -> Option<(Moment, String)> {
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).first().cloned()
    }
}
