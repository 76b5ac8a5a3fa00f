use std::collections::BTreeSet;

use super::{Due, World};
use crate::{
    config::Config,
    machine::{
        Holdings, Input, Token,
        tests::bench::{ms, secs},
    },
    outcome::Outcome,
    slots::{Slot, SlotCount, SlotSet},
    store::LeaseId,
    time::Timestamp,
};

const SLOTS: u16 = 5;

/// Which nodes of a run are exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exclusivity {
    Nobody,
    /// Nodes that are started during the storm, at random.
    Some,
    Everybody,
}

/// A hold that the user of a process keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hold {
    number: u64,
    slot: Slot,
    lease: LeaseId,
}

/// The holds of a process, and the open calls that ask about them.
#[derive(Debug, Default)]
pub(super) struct Holds {
    outstanding: BTreeSet<Hold>,
    /// Open calls, each with the holds that it asks about.
    retractions: Vec<(Token, BTreeSet<Hold>)>,
    /// Time after which each lease's holds are void.
    void: Vec<(LeaseId, Timestamp)>,
}

impl Holds {
    fn void(&self, lease: LeaseId) -> Timestamp {
        let known = self.void.iter().find(|(known, _)| *known == lease);
        known.map_or(Timestamp::ZERO, |(_, void)| *void)
    }

    fn learn(&mut self, holdings: &Holdings) {
        let Some(lease) = holdings.lease else { return };
        self.void.retain(|(known, _)| *known != lease);
        self.void.push((lease, holdings.void));
    }
}

impl World {
    pub(super) fn make_exclusive(&mut self, config: &mut Config) {
        let is_exclusive = match self.exclusivity {
            Exclusivity::Nobody => false,
            Exclusivity::Some => !self.stormy || self.below(4) > 0,
            Exclusivity::Everybody => true,
        };
        if is_exclusive {
            config.exclusive = SlotCount::new(SLOTS).ok();
            config.has_release = self.below(2) == 0;
            config.release_timeout = Some(secs(15));
            config.stop_timeout = Some(secs(8));
        }
    }

    /// Lets the user of a process take holds, after each input of the process.
    pub(super) fn use_holds(&mut self, process: usize) {
        let Some(holdings) = self.holdings(process) else { return };
        self.processes[process].holds.learn(&holdings);
        let Some(lease) = holdings.lease.filter(|_| self.now < holdings.until) else { return };
        for slot in holdings.held.keys() {
            if !self.one_in(3) {
                continue;
            }
            self.numbered += 1;
            let hold = Hold { number: self.numbered, slot: *slot, lease };
            self.processes[process].holds.outstanding.insert(hold);
            let time = match self.below(40) {
                0 => secs(1_000),
                1..5 => secs(self.below(20)),
                _ => ms(self.below(500)),
            };
            let generation = self.processes[process].generation;
            self.at(self.now + time, Due::Drop { process, generation, hold });
        }
    }

    /// The user of a process drops a hold.
    pub(super) fn drop_hold(&mut self, process: usize, hold: Hold) {
        let holds = &mut self.processes[process].holds;
        holds.outstanding.remove(&hold);
        let mut reports = Vec::new();
        holds.retractions.retain_mut(|(token, waiting)| {
            if waiting.remove(&hold) {
                reports.push((*token, waiting.iter().map(|hold| hold.slot).collect::<SlotSet>()));
            }
            !waiting.is_empty()
        });
        for (token, in_use) in reports {
            self.handle(process, Input::Retracted { token, in_use });
        }
    }

    pub(super) fn retract(&mut self, process: usize, token: Token, slots: &SlotSet) {
        let holds = &mut self.processes[process].holds;
        let is_valid = |hold: &&Hold| slots.contains(hold.slot) && self.now < holds.void(hold.lease);
        let waiting: BTreeSet<Hold> = holds.outstanding.iter().filter(is_valid).copied().collect();
        let in_use: SlotSet = waiting.iter().map(|hold| hold.slot).collect();
        if !waiting.is_empty() {
            holds.retractions.push((token, waiting));
        }
        let generation = self.processes[process].generation;
        let input = Input::Retracted { token, in_use };
        self.at(self.now, Due::Report { process, generation, input });
    }

    pub(super) fn release(&mut self, process: usize, token: Token) {
        assert!(self.processes[process].releasing.replace(token).is_none(), "two releases at once");
        let refuses = self.one_in(4);
        let outcome = if refuses { Outcome::refused("no") } else { Outcome::Ready };
        let time = match self.below(20) {
            0 => secs(self.below(60)),
            1..5 => secs(self.below(5)),
            _ => ms(self.below(100)),
        };
        let generation = self.processes[process].generation;
        self.at(
            self.now + time,
            Due::Report { process, generation, input: Input::Released { token, outcome } },
        );
    }

    /// Keeps the outstanding holds of a process that ends until they are void.
    pub(super) fn abandon_holds(&mut self, process: usize) {
        let holds = std::mem::take(&mut self.processes[process].holds);
        for hold in &holds.outstanding {
            self.abandoned.push((hold.slot, holds.void(hold.lease)));
        }
    }

    fn holdings(&self, process: usize) -> Option<Holdings> {
        self.processes[process].machine.as_ref()?.status(self.now).holdings
    }

    /// True if the user of the process may work on the slot, as far as it knows.
    fn holds(&self, process: usize, slot: Slot) -> bool {
        let holds = &self.processes[process].holds;
        let is_valid = |hold: &Hold| hold.slot == slot && self.now < holds.void(hold.lease);
        let is_given = |holdings: Holdings| self.now < holdings.until && holdings.held.contains_key(&slot);
        holds.outstanding.iter().any(is_valid) || self.holdings(process).is_some_and(is_given)
    }

    /// P12: checks that no two processes hold one slot.
    pub(super) fn check_holders(&self) {
        if self.exclusivity == Exclusivity::Nobody {
            return;
        }
        for slot in SlotCount::new(SLOTS).expect("a number of slots").iter() {
            let holders = (0..self.processes.len()).filter(|process| self.holds(*process, slot));
            let abandoned = self.abandoned.iter().filter(|(own, void)| *own == slot && self.now < *void);
            let count = holders.clone().count() + abandoned.count().min(1);
            if count > 1 {
                let names: Vec<_> = holders.map(|process| &self.processes[process].name).collect();
                panic!("P12: slot {slot} is held by {names:?} at {:?}\n{}", self.now, self.report());
            }
        }
    }

    /// True if every slot is held by its owner.
    pub(super) fn are_slots_held(&self) -> bool {
        let exclusive = |process: usize| self.holdings(process).is_some();
        if !(0..self.processes.len()).all(exclusive) {
            return true;
        }
        SlotCount::new(SLOTS).expect("a number of slots").iter().all(|slot| {
            (0..self.processes.len()).any(|process| {
                self.holdings(process).is_some_and(|holdings| holdings.held.contains_key(&slot))
            })
        })
    }
}
