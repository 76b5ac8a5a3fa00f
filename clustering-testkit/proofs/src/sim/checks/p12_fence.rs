use std::collections::BTreeMap;

use clustering_core::{slots::Slot, store::Revision};
use clustering_testkit::history::Life;

/// A slot as a process has acquired it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sim) struct Acquired {
    pub(in crate::sim) process: usize,
    pub(in crate::sim) life: u32,
    pub(in crate::sim) token: Revision,
}

/// The process that acquired each slot last.
#[derive(Debug, Default)]
pub(in crate::sim) struct Fence {
    last: BTreeMap<Slot, Acquired>,
    is_stopped: bool,
}

impl Fence {
    /// Stops all checks: after a restore of the store, tokens and guards cannot be compared with earlier ones.
    pub(in crate::sim) fn stop(&mut self) {
        self.is_stopped = true;
    }

    /// P12. The fencing token of a slot grows with every change of its holder, and never decreases.
    pub(in crate::sim) fn acquire(&mut self, slot: Slot, now: Acquired, who: &Life) -> Result<(), String> {
        let before = self.last.insert(slot, now).filter(|before| *before != now && !self.is_stopped);
        let Some(before) = before else { return Ok(()) };
        let same = (before.process, before.life) == (now.process, now.life);
        match before.token < now.token || same && before.token == now.token {
            true => Ok(()),
            false => Err(format!(
                "P12, token decreases: {who} acquires slot {slot} under token {}, but the slot was acquired under {} before",
                now.token, before.token
            )),
        }
    }

    /// P12. A commit of an owner is accepted only while no other process has acquired the slot.
    pub(in crate::sim) fn check_commit(&self, slot: Slot, by: (usize, u32)) -> Result<(), String> {
        let last = self.last.get(&slot).filter(|last| (last.process, last.life) != by && !self.is_stopped);
        last.map_or(Ok(()), |last| {
            Err(format!(
                "P12, commit of a former owner: a commit for slot {slot} is accepted, but another process acquired the \
                 slot under token {} before",
                last.token
            ))
        })
    }
}
