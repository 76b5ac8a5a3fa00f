use std::{
    future::Future,
    io::Write,
    sync::{Arc, Weak, mpsc},
    thread,
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    task::{AbortHandle, yield_now},
    time::Instant,
};

use super::{Failure, TestCluster, shared::Shared};

/// Real time for which virtual time may stand still while some task is always ready.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

/// Number of checks into which the limit is divided, and the number of those that also query the runtime.
const LOOKS: u32 = 10;
const ASKED: u32 = 3;

/// Detects that virtual time stands still because some task is always ready: tokio moves a paused clock only when the
/// runtime is idle.
///
/// A separate thread observes the runtime without waking it, because a wake from another thread would change the order
/// of the tasks and make the run irreproducible. The thread counts its checks instead of the elapsed time, so that a
/// suspended test is not mistaken for a busy one. Only if the runtime was never idle for most of the limit does the
/// thread wake a task of the runtime. That task reports a standstill if it runs several times while the clock does not
/// move and the runtime is never idle. Tasks that block the thread or compute for a long time are not mistaken for a
/// standstill, and neither is a runtime that waits for another thread.
pub(super) struct Standstill {
    found: Arc<watch::Sender<Option<Failure>>>,
    task: AbortHandle,
    /// Ends the thread when it is dropped.
    _ends: mpsc::Sender<()>,
}

impl Standstill {
    /// Starts watching for a standstill, until the returned value is dropped.
    pub(super) fn begin<S: Send + Sync + 'static>(limit: Duration, shared: Weak<Shared<S>>) -> Self {
        let (found, asked) = (Arc::new(watch::Sender::new(None)), Arc::new(Notify::new()));
        let (ends, ended) = mpsc::channel();
        let (runtime, asks) = (Handle::current(), asked.clone());
        let looking = move || {
            let (mut before, mut busy) = (0, 0);
            while ended.recv_timeout(limit / LOOKS) == Err(mpsc::RecvTimeoutError::Timeout) {
                let idle = idle_moments(&runtime);
                busy = if idle == before { busy + 1 } else { 0 };
                before = idle;
                if busy >= LOOKS - ASKED {
                    asks.notify_one();
                }
            }
        };
        // If the thread cannot be started, a test that stands still hangs, as it would without this check.
        drop(thread::Builder::new().name("standstill".to_owned()).spawn(looking));
        let task = tokio::spawn(answer(asked, found.clone(), limit, shared));
        Standstill { found, task: task.abort_handle(), _ends: ends }
    }

    pub(super) fn found(&self) -> Option<Failure> {
        self.found.borrow().clone()
    }
}

impl Drop for Standstill {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Returns how often the runtime has been idle so far.
fn idle_moments(runtime: &Handle) -> u64 {
    runtime.metrics().worker_park_count(0)
}

/// Checks again each time the thread suspects a standstill. Returns once a standstill is found.
async fn answer<S: Send + Sync + 'static>(
    asked: Arc<Notify>,
    found: Arc<watch::Sender<Option<Failure>>>,
    limit: Duration,
    shared: Weak<Shared<S>>,
) {
    let (mut before, mut polls, mut times) = (None, Vec::new(), 0);
    loop {
        asked.notified().await;
        let Some(shared) = shared.upgrade() else { return };
        let cluster = TestCluster { shared, patience: Duration::ZERO };
        let now = Some((Instant::now(), idle_moments(&Handle::current())));
        let is_busy = now == before && takes_turns().await;
        times = if is_busy { times + 1 } else { 0 };
        let polls_before = std::mem::replace(&mut polls, cluster.polls());
        before = now;
        if times + 1 == ASKED {
            found.send_replace(Some(cluster.stands_still(limit, &polls_before, &polls)));
            return;
        }
    }
}

/// True if the tasks yield to each other quickly, which means that the runtime is not busy with a few long
/// computations.
async fn takes_turns() -> bool {
    const TURNS: u32 = 16;
    const LIMIT: Duration = Duration::from_secs(3);
    let begun = std::time::Instant::now();
    for _ in 0..TURNS {
        yield_now().await;
    }
    begun.elapsed() < LIMIT
}

impl<S: Send + Sync + 'static> TestCluster<S> {
    /// Returns, for each running process, how often its tasks were polled.
    fn polls(&self) -> Vec<(String, u64)> {
        let seats = self.shared.seats();
        let running = seats.all.iter().filter(|seat| seat.runs());
        running.map(|seat| (seat.name.clone(), seat.gate().polls())).collect()
    }

    /// Kills the process whose tasks are polled most, so that time moves on and the test can end. Returns the failure.
    fn stands_still(&self, limit: Duration, before: &[(String, u64)], now: &[(String, u64)]) -> Failure {
        let polled = now.iter().filter_map(|(name, polls)| {
            let (_, before) = before.iter().find(|(known, _)| known == name)?;
            Some((polls.saturating_sub(*before), name))
        });
        let busiest = polled.max().filter(|(polls, _)| *polls > 0).map(|(_, name)| name);
        let task =
            busiest.map_or("a task outside of all processes".to_owned(), |name| format!("a task of {name}"));
        let what = format!(
            "virtual time has stood still for {limit:?} of real time, at {} s: {task} is always ready",
            self.shared.clock.now()
        );
        let hint = "for example, a loop that selects on `lost()` of a hold that is already lost never waits: end the \
                    loop when the hold is lost";
        let failure = self.failure(what).hint(hint);
        // Print it now: a test that waits for something else sees the failure late, or never if it hangs.
        let _ = writeln!(std::io::stderr(), "{}\n  {hint}", failure.what);
        if let Some(name) = busiest {
            self.crash(name);
        }
        failure
    }

    /// Returns the result of `work`, or fails if virtual time stands still.
    pub(super) async fn unless_still<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let mut found = self.shared.standstill.found.subscribe();
        tokio::select! {
            biased;
            Ok(found) = found.wait_for(Option::is_some) => Err(found.clone().expect("waited for it")),
            result = work => result,
        }
    }
}
