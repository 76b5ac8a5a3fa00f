use std::{
    fmt::{self, Display, Write as _},
    panic::resume_unwind,
};

use bytes::Bytes;
use clustering_core::store::{Batch, Change, Entry, LeaseId};

/// The rule and the part of it that are being judged. Every violation names both.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scene {
    pub(super) rule: Rule,
    pub(super) part: &'static str,
    /// True if violations are raised without printing them, which is the case while a failing case is being shrunk.
    pub(super) quiet: bool,
}

/// A rule of the store contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    Commits = 1,
    Reads = 2,
    Watches = 3,
    Leases = 4,
    LiveLeases = 5,
    Creation = 6,
    Moves = 7,
    Errors = 8,
    Dropping = 9,
    Sizes = 10,
    /// All rules at once, as implemented by the model.
    Model = 0,
}

impl Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let says = match self {
            Rule::Commits => "commits are atomic and linearizable",
            Rule::Reads => "a read sees one revision",
            Rule::Watches => "a watch yields every change, once, in order",
            Rule::Leases => "a lease's keys vanish together",
            Rule::LiveLeases => "a put needs a live lease",
            Rule::Creation => "a key created again is a new key",
            Rule::Moves => "a put decides the key's lease",
            Rule::Errors => "errors tell what happened",
            Rule::Dropping => "dropping frees",
            Rule::Sizes => "sizes",
            Rule::Model => return write!(f, "the contract is broken (store and model differ)"),
        };
        write!(f, "contract rule {} is broken ({says})", *self as u8)
    }
}

impl Scene {
    /// Fails the check because the store broke the rule.
    pub(super) fn broken(&self, expected: impl Display, found: impl Display) -> ! {
        let (rule, part) = (self.rule, self.part);
        let text = format!("{rule}\n  judged:    {part}\n  expected:  {expected}\n  the store: {found}\n");
        match self.quiet {
            true => resume_unwind(Box::new(text)),
            false => panic!("{text}"),
        }
    }

    /// Fails the check unless `holds`.
    pub(super) fn check(&self, holds: bool, expected: impl Display, found: impl Display) {
        if !holds {
            self.broken(expected, found);
        }
    }

    /// Returns the same scene for something that another rule covers.
    pub(super) fn under(self, rule: Rule) -> Scene {
        Scene { rule, ..self }
    }

    /// Checks that `found` has the expected entries in the expected order.
    pub(super) fn same_entries(&self, what: &str, expected: &[Entry], found: &[Entry]) {
        if expected == found {
            return;
        }
        let at = (0..).find(|&at| expected.get(at) != found.get(at)).unwrap_or_default();
        let one = |entry: Option<&Entry>| entry.map_or_else(|| "nothing".to_owned(), show_entry);
        self.broken(
            format!("{what}: {} entries, of which entry {at} is {}", expected.len(), one(expected.get(at))),
            format!("showed {} entries, of which entry {at} is {}", found.len(), one(found.get(at))),
        )
    }

    /// Checks that two batches are equal, ignoring the order of changes within a batch.
    pub(super) fn same_batch(&self, what: &str, expected: &Batch, found: &Batch) {
        let sorted = |batch: &Batch| {
            let mut changes = batch.changes.to_vec();
            changes.sort_by(|a, b| a.key().cmp(b.key()));
            changes
        };
        if expected.revision != found.revision || sorted(expected) != sorted(found) {
            self.broken(format!("{what}: {}", show_batch(expected)), format!("sent {}", show_batch(found)));
        }
    }
}

pub(super) fn show_entry(entry: &Entry) -> String {
    let Entry { key, value, created, modified, lease } = entry;
    let lease = show_lease(*lease);
    format!("{key:?} = {} (created {created}, modified {modified}, {lease})", show_value(value))
}

pub(super) fn show_lease(lease: Option<LeaseId>) -> String {
    lease.map_or_else(|| "no lease".to_owned(), |lease| format!("lease {lease}"))
}

pub(super) fn show_value(value: &Bytes) -> String {
    match value.len() {
        0..=48 => format!("{value:?}"),
        len => format!("{len} bytes beginning with {:?}", value.slice(..16)),
    }
}

pub(super) fn show_batch(batch: &Batch) -> String {
    const SHOWN: usize = 20;
    let mut text = format!("one batch of {} changes at revision {}:", batch.changes.len(), batch.revision);
    for change in batch.changes.iter().take(SHOWN) {
        let _ = match change {
            Change::Put(entry) => write!(text, "\n      put {}", show_entry(entry)),
            Change::Delete(key) => write!(text, "\n      delete {key:?}"),
        };
    }
    if batch.changes.len() > SHOWN {
        let _ = write!(text, "\n      and {} more", batch.changes.len() - SHOWN);
    }
    text
}
