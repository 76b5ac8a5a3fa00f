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

/// Checks the promises against the contents of the store.
impl World {
    pub(super) fn check_leaders(&self) {
        for process in &self.processes {
            let Some(machine) = &process.machine else { continue };
            let status = machine.status(self.now);
            if status.leadership.is_some_and(|leadership| self.now < leadership.until) {
                let lease = machine.session.held().expect("P6: a leader has a session").lease;
                assert!(
                    self.store.lives_until(lease).is_some(),
                    "P6: a process leads after its lease has ended"
                );
            }
        }
    }

    pub(super) fn check_commit(&self, purpose: Purpose, txn: &Txn) {
        if matches!(purpose, Purpose::Publish | Purpose::Confirm | Purpose::Evict) {
            let leader = self.store.get(self.keys.election_key()).expect("P5: there is a leader");
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

    /// P4: checks that at some revision all nodes of the view were present and had acknowledged the version.
    fn check_stable(&self, version: Version) {
        let entry = self.store.get(self.keys.version_key()).expect("P4: there is a version");
        let newest: VersionRecord = decode(&entry.value).expect("the version is readable");
        assert_eq!(newest.version, version, "P4: only the newest version becomes stable");
        let mut entries: BTreeMap<Key, Entry> = BTreeMap::new();
        let mut cut: Option<Vec<Entry>> = None;
        for batch in self.store.history() {
            apply(&mut entries, &batch.changes);
            if batch.revision == entry.modified {
                let nodes = entries.values().filter(|e| e.key.starts_with(self.keys.nodes_prefix().as_str()));
                cut = Some(nodes.cloned().collect());
            }
            if let Some(cut) = &cut
                && cut.iter().all(|node| self.is_ready(&entries, node, version))
            {
                return;
            }
        }
        panic!("P4: {version} was recorded as stable, but its nodes were never all ready at once");
    }

    fn is_ready(&self, entries: &BTreeMap<Key, Entry>, node: &Entry, version: Version) -> bool {
        let name = &node.key[self.keys.nodes_prefix().len()..];
        let is_present = entries.get(&node.key).is_some_and(|now| now.modified == node.modified);
        let ready = entries.get(&Key::from(format!("{}{name}", self.keys.ready_prefix())));
        let ready = ready.filter(|ready| ready.lease == node.lease);
        let record = ready.and_then(|ready| decode::<ReadinessRecord>(&ready.value).ok());
        is_present
            && record
                .is_some_and(|record| record.version == version && record.outcome == ReadinessOutcome::Ready)
    }
}
