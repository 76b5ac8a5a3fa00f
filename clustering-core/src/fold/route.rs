//! Routing of requests for a key, derived from the log.

use std::sync::Arc;

use super::Fold;
use crate::{
    discovery::Route,
    name::NodeName,
    node::Node,
    slots::Slot,
    view::{Nodes, View},
};

impl Fold {
    /// Returns the node to which requests for a key go.
    pub(crate) fn route(&self, key: &[u8]) -> Route {
        match &self.newest {
            Some(view) => self.route_in(view, key),
            None => self.route_among_present(key),
        }
    }

    /// Returns the owner of the key among the present nodes, for a process that does not know the view of the newest
    /// version. Uses the stored assignment if all nodes are exclusive, and placement otherwise.
    pub(crate) fn owner_among_present(&self, key: &[u8]) -> Option<&Arc<Node>> {
        if self.has_exclusive_nodes_only() {
            return self.assigned(self.stored_slot(key)?);
        }
        let owner = Nodes::new(self.present().cloned()).find(key)?.name.clone();
        self.node(&owner)
    }

    fn route_in(&self, view: &View, key: &[u8]) -> Route {
        if !view.has_handover() {
            return view.find(key).map_or(Route::Unowned, |node| Route::At(node.clone()));
        }
        let Some(slot) = view.slot_of(key) else { return Route::Unowned };
        let Some(owner) = view.owner_of(slot) else { return unowned(view.kept_for(slot)) };
        if !self.is_same_session(owner) {
            // The next owner is not known yet: it may even be a new session of the same node. The next version decides.
            return Route::Moving { from: None, to: self.node(&owner.name).cloned() };
        }
        let before = self.previous().map(|previous| previous.owner_of(slot));
        let stays = before.flatten().is_some_and(|before| before.lease == owner.lease);
        if stays || self.is_released() || self.is_stable() {
            return Route::At(owner.clone());
        }
        let from = before.flatten().filter(|before| self.is_same_session(before)).cloned();
        Route::Moving { from, to: Some(owner.clone()) }
    }

    fn route_among_present(&self, key: &[u8]) -> Route {
        let owner = self.owner_among_present(key).cloned();
        match owner {
            None => unowned(self.kept_for(key)),
            Some(owner) if !self.has_exclusive_nodes_only() || self.is_stored_released() => Route::At(owner),
            Some(owner) => Route::Moving { from: None, to: Some(owner) },
        }
    }

    /// True if all present nodes are exclusive.
    fn has_exclusive_nodes_only(&self) -> bool {
        let is_exclusive = |node: &Arc<Node>| node.lease.is_some_and(|lease| self.holds.contains_key(&lease));
        self.present().all(is_exclusive)
    }

    /// Returns the slot of a key in the stored assignment.
    fn stored_slot(&self, key: &[u8]) -> Option<Slot> {
        let assignment = self.slots.as_ref()?.record.as_ref()?;
        Some(assignment.count().slot_of(key))
    }

    /// Returns the node to which the stored assignment gives the slot, if it is present.
    fn assigned(&self, slot: Slot) -> Option<&Arc<Node>> {
        let assignment = self.slots.as_ref()?.record.as_ref()?;
        self.present().find(|node| assignment.is_owner(slot, &node.name))
    }

    /// Returns the absent node for which the key waits according to the newest version, for a process that does not
    /// know the version's view.
    fn kept_for(&self, key: &[u8]) -> Option<&NodeName> {
        let slot = self.stored_slot(key).filter(|_| self.has_exclusive_nodes_only())?;
        let assignment = self.slots.as_ref()?.record.as_ref()?;
        let kept = &self.version.as_ref()?.record.as_ref()?.kept;
        kept.keys().find(|name| assignment.is_owner(slot, name))
    }

    /// True if the slots of the newest version may be acquired, for a process that does not know the version's view.
    fn is_stored_released(&self) -> bool {
        let (Some(version), Some(released)) = (&self.version, &self.released) else { return false };
        let label = version.record.as_ref().map(|record| record.version);
        let names_it = label.is_some() && released.record.as_ref().map(|record| record.version) == label;
        names_it && released.modified > version.modified
    }

    /// True if the session that the node has in a view has not ended.
    fn is_same_session(&self, node: &Node) -> bool {
        self.node(&node.name).is_some_and(|present| present.lease == node.lease)
    }
}

/// Returns the route of a key without an owner, given the absent node for which its slot waits.
fn unowned(kept_for: Option<&NodeName>) -> Route {
    kept_for.map_or(Route::Unowned, |node| Route::Waiting { node: node.clone() })
}
