use std::{panic::resume_unwind, sync::Arc, thread};

use tokio::runtime::{Builder, Runtime};

use super::Faults;
use crate::conformance::Clock;

/// Runs one scenario on its own runtime, with the clock that the store's [`bounds`](super::Faults::bounds) select.
/// This is the body of every test that [`fault_tests!`](crate::fault_tests) generates.
///
/// `name` is the name of the scenario. The store is created on the scenario's runtime and dropped with it. If it asks
/// for a paused clock, it is created a second time, on a runtime whose clock was paused from the start.
///
/// # Panics
///
/// Panics if a promise is broken or the cluster does not recover.
pub fn run<F, M>(
    name: &'static str,
    make: impl Fn() -> M + Send + 'static,
    scenario: impl AsyncFnOnce(Arc<F>) + Send + 'static,
) where
    F: Faults,
    M: Future<Output = F>,
{
    let running = move || {
        let real = runtime(Clock::Real);
        let faults = Arc::new(real.block_on(make()));
        match faults.bounds().clock {
            Clock::Real => {
                real.block_on(scenario(faults));
                // Nodes that are still running must not delay the end.
                real.shutdown_background();
            }
            Clock::Paused => {
                drop((faults, real));
                runtime(Clock::Paused).block_on(async { scenario(Arc::new(make().await)).await });
            }
        }
    };
    // A thread named after the scenario, so that panic messages show the scenario.
    let running = thread::Builder::new().name(name.to_owned()).spawn(running);
    if let Err(violation) = running.expect("the system has a thread to spare").join() {
        resume_unwind(violation);
    }
}

fn runtime(clock: Clock) -> Runtime {
    let built = match clock {
        // A second thread keeps the proxies running if the store's fixture blocks one.
        Clock::Real => Builder::new_multi_thread().worker_threads(2).enable_all().build(),
        Clock::Paused => Builder::new_current_thread().enable_all().start_paused(true).build(),
    };
    built.expect("tokio builds a runtime")
}
