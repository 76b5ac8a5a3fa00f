//! Nodes of an exclusive cluster, and a judge of the work on its slots.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use clustering_core::{
    Builder,
    slots::{Slot, SlotCount, SlotSet},
};

use super::Node;

pub(crate) const SLOTS: u16 = 8;

pub(crate) fn exclusive(builder: Builder) -> Builder {
    builder.exclusive(SLOTS)
}

pub(crate) fn slots() -> impl Iterator<Item = Slot> {
    SlotCount::new(SLOTS).unwrap().iter().collect::<Vec<_>>().into_iter()
}

/// Returns a key of the slot.
pub(crate) fn key_of(slot: Slot) -> String {
    let count = SlotCount::new(SLOTS).unwrap();
    (0..).map(|number| format!("key-{number}")).find(|key| count.slot_of(key) == slot).unwrap()
}

/// Returns a slot that the newest version of `node` gives to `owner`.
pub(crate) fn slot_of(node: &Node, owner: &Node) -> Slot {
    let view = node.now().newest.unwrap();
    view.slots_of(owner.name()).iter().next().expect("the owner has a slot")
}

/// Waits until the node's newest version has this many nodes.
pub(crate) async fn knows(node: &Node, nodes: usize) {
    node.until("the node knows all nodes", |status| {
        status.newest.as_ref().is_some_and(|view| view.len() == nodes)
    })
    .await;
}

/// Records for each slot the node that works on it, and fails the test if two nodes work on one slot.
#[derive(Clone, Default)]
pub(crate) struct Judge {
    workers: Arc<Mutex<BTreeMap<Slot, Vec<String>>>>,
}

impl Judge {
    /// Records that a node works on a slot until the returned value is dropped.
    fn work(&self, slot: Slot, node: &str) -> Working {
        let mut workers = self.workers.lock().unwrap();
        let of = workers.entry(slot).or_default();
        of.push(node.to_owned());
        assert_eq!(of.len(), 1, "slot {slot}: {of:?}");
        Working { judge: self.clone(), slot, node: node.to_owned() }
    }

    pub(crate) fn working(&self) -> BTreeMap<Slot, Vec<String>> {
        self.workers.lock().unwrap().iter().map(|(slot, nodes)| (*slot, nodes.clone())).collect()
    }

    /// Returns the slots on which a node works.
    pub(crate) fn slots(&self) -> SlotSet {
        self.working().into_iter().filter(|(_, nodes)| !nodes.is_empty()).map(|(slot, _)| slot).collect()
    }

    /// Makes the node work on each slot that it holds, until the slot is lost and for `linger` after that.
    pub(crate) fn follow(&self, node: &Node, linger: Duration) {
        let (judge, of) = (self.clone(), node.name().to_string());
        node.for_each_held_slot(move |hold| {
            let (judge, of) = (judge.clone(), of.clone());
            async move {
                let _working = judge.work(hold.slot(), &of);
                hold.lost().await;
                tokio::time::sleep(linger).await;
                assert!(hold.is_valid(), "{of} works on {} without protection", hold.slot());
            }
        });
    }
}

struct Working {
    judge: Judge,
    slot: Slot,
    node: String,
}

impl Drop for Working {
    fn drop(&mut self) {
        let mut workers = self.judge.workers.lock().unwrap();
        workers.get_mut(&self.slot).unwrap().retain(|node| *node != self.node);
    }
}
