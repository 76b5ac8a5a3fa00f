use std::time::Duration;

use clustering_core::{
    Clustering, Term,
    machine::RequestError,
    store::{CoordinationStore as _, CoordinationStoreExt, Effect, Guard, Revision, StoreError, Txn},
};
use serde_json::{Value, json};

use crate::history::{Journal, Ledger, Observation, WriteOutcome};

/// A sleep that took that much longer than it should was a pause.
const PAUSE: Duration = Duration::from_millis(500);

/// As leader, adds to a list in the store every so often, fenced by the term. After a pause it first makes the write that
/// it was about to make, under the term of before the pause, and without asking anybody: what a process does that was
/// stopped between its last check and its write.
pub(super) async fn write(journal: Journal, node: Clustering, every: Duration) {
    let list = format!("{}/{}list", node.service(), Ledger::FENCED);
    let mut leading: Option<Term> = None;
    for number in 0.. {
        let before = journal.clock().now();
        tokio::time::sleep(every).await;
        let paused = journal.clock().now().since(before) > every + PAUSE;
        if let Some(term) = leading.filter(|_| paused) {
            late(&journal, &node, term, &format!("{}-{number}-late", journal.life())).await;
        }
        leading = node.term();
        let Some(term) = leading else { continue };
        let Ok(seen) = node.store().get(&list).await else { continue };
        let mut value: Value =
            seen.as_ref().and_then(|entry| serde_json::from_slice(&entry.value).ok()).unwrap_or_default();
        let id = format!("{}-{number}", journal.life());
        let mut terms: Vec<u64> = serde_json::from_value(value["terms"].take()).unwrap_or_default();
        if terms.last() != Some(&term.get()) {
            terms.push(term.get());
        }
        let count = value["count"].as_u64().unwrap_or_default() + 1;
        let value = json!({"id": id, "term": term, "count": count, "terms": terms});
        let at = seen.map_or(Revision::ZERO, |entry| entry.modified);
        let txn = Txn::new().guard(Guard::modified_at(&*list, at)).put(&*list, value.to_string(), None);
        let outcome = match node.commit_under(term, txn).await {
            Ok(revision) => WriteOutcome::Done(revision),
            Err(RequestError::Store(error)) => failed(&error),
            // Nothing was sent; or, if the node ended meanwhile, who knows.
            Err(RequestError::NotLeader) => WriteOutcome::Refused("not leader".to_owned()),
            Err(error) => WriteOutcome::Unknown(error.to_string()),
        };
        journal.note(Observation::FencedWrite { id, term, outcome });
    }
}

async fn late(journal: &Journal, node: &Clustering, term: Term, id: &str) {
    let key = format!("{}/{}late", node.service(), Ledger::FENCED);
    let election = node.keyspace().election_key().clone();
    let txn = Txn::new().guard(Guard::created_at(election, term.revision())).put(
        key,
        json!({"id": id, "term": term}).to_string(),
        None,
    );
    let outcome = match node.store().commit(txn).await {
        Ok(revision) => WriteOutcome::Done(revision),
        Err(error) => failed(&error),
    };
    journal.note(Observation::FencedWrite { id: id.to_owned(), term, outcome });
}

fn failed(error: &StoreError) -> WriteOutcome {
    match error.effect() {
        Effect::None => WriteOutcome::Refused(error.to_string()),
        Effect::Unknown => WriteOutcome::Unknown(error.to_string()),
    }
}
