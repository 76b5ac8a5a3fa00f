use std::collections::BTreeMap;

use super::World;
use crate::{
    machine::{
        Purpose,
        tests::{model::apply, render::value},
    },
    record::{ReadinessOutcome, ReadinessRecord, StableRecord, VersionRecord, decode},
    store::{Entry, Key, Txn},
    version::Version,
};

/// What must hold of everything that is written, as the store has it.
impl World {
    pub(super) fn check_leaders(&self) {
        for process in &self.processes {
            let Some(machine) = &process.machine else { continue };
            let status = machine.status(self.now);
            if status.leadership.is_some_and(|leadership| self.now < leadership.until) {
                let lease = machine.session.held().expect("P6: a leader has a session").lease;
                assert!(self.store.lives_until(lease).is_some(), "P6: it leads, and its lease is gone");
            }
        }
    }

    pub(super) fn check_commit(&self, purpose: Purpose, txn: &Txn) {
        if matches!(purpose, Purpose::Publish | Purpose::Confirm | Purpose::Evict) {
            let leader = self.store.get(self.keys.election_key()).expect("P5: a leader stands");
            let term = match purpose {
                Purpose::Publish => value::<VersionRecord>(txn, "version").and_then(|r| r.term),
                Purpose::Confirm => value::<StableRecord>(txn, "stable").and_then(|r| r.term),
                _ => None,
            };
            assert!(term.is_none_or(|term| term.revision() == leader.created), "P5: a deposed leader wrote");
        }
        if purpose == Purpose::Confirm {
            let record: StableRecord = value(txn, "stable").expect("a record");
            self.check_stable(record.version);
        }
    }

    /// P4: at some revision all nodes of the view stood and held their acknowledgement.
    fn check_stable(&self, version: Version) {
        let standing = self.store.get(self.keys.version_key()).expect("P4: the version stands");
        let newest: VersionRecord = decode(&standing.value).expect("it can be read");
        assert_eq!(newest.version, version, "P4: only the newest becomes stable");
        let mut entries: BTreeMap<Key, Entry> = BTreeMap::new();
        let mut cut: Option<Vec<Entry>> = None;
        for batch in self.store.history() {
            apply(&mut entries, &batch.changes);
            if batch.revision == standing.modified {
                let nodes = entries.values().filter(|e| e.key.starts_with(self.keys.nodes_prefix().as_str()));
                cut = Some(nodes.cloned().collect());
            }
            if let Some(cut) = &cut
                && cut.iter().all(|node| self.is_ready(&entries, node, version))
            {
                return;
            }
        }
        panic!("P4: {version} was recorded, but never were all ready at once");
    }

    fn is_ready(&self, entries: &BTreeMap<Key, Entry>, node: &Entry, version: Version) -> bool {
        let name = &node.key[self.keys.nodes_prefix().len()..];
        let stands = entries.get(&node.key).is_some_and(|now| now.modified == node.modified);
        let ready = entries.get(&Key::from(format!("{}{name}", self.keys.ready_prefix())));
        let says = ready.filter(|ready| ready.lease == node.lease);
        let record = says.and_then(|ready| decode::<ReadinessRecord>(&ready.value).ok());
        stands
            && record
                .is_some_and(|record| record.version == version && record.outcome == ReadinessOutcome::Ready)
    }
}
