use super::{Entry, Ledger, Page};

/// Returns the timeline of a history: one line per commit of the store and per journal entry of each life, in order of
/// time.
pub fn timeline(namespace: &str, pages: &[Page], journals: &[Vec<Entry>]) -> Vec<String> {
    let mut ledger = Ledger::new(namespace);
    let commits = pages.iter().filter_map(|page| ledger.turn(page));
    let mut all: Vec<_> = commits.map(|commit| (commit.at, commit.to_string())).collect();
    all.extend(journals.iter().flatten().map(|entry| (Some(entry.at), entry.to_string())));
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, line)| line).collect()
}
