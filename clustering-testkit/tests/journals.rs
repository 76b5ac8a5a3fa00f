//! What nodes asked of their store, by their journals: it is linearizable, and histories that are not are found out.

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

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

/// Two nodes whose replies get lost now and then; the second one leaves.
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

/// Plays, changes one answer or page, and hands over what is said of it.
fn doctored(change: impl FnOnce(&mut Vec<Page>, &mut Vec<Vec<Entry>>)) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let (mut pages, mut journals) = runtime.unwrap().block_on(played());
    change(&mut pages, &mut journals);
    match judge(&pages, &journals) {
        Ok(_) => panic!("it is not found out"),
        Err(said) => said,
    }
}

#[tokio::test(start_paused = true)]
async fn what_nodes_ask_of_memory_is_linearizable() {
    let (pages, journals) = played().await;
    let history = judge(&pages, &journals).unwrap();
    assert!(history.operations.len() > 50, "{}", history.operations.len());
    assert_eq!(history.unknown, 4);
}

/// The answers to calls for the counter, with the number of each.
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
fn a_read_that_shows_what_stood_before_is_found() {
    let said = doctored(|_, journals| {
        let mut reads: Vec<_> =
            answers(&mut journals[0]).into_iter().filter(|it| matches!(it, StoreAnswer::Shown(..))).collect();
        // Virtual time stands still between an answer and the next call: the last but one is older beyond doubt.
        let old = reads[6].clone();
        *reads[8] = old;
    });
    assert!(said.contains("it had its answer before another began"), "{said}");
}

#[test]
fn a_read_that_shows_what_never_was_is_found() {
    let said = doctored(|_, journals| {
        let read = answers(&mut journals[0]).into_iter().filter_map(|it| match it {
            StoreAnswer::Shown(_, entries) => entries.first_mut(),
            _ => None,
        });
        read.last().unwrap().value = Digest::of(b"never");
    });
    assert!(said.contains("at that revision these stood"), "{said}");
}

#[test]
fn a_write_that_is_said_to_be_done_and_is_not_there_is_found() {
    let said = doctored(|pages, journals| {
        let done = answers(&mut journals[0]).into_iter().filter_map(|it| match it {
            StoreAnswer::Committed(revision) => Some(*revision),
            _ => None,
        });
        let last = done.last().unwrap();
        pages
            .retain(|page| !matches!(&page.content, ledger::Content::Batch(batch) if batch.revision == last));
    });
    assert!(said.contains("where nothing changed"), "{said}");
}

#[test]
fn a_write_that_nobody_asked_for_is_found() {
    let said = doctored(|_, journals| {
        journals[0].retain(|entry| match &entry.observation {
            Observation::Called { what: StoreCall::Commit(commit), .. } => {
                commit.puts.iter().all(|(key, _)| key != "c/fenced/counter")
            }
            _ => true,
        });
    });
    assert!(said.contains("and nobody asked for that"), "{said}");
}

#[test]
fn a_write_that_is_there_otherwise_than_asked_for_is_found() {
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
    assert!(said.contains("and did something else"), "{said}");
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
                // As if the term were another's.
                commit.created_at.iter_mut().for_each(|(_, at)| *at = Revision::new(1));
                changed = true;
            }
        }
        assert!(changed);
    });
    assert!(said.contains("did not hold"), "{said}");
}

#[test]
fn a_refusal_without_a_reason_is_found() {
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
    assert!(said.contains("its guards held") || said.contains("these stood"), "{said}");
}
