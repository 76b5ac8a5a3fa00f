use std::{
    panic::resume_unwind,
    sync::{PoisonError, RwLock, mpsc},
    thread,
    time::Duration,
};

use tokio::{
    runtime::{Builder, Runtime},
    time,
};

use super::{Clock, Harness};

/// Held exclusively by the check that compacts, because compaction affects every user of a shared store. All other
/// checks share it.
static SHARED: RwLock<()> = RwLock::new(());

/// Limit on tokio's paused clock. Waiting takes no real time there, so a check that hangs reaches it at once.
const PAUSED_LIMIT: Duration = Duration::from_secs(100 * 24 * 60 * 60);

/// Time beyond a check's own limit after which its thread counts as blocked.
const GRACE: Duration = Duration::from_secs(60);

/// Runs one check on its own runtime, with the clock that the harness states and a time limit. This is the body of
/// every test that [`conformance_tests!`](crate::conformance_tests) generates.
///
/// `name` is the name of the check. The harness is created on the check's runtime and dropped with it. If it asks for a
/// paused clock, it is created a second time, on a runtime whose clock was paused from the start: a clock that is
/// paused later starts at a random fraction of a millisecond, which changes the order of timers from run to run.
///
/// # Panics
///
/// Panics if the store breaks the rule or the check takes too long. The message states the rule, what was expected and
/// what the store did.
pub fn run<H: Harness>(
    name: &'static str,
    harness: impl Fn() -> H + Send + 'static,
    check: impl AsyncFnOnce(&H) + Send + 'static,
) {
    let (started, limit) = mpsc::channel();
    let (finished, end) = mpsc::channel::<()>();
    // A separate thread, so that a store that blocks its thread does not block the test.
    let checking = thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _finished = finished;
        let running = runtime(false);
        let made = running.block_on(async { harness() });
        let bounds = made.bounds();
        let judged = async |harness: H, limit: Duration| {
            let _ = started.send(bounds.check_limit());
            if time::timeout(limit, check(&harness)).await.is_err() {
                panic!(
                    "{name} did not finish within {limit:?}, though each call of the store answered in time"
                );
            }
        };
        match bounds.clock {
            Clock::Paused => {
                drop((made, running));
                runtime(true).block_on(async { judged(harness(), PAUSED_LIMIT).await });
            }
            Clock::Real => {
                let compacts = name == "rule_03_watches_yield_every_change";
                let (_alone, _beside) = match compacts {
                    true => (Some(SHARED.write().unwrap_or_else(PoisonError::into_inner)), None),
                    false => (None, Some(SHARED.read().unwrap_or_else(PoisonError::into_inner))),
                };
                running.block_on(judged(made, bounds.check_limit()));
            }
        }
    });
    let checking = checking.expect("the system has a thread to spare");
    // Waiting for exclusive use of the store is not limited. An error here means that the thread has ended.
    if let Ok(limit) = limit.recv()
        && let Err(mpsc::RecvTimeoutError::Timeout) = end.recv_timeout(limit + GRACE)
    {
        panic!("{name} blocks its thread: a call to the store neither returned nor yielded");
    }
    if let Err(violation) = checking.join() {
        resume_unwind(violation);
    }
}

fn runtime(paused: bool) -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().start_paused(paused).build().expect("tokio builds a runtime")
}
