use std::{
    collections::BTreeMap,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use thiserror::Error;
use tokio::{
    runtime::Handle,
    task::{JoinError, JoinHandle},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{Hold, Holds, NotHeld, table::Acquisition};
use crate::{runtime::spawn::spawn_task, slots::Slot};

/// Reason why [`while_held`](crate::Clustering::while_held) did not return the result of the work.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WorkError {
    /// The work did not begin, because the key is not held.
    #[error(transparent)]
    NotHeld(#[from] NotHeld),
    /// The slot was lost while the work was running, and the work was dropped because it did not return in time.
    #[error("the slot was lost, and the work was dropped because it did not return in time")]
    Dropped,
}

/// Runs work on a held slot. Once the slot is lost, the work has the time `grace` to return, but not longer than the
/// hold is valid; then it is dropped, and the driver is notified. Returns `None` if the work was dropped. The hold is
/// always dropped after the work.
pub(crate) async fn work<F: Future>(
    hold: Arc<Hold>,
    work: impl FnOnce(Arc<Hold>) -> F,
    grace: Option<Duration>,
) -> Option<F::Output> {
    let running = pin!(work(hold.clone()));
    tokio::select! {
        biased;
        result = running => Some(result),
        after = over(&hold, grace) => {
            hold.acquisition.work_dropped(after);
            None
        }
    }
}

/// Waits until the work on a slot is to be dropped. Returns the time since the work was told to end.
async fn over(hold: &Hold, grace: Option<Duration>) -> Duration {
    hold.lost().await;
    let lost = Instant::now();
    let patience = async {
        match grace {
            Some(grace) => tokio::time::sleep(grace).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = hold.void() => {}
        () = patience => {}
    }
    lost.elapsed()
}

/// Handle to the tasks of [`for_each_held_slot`](crate::Clustering::for_each_held_slot).
///
/// Dropping the handle does not end the tasks: each ends with its slot, and at the latest with the node.
#[derive(Debug)]
pub struct HeldTasks(JoinHandle<()>);

impl HeldTasks {
    /// Waits until the node and all tasks have ended. Cancel safe.
    pub async fn ended(&mut self) {
        if !self.0.is_finished() {
            // An error means that the runtime is shutting down, which also ends the tasks.
            let _ = (&mut self.0).await;
        }
    }
}

/// Starts a task for each slot that is held, until `end` is cancelled and all tasks have ended.
pub(crate) fn supervise<F, R>(
    holds: Arc<Holds>,
    end: CancellationToken,
    grace: Option<Duration>,
    work: F,
) -> HeldTasks
where
    F: Fn(Arc<Hold>) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let work = Arc::new(work);
    let supervisor = Supervisor { grace, work, tasks: FuturesUnordered::new(), last: BTreeMap::new() };
    HeldTasks(spawn_task(&Handle::current(), supervisor.run(holds, end)))
}

type Task = Pin<Box<dyn Future<Output = (Slot, Result<(), JoinError>)> + Send>>;

struct Supervisor<F> {
    grace: Option<Duration>,
    work: Arc<F>,
    tasks: FuturesUnordered<Task>,
    /// For each slot, the last acquisition for which a task was started.
    last: BTreeMap<Slot, Last>,
}

struct Last {
    acquisition: Arc<Acquisition>,
    is_running: bool,
}

impl<F, R> Supervisor<F>
where
    F: Fn(Arc<Hold>) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    async fn run(mut self, holds: Arc<Holds>, end: CancellationToken) {
        let mut changes = holds.changes();
        while !end.is_cancelled() {
            // Mark the change as seen before the table is read, so that the next change is not missed.
            changes.borrow_and_update();
            self.start(&holds);
            tokio::select! {
                biased;
                Some((slot, result)) = self.tasks.next() => self.ended(slot, result),
                // The sender lives as long as the table.
                _ = changes.changed() => {}
                () = end.cancelled() => {}
            }
        }
        while let Some((slot, result)) = self.tasks.next().await {
            self.ended(slot, result);
        }
    }

    /// Starts a task for each acquisition that has had no task, unless the task of an earlier acquisition of the slot
    /// is still running.
    fn start(&mut self, holds: &Holds) {
        for acquisition in holds.slots().iter() {
            let is_due = self
                .last
                .get(&acquisition.slot)
                .is_none_or(|last| !last.is_running && !Arc::ptr_eq(&last.acquisition, acquisition));
            if is_due && let Some(hold) = acquisition.hold() {
                self.spawn(hold);
            }
        }
    }

    fn spawn(&mut self, hold: Hold) {
        let (slot, acquisition) = (hold.slot(), hold.acquisition.clone());
        let (run, grace) = (self.work.clone(), self.grace);
        let task = spawn_task(&Handle::current(), async move {
            work(Arc::new(hold), |hold| run(hold), grace).await;
        });
        self.tasks.push(Box::pin(async move { (slot, task.await) }));
        self.last.insert(slot, Last { acquisition, is_running: true });
    }

    fn ended(&mut self, slot: Slot, result: Result<(), JoinError>) {
        if let Some(last) = self.last.get_mut(&slot) {
            last.is_running = false;
        }
        if result.is_err_and(|error| error.is_panic()) {
            tracing::error!(
                target: "clustering", %slot,
                "the task of a held slot panicked; a new task starts when the slot is acquired again"
            );
        }
    }
}
