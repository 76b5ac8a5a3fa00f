//! The calls of the store, as errors name them.

use std::fmt;

use clustering_core::store::{Key, LeaseId, StoreError, Txn};

use crate::{
    failure::{Call, Failure, Outcome},
    wire::Wire,
};

/// One call of the store: its name, what a lost reply to it means, and the rights that it takes.
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
    /// What a lost reply means.
    pub(crate) fn call(self) -> Call {
        match self {
            Operation::Check | Operation::Read(_) | Operation::Watch(_) => Call::Read,
            Operation::RenewLease => Call::Repeatable,
            // Nobody minds if a mere check of guards is made twice.
            Operation::Commit(txn) if txn.operations().is_empty() => Call::Read,
            Operation::GrantLease | Operation::RevokeLease(_) | Operation::Commit(_) => Call::Change,
        }
    }

    /// The revision in a reply's header, without which no server of etcd replies.
    pub(crate) fn revision(self, found: Option<i64>) -> Result<i64, StoreError> {
        let none = || Failure::new(Outcome::Lost, "the reply has no header");
        found.ok_or_else(|| none().into_error(self.call(), &self.to_string()))
    }

    /// The rights that etcd's user needs for it, on keys as etcd has them.
    pub(crate) fn rights(self, wire: &Wire) -> String {
        match self {
            Operation::Check | Operation::GrantLease | Operation::RenewLease => {
                "a user that etcd knows".to_owned()
            }
            Operation::RevokeLease(id) => format!("write on every key that lease {id} holds"),
            Operation::Read(prefix) | Operation::Watch(prefix) => {
                format!("read on all keys under \"{}\"", wire.key(prefix).escape_ascii())
            }
            Operation::Commit(txn) => {
                let read: Vec<_> = txn.guards().iter().map(|guard| guard.key()).collect();
                let write: Vec<_> = txn.operations().iter().map(|operation| operation.key()).collect();
                let on = |right: &str, keys: &[&Key]| {
                    (!keys.is_empty()).then(|| format!("{right} on {}", list(keys, wire)))
                };
                let rights: Vec<_> = [on("read", &read), on("write", &write)].into_iter().flatten().collect();
                match rights.is_empty() {
                    // The read that stands in for it.
                    true => format!("read on \"{}\"", wire.any_key().escape_ascii()),
                    false => rights.join(" and "),
                }
            }
        }
    }
}

/// The first keys.
fn list(keys: &[&Key], wire: &Wire) -> String {
    const SHOWN: usize = 4;
    let mut shown: Vec<_> =
        keys.iter().take(SHOWN).map(|key| format!("\"{}\"", wire.key(key.as_str()).escape_ascii())).collect();
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
    fn the_rights_name_the_keys_as_etcd_has_them() {
        let wire = Wire::new("p/".into());
        let rights = |operation: Operation<'_>| operation.rights(&wire);
        assert_eq!(rights(Operation::Read("view/")), "read on all keys under \"p/view/\"");
        assert_eq!(rights(Operation::Watch("")), "read on all keys under \"p/\"");
        assert_eq!(rights(Operation::RevokeLease(LeaseId::new(7))), "write on every key that lease 7 holds");
        assert_eq!(rights(Operation::Commit(&Txn::new())), "read on \"p/\"");

        let txn = Txn::new().guard(Guard::absent("a")).put("b", "v", None).delete("c");
        assert_eq!(rights(Operation::Commit(&txn)), "read on \"p/a\" and write on \"p/b\", \"p/c\"");
        let check = Txn::new().guard(Guard::modified_at("a", Revision::ZERO));
        assert_eq!(rights(Operation::Commit(&check)), "read on \"p/a\"");
        let many = (0..6).fold(Txn::new(), |txn, n| txn.delete(format!("k{n}")));
        assert_eq!(
            rights(Operation::Commit(&many)),
            "write on \"p/k0\", \"p/k1\", \"p/k2\", \"p/k3\", 2 more"
        );
    }

    #[test]
    fn a_check_of_guards_changes_nothing() {
        let check = Txn::new().guard(Guard::absent("a"));
        assert_eq!(Operation::Commit(&check).call(), Call::Read);
        assert_eq!(Operation::Commit(&check.delete("a")).call(), Call::Change);
    }
}
