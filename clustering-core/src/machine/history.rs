use super::Machine;
use crate::{
    keyspace::Keyspace,
    record::{Cause, HistoryRecord, SettledRecord, StoredRecord, VersionRecord, cut_off, encode},
    store::Txn,
    time::Timestamp,
    version::Term,
};

/// What is kept of versions for those who ask later why something changed: an entry for each, in a ring of slots.
///
/// The leader writes it within the commits that it makes anyway, so it costs none (P9), and outside of the prefixes that
/// are watched, so it is no event to anybody. Nothing that the protocol decides rests on it.
impl Machine {
    /// The record of the next version. An election leaves the term out: it is that commit's own revision.
    pub(super) fn next_version(
        &mut self,
        now: Timestamp,
        term: Option<Term>,
        causes: Vec<Cause>,
    ) -> VersionRecord {
        VersionRecord {
            version: self.ids.version(now, self.newest_seen),
            number: self.fold.next_number(),
            term,
            leader: self.identity.as_ref().map(|identity| identity.name.clone()),
            causes: cut_off(causes),
        }
    }
}

/// Publishes a version, and begins its entry.
pub(super) fn put_version(txn: Txn, keys: &Keyspace, published: VersionRecord) -> Txn {
    let (slot, record) = (keys.history_key(published.number), encode(&published));
    let entry = encode(&HistoryRecord { published, stable: None });
    txn.put(keys.version_key().clone(), record, None).put(slot, entry, None)
}

/// Completes the entry of the version that stands: it is stable. One that was written by hand has none.
pub(super) fn put_settled(
    txn: Txn,
    keys: &Keyspace,
    version: Option<&StoredRecord<VersionRecord>>,
    term: Term,
    settled: SettledRecord,
) -> Txn {
    let record = version.and_then(|standing| standing.record.as_ref()).filter(|record| record.number > 0);
    let Some(record) = record else { return txn };
    // The record may have been written by hand, without regard to the limits. The commit must not fail because of
    // causes, which are only informational.
    let causes = cut_off(record.causes.clone());
    let published = VersionRecord { term: record.term.or(Some(term)), causes, ..record.clone() };
    let entry = HistoryRecord { published, stable: Some(settled) };
    txn.put(keys.history_key(record.number), encode(&entry), None)
}
