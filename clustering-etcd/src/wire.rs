//! Between the contract's words and etcd's: keys with their prefix, leases, revisions, entries.

use bytes::Bytes;
use clustering_core::store::{Entry, Guard, Key, LeaseId, Operation, Revision, Txn};
use etcd_client::{Compare, CompareOp, GetOptions, PutOptions, TxnOp, proto::PbKeyValue};

/// Translates under a prefix that stands before every key in etcd.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    prefix: String,
}

/// A range of keys: from the first, inclusive, to the end, exclusive. An end of one zero byte is that of the key space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) first: Vec<u8>,
    pub(crate) end: Vec<u8>,
}

impl Range {
    /// What is left of it behind `key`.
    pub(crate) fn behind(&self, key: &[u8]) -> Self {
        let mut first = key.to_vec();
        first.push(0);
        Range { first, end: self.end.clone() }
    }
}

impl Wire {
    pub(crate) fn new(prefix: String) -> Self {
        Wire { prefix }
    }

    /// The key as etcd has it.
    pub(crate) fn key(&self, key: &str) -> Vec<u8> {
        [self.prefix.as_bytes(), key.as_bytes()].concat()
    }

    /// All keys that start with `prefix`.
    pub(crate) fn range(&self, prefix: &str) -> Range {
        let mut first = self.key(prefix);
        // UTF-8 has no byte 0xff, so the last one can always be counted up.
        let mut end = first.clone();
        match end.last_mut() {
            Some(last) => *last += 1,
            None => (first, end) = (vec![0], vec![0]),
        }
        Range { first, end }
    }

    /// A key that the caller may well have rights to, for calls that need one and mean none.
    pub(crate) fn any_key(&self) -> Vec<u8> {
        match self.prefix.is_empty() {
            true => vec![0],
            false => self.key(""),
        }
    }

    /// The key as the caller has it. `None` if it is not UTF-8: such a key cannot be written through this API, and its
    /// reads and watches leave it out.
    pub(crate) fn caller_key(&self, key: &[u8]) -> Option<Key> {
        let text = key.strip_prefix(self.prefix.as_bytes()).and_then(|key| std::str::from_utf8(key).ok());
        if text.is_none() {
            tracing::warn!(key = %key.escape_ascii(), "a key in etcd is not UTF-8: left out");
        }
        text.map(Key::from)
    }

    /// The entry as the caller has it.
    pub(crate) fn entry(&self, kv: PbKeyValue) -> Option<Entry> {
        Some(Entry {
            key: self.caller_key(&kv.key)?,
            value: Bytes::from(kv.value),
            created: revision(kv.create_revision),
            modified: revision(kv.mod_revision),
            lease: caller_lease(kv.lease),
        })
    }

    /// The transaction as etcd has it. One without operations carries a read: without any, etcd would judge its guards
    /// by what the member happens to have, not by what the cluster has.
    pub(crate) fn txn(&self, txn: &Txn) -> etcd_client::Txn {
        let compares: Vec<_> = txn.guards().iter().map(|guard| self.compare(guard)).collect();
        let mut operations: Vec<_> =
            txn.operations().iter().map(|operation| self.operation(operation)).collect();
        if operations.is_empty() {
            let key = txn.guards().first().map_or_else(|| self.any_key(), |guard| self.key(guard.key()));
            operations.push(TxnOp::get(key, Some(GetOptions::new().with_count_only())));
        }
        etcd_client::Txn::new().when(compares).and_then(operations)
    }

    fn compare(&self, guard: &Guard) -> Compare {
        match guard {
            Guard::CreatedAt(key, at) => {
                Compare::create_revision(self.key(key), CompareOp::Equal, wire_revision(*at))
            }
            Guard::ModifiedAt(key, at) => {
                Compare::mod_revision(self.key(key), CompareOp::Equal, wire_revision(*at))
            }
        }
    }

    fn operation(&self, operation: &Operation) -> TxnOp {
        match operation {
            Operation::Put { key, value, lease } => {
                let options = lease.map(|lease| PutOptions::new().with_lease(wire_lease(lease)));
                TxnOp::put(self.key(key), value.clone(), options)
            }
            Operation::Delete { key } => TxnOp::delete(self.key(key), None),
        }
    }
}

/// The lease as etcd has it, bit by bit. Etcd's 0 means "no lease"; it never grants the lowest number, which stands for
/// a caller's 0, so that this is an unknown lease like any other.
pub(crate) fn wire_lease(lease: LeaseId) -> i64 {
    match lease.get() {
        0 => i64::MIN,
        number => number.cast_signed(),
    }
}

/// The lease as the caller has it.
pub(crate) fn caller_lease(lease: i64) -> Option<LeaseId> {
    (lease != 0).then(|| LeaseId::new(lease.cast_unsigned()))
}

/// The revision as the caller has it. Etcd's are never negative.
pub(crate) fn revision(number: i64) -> Revision {
    Revision::new(u64::try_from(number).unwrap_or(0))
}

/// The revision as etcd has it. One beyond what etcd can count is one that it never reaches.
pub(crate) fn wire_revision(revision: Revision) -> i64 {
    i64::try_from(revision.get()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_what_starts_with_the_prefix() {
        let wire = Wire::new(String::new());
        assert_eq!(wire.range("a/"), Range { first: b"a/".to_vec(), end: b"a0".to_vec() });
        assert_eq!(wire.range(""), Range { first: vec![0], end: vec![0] });
        // The highest character: its last byte counts up all the same.
        let range = wire.range("\u{10ffff}");
        assert!("\u{10ffff}".as_bytes() < range.end.as_slice());
        assert_eq!(Wire::new("p/".into()).range(""), Range { first: b"p/".to_vec(), end: b"p0".to_vec() });
        assert_eq!(wire.range("a/").behind(b"a/7").first, b"a/7\0");
    }

    #[test]
    fn the_prefix_is_not_seen_by_the_caller() {
        let wire = Wire::new("p/".into());
        assert_eq!(wire.key("k"), b"p/k");
        assert_eq!(wire.caller_key(b"p/k").unwrap().as_str(), "k");
    }

    #[test]
    fn keys_that_are_not_utf8_are_left_out() {
        let kv = PbKeyValue { key: vec![b'k', 0xff], ..PbKeyValue::default() };
        assert_eq!(Wire::new(String::new()).entry(kv), None);
    }

    #[test]
    fn leases_and_revisions_survive_the_way_there_and_back() {
        for number in [1, 7, i64::MAX.cast_unsigned(), u64::MAX] {
            assert_eq!(caller_lease(wire_lease(LeaseId::new(number))), Some(LeaseId::new(number)));
        }
        assert_eq!(caller_lease(0), None);
        assert_ne!(wire_lease(LeaseId::new(0)), 0, "0 would be a put without a lease");
        assert_eq!(wire_revision(Revision::new(u64::MAX)), i64::MAX);
        assert_eq!(revision(wire_revision(Revision::new(42))), Revision::new(42));
    }
}
