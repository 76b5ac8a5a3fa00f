//! Calls of the store, as error messages name them.

use std::fmt;

use clustering_core::store::{Key, LeaseId, StoreError, Txn};

use crate::{
    failure::{Failure, FailureKind, RetrySafety},
    key_codec::KeyCodec,
};

/// One call of the store: its name, its retry safety, and the permissions that it needs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation<'a> {
    Check,
    GrantLease,
    RenewLease,
    RevokeLease(LeaseId),
    Read(&'a str),
    Watch(&'a str),
    Commit(&'a Txn),
}

impl Operation<'_> {
    pub(crate) fn retry_safety(self) -> RetrySafety {
        match self {
            Operation::Check | Operation::Read(_) | Operation::Watch(_) => RetrySafety::ReadOnly,
            Operation::RenewLease => RetrySafety::Idempotent,
            // Only checks its guards.
            Operation::Commit(txn) if txn.operations().is_empty() => RetrySafety::ReadOnly,
            Operation::GrantLease | Operation::RevokeLease(_) | Operation::Commit(_) => {
                RetrySafety::NotIdempotent
            }
        }
    }

    /// Returns the revision from the header of a reply, which every reply of etcd has.
    pub(crate) fn revision(self, found: Option<i64>) -> Result<i64, StoreError> {
        let missing = || Failure::new(FailureKind::ReplyLost, "the reply has no header");
        found.ok_or_else(|| missing().into_error(self.retry_safety(), &self.to_string()))
    }

    /// Describes the permissions that the user needs for the call, on keys as they are in etcd.
    pub(crate) fn permissions(self, codec: &KeyCodec) -> String {
        match self {
            Operation::Check | Operation::GrantLease | Operation::RenewLease => {
                "a user that exists in etcd".to_owned()
            }
            Operation::RevokeLease(id) => format!("write on every key that lease {id} holds"),
            Operation::Read(prefix) | Operation::Watch(prefix) => {
                format!("read on all keys under \"{}\"", codec.encode_key(prefix).escape_ascii())
            }
            Operation::Commit(txn) => {
                let read: Vec<_> = txn.guards().iter().map(|guard| guard.key()).collect();
                let write: Vec<_> = txn.operations().iter().map(|operation| operation.key()).collect();
                let on = |permission: &str, keys: &[&Key]| {
                    (!keys.is_empty()).then(|| format!("{permission} on {}", list(keys, codec)))
                };
                let needed: Vec<_> = [on("read", &read), on("write", &write)].into_iter().flatten().collect();
                match needed.is_empty() {
                    // An empty transaction is sent with a read of this key; see `KeyCodec::encode_txn`.
                    true => format!("read on \"{}\"", codec.any_key().escape_ascii()),
                    false => needed.join(" and "),
                }
            }
        }
    }
}

/// Lists the first keys, and the number of the others.
fn list(keys: &[&Key], codec: &KeyCodec) -> String {
    const SHOWN: usize = 4;
    let mut shown: Vec<_> = keys
        .iter()
        .take(SHOWN)
        .map(|key| format!("\"{}\"", codec.encode_key(key.as_str()).escape_ascii()))
        .collect();
    if keys.len() > SHOWN {
        shown.push(format!("{} more", keys.len() - SHOWN));
    }
    shown.join(", ")
}

impl fmt::Display for Operation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operation::Check => "check",
            Operation::GrantLease => "grant_lease",
            Operation::RenewLease => "renew_lease",
            Operation::RevokeLease(_) => "revoke_lease",
            Operation::Read(_) => "read",
            Operation::Watch(_) => "watch",
            Operation::Commit(_) => "commit",
        })
    }
}

#[cfg(test)]
mod tests {
    use clustering_core::store::{Guard, Revision};

    use super::*;

    #[test]
    fn permissions_name_the_keys_as_they_are_in_etcd() {
        let codec = KeyCodec::new("p/".into());
        let permissions = |operation: Operation<'_>| operation.permissions(&codec);
        assert_eq!(permissions(Operation::Read("view/")), "read on all keys under \"p/view/\"");
        assert_eq!(permissions(Operation::Watch("")), "read on all keys under \"p/\"");
        assert_eq!(
            permissions(Operation::RevokeLease(LeaseId::new(7))),
            "write on every key that lease 7 holds"
        );
        assert_eq!(permissions(Operation::Commit(&Txn::new())), "read on \"p/\"");

        let txn = Txn::new().guard(Guard::absent("a")).put("b", "v", None).delete("c");
        assert_eq!(permissions(Operation::Commit(&txn)), "read on \"p/a\" and write on \"p/b\", \"p/c\"");
        let check = Txn::new().guard(Guard::modified_at("a", Revision::ZERO));
        assert_eq!(permissions(Operation::Commit(&check)), "read on \"p/a\"");
        let many = (0..6).fold(Txn::new(), |txn, n| txn.delete(format!("k{n}")));
        assert_eq!(
            permissions(Operation::Commit(&many)),
            "write on \"p/k0\", \"p/k1\", \"p/k2\", \"p/k3\", 2 more"
        );
    }

    #[test]
    fn a_commit_without_operations_is_read_only() {
        let check = Txn::new().guard(Guard::absent("a"));
        assert_eq!(Operation::Commit(&check).retry_safety(), RetrySafety::ReadOnly);
        assert_eq!(Operation::Commit(&check.delete("a")).retry_safety(), RetrySafety::NotIdempotent);
    }
}
