use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use clustering_memory::{Clustering, EventsError, MemoryStore, Stabilization};
use tokio::sync::oneshot;

use crate::screen::Screen;

/// TTL of the sessions: short, so that a crash is detected soon. Use the default of 15 s in production.
pub(crate) const TTL: Duration = Duration::from_secs(2);

/// A node on its own thread and runtime, so that it can crash like a process.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) cluster: Clustering,
    /// Number of stabilize attempts that are still to be refused.
    refusals: Arc<AtomicU32>,
    end: Option<oneshot::Sender<End>>,
    thread: thread::JoinHandle<()>,
}

enum End {
    Leave,
    Crash,
}

impl Node {
    /// Starts a node and waits until it is a member.
    pub(crate) fn start(number: usize, store: &MemoryStore, screen: &Screen) -> Result<Node, Box<dyn Error>> {
        let name = format!("node-{number}");
        let (ready, started) = mpsc::channel();
        let (end, ending) = oneshot::channel();
        let refusals = Arc::new(AtomicU32::new(0));
        let thread = thread::Builder::new().name(name.clone()).spawn({
            let (name, store, screen, refusals) =
                (name.clone(), store.clone(), screen.clone(), refusals.clone());
            move || {
                let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
                    Ok(runtime) => runtime,
                    Err(error) => return drop(ready.send(Err(error.to_string()))),
                };
                runtime.block_on(live(name, number, store, screen, refusals, ready, ending));
                // Whatever a crashed node was still doing ends with its runtime, as it would with its process.
                runtime.shutdown_background();
            }
        })?;
        let cluster = started.recv()??;
        Ok(Node { name, cluster, refusals, end: Some(end), thread })
    }

    /// Makes the node refuse the next `times` stabilize attempts.
    pub(crate) fn refuse(&self, times: u32) {
        self.refusals.store(times, Ordering::SeqCst);
    }

    /// True if the node still has to refuse stabilize attempts.
    pub(crate) fn refuses(&self) -> bool {
        self.refusals.load(Ordering::SeqCst) > 0
    }

    /// Stops the node gracefully: it revokes its lease at once.
    pub(crate) fn leave(self) -> Result<(), Box<dyn Error>> {
        self.end(End::Leave)
    }

    /// Ends the node abruptly, without a graceful stop, so that its lease has to expire.
    pub(crate) fn crash(self) -> Result<(), Box<dyn Error>> {
        self.end(End::Crash)
    }

    fn end(mut self, how: End) -> Result<(), Box<dyn Error>> {
        if let Some(end) = self.end.take() {
            end.send(how).map_err(|_| format!("{} had already ended", self.name))?;
        }
        self.thread.join().map_err(|_| format!("{} panicked", self.name).into())
    }
}

/// Runs a node from start to stop, as a service does.
async fn live(
    name: String,
    number: usize,
    store: MemoryStore,
    screen: Screen,
    refusals: Arc<AtomicU32>,
    ready: mpsc::Sender<Result<Clustering, String>>,
    ending: oneshot::Receiver<End>,
) {
    // Adapting takes a different time on each node, so that the timeline shows them becoming ready one by one.
    let work = Duration::from_millis(10 + 15 * (number as u64 % 10));
    let builder = Clustering::builder(store)
        .namespace("demo")
        .name(&name)
        .uri(format!("http://127.0.0.1:{}", 8000 + number))
        .ttl(TTL)
        .stabilize(move |stabilization: Stabilization| {
            let refusals = refusals.clone();
            async move {
                tokio::select! {
                    () = tokio::time::sleep(work) => {}
                    () = stabilization.superseded() => return Err("superseded"),
                }
                let refuses =
                    refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
                if refuses.is_ok() { Err("its disk is full") } else { Ok(()) }
            }
        });
    let mut events = builder.events();
    let print_events = {
        let (name, screen) = (name.clone(), screen.clone());
        async move {
            loop {
                match events.recv().await {
                    Ok(event) => screen.event(&name, &event),
                    Err(EventsError::Missed(_)) => {}
                    Err(EventsError::Ended) => return,
                }
            }
        }
    };
    let printing = tokio::spawn(print_events);
    let cluster = match builder.start().await {
        Ok(cluster) => cluster,
        Err(error) => return drop(ready.send(Err(error.to_string()))),
    };
    // This fails only if the script ended early. It has then dropped the sender of `ending` too, so the node stops
    // below.
    let _ = ready.send(Ok(cluster.clone()));
    match ending.await {
        Ok(End::Leave) | Err(_) => {
            let _ = cluster.stop().await;
            let _ = printing.await;
        }
        Ok(End::Crash) => {}
    }
}
