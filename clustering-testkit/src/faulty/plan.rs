use std::{
    collections::{BTreeMap, VecDeque},
    fmt, mem,
    time::Duration,
};

use clustering_core::store::{ErrorKind, Txn};

use super::{Call, Met};

/// Fault of a call that has passed the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The call fails without reaching the store.
    Fail(ErrorKind),
    /// The call takes effect, but its reply is lost.
    LoseReply,
    /// For commits only: the commit is held back.
    Hold,
    /// For commits only: the commit arrives after this delay.
    Late(Duration),
}

impl From<Met> for Fault {
    fn from(met: Met) -> Self {
        match met {
            Met::Failed(kind) => Fault::Fail(kind),
            Met::Late(delay) => Fault::Late(delay),
            // Faults of open watches do not apply to calls.
            Met::ReplyLost | Met::WatchBroken | Met::WatchCompacted => Fault::LoseReply,
        }
    }
}

/// Requested faults that have not occurred yet.
#[derive(Default)]
pub(super) struct Plan {
    by_number: BTreeMap<Call, VecDeque<Fault>>,
    matching: Vec<(Fault, Matches)>,
    held: Vec<Txn>,
}

type Matches = Box<dyn FnMut(&Txn) -> bool + Send>;

impl Plan {
    pub(super) fn push(&mut self, call: Call, n: usize, fault: Fault) {
        let queue = self.by_number.entry(call).or_default();
        queue.extend(std::iter::repeat_n(fault, n));
    }

    pub(super) fn push_matching(&mut self, fault: Fault, matches: impl FnMut(&Txn) -> bool + Send + 'static) {
        self.matching.push((fault, Box::new(matches)));
    }

    /// Takes the fault for a call, if there is one. `txn` is set for commits.
    pub(super) fn meet(&mut self, call: Call, txn: Option<&Txn>) -> Option<Fault> {
        if let Some(txn) = txn
            && let Some(place) = self.matching.iter_mut().position(|(_, matches)| matches(txn))
        {
            return Some(self.matching.remove(place).0);
        }
        self.by_number.get_mut(&call)?.pop_front()
    }

    /// Holds a commit back.
    pub(super) fn hold(&mut self, txn: Txn) {
        self.held.push(txn);
    }

    pub(super) fn take_held(&mut self) -> Vec<Txn> {
        mem::take(&mut self.held)
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let matching: Vec<_> = self.matching.iter().map(|(fault, _)| fault).collect();
        f.debug_struct("Plan")
            .field("by_number", &self.by_number)
            .field("matching", &matching)
            .field("held", &self.held)
            .finish()
    }
}
