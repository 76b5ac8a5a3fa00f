use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use clustering_core::store::{
    Batch, CoordinationStore, CoordinationStoreExt, Revision, Snapshot, StoreError, WatchEnd,
};
use futures_util::StreamExt;
use tokio::{sync::watch, task::JoinHandle};

use super::{Content, Ledger, Page};
use crate::history::Clock;

/// How long to wait before a store that does not answer is asked again.
const AGAIN: Duration = Duration::from_millis(50);

/// The observer's own key in the namespace, by which it knows that it has seen all.
const MARKER: &str = "observer";

/// Collects the history of a namespace from a store, by a task that runs until this is dropped.
pub struct Follower {
    shared: Arc<Shared>,
    store: Arc<dyn CoordinationStore>,
    task: JoinHandle<()>,
}

struct Shared {
    namespace: String,
    clock: Clock,
    collected: Mutex<Collected>,
    known: watch::Sender<Known>,
}

struct Collected {
    pages: Vec<Page>,
    ledger: Ledger,
}

/// How far the history is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Known {
    eras: usize,
    revision: Revision,
}

/// Begins to follow all that happens under a namespace, from the store's first revision on.
///
/// Disconnected watches are opened again after the last revision seen. Where changes were compacted away, a page says so;
/// unless what stands shows that nothing was missed. Where the store's revisions went back, a new era begins, read from
/// its own first revision on. A store that is wiped must be left alone until this has noticed
/// ([`era`](Follower::era)): once its new history has outgrown the old one, no watch can tell the two apart.
///
/// # Panics
///
/// Outside of a tokio runtime.
pub fn follow(store: impl CoordinationStore, namespace: &str, clock: Clock) -> Follower {
    let store: Arc<dyn CoordinationStore> = Arc::new(store);
    let shared = Arc::new(Shared {
        namespace: namespace.to_owned(),
        clock,
        collected: Mutex::new(Collected { pages: Vec::new(), ledger: Ledger::new(namespace) }),
        known: watch::Sender::default(),
    });
    let task = tokio::spawn(collect(store.clone(), shared.clone()));
    Follower { shared, store, task }
}

impl Follower {
    /// What was collected so far.
    pub fn pages(&self) -> Vec<Page> {
        self.shared.collected().pages.clone()
    }

    /// The ledger of what was collected so far.
    pub fn ledger(&self) -> Ledger {
        self.shared.collected().ledger.clone()
    }

    /// Waits until the ledger has something to say.
    pub async fn until<T>(&self, mut says: impl FnMut(&Ledger) -> Option<T>) -> T {
        let mut known = self.shared.known.subscribe();
        loop {
            known.borrow_and_update();
            let said = says(&self.shared.collected().ledger);
            if let Some(said) = said {
                return said;
            }
            // The sender lives as long as this does.
            let _ = known.changed().await;
        }
    }

    /// Says that somebody, on purpose, wrote that revision past the commits of the protocol.
    pub fn by_hand(&self, revision: Revision) {
        self.shared.push(Content::ByHand(revision));
    }

    /// Waits until all is collected that had happened in the store when this was called.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub async fn settle(&self) -> Result<(), StoreError> {
        // Revisions of other prefixes never reach this watch: one of its own does.
        let revision = self.store.put(&self.shared.marker(), "settled".into(), None).await?;
        let eras = self.shared.known.borrow().eras;
        let reached = |known: &Known| known.eras > eras || known.revision >= revision;
        // The sender lives as long as this does.
        let _ = self.shared.known.subscribe().wait_for(reached).await;
        Ok(())
    }

    /// Waits until that many eras have ended.
    pub async fn era(&self, number: usize) {
        let _ = self.shared.known.subscribe().wait_for(|known| known.eras >= number).await;
    }
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("namespace", &self.shared.namespace).finish_non_exhaustive()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn collected(&self) -> MutexGuard<'_, Collected> {
        self.collected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, content: Content) {
        let page = Page { at: Some(self.clock.now()), content };
        let mut collected = self.collected();
        collected.ledger.turn(&page);
        collected.pages.push(page);
    }

    fn batch(&self, batch: Batch) {
        let revision = batch.revision;
        self.push(Content::Batch(batch));
        self.known.send_modify(|known| known.revision = revision);
    }

    fn era(&self) {
        self.push(Content::Era);
        self.known.send_modify(|known| *known = Known { eras: known.eras + 1, revision: Revision::ZERO });
    }

    fn skip_to(&self, snapshot: Snapshot) {
        let revision = snapshot.revision;
        self.push(Content::Gap(snapshot));
        self.known.send_modify(|known| known.revision = revision);
    }

    /// Goes on from a snapshot, since changes were compacted away. Nothing was missed if all that stands is known; a key
    /// that was written and deleted in between is the one thing that does not show.
    fn go_on(&self, snapshot: Snapshot) {
        let (known, marker) = (self.known.borrow().revision, self.marker());
        let others: Vec<_> = snapshot.entries.iter().filter(|entry| entry.key.as_str() != marker).collect();
        let newer = others.iter().any(|entry| entry.modified > known);
        let stood = self.collected().ledger.present().keys().filter(|key| *key != MARKER).count();
        if !newer && stood == others.len() {
            self.known.send_modify(|known| known.revision = snapshot.revision);
        } else {
            self.skip_to(snapshot);
        }
    }

    fn marker(&self) -> String {
        format!("{}/{MARKER}", self.namespace)
    }
}

async fn collect(store: Arc<dyn CoordinationStore>, shared: Arc<Shared>) {
    let prefix = format!("{}/", shared.namespace);
    let mut after = Revision::ZERO;
    loop {
        let mut watch = match store.watch(&prefix, after).await {
            Ok(watch) => watch,
            Err(_) => {
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        };
        let end = loop {
            match watch.next().await {
                Some(Ok(batch)) => {
                    after = batch.revision;
                    shared.batch(batch);
                }
                Some(Err(end)) => break end,
                None => break WatchEnd::Disconnected { reason: String::new() },
            }
        };
        match end {
            WatchEnd::Rewound { .. } => {
                shared.era();
                after = Revision::ZERO;
            }
            WatchEnd::Compacted { .. } => {
                let snapshot = loop {
                    match store.read(&prefix).await {
                        Ok(snapshot) => break snapshot,
                        Err(_) => tokio::time::sleep(AGAIN).await,
                    }
                };
                after = snapshot.revision;
                shared.go_on(snapshot);
            }
            _ => tokio::time::sleep(AGAIN).await,
        }
    }
}
