//! The calls that nodes record in their journals are linearizable, and falsified histories are detected.

#![allow(clippy::unwrap_used, reason = "a panic fails the test, also in helpers")]

use std::{sync::Arc, time::Duration};

use clustering_core::{
    Clustering, NodeName, Stabilization, Stable,
    store::{Change, CoordinationStore, CoordinationStoreExt, Guard, Revision, Txn},
};
use clustering_memory::MemoryStore;
use clustering_testkit::{
    faulty::{Call, FaultyStore},
    history::{Clock, Digest, Entry, Journal, Observation, Page, StoreAnswer, StoreCall, ledger},
    linearizability::History,
};

/// Runs two nodes, loses some replies to the first, and lets both leave, the second one first.
async fn played() -> (Vec<Page>, Vec<Vec<Entry>>) {
    let (store, clock) = (MemoryStore::new(), Clock::tokio());
    let follower = ledger::follow(store.clone(), "c", clock.clone());
    let (mut nodes, mut journals) = (Vec::new(), Vec::new());
    for name in ["a", "b"] {
        let (journal, entries) = Journal::in_memory(NodeName::parse(name).unwrap(), name, clock.clone());
        let line = Arc::new(FaultyStore::new(store.clone()));
        line.delay(Duration::from_millis(3));
        let recorded = journal.store(line.clone() as Arc<dyn CoordinationStore>).with_calls();
        let builder = Clustering::builder(recorded).namespace("c").name(name).uri("http://here");
        let node = journal.attach(builder, |_: Stabilization| async {}, |_: Stable| async {});
        nodes.push((node.start().await.unwrap(), line));
        journals.push(entries);
    }
    let (leader, line) = &nodes[0];
    leader.wait_stable().await.unwrap();
    for number in 1..=20 {
        if number % 5 == 0 {
            line.lose_replies(Call::Commit, 1);
        }
        let seen = leader.store().get("c/fenced/counter").await.unwrap();
        let at = seen.map_or(Revision::ZERO, |entry| entry.modified);
        let txn = Txn::new().guard(Guard::modified_at("c/fenced/counter", at)).put(
            "c/fenced/counter",
            number.to_string(),
            None,
        );
        // Some of the replies are lost.
        let _ = leader.commit_as_leader(txn).await;
    }
    for (node, _) in nodes.into_iter().rev() {
        node.stop().await.unwrap();
    }
    follower.settle().await.unwrap();
    let journals = journals.iter().map(|entries| entries.lock().unwrap().clone()).collect();
    (follower.pages(), journals)
}

fn judge(pages: &[Page], journals: &[Vec<Entry>]) -> Result<History, String> {
    let history = History::of_journals(pages, journals, |key| key == "c/observer");
    let history = history.map_err(|why| why.to_string())?;
    history.judge().map_err(|why| why.to_string())?;
    Ok(history)
}

/// Runs the nodes, falsifies their history with `change`, and returns the resulting error.
fn doctored(change: impl FnOnce(&mut Vec<Page>, &mut Vec<Vec<Entry>>)) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let (mut pages, mut journals) = runtime.unwrap().block_on(played());
    change(&mut pages, &mut journals);
    match judge(&pages, &journals) {
        Ok(_) => panic!("the falsified history was accepted"),
        Err(said) => said,
    }
}

#[tokio::test(start_paused = true)]
async fn calls_of_nodes_on_the_memory_store_are_linearizable() {
    let (pages, journals) = played().await;
    let history = judge(&pages, &journals).unwrap();
    assert!(history.operations.len() > 50, "{}", history.operations.len());
    assert_eq!(history.unknown, 4);
}

/// Returns the answers to all calls for the counter.
fn answers(journal: &mut [Entry]) -> Vec<&mut StoreAnswer> {
    let mut calls = std::collections::BTreeSet::new();
    let of_counter = |what: &StoreCall| match what {
        StoreCall::Read(prefix) => prefix == "c/fenced/counter",
        StoreCall::Commit(commit) => commit.puts.iter().any(|(key, _)| key == "c/fenced/counter"),
    };
    let mut answers = Vec::new();
    for entry in journal {
        match &mut entry.observation {
            Observation::Called { call, what } if of_counter(what) => {
                calls.insert(*call);
            }
            Observation::Answered { call, answer } if calls.contains(call) => answers.push(answer),
            _ => {}
        }
    }
    answers
}

