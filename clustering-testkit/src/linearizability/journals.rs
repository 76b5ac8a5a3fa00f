use std::collections::{BTreeMap, BTreeSet};

use clustering_core::store::{Batch, Change, Entry as StoreEntry, Key, Revision, Snapshot, Txn};

use super::{Answer, Call, History, NotLinearizable, Operation};
use crate::history::{
    Commit, Digest, Entry, Moment, Observation, Page, StoreAnswer, StoreCall, StoredEntry, ledger::Content,
};

/// Call from a journal, with the answer if the journal has one.
struct Told<'a> {
    caller: usize,
    life: String,
    invoked: Moment,
    call: &'a StoreCall,
    answered: Option<(Moment, &'a StoreAnswer)>,
}

impl History {
    /// Builds a history from the calls that nodes recorded in their
    /// [journals](crate::history::RecordingStore::with_calls) with their times. Adds the other changes in the store's
    /// history: the ends of leases, manual writes and the observer's own writes.
    ///
    /// If a node does not know the outcome of a commit, because the reply was lost or the process was killed, the
    /// commit either took effect at the revision that shows its changes, or not at all. All nodes must use the same
    /// clock, the store's history must be complete and of one era, and only the nodes may write to the store.
    /// `stranger` returns true for the keys that other clients may write.
    ///
    /// # Errors
    ///
    /// Returns an error if a revision wrote something that no node requested, or something other than what was
    /// requested.
    pub fn of_journals(
        pages: &[Page],
        journals: &[Vec<Entry>],
        stranger: impl Fn(&str) -> bool,
    ) -> Result<Self, NotLinearizable> {
        let mut told = told(journals);
        // If several open commits match a revision, the earliest is the least restrictive choice.
        told.sort_by_key(|told| told.invoked);
        let by_hand: BTreeSet<Revision> = pages.iter().filter_map(by_hand).collect();
        let mut committed: BTreeMap<Revision, Vec<usize>> = BTreeMap::new();
        let mut open: BTreeSet<usize> = BTreeSet::new();
        for (place, told) in told.iter().enumerate() {
            match (told.call, told.answered) {
                (StoreCall::Commit(_), Some((_, StoreAnswer::Committed(revision)))) => {
                    committed.entry(*revision).or_default().push(place);
                }
                (StoreCall::Commit(_), None | Some((_, StoreAnswer::Unknown(_)))) => {
                    open.insert(place);
                }
                _ => {}
            }
        }
        let mut history = History { unknown: open.len(), ..History::default() };
        let environment = journals.len();
        for batch in pages.iter().filter_map(batch) {
            let changes = Changes::of(batch);
            let here = committed.get(&batch.revision).into_iter().flatten();
            let claimed =
                here.filter(|place| commit(told[**place].call).is_some_and(|commit| changes.touch(commit)));
            if let Some(place) = claimed.into_iter().next() {
                let asked = commit(told[*place].call).filter(|commit| changes.are_of(commit));
                if asked.is_none() {
                    let what = format!(
                        "revision {} belongs to {} of {}, but made other changes: {changes:?}",
                        batch.revision, told[*place].call, told[*place].life
                    );
                    return Err(NotLinearizable::of(what));
                }
                continue;
            }
            let of_open = open
                .iter()
                .copied()
                .find(|place| commit(told[*place].call).is_some_and(|commit| changes.are_of(commit)));
            if let Some(place) = of_open {
                open.remove(&place);
                history.operations.push(told[place].operation(Answer::Committed(batch.revision)));
                continue;
            }
            let nobodys = changes.puts.keys().find(|key| !stranger(key));
            if let Some(key) = nobodys.filter(|_| !by_hand.contains(&batch.revision)) {
                let what = format!("revision {} put {key}, which no node requested", batch.revision);
                return Err(NotLinearizable::of(what));
            }
            let call = Call::Commit(Txn::from(&changes.commit()));
            let answer = Answer::Committed(batch.revision);
            // The times of the call and the answer are not known, so allow the whole range.
            history.operations.push(Operation {
                caller: environment,
                call,
                answer,
                invoked: 0,
                returned: usize::MAX,
            });
        }
        let revisions: BTreeSet<Revision> =
            pages.iter().filter_map(batch).map(|batch| batch.revision).collect();
        for (revision, places) in &committed {
            let puts =
                |place: &&usize| commit(told[**place].call).is_some_and(|commit| !commit.puts.is_empty());
            if let Some(place) = places.iter().find(puts).filter(|_| !revisions.contains(revision)) {
                let (call, life) = (told[*place].call, &told[*place].life);
                let what =
                    format!("{call} of {life} was answered with revision {revision}, which changed nothing");
                return Err(NotLinearizable::of(what));
            }
        }
        let answered = told.iter().filter_map(|told| Some(told.operation(told.answer()?)));
        history.operations.extend(answered);
        Ok(history)
    }
}

