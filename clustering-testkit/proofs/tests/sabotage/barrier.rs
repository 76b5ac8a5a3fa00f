//! Faults that make the barrier open too early or call `on_stable` more than once.

use std::collections::{BTreeMap, BTreeSet};

use clustering_core::{
    Version,
    machine::Purpose,
    store::{Guard, Revision, Txn},
};
use clustering_proofs::sim::{Seat, Tamper};

use crate::{found, leads, tampers::CallsTwice, version};

/// Returns a correctly guarded commit that records the newest version as stable, or `None` if it is already recorded.
fn confirm(seat: &Seat<'_>) -> Option<(Purpose, Txn)> {
    let (keys, newest) = (seat.machine.keyspace(), seat.machine.newest()?);
    let term = seat.machine.status(seat.now).leadership?.term;
    let stable = seat.store.get(keys.stable_key());
    let value = format!(r#"{{"version": "{}", "term": {term}}}"#, newest.version());
    let recorded = stable.and_then(|entry| version(&entry.value)) == Some(newest.version());
    let txn = Txn::new()
        .guard(Guard::created_at(keys.election_key().clone(), term.revision()))
        .guard(Guard::modified_at(keys.version_key().clone(), newest.revision()))
        .guard(Guard::modified_at(
            keys.stable_key().clone(),
            stable.map_or(Revision::ZERO, |entry| entry.modified),
        ))
        .put(keys.stable_key().clone(), value, None);
    (!recorded).then_some((Purpose::Confirm, txn))
}

/// Records a version as stable if all existing acknowledgements are for it, even if some nodes have none.
struct IgnoresMissingAcknowledgements;

impl Tamper for IgnoresMissingAcknowledgements {
    fn commits(&mut self, seat: &Seat<'_>) -> Vec<(Purpose, Txn)> {
        let Some(newest) = seat.machine.newest().map(|view| view.version()).filter(|_| leads(seat)) else {
            return Vec::new();
        };
        let mut there = seat.store.under("c/ready/").into_iter().peekable();
        let all = there.peek().is_some() && there.all(|entry| version(&entry.value) == Some(newest));
        if all { confirm(seat).into_iter().collect() } else { Vec::new() }
    }
}

#[test]
fn p4_overlooking_nodes_without_an_acknowledgement_is_found() {
    found(|| IgnoresMissingAcknowledgements, &["P4", "P8, formed too early"]);
}

/// Counts an acknowledgement even after the session that made it has ended.
#[derive(Default)]
struct CountsOldSessions {
    said: BTreeMap<Version, BTreeSet<String>>,
}

impl Tamper for CountsOldSessions {
    fn commits(&mut self, seat: &Seat<'_>) -> Vec<(Purpose, Txn)> {
        for entry in seat.store.under("c/ready/") {
            let yes = entry.value.windows(7).any(|part| part == b"\"ready\"");
            if let Some(version) = version(&entry.value).filter(|_| yes) {
                self.said.entry(version).or_default().insert(entry.key["c/ready/".len()..].to_owned());
            }
        }
        let Some(newest) = seat.machine.newest().filter(|_| leads(seat)) else { return Vec::new() };
        let said = self.said.get(&newest.version());
        let all = newest.iter().all(|node| said.is_some_and(|said| said.contains(node.name.as_str())));
        if all { confirm(seat).into_iter().collect() } else { Vec::new() }
    }
}

#[test]
fn p4_counting_an_acknowledgement_of_an_old_session_is_found() {
    found(CountsOldSessions::default, &["P4", "P8, formed too early"]);
}

#[test]
fn p4_calling_on_stable_twice_is_found() {
    found(|| CallsTwice, &["P4"]);
}
