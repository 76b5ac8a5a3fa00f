use super::{Entry, Ledger, Page};

/// What happened, as lines in the order of the times: the store's history, and the journal of each life.
pub fn timeline(namespace: &str, pages: &[Page], journals: &[Vec<Entry>]) -> Vec<String> {
    let mut ledger = Ledger::new(namespace);
    let commits = pages.iter().filter_map(|page| ledger.turn(page));
    let mut all: Vec<_> = commits.map(|commit| (commit.at, commit.to_string())).collect();
    all.extend(journals.iter().flatten().map(|entry| (Some(entry.at), entry.to_string())));
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, line)| line).collect()
}
