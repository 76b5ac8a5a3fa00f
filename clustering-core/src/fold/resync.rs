//! Replacing the replica by a snapshot.

use std::sync::Arc;

use super::{Changed, Fold, apply::departed};
use crate::{
    name::NodeName,
    node::Node,
    record::{Departure, DepartureRecord},
    store::Snapshot,
};

impl Fold {
    /// Replaces the replica by a snapshot, at the start or after a gap, and returns the differences.
    ///
    /// If the version key is unchanged, its view is kept, since it was cut when the version was seen. Otherwise there
    /// is no newest view until the next version: a snapshot does not show which nodes were present when the version
    /// was written. After a rewind of the store nothing is kept.
    pub(crate) fn resync(&mut self, snapshot: &Snapshot, rewound: bool) -> Vec<Changed> {
        let mut fresh = Fold::new(self.keyspace.clone(), self.me.clone());
        let mut read = Vec::new();
        fresh.revision = snapshot.revision;
        snapshot.entries.iter().for_each(|entry| fresh.put(entry, &mut read));
        read.retain(|change| matches!(change, Changed::Malformed { .. } | Changed::Departed(_)));
        let departed = departed(&read);
        if fresh.last_number == 0 {
            fresh.last_number = self.last_number;
        }
        fresh.note_stable();
        if !rewound {
            fresh.formed |= self.formed;
            fresh.keep_stable_cut(self);
        }
        if !rewound && fresh.version_modified() == self.version_modified() {
            fresh.keep_view(self, departed);
        }
        let mut changed = fresh.differences(self, departed);
        changed.extend(read);
        *self = fresh;
        changed
    }

    /// Takes over the newest view from the replica before the gap, and recomputes the drift and the departures.
    fn keep_view(&mut self, before: &Fold, departed: Option<&DepartureRecord>) {
        let Some(view) = before.newest.clone() else { return };
        self.previous = before.previous.clone();
        let names: Vec<NodeName> =
            view.iter().map(|node| &node.name).chain(self.nodes.keys()).cloned().collect();
        self.newest = Some(view.clone());
        names.iter().for_each(|name| self.note_drift(name));
        self.find_standing();
        // Departures during the gap were missed, except for the last one, whose record is in the snapshot.
        if let Some(record) = departed
            && self.drift.contains(&record.node)
            && !self.nodes.contains_key(&record.node)
            && let Some(node) = before.node(&record.node).or_else(|| view.get(&record.node))
            && DepartureRecord::how_departed(departed, node) != Departure::Ended
        {
            self.departures.insert(record.node.clone(), record.how);
        }
    }

    /// Takes over the revision of the newest stable version from the replica before the gap, if that saw the version
    /// and the snapshot contains only a newer one.
    fn keep_stable_cut(&mut self, before: &Fold) {
        let modified = |fold: &Fold| fold.stable().map(|stable| stable.modified);
        if modified(self) == modified(before) {
            self.stable_cut = self.stable_cut.min(before.stable_cut);
        }
    }

    /// Returns the differences from `before` as changes.
    fn differences(&self, before: &Fold, departed: Option<&DepartureRecord>) -> Vec<Changed> {
        let gone = before.present().filter(|old| !self.nodes.contains_key(&old.name));
        let down = |old: &Arc<Node>| {
            let how = DepartureRecord::how_departed(departed, old);
            Changed::Down(old.clone(), how, DepartureRecord::grace(departed, old))
        };
        let mut changed: Vec<Changed> = gone.map(down).collect();
        changed.extend(self.present().filter_map(|node| match before.node(&node.name) {
            None => Some(Changed::Up(node.clone())),
            Some(old) if old.modified != node.modified => Some(Changed::Renewed(node.clone())),
            Some(_) => None,
        }));
        let keys = [
            (before.leader != self.leader, Changed::Leader),
            (before.version != self.version, Changed::Version),
            (before.request != self.request, Changed::Request),
            (before.stable != self.stable, Changed::Stable),
            (before.released != self.released, Changed::Released),
            (
                before.holds != self.holds || before.slots != self.slots || before.drains != self.drains,
                Changed::Other,
            ),
        ];
        let added = |a: &Fold, b: &Fold, change: fn(NodeName) -> Changed| -> Vec<Changed> {
            b.cordoned.keys().filter(|name| !a.is_cordoned(name)).cloned().map(change).collect()
        };
        changed.extend(added(before, self, Changed::Cordoned));
        changed.extend(added(self, before, Changed::Uncordoned));
        changed.extend(keys.into_iter().filter_map(|(differs, change)| differs.then_some(change)));
        changed
    }
}
