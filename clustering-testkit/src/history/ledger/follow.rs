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

/// Delay before a store that does not answer is called again.
const AGAIN: Duration = Duration::from_millis(50);

/// Key in the namespace that the observer writes, to know when it has seen all earlier changes.
const MARKER: &str = "observer";

/// Collects the history of a namespace from a store, in a task that runs until the follower is dropped.
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

/// Extent to which the history is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Known {
    eras: usize,
    revision: Revision,
}

/// Starts to follow all changes under a namespace, from the store's first revision on.
///
/// A disconnected watch is resumed after the last revision seen. If changes were compacted, a page says so, unless the
/// current state shows that nothing was missed. If the store's revisions went back, a new era begins, and its history
/// is read from the first revision. After a store is wiped, it must not be written until this has noticed
/// ([`era`](Follower::era)): once the new history is longer than the old one, a watch cannot distinguish them.
///
/// # Panics
///
/// Panics outside of a tokio runtime.
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
    /// Returns the pages collected so far.
    pub fn pages(&self) -> Vec<Page> {
        self.shared.collected().pages.clone()
    }

    /// Returns the ledger of the pages collected so far.
    pub fn ledger(&self) -> Ledger {
        self.shared.collected().ledger.clone()
    }

    /// Waits until `says` returns a value for the ledger, and returns that value.
    pub async fn until<T>(&self, mut says: impl FnMut(&Ledger) -> Option<T>) -> T {
        let mut known = self.shared.known.subscribe();
        loop {
            known.borrow_and_update();
            let said = says(&self.shared.collected().ledger);
            if let Some(said) = said {
                return said;
            }
            // This cannot fail, because `self` holds the sender.
            let _ = known.changed().await;
        }
    }

    /// Declares that the revision was written deliberately outside of the protocol.
    pub fn by_hand(&self, revision: Revision) {
        self.shared.push(Content::ByHand(revision));
    }

    /// Waits until everything that happened in the store before this call has been collected.
    ///
    /// # Errors
    ///
    /// Returns the store's error.
    pub async fn settle(&self) -> Result<(), StoreError> {
        // The watch does not see the revisions of other prefixes, so write a key that it does see.
        let revision = self.store.put(&self.shared.marker(), "settled".into(), None).await?;
        let eras = self.shared.known.borrow().eras;
        let reached = |known: &Known| known.eras > eras || known.revision >= revision;
        // This cannot fail, because `self` holds the sender.
        let _ = self.shared.known.subscribe().wait_for(reached).await;
        Ok(())
    }

    /// Waits until this many eras have ended.
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

    /// Continues from a snapshot, because changes were compacted. If all current entries were known before, nothing was
    /// missed, except possibly a key that was written and deleted in between.
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
