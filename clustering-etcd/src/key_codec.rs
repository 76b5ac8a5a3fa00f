//! Conversion between the types of the store contract and etcd's: keys with their prefix, leases, revisions, entries.

use bytes::Bytes;
use clustering_core::store::{Entry, Guard, Key, LeaseId, Operation, Revision, Txn};
use etcd_client::{Compare, CompareOp, GetOptions, PutOptions, TxnOp, proto::PbKeyValue};

/// Converts keys, and everything that contains keys. In etcd, every key has the configured prefix.
#[derive(Clone, Debug)]
pub(crate) struct KeyCodec {
    prefix: String,
}

/// Range of etcd keys from `first`, inclusive, to `end`, exclusive. An `end` of one zero byte means the end of the key
/// space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) first: Vec<u8>,
    pub(crate) end: Vec<u8>,
}

impl Range {
    /// Returns the part of the range after `key`.
    pub(crate) fn after(&self, key: &[u8]) -> Self {
        let mut first = key.to_vec();
        first.push(0);
        Range { first, end: self.end.clone() }
    }
}

impl KeyCodec {
    pub(crate) fn new(prefix: String) -> Self {
        KeyCodec { prefix }
    }

    /// Returns the key in etcd.
    pub(crate) fn encode_key(&self, key: &str) -> Vec<u8> {
        [self.prefix.as_bytes(), key.as_bytes()].concat()
    }

    /// Returns the range of all keys that start with `prefix`.
    pub(crate) fn range(&self, prefix: &str) -> Range {
        let mut first = self.encode_key(prefix);
        // UTF-8 never contains the byte 0xff, so the last byte can always be incremented.
        let mut end = first.clone();
        match end.last_mut() {
            Some(last) => *last += 1,
            None => (first, end) = (vec![0], vec![0]),
        }
        Range { first, end }
    }

    /// Returns a key that the user probably may read, for requests that need some key.
    pub(crate) fn any_key(&self) -> Vec<u8> {
        match self.prefix.is_empty() {
            true => vec![0],
            false => self.encode_key(""),
        }
    }

    /// Returns the caller's key for a key in etcd. `None` if it is not UTF-8: such a key cannot be written through this
    /// API, and reads and watches skip it.
    pub(crate) fn decode_key(&self, key: &[u8]) -> Option<Key> {
        let text = key.strip_prefix(self.prefix.as_bytes()).and_then(|key| std::str::from_utf8(key).ok());
        if text.is_none() {
            tracing::warn!(key = %key.escape_ascii(), "skipped a key in etcd that is not UTF-8");
        }
        text.map(Key::from)
    }

    /// Converts an entry. `None` if its key is not UTF-8.
    pub(crate) fn decode_entry(&self, kv: PbKeyValue) -> Option<Entry> {
        Some(Entry {
            key: self.decode_key(&kv.key)?,
            value: Bytes::from(kv.value),
            created: decode_revision(kv.create_revision),
            modified: decode_revision(kv.mod_revision),
            lease: decode_lease(kv.lease),
        })
    }

    /// Converts a transaction. Adds a read to a transaction without operations: without any, etcd would check the
    /// guards against the state of the member, which may lag behind the cluster.
    pub(crate) fn encode_txn(&self, txn: &Txn) -> etcd_client::Txn {
        let compares: Vec<_> = txn.guards().iter().map(|guard| self.encode_guard(guard)).collect();
        let mut operations: Vec<_> =
            txn.operations().iter().map(|operation| self.encode_operation(operation)).collect();
        if operations.is_empty() {
            let key =
                txn.guards().first().map_or_else(|| self.any_key(), |guard| self.encode_key(guard.key()));
            operations.push(TxnOp::get(key, Some(GetOptions::new().with_count_only())));
        }
        etcd_client::Txn::new().when(compares).and_then(operations)
    }

    fn encode_guard(&self, guard: &Guard) -> Compare {
        match guard {
            Guard::CreatedAt(key, at) => {
                Compare::create_revision(self.encode_key(key), CompareOp::Equal, encode_revision(*at))
            }
            Guard::ModifiedAt(key, at) => {
                Compare::mod_revision(self.encode_key(key), CompareOp::Equal, encode_revision(*at))
            }
        }
    }

    fn encode_operation(&self, operation: &Operation) -> TxnOp {
        match operation {
            Operation::Put { key, value, lease } => {
                let options = lease.map(|lease| PutOptions::new().with_lease(encode_lease(lease)));
                TxnOp::put(self.encode_key(key), value.clone(), options)
            }
            Operation::Delete { key } => TxnOp::delete(self.encode_key(key), None),
        }
    }
}

/// Converts a lease ID bit by bit. In etcd, 0 means "no lease", and the lowest number is never granted: that number
/// represents a caller's 0, so that 0 is an unknown lease like any other.
pub(crate) fn encode_lease(lease: LeaseId) -> i64 {
    match lease.get() {
        0 => i64::MIN,
        number => number.cast_signed(),
    }
}

/// Converts etcd's lease ID. `None` for "no lease".
pub(crate) fn decode_lease(lease: i64) -> Option<LeaseId> {
    (lease != 0).then(|| LeaseId::new(lease.cast_unsigned()))
}

/// Converts etcd's revision, which is never negative.
pub(crate) fn decode_revision(number: i64) -> Revision {
    Revision::new(u64::try_from(number).unwrap_or(0))
}

/// Converts a revision. One beyond etcd's range becomes the highest, which etcd never reaches.
pub(crate) fn encode_revision(revision: Revision) -> i64 {
    i64::try_from(revision.get()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_contains_exactly_the_keys_with_the_prefix() {
        let codec = KeyCodec::new(String::new());
        assert_eq!(codec.range("a/"), Range { first: b"a/".to_vec(), end: b"a0".to_vec() });
        assert_eq!(codec.range(""), Range { first: vec![0], end: vec![0] });
        // The last byte of the highest character can be incremented too.
        let range = codec.range("\u{10ffff}");
        assert!("\u{10ffff}".as_bytes() < range.end.as_slice());
        assert_eq!(
            KeyCodec::new("p/".into()).range(""),
            Range { first: b"p/".to_vec(), end: b"p0".to_vec() }
        );
        assert_eq!(codec.range("a/").after(b"a/7").first, b"a/7\0");
    }

    #[test]
    fn the_caller_does_not_see_the_prefix() {
        let codec = KeyCodec::new("p/".into());
        assert_eq!(codec.encode_key("k"), b"p/k");
        assert_eq!(codec.decode_key(b"p/k").unwrap().as_str(), "k");
    }

    #[test]
    fn keys_that_are_not_utf8_are_skipped() {
        let kv = PbKeyValue { key: vec![b'k', 0xff], ..PbKeyValue::default() };
        assert_eq!(KeyCodec::new(String::new()).decode_entry(kv), None);
    }

    #[test]
    fn leases_and_revisions_survive_a_round_trip() {
        for number in [1, 7, i64::MAX.cast_unsigned(), u64::MAX] {
            assert_eq!(decode_lease(encode_lease(LeaseId::new(number))), Some(LeaseId::new(number)));
        }
        assert_eq!(decode_lease(0), None);
        assert_ne!(encode_lease(LeaseId::new(0)), 0, "0 would mean a put without a lease");
        assert_eq!(encode_revision(Revision::new(u64::MAX)), i64::MAX);
        assert_eq!(decode_revision(encode_revision(Revision::new(42))), Revision::new(42));
    }
}
