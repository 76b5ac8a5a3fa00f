use std::collections::BTreeMap;

use clustering_core::{Term, store::LeaseId};

use clustering_testkit::history::Moment;

/// P6. Nobody says that it leads under a term that ended by itself: since its lease was not renewed, or since the leader
/// gave it up. What others did to it (took its name, deleted its key, ended its lease) shows when the log brings it.
#[derive(Clone, Debug, Default)]
pub(in crate::sim) struct Reigns {
    present: Option<(Term, Option<LeaseId>)>,
    /// How those of the present era ended.
    ended: BTreeMap<Term, End>,
}

/// How a term ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sim) enum End {
    /// Nobody renewed the leader's lease.
    Expired,
    /// The leader resigned, or gave its lease back.
    GivenUp,
    /// Others ended it.
    Taken,
}

impl Reigns {
    pub(in crate::sim) fn begin(&mut self, term: Term, lease: Option<LeaseId>) {
        self.present = Some((term, lease));
    }

    /// The present one ends.
    pub(in crate::sim) fn end(&mut self, how: End) {
        if let Some((term, _)) = self.present.take() {
            self.ended.insert(term, how);
        }
    }

    /// Another era: terms mean something else.
    pub(in crate::sim) fn rewind(&mut self, present: Option<(Term, Option<LeaseId>)>) {
        *self = Reigns { present, ended: BTreeMap::new() };
    }

    pub(in crate::sim) fn present(&self) -> Option<Term> {
        self.present.map(|(term, _)| term)
    }

    /// Judges somebody who says now that it leads under that term.
    pub(in crate::sim) fn check(&self, term: Term, until: Moment) -> Result<(), String> {
        match self.ended.get(&term) {
            Some(End::Expired) => Err(format!(
                "P6, a leader without a lease: it claims term {term} until {until}, and its lease has expired"
            )),
            Some(End::GivenUp) => Err(format!(
                "P6, a leader that gave up: it claims term {term} until {until}, which it ended itself"
            )),
            Some(End::Taken) | None => Ok(()),
        }
    }
}
