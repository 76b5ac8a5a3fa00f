use std::collections::BTreeMap;

use clustering_core::{Term, store::LeaseId};

use clustering_testkit::history::Moment;

/// P6. No node claims to lead under a term that ended by itself, because its lease was not renewed or because the
/// leader gave it up. If others ended the term (took over the name, deleted the key, ended the lease), the leader
/// learns this only from the log, and may claim the term until then.
#[derive(Clone, Debug, Default)]
pub(in crate::sim) struct Reigns {
    present: Option<(Term, Option<LeaseId>)>,
    /// End of each earlier term of the current era.
    ended: BTreeMap<Term, End>,
}

/// The way in which a term ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sim) enum End {
    /// The leader's lease was not renewed.
    Expired,
    /// The leader resigned or gave its lease back.
    GivenUp,
    /// Another process or an operator ended it.
    Taken,
}

impl Reigns {
    pub(in crate::sim) fn begin(&mut self, term: Term, lease: Option<LeaseId>) {
        self.present = Some((term, lease));
    }

    /// Ends the current term.
    pub(in crate::sim) fn end(&mut self, how: End) {
        if let Some((term, _)) = self.present.take() {
            self.ended.insert(term, how);
        }
    }

    /// Begins a new era, in which terms mean something else.
    pub(in crate::sim) fn rewind(&mut self, present: Option<(Term, Option<LeaseId>)>) {
        *self = Reigns { present, ended: BTreeMap::new() };
    }

    pub(in crate::sim) fn present(&self) -> Option<Term> {
        self.present.map(|(term, _)| term)
    }

    /// Checks the claim of a node that it leads under `term` at this moment.
    pub(in crate::sim) fn check(&self, term: Term, until: Moment) -> Result<(), String> {
        match self.ended.get(&term) {
            Some(End::Expired) => Err(format!(
                "P6, leader without a lease: a node claims term {term} until {until}, but its lease has expired"
            )),
            Some(End::GivenUp) => Err(format!(
                "P6, leader after giving up: a node claims term {term} until {until}, but has ended that term itself"
            )),
            Some(End::Taken) | None => Ok(()),
        }
    }
}
