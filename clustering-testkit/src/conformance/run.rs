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

/// Compaction touches everybody who shares a store: the check that compacts runs alone, the others beside each other.
static SHARED: RwLock<()> = RwLock::new(());

/// Under a paused clock waiting takes no time, and a check that hangs gets here at once.
const PAUSED_LIMIT: Duration = Duration::from_secs(100 * 24 * 60 * 60);

/// How long a check may take longer than its own limit says, before its thread counts as blocked.
const GRACE: Duration = Duration::from_secs(60);

/// Runs one check on a runtime of its own, with the clock that the harness says, and a limit of time. This is the body
/// of every test that [`conformance_tests!`](crate::conformance_tests) makes.
///
/// `name` is that of the check. The harness is made on the check's runtime, and dropped with it. If it turns out to want
/// a paused clock, it is made anew on a runtime that was paused from its first moment: one that ran for a while has a
/// fraction of a millisecond that differs from run to run, and so would the order of timers.
///
/// # Panics
///
/// If the store breaks the rule, or the check takes too long. The text says which rule, what was expected and what the
/// store did.
pub fn run<H: Harness>(
    name: &'static str,
    harness: impl Fn() -> H + Send + 'static,
    check: impl AsyncFnOnce(&H) + Send + 'static,
) {
    let (started, limit) = mpsc::channel();
    let (finished, end) = mpsc::channel::<()>();
    // On a thread of its own: a store that blocks its thread must not block the test.
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

fn runtime(paused: bool) -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().start_paused(paused).build().expect("tokio builds a runtime")
}