fn told(journals: &[Vec<Entry>]) -> Vec<Told<'_>> {
    let mut all: BTreeMap<(usize, String, u64), Told<'_>> = BTreeMap::new();
    for (caller, entry) in journals
        .iter()
        .enumerate()
        .flat_map(|(caller, entries)| entries.iter().map(move |entry| (caller, entry)))
    {
        let life = entry.life.to_string();
        match &entry.observation {
            Observation::Called { call, what } => {
                let told = Told { caller, life: life.clone(), invoked: entry.at, call: what, answered: None };
                all.insert((caller, life, *call), told);
            }
            Observation::Answered { call, answer } => {
                if let Some(told) = all.get_mut(&(caller, life, *call)) {
                    told.answered = Some((entry.at, answer));
                }
            }
            _ => {}
        }
    }
    all.into_values().collect()
}

fn batch(page: &Page) -> Option<&Batch> {
    match &page.content {
        Content::Batch(batch) => Some(batch),
        _ => None,
    }
}

fn by_hand(page: &Page) -> Option<Revision> {
    match page.content {
        Content::ByHand(revision) => Some(revision),
        _ => None,
    }
}

fn commit(call: &StoreCall) -> Option<&Commit> {
    match call {
        StoreCall::Commit(commit) => Some(commit),
        StoreCall::Read(_) => None,
    }
}

impl Told<'_> {
    /// Returns the answer if it implies anything about the order of calls.
    fn answer(&self) -> Option<Answer> {
        match self.answered?.1 {
            StoreAnswer::Committed(revision) => Some(Answer::Committed(*revision)),
            StoreAnswer::GuardFailed(revision) => Some(Answer::GuardFailed(*revision)),
            StoreAnswer::Shown(revision, standing) => {
                let entries = standing.iter().map(entry).collect();
                Some(Answer::Shown(Snapshot { revision: *revision, entries }))
            }
            StoreAnswer::Failed(_) | StoreAnswer::Unknown(_) => None,
        }
    }

    fn operation(&self, answer: Answer) -> Operation {
        let call = match self.call {
            StoreCall::Read(prefix) => Call::Read(prefix.clone()),
            StoreCall::Commit(commit) => Call::Commit(Txn::from(commit)),
        };
        let at = |moment: Moment| usize::try_from(moment.as_nanos()).unwrap_or(usize::MAX);
        // The time of a failed call says nothing about the time at which a lost commit took effect.
        let known = self.answered.filter(|(_, answer)| !matches!(answer, StoreAnswer::Unknown(_)));
        let returned = known.map_or(usize::MAX, |(returned, _)| at(returned));
        Operation { caller: self.caller, call, answer, invoked: at(self.invoked), returned }
    }
}

fn entry(standing: &StoredEntry) -> StoreEntry {
    StoreEntry {
        key: Key::from(standing.key.as_str()),
        value: standing.value.to_bytes().to_vec().into(),
        created: standing.created,
        modified: standing.modified,
        lease: None,
    }
}

/// Changes made by one revision.
#[derive(Debug, Default)]
struct Changes {
    puts: BTreeMap<String, Digest>,
    deletes: BTreeSet<String>,
}

impl Changes {
    fn of(batch: &Batch) -> Self {
        let mut changes = Changes::default();
        for change in &*batch.changes {
            match change {
                Change::Put(entry) => {
                    changes.puts.insert(entry.key.to_string(), Digest::of(&entry.value));
                }
                Change::Delete(key) => {
                    changes.deletes.insert(key.to_string());
                }
            }
        }
        changes
    }

    /// Returns true if the commit may have made these changes. A commit that changed nothing returns the revision of
    /// another.
    fn touch(&self, commit: &Commit) -> bool {
        !commit.puts.is_empty() || commit.deletes.iter().any(|key| self.deletes.contains(key))
    }

    /// Returns true if the commit made exactly these changes. Keys that it deletes may have been absent.
    fn are_of(&self, commit: &Commit) -> bool {
        let puts: BTreeMap<_, _> = commit.puts.iter().cloned().collect();
        let deletes: BTreeSet<_> = commit.deletes.iter().cloned().collect();
        self.puts == puts && self.deletes.is_subset(&deletes) && !(puts.is_empty() && self.deletes.is_empty())
    }

    fn commit(&self) -> Commit {
        Commit {
            puts: self.puts.iter().map(|(key, value)| (key.clone(), *value)).collect(),
            deletes: self.deletes.iter().cloned().collect(),
            ..Commit::default()
        }
    }
}
