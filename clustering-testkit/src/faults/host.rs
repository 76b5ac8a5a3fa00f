use std::{
    pin::Pin,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

use tokio::{
    runtime::{Builder, Handle},
    sync::{oneshot, watch},
    time::timeout,
};

use super::gate::Gate;
use crate::conformance::Clock;

/// Time limit for a thread to end or to pause, generous enough for a machine that is compiling at the same time.
const PATIENCE: Duration = Duration::from_secs(60);

/// A place where one life of a node runs, which can be paused and killed like a process.
pub(super) enum Host {
    /// A thread with its own runtime, on a real clock.
    Thread(Thread),
    /// Tasks of the suite's own runtime, on a paused clock.
    Gate(Arc<Gate>),
}

pub(super) struct Thread {
    runtime: Handle,
    killed: watch::Sender<bool>,
    /// Resolves when the thread has ended.
    ended: watch::Receiver<bool>,
    pause: Arc<Pause>,
}

#[derive(Default)]
struct Pause {
    is_paused: Mutex<bool>,
    changed: Condvar,
}

type Work = Pin<Box<dyn Future<Output = ()>>>;

impl Host {
    /// Runs the future that `work` returns.
    pub(super) fn start<F>(clock: Clock, name: &str, work: impl FnOnce() -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        match clock {
            Clock::Real => Host::Thread(Thread::start(name, move || Box::pin(work()))),
            Clock::Paused => {
                let gate = Arc::<Gate>::default();
                gate.spawn(work());
                Host::Gate(gate)
            }
        }
    }

    /// Freezes the node. Returns once none of its tasks runs any more.
    pub(super) async fn pause(&self) {
        match self {
            Host::Thread(thread) => thread.pause().await,
            Host::Gate(gate) => gate.shut(),
        }
    }

    pub(super) fn resume(&self) {
        match self {
            Host::Thread(thread) => thread.pause.end(),
            Host::Gate(gate) => gate.open(),
        }
    }

    /// Ends the node without running any more of its code. Returns once none of its tasks runs any more.
    pub(super) async fn kill(&self) {
        match self {
            Host::Thread(thread) => thread.kill().await,
            Host::Gate(gate) => gate.end(),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        match self {
            Host::Thread(thread) => {
                thread.killed.send_replace(true);
                thread.pause.end();
            }
            Host::Gate(gate) => gate.end(),
        }
    }
}

impl Thread {
    fn start(name: &str, work: impl FnOnce() -> Work + Send + 'static) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("tokio builds a runtime");
        let handle = runtime.handle().clone();
        let killed = watch::Sender::new(false);
        let (mut kill, (end, ended)) = (killed.subscribe(), watch::channel(false));
        let run = move || {
            runtime.block_on(async {
                let node = async {
                    work().await;
                    // The node has ended by itself, but its process continues.
                    std::future::pending::<()>().await;
                };
                tokio::select! {
                    biased;
                    _ = kill.wait_for(|killed| *killed) => {}
                    () = node => {}
                }
            });
            // Drops all tasks without running them, which closes their connections as the end of a process does.
            runtime.shutdown_background();
            end.send_replace(true);
        };
        thread::Builder::new().name(name.to_owned()).spawn(run).expect("the system has a thread to spare");
        Thread { runtime: handle, killed, ended, pause: Arc::default() }
    }

    async fn pause(&self) {
        *self.pause.is_paused.lock().unwrap_or_else(PoisonError::into_inner) = true;
        let (pause, (blocks, blocked)) = (self.pause.clone(), oneshot::channel());
        self.runtime.spawn(async move {
            let _ = blocks.send(());
            // Blocks the only thread of the node's runtime.
            pause.wait();
        });
        in_time(blocked).await;
    }

    async fn kill(&self) {
        self.killed.send_replace(true);
        self.pause.end();
        in_time(self.ended.clone().wait_for(|ended| *ended)).await;
    }
}

/// Waits for a thread, which cannot do anything while a store blocks it.
async fn in_time(done: impl Future) {
    let done = timeout(PATIENCE, done).await;
    assert!(
        done.is_ok(),
        "a call of the store blocks the thread of its node: it neither returned nor yielded"
    );
}

impl Pause {
    fn wait(&self) {
        let paused = self.is_paused.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(paused, |paused| *paused));
    }

    fn end(&self) {
        *self.is_paused.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.changed.notify_all();
    }
}
