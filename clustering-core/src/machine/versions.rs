//! Building version records, and the commits that publish and confirm them (P9).
//!
//! Each version also gets an entry in the history, a ring of keys that shows later why something changed. The leader
//! writes it within commits that it makes anyway, and outside of the prefixes that are watched, so it costs no commit
//! and wakes no node. No decision of the protocol depends on it.

use std::{collections::BTreeMap, time::Duration};

use super::{
    assignment::{Assigning, put_assignment},
    facts::Facts,
    formation,
    keeping::Keeping,
    log::Log,
    outbox::Outbox,
    version_requests::VersionRequests,
};
use crate::{
    name::NodeName,
    record::{Cause, HistoryRecord, SettledRecord, StoredRecord, VersionRecord, cut_off, encode, shorten},
    store::{Limits, Revision, Txn},
    version::Term,
    view::View,
};

/// Maximum number of causes that are collected: a few more than a record names.
const CAUSES: usize = 64;

/// Space reserved in a version record for the fields that its history entry gains when the version becomes stable.
const SETTLED_SIZE: usize = 2 * 1024;

/// The concerns from which a version is built.
pub(crate) struct VersionInputs<'a> {
    pub(crate) log: &'a Log,
    pub(crate) version_requests: &'a VersionRequests,
    pub(crate) keeping: &'a Keeping,
    pub(crate) assigning: &'a Assigning,
}

/// Returns the record of the next version. An election leaves the term out, since it is the commit's own revision.
pub(crate) fn next_version(
    facts: &Facts,
    inputs: &VersionInputs<'_>,
    term: Option<Term>,
    causes: Vec<Cause>,
    out: &mut Outbox,
) -> VersionRecord {
    let record = VersionRecord {
        version: out.ids.version(facts.now, inputs.log.newest_seen()),
        number: facts.fold.next_number(),
        term,
        leader: facts.name().cloned(),
        causes: cut_off(causes),
        clean: is_clean_start(facts),
        kept: BTreeMap::new(),
        min_nodes: facts.config.min_nodes,
        formed: formation::has_formed(facts),
    };
    let kept = fitting(&record, inputs.keeping.kept(facts));
    VersionRecord { kept, ..record }
}

/// Returns the names, with their remaining times in milliseconds, for which the record has room. The slots of the other
/// nodes do not wait for them.
fn fitting(record: &VersionRecord, kept: BTreeMap<NodeName, Duration>) -> BTreeMap<NodeName, u64> {
    let mut room = (Limits::VALUE - SETTLED_SIZE).saturating_sub(encode(record).len());
    let kept = kept.into_iter().map(|(name, remaining)| (name, remaining.as_millis() as u64));
    let mut fits = |entry: &(NodeName, u64)| {
        let size = encode(entry).len();
        let fits = size <= room;
        room -= if fits { size } else { 0 };
        fits
    };
    kept.filter(|entry| fits(entry)).collect()
}

/// True if the newest version has hand-over and is stable, so that each slot is held by its owner. Then only nodes that
/// lose slots in the next version must release slots.
fn is_clean_start(facts: &Facts) -> bool {
    facts.fold.is_stable() && facts.fold.newest().is_some_and(View::has_handover)
}

/// Returns the causes of the next version: differences between the log and the newest version, and open requests.
pub(crate) fn causes(
    facts: &Facts,
    inputs: &VersionInputs<'_>,
    unacknowledged: Option<&NodeName>,
) -> Vec<Cause> {
    let VersionInputs { log, version_requests, keeping, assigning } = inputs;
    let mut causes = changed_nodes(facts);
    causes.extend(formation::is_outdated(facts).then_some(Cause::Formed));
    causes.extend(assigning.causes(keeping.not_back(facts)));
    causes.extend(stored_request(facts));
    causes.extend(version_requests.cause(facts));
    causes.extend(unacknowledged.cloned().map(Cause::Unacknowledged));
    causes.extend(log.is_outdone(facts).then_some(Cause::Restored));
    causes
}

fn changed_nodes(facts: &Facts) -> Vec<Cause> {
    let fold = &facts.fold;
    let Some(newest) = fold.newest() else {
        return match fold.version_modified() {
            Revision::ZERO => {
                fold.present().take(CAUSES).map(|node| Cause::Joined(node.name.clone())).collect()
            }
            _ => vec![Cause::Resync],
        };
    };
    let cause = |name: &NodeName| match (newest.get(name), fold.node(name)) {
        (None, _) => Cause::Joined(name.clone()),
        (Some(_), None) => fold.departure(name).cause(name.clone()),
        (Some(cut), Some(now)) if cut.lease != now.lease => Cause::Returned(name.clone()),
        (Some(_), Some(_)) => Cause::Changed(name.clone()),
    };
    fold.drift().take(CAUSES).map(cause).collect()
}

/// Returns the request key as a cause, if it is newer than the newest version.
fn stored_request(facts: &Facts) -> Option<Cause> {
    let fold = &facts.fold;
    let request = fold.request().filter(|request| request.modified > fold.version_modified())?;
    let (by, why) = match &request.record {
        Some(record) => (record.by.clone(), record.why.clone()),
        None => (None, None),
    };
    Some(Cause::Asked { by: shorten(by.unwrap_or_default()), why: why.map(shorten) })
}

/// Adds to a commit the new version, its history entry, and the assignment of the slots.
pub(crate) fn put_version(txn: Txn, facts: &Facts, published: VersionRecord) -> Txn {
    let keys = facts.keys();
    let (key, record) = (keys.history_key(published.number), encode(&published));
    let kept = published.kept.keys().cloned().collect::<Vec<_>>();
    let entry = encode(&HistoryRecord { published, stable: None });
    let txn = txn.put(keys.version_key().clone(), record, None).put(key, entry, None);
    put_assignment(txn, facts, &kept)
}

/// Adds to a commit the completed history entry of the current version, which is now stable. A version that was written
/// by hand has no entry.
pub(crate) fn put_settled(txn: Txn, facts: &Facts, term: Term, settled: SettledRecord) -> Txn {
    let version: Option<&StoredRecord<VersionRecord>> = facts.fold.version();
    let record = version.and_then(|version| version.record.as_ref()).filter(|record| record.number > 0);
    let Some(record) = record else { return txn };
    // The record may have been written by hand, without regard to the limits. The commit must not fail because of
    // causes, which are only informational.
    let causes = cut_off(record.causes.clone());
    let published = VersionRecord { term: record.term.or(Some(term)), causes, ..record.clone() };
    let entry = HistoryRecord { published, stable: Some(settled) };
    txn.put(facts.keys().history_key(record.number), encode(&entry), None)
}
