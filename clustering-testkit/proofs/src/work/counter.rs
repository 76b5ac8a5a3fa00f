use clustering_core::{
    Clustering, Hold,
    machine::RequestError,
    store::{CoordinationStore, CoordinationStoreExt, Effect, ErrorKind, Guard, Revision, StoreError, Txn},
};
use clustering_testkit::history::WriteOutcome;
use serde::{Deserialize, Serialize};

/// An increment that has taken effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Unique id of the increment.
    pub id: String,
    /// Value of the counter after the increment.
    pub count: u64,
    /// Fencing token of the hold under which the increment was made.
    pub token: u64,
}

/// A key's counter in the store, below the cluster's namespace, so that the followed history contains its changes. Each
/// increment also leaves a key with its id.
#[derive(Debug)]
pub(super) struct Counter {
    key: String,
    /// The counter in the worker's memory, and the revision of its last change.
    known: (u64, Revision),
    unfenced: bool,
}

/// Result of an increment.
pub(super) enum Step {
    Made(WriteOutcome),
    /// Another process has changed the counter since the worker's last change.
    Changed(WriteOutcome),
}

fn counter(namespace: &str, key: &str) -> String {
    format!("{namespace}/work/counts/{key}")
}

fn increments(namespace: &str, key: &str) -> String {
    format!("{namespace}/work/increments/{key}/")
}

impl Counter {
    pub(super) async fn load(node: &Clustering, key: &str, unfenced: bool) -> Result<Self, StoreError> {
        let mut counter = Counter { key: key.to_owned(), known: (0, Revision::ZERO), unfenced };
        counter.reload(node).await?;
        Ok(counter)
    }

    async fn reload(&mut self, node: &Clustering) -> Result<(), StoreError> {
        let stored = node.store().get(&counter(node.namespace().as_ref(), &self.key)).await?;
        self.known = match stored {
            Some(entry) => {
                let counted: Counted =
                    serde_json::from_slice(&entry.value).expect("only workers write counters");
                (counted.count, entry.modified)
            }
            None => (0, Revision::ZERO),
        };
        Ok(())
    }

    /// Increments the counter, starting from this worker's memory.
    pub(super) async fn increment(&mut self, node: &Clustering, hold: &Hold, id: &str) -> Step {
        let counted = Counted { id: id.to_owned(), count: self.known.0 + 1, token: hold.token().get() };
        let value = serde_json::to_vec(&counted).expect("a plain object");
        let namespace = node.namespace().as_ref();
        let counter = counter(namespace, &self.key);
        let increment = format!("{}{id}", increments(namespace, &self.key));
        let txn = Txn::new().put(&*counter, value.clone(), None).put(increment, value, None);
        let result = match self.unfenced {
            true => node.store().commit(txn).await.map_err(RequestError::Store),
            false => {
                let txn = txn.guard(Guard::modified_at(counter, self.known.1));
                node.commit_as_owner(hold, txn).await
            }
        };
        match result {
            Ok(revision) => {
                self.known = (counted.count, revision);
                Step::Made(WriteOutcome::Done(revision))
            }
            Err(RequestError::Store(error)) if matches!(error.kind(), ErrorKind::GuardFailed { .. }) => {
                Step::Changed(WriteOutcome::Refused(error.to_string()))
            }
            Err(RequestError::Store(error)) if error.effect() == Effect::None => {
                Step::Made(WriteOutcome::Refused(error.to_string()))
            }
            Err(RequestError::NotHeld) => Step::Made(WriteOutcome::Refused("not held".to_owned())),
            Err(error) => Step::Made(WriteOutcome::Unknown(error.to_string())),
        }
    }
}

/// Returns all increments of a key in the store, in the order of their values.
///
/// # Errors
///
/// Returns the store's error.
///
/// # Panics
///
/// Panics if anything other than a worker wrote to the keys.
pub async fn counts(
    store: &impl CoordinationStore,
    namespace: &str,
    key: &str,
) -> Result<Vec<Counted>, StoreError> {
    let parse =
        |value: &[u8]| serde_json::from_slice::<Counted>(value).expect("only workers write increments");
    // The counter itself has the last value. It is read first, because workers may still be running.
    let last = store.get(&counter(namespace, key)).await?.map(|entry| parse(&entry.value));
    let entries = store.read(&increments(namespace, key)).await?.entries;
    let mut counts: Vec<Counted> = entries.iter().map(|entry| parse(&entry.value)).collect();
    if let Some(last) = last {
        assert!(counts.contains(&last), "the counter of {key} has no increment: {last:?}");
    }
    counts.sort_by_key(|counted| counted.count);
    Ok(counts)
}
