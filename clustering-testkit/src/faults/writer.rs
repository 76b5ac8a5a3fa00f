use std::time::Duration;

use clustering_core::{
    Clustering, Term,
    machine::RequestError,
    store::{CoordinationStore as _, CoordinationStoreExt, Effect, Entry, Guard, Revision, StoreError, Txn},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::history::{Journal, Ledger, Observation, WriteOutcome};

/// Excess duration of a round that shows that the process was paused, in the sleep or in a call to the store.
const PAUSE: Duration = Duration::from_millis(500);

/// Deliberate faults in a node's writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Breach {
    /// Writes are not fenced by the term and continue after its end.
    Unfenced,
    /// Writes continue from the node's own last state, without checking for writes in between.
    LastWriteWins,
    /// Repeats a write whose reply was lost, as if it had had no effect.
    RepeatsLost,
}

/// Makes the writes of a leader, fenced by its term: each write increments a counter and appends its id to a list, and
/// its outcome is recorded as an [`Observation::LeaderCommit`]. The checks of P5 judge them.
///
/// [`Observation::LeaderCommit`]: crate::history::Observation::LeaderCommit
#[derive(Debug)]
pub struct Writer {
    journal: Journal,
    node: Clustering,
    breach: Option<Breach>,
    /// The counter and the list after this writer's last write, for [`Breach::LastWriteWins`].
    known: Option<(u64, Vec<String>)>,
}

impl Writer {
    /// Creates a writer for a node. A breach is a deliberate fault, to test that the checks find it.
    pub fn new(journal: Journal, node: Clustering, breach: Option<Breach>) -> Self {
        Writer { journal, node, breach, known: None }
    }

    /// Makes a write every `every` while the node is leader. After a pause it first makes the write that it was about
    /// to make, under the term from before the pause and without any checks. This simulates a process that was paused
    /// between its last check and its write.
    pub async fn write(mut self, every: Duration) {
        let mut leading: Option<Term> = None;
        let mut lost: Option<String> = None;
        let mut last = self.journal.clock().now();
        for number in 0.. {
            tokio::time::sleep(every).await;
            let now = self.journal.clock().now();
            let paused = now.since(last) > every + PAUSE;
            last = now;
            if let Some(term) = leading.filter(|_| paused) {
                self.late(term, &format!("{}-{number}-late", self.journal.life())).await;
            }
            // A writer that is not fenced does not notice the end of its term.
            let deaf = self.breach == Some(Breach::Unfenced);
            leading = self.node.term().or(leading.filter(|_| deaf));
            let Some(term) = leading else { continue };
            let id = lost.clone().unwrap_or_else(|| format!("{}-{number}", self.journal.life()));
            let Some(outcome) = self.step(term, &id).await else { continue };
            let repeats = self.breach == Some(Breach::RepeatsLost);
            lost = (repeats && matches!(outcome, WriteOutcome::Unknown(_))).then(|| id.clone());
            self.journal.note(Observation::LeaderCommit { id, term, outcome });
        }
    }

    fn key(&self, name: &str) -> String {
        format!("{}/{}{name}", self.node.namespace(), Ledger::LEADER_COMMITS)
    }

    /// Reads the counter and the current page of the list, and writes the next values. Returns `None` if a read fails.
    async fn step(&mut self, term: Term, id: &str) -> Option<WriteOutcome> {
        let counter = self.key(Ledger::COUNTER);
        let seen = self.node.store().get(&counter).await.ok()?;
        let mut count = object(seen.as_ref())["count"].as_u64().unwrap_or_default() + 1;
        let page = self.key(&Ledger::page_of(count));
        let listed = self.node.store().get(&page).await.ok()?;
        let mut ids: Vec<String> =
            serde_json::from_value(object(listed.as_ref())["ids"].take()).unwrap_or_default();
        if self.breach == Some(Breach::LastWriteWins)
            && let Some(known) = &self.known
        {
            (count, ids) = (known.0 + 1, known.1.clone());
        }
        ids.push(id.to_owned());
        let next = (count, ids.clone());
        let at = |seen: Option<Entry>| seen.map_or(Revision::ZERO, |seen| seen.modified);
        let mut txn = Txn::new()
            .put(&*counter, json!({"id": id, "term": term, "count": count}).to_string(), None)
            .put(&*page, json!({"id": id, "term": term, "ids": ids}).to_string(), None);
        if self.breach != Some(Breach::LastWriteWins) {
            txn =
                txn.guard(Guard::modified_at(counter, at(seen))).guard(Guard::modified_at(page, at(listed)));
        }
        if self.breach == Some(Breach::Unfenced) {
            return Some(outcome(self.node.store().commit(txn).await));
        }
        Some(match self.node.commit_under(term, txn).await {
            Ok(revision) => {
                self.known = Some(next);
                WriteOutcome::Done(revision)
            }
            Err(RequestError::Store(error)) => failed(&error),
            // `NotLeader` means that nothing was sent. If the node ended meanwhile, the outcome is unknown.
            Err(RequestError::NotLeader) => WriteOutcome::Refused("not leader".to_owned()),
            Err(error) => WriteOutcome::Unknown(error.to_string()),
        })
    }

    async fn late(&self, term: Term, id: &str) {
        let mut txn = Txn::new().put(self.key("late"), json!({"id": id, "term": term}).to_string(), None);
        if self.breach != Some(Breach::Unfenced) {
            let election = self.node.keyspace().election_key().clone();
            txn = txn.guard(Guard::created_at(election, term.revision()));
        }
        let outcome = outcome(self.node.store().commit(txn).await);
        self.journal.note(Observation::LeaderCommit { id: id.to_owned(), term, outcome });
    }
}

fn object(entry: Option<&Entry>) -> Value {
    entry.and_then(|entry| serde_json::from_slice(&entry.value).ok()).unwrap_or_default()
}

fn outcome(result: Result<Revision, StoreError>) -> WriteOutcome {
    match result {
        Ok(revision) => WriteOutcome::Done(revision),
        Err(error) => failed(&error),
    }
}

fn failed(error: &StoreError) -> WriteOutcome {
    match error.effect() {
        Effect::None => WriteOutcome::Refused(error.to_string()),
        Effect::Unknown => WriteOutcome::Unknown(error.to_string()),
    }
}
