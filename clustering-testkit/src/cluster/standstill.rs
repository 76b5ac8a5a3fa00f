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

/// Number of looks that the limit is divided into, and the number of those in which the runtime is asked.
const LOOKS: u32 = 10;
const ASKED: u32 = 3;

/// Detects that virtual time stands still because some task is always ready: tokio moves a paused clock only when the
/// runtime is idle.
///
/// A thread looks at the runtime from outside, because a wake from another thread would change the order of the tasks
/// and make the run irreproducible. It counts its looks instead of the time that has passed, so that a suspended test
/// is not mistaken for a busy one. Only if the runtime was not idle for most of the limit, it wakes a task of the
/// runtime. That task finds a standstill if it runs several times without any progress of the clock and without an idle
/// moment in between. Tasks that block the thread or compute for long are not mistaken for that, nor is a runtime that
/// waits for another thread.
pub(super) struct Standstill {
    found: Arc<watch::Sender<Option<Failure>>>,
    task: AbortHandle,
    /// Ends the thread when it is dropped.
    _ends: mpsc::Sender<()>,
}

impl Standstill {
    /// Starts to look, until the returned value is dropped.
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
        // Without the thread, a test that stands still hangs.
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

/// Returns how often the runtime was idle so far.
fn idle_moments(runtime: &Handle) -> u64 {
    runtime.metrics().worker_park_count(0)
}

/// Runs each time the thread suspects a standstill. Ends with the first standstill.
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

/// True if the tasks give way to each other quickly, so that the runtime is not busy with some long computations.
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
    /// Returns the number of polls of the tasks of each running process.
    fn polls(&self) -> Vec<(String, u64)> {
        let seats = self.shared.seats();
        let running = seats.all.iter().filter(|seat| seat.runs());
        running.map(|seat| (seat.name.clone(), seat.gate().polls())).collect()
    }

    /// Kills the process whose tasks are always ready, so that time moves on and the test can end. Returns the failure.
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
        let hint = "for example, a loop that selects on `lost()` of a hold that is lost already does not wait for \
                    anything: end the loop when the hold is lost";
        let failure = self.failure(what).hint(hint);
        // Tests that wait for something else do not see the failure before they end, if they end.
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