#[test]
fn a_stale_read_is_found() {
    let said = doctored(|_, journals| {
        let mut reads: Vec<_> =
            answers(&mut journals[0]).into_iter().filter(|it| matches!(it, StoreAnswer::Shown(..))).collect();
        // No virtual time passes between an answer and the next call, so only the answer before the last is certainly
        // older.
        let old = reads[6].clone();
        *reads[8] = old;
    });
    assert!(said.contains("it was answered before the start of"), "{said}");
}

#[test]
fn a_read_of_a_value_that_never_existed_is_found() {
    let said = doctored(|_, journals| {
        let read = answers(&mut journals[0]).into_iter().filter_map(|it| match it {
            StoreAnswer::Shown(_, entries) => entries.first_mut(),
            _ => None,
        });
        read.last().unwrap().value = Digest::of(b"never");
    });
    assert!(said.contains("the entries at that revision were"), "{said}");
}

#[test]
fn a_confirmed_write_that_did_not_happen_is_found() {
    let said = doctored(|pages, journals| {
        let done = answers(&mut journals[0]).into_iter().filter_map(|it| match it {
            StoreAnswer::Committed(revision) => Some(*revision),
            _ => None,
        });
        let last = done.last().unwrap();
        pages
            .retain(|page| !matches!(&page.content, ledger::Content::Batch(batch) if batch.revision == last));
    });
    assert!(said.contains("which changed nothing"), "{said}");
}

#[test]
fn a_write_that_no_node_requested_is_found() {
    let said = doctored(|_, journals| {
        journals[0].retain(|entry| match &entry.observation {
            Observation::Called { what: StoreCall::Commit(commit), .. } => {
                commit.puts.iter().all(|(key, _)| key != "c/fenced/counter")
            }
            _ => true,
        });
    });
    assert!(said.contains("which no node requested"), "{said}");
}

#[test]
fn a_write_that_differs_from_the_request_is_found() {
    let said = doctored(|pages, _| {
        for page in pages {
            let ledger::Content::Batch(batch) = &mut page.content else { continue };
            for change in std::sync::Arc::make_mut(&mut batch.changes) {
                if let Change::Put(entry) = change
                    && entry.key.as_str() == "c/fenced/counter"
                    && *entry.value == *b"3"
                {
                    entry.value = "x".into();
                }
            }
        }
    });
    assert!(said.contains("but made other changes"), "{said}");
}

#[test]
fn a_write_whose_guard_did_not_hold_is_found() {
    let said = doctored(|_, journals| {
        let mut changed = false;
        for entry in &mut journals[0] {
            if let Observation::Called { what: StoreCall::Commit(commit), .. } = &mut entry.observation
                && commit.puts.iter().any(|(key, _)| key == "c/fenced/counter")
                && commit.modified_at.iter().any(|(_, at)| at.get() > 10)
                && !changed
            {
                // As if the node wrote under another term.
                commit.created_at.iter_mut().for_each(|(_, at)| *at = Revision::new(1));
                changed = true;
            }
        }
        assert!(changed);
    });
    assert!(said.contains("did not hold"), "{said}");
}

#[test]
fn a_refusal_although_the_guards_held_is_found() {
    let said = doctored(|pages, journals| {
        let answers = answers(&mut journals[0]).into_iter();
        let last = answers.filter(|it| matches!(it, StoreAnswer::Committed(_))).last().unwrap();
        let StoreAnswer::Committed(revision) = *last else { unreachable!() };
        *last = StoreAnswer::GuardFailed(Revision::new(revision.get() - 1));
        pages.retain(|page| match &page.content {
            ledger::Content::Batch(batch) => batch.revision != revision,
            _ => true,
        });
    });
    assert!(said.contains("its guards held") || said.contains("the entries at that revision were"), "{said}");
}
