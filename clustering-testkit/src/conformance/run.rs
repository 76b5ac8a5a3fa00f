use std::{
    panic::resume_unwind,
    sync::{PoisonError, RwLock, mpsc},
    thread,
    time::Duration,
};

use tokio::{runtime, time};

use super::{Clock, Harness};

/// Compaction touches everybody who shares a store: the check that compacts runs alone, the others beside each other.
static SHARED: RwLock<()> = RwLock::new(());

/// Under a paused clock waiting takes no time, and a check that hangs gets here at once.
const PAUSED_LIMIT: Duration = Duration::from_secs(100 * 24 * 60 * 60);

/// How long a check may take longer than its own limit says, before its thread counts as blocked.
const GRACE: Duration = Duration::from_secs(60);

/// Runs one check on a runtime of its own, with the clock that the harness says, and a limit of time. This is the body
/// of every test that [`conformance_tests!`](crate::conformance_tests) makes.
///
/// `name` is that of the check. The harness is made on the check's runtime, and dropped with it.
///
/// # Panics
///
/// If the store breaks the rule, or the check takes too long. The text says which rule, what was expected and what the
/// store did.
pub fn run<H: Harness>(
    name: &'static str,
    harness: impl FnOnce() -> H + Send + 'static,
    check: impl AsyncFnOnce(&H) + Send + 'static,
) {
    let (started, limit) = mpsc::channel();
    let (finished, end) = mpsc::channel::<()>();
    // On a thread of its own: a store that blocks its thread must not block the test.
    let checking = thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _finished = finished;
        let runtime =
            runtime::Builder::new_current_thread().enable_all().build().expect("tokio builds a runtime");
        runtime.block_on(async {
            let harness = harness();
            let bounds = harness.bounds();
            let limit = match bounds.clock {
                Clock::Paused => PAUSED_LIMIT,
                Clock::Real => bounds.check_limit(),
            };
            let compacts = name == "rule_03_watches_yield_every_change";
            let (_alone, _beside) = match (bounds.clock, compacts) {
                (Clock::Paused, _) => (None, None),
                (Clock::Real, true) => (Some(SHARED.write().unwrap_or_else(PoisonError::into_inner)), None),
                (Clock::Real, false) => (None, Some(SHARED.read().unwrap_or_else(PoisonError::into_inner))),
            };
            if bounds.clock == Clock::Paused {
                time::pause();
            }
            let _ = started.send(bounds.check_limit());
            if time::timeout(limit, check(&harness)).await.is_err() {
                panic!(
                    "{name} did not finish within {limit:?}, though each call of the store answered in time"
                );
            }
        });
    });
    let checking = checking.expect("the system has a thread to spare");
    // No limit while others have the store to themselves. An error means that the thread is at its end.
    if let Ok(limit) = limit.recv()
        && let Err(mpsc::RecvTimeoutError::Timeout) = end.recv_timeout(limit + GRACE)
    {
        panic!("{name} blocks its thread: some call of the store neither answers nor yields");
    }
    if let Err(violation) = checking.join() {
        resume_unwind(violation);
    }
}
