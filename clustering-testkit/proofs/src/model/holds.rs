//! Exclusive nodes in the model: the holds that users take and keep, and the checks of P12.

use std::time::Duration;

use clustering_core::{
    machine::{Holdings, Input, Token},
    slots::{Slot, SlotSet},
    store::{Key, LeaseId, Revision, Txn},
    time::Timestamp,
};

use super::{
    judge::{Breach, Promise},
    state::Node,
    step::Step,
};

/// A hold that the user of a node keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Hold {
    pub(super) slot: Slot,
    lease: LeaseId,
    token: Revision,
    /// Time after which the hold is void, on the clock of its process.
    void: Timestamp,
    /// The retraction that ended the hold; `None` if the hold is not lost.
    retracted: Option<Token>,
}

/// The process that acquired a slot last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Acquired {
    pub(super) slot: Slot,
    pub(super) node: usize,
    pub(super) life: u32,
}

impl Node {
    fn holdings(&self) -> Option<Holdings> {
        self.machine.as_ref()?.status(self.now).holdings
    }

    /// Returns the slots that the node holds, so that its user can take holds.
    pub(super) fn held(&self) -> SlotSet {
        let holdings = self.holdings().filter(|holdings| self.now < holdings.until);
        holdings.map(|holdings| holdings.held.keys().copied().collect()).unwrap_or_default()
    }

    /// Returns the slots on which the user may work, according to its own knowledge.
    pub(super) fn claims(&self) -> SlotSet {
        let valid = self.holds.iter().filter(|hold| self.now < hold.void);
        self.held().union(&valid.map(|hold| hold.slot).collect())
    }

    /// Returns the slots of the valid holds that were ended by that retraction.
    fn in_use(&self, token: Token) -> SlotSet {
        let concerned = |hold: &&Hold| hold.retracted == Some(token) && self.now < hold.void;
        self.holds.iter().filter(concerned).map(|hold| hold.slot).collect()
    }

    /// Returns the remaining time for which the lease and the holds under it are valid, as far as the node knows.
    pub(super) fn left_of(&self, lease: LeaseId) -> Duration {
        let session = self.lease.iter().filter(|held| held.id == lease).map(|held| held.renewed + held.ttl);
        let holds = self.holds.iter().filter(|hold| hold.lease == lease).map(|hold| hold.void);
        session.chain(holds).max().map(|until| until.since(self.now)).unwrap_or_default()
    }

    /// Drops the node's knowledge of its holds. The user keeps the valid holds.
    pub(super) fn abandon_holds(&mut self) {
        let now = self.now;
        self.holds.retain(|hold| now < hold.void);
        self.holds.iter_mut().for_each(|hold| hold.retracted = None);
    }
}

impl Step<'_> {
    /// Lets the user take a hold of each slot that the node holds.
    pub(super) fn take_holds(&mut self, place: usize) {
        let Some(holdings) = self.state.nodes[place].holdings() else { return };
        let Some(lease) = holdings.lease else { return };
        for (slot, token) in holdings.held.iter() {
            let hold = Hold { slot: *slot, lease, token: *token, void: holdings.void, retracted: None };
            self.node(place).holds.push(hold);
        }
    }

    /// Lets the user drop a hold.
    pub(super) fn drop_hold(&mut self, place: usize, number: usize) {
        let hold = self.node(place).holds.remove(number);
        if let Some(token) = hold.retracted {
            let in_use = self.state.nodes[place].in_use(token);
            self.feed(place, Input::Retracted { token, in_use });
        }
    }

    /// Ends the holds of these slots, and reports which slots are in use.
    pub(super) fn retract(&mut self, place: usize, token: Token, slots: &SlotSet) {
        let node = self.node(place);
        let now = node.now;
        for hold in &mut node.holds {
            if hold.retracted.is_none() && slots.contains(hold.slot) && now < hold.void {
                hold.retracted = Some(token);
            }
        }
        let in_use = node.in_use(token);
        self.inputs.push_back((place, Input::Retracted { token, in_use }));
    }

    /// Commits as owner of the slot of the user's first hold.
    pub(super) fn write_as_owner(&mut self, place: usize) {
        let Some(hold) = self.state.nodes[place].holds.first().copied() else { return };
        let id = self.request(place);
        let key = Key::from(format!("{}owned/{}", self.prefix(), hold.slot.number()));
        let txn = Txn::new().put(key, "", None);
        self.feed(place, Input::CommitAsOwner { id, slot: hold.slot, acquired: hold.token, txn });
    }

    /// Returns the prefix of the namespace.
    fn prefix(&self) -> String {
        self.model.keys().view_prefix().replace("view/", "")
    }

    /// Copies the deadlines of the holds and the acquired slots from the machine's status.
    pub(super) fn follow_holdings(&mut self, place: usize) {
        let Some(holdings) = self.state.nodes[place].holdings() else { return };
        let life = self.state.nodes[place].life;
        let current = |hold: &Hold| Some(hold.lease) == holdings.lease && hold.void != holdings.void;
        if self.state.nodes[place].holds.iter().any(current) {
            let holds = &mut self.node(place).holds;
            holds.iter_mut().filter(|hold| current(hold)).for_each(|hold| hold.void = holdings.void);
        }
        for slot in holdings.held.keys().copied() {
            let acquired = Acquired { slot, node: place, life };
            if !self.state.acquired.contains(&acquired) {
                self.state.acquired.retain(|other| other.slot != slot);
                self.state.acquired.push(acquired);
                self.state.acquired.sort_unstable_by_key(|acquired| acquired.slot);
            }
        }
    }

    /// P12. Checks that a commit of an owner is accepted only while no other process has acquired its slot.
    pub(super) fn judge_owner_commit(&self, (node, life): (usize, u32), txn: &Txn) -> Result<(), Breach> {
        let prefix = format!("{}owned/", self.prefix());
        let number = txn.operations().iter().find_map(|operation| operation.key().strip_prefix(&*prefix));
        let is_its = |acquired: &&Acquired| Some(&*acquired.slot.number().to_string()) == number;
        match self.state.acquired.iter().find(is_its) {
            Some(acquired) if (acquired.node, acquired.life) != (node, life) => Err(Breach::new(
                Promise::P12,
                format!(
                    "a commit for slot {} is accepted after another node has acquired the slot",
                    acquired.slot
                ),
            )),
            _ => Ok(()),
        }
    }

    /// P12. Checks that no two processes hold a slot.
    pub(super) fn judge_holders(&mut self) {
        let Some(slots) = self.model.config().exclusive else { return };
        let claims: Vec<SlotSet> = self.state.nodes.iter().map(|node| node.claims()).collect();
        let is_shared = |slot: &Slot| claims.iter().filter(|claims| claims.contains(*slot)).count() > 1;
        if let Some(slot) = slots.iter().find(is_shared) {
            let names: Vec<String> =
                (0..claims.len()).filter(|place| claims[*place].contains(slot)).map(super::name).collect();
            self.judge(Err(Breach::new(
                Promise::P12,
                format!("slot {slot} is held by {}", names.join(" and ")),
            )));
        }
    }
}
