use std::fmt;

use bytes::Bytes;

use super::{Key, LeaseId, Revision, StoreError};

/// The size limits that apply to every store (contract rule 10).
#[derive(Debug)]
pub struct Limits;

impl Limits {
    /// Maximum length of a key, in bytes.
    pub const KEY: usize = 512;
    /// Maximum length of a value, in bytes.
    pub const VALUE: usize = 64 * 1024;
    /// Maximum number of guards in one commit.
    pub const GUARDS: usize = 16;
    /// Maximum number of operations in one commit.
    pub const OPERATIONS: usize = 16;
}

/// A condition that must hold for a commit to be applied.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Guard {
    /// The key was created at this revision. [`Revision::ZERO`] means that the key is absent.
    CreatedAt(Key, Revision),
    /// The key was last put at this revision. [`Revision::ZERO`] means that the key is absent.
    ModifiedAt(Key, Revision),
}

impl Guard {
    /// Requires that the key is absent.
    pub fn absent(key: impl Into<Key>) -> Self {
        Guard::CreatedAt(key.into(), Revision::ZERO)
    }

    /// Requires that the key was created at `revision` and has not been deleted since.
    pub fn created_at(key: impl Into<Key>, revision: Revision) -> Self {
        Guard::CreatedAt(key.into(), revision)
    }

    /// Requires that the key was last put at `revision` and has not changed since.
    pub fn modified_at(key: impl Into<Key>, revision: Revision) -> Self {
        Guard::ModifiedAt(key.into(), revision)
    }

    /// Returns the key that the guard checks.
    pub fn key(&self) -> &Key {
        match self {
            Guard::CreatedAt(key, _) | Guard::ModifiedAt(key, _) => key,
        }
    }
}

/// A change that a commit makes to one key.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Writes the key.
    Put {
        /// The key.
        key: Key,
        /// The new value.
        value: Bytes,
        /// The lease to attach the key to. `None` detaches the key from its previous lease.
        lease: Option<LeaseId>,
    },
    /// Deletes the key if it exists.
    Delete {
        /// The key.
        key: Key,
    },
}

impl Operation {
    /// Returns the key that the operation changes.
    pub fn key(&self) -> &Key {
        match self {
            Operation::Put { key, .. } | Operation::Delete { key } => key,
        }
    }
}

/// Shows only the length of a value, because values may contain secrets.
impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operation::Put { key, value, lease } => f
                .debug_struct("Put")
                .field("key", key)
                .field("value", &format_args!("{} bytes", value.len()))
                .field("lease", lease)
                .finish(),
            Operation::Delete { key } => f.debug_struct("Delete").field("key", key).finish(),
        }
    }
}

/// A transaction to commit: guards, then puts and deletes that are applied all or nothing.
///
/// ```
/// use clustering_core::store::{Guard, Revision, Txn};
///
/// let txn = Txn::new()
///     .guard(Guard::absent("jobs/7/owner"))
///     .guard(Guard::modified_at("jobs/7", Revision::new(41)))
///     .put("jobs/7/owner", "ingest-1", None)
///     .delete("jobs/7/free");
/// assert!(txn.validate().is_ok());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[must_use = "a transaction does nothing until it is committed"]
pub struct Txn {
    guards: Vec<Guard>,
    operations: Vec<Operation>,
}

impl Txn {
    /// Creates a transaction without guards or operations.
    pub fn new() -> Self {
        Txn::default()
    }

    /// Adds a guard.
    pub fn guard(mut self, guard: Guard) -> Self {
        self.guards.push(guard);
        self
    }

    /// Adds a put. The key is attached to `lease` if one is given.
    pub fn put(
        mut self,
        key: impl Into<Key>,
        value: impl Into<Bytes>,
        lease: impl Into<Option<LeaseId>>,
    ) -> Self {
        self.operations.push(Operation::Put { key: key.into(), value: value.into(), lease: lease.into() });
        self
    }

    /// Adds a delete. Deleting an absent key is not an error and changes nothing.
    pub fn delete(mut self, key: impl Into<Key>) -> Self {
        self.operations.push(Operation::Delete { key: key.into() });
        self
    }

    /// Returns the guards.
    pub fn guards(&self) -> &[Guard] {
        &self.guards
    }

    /// Returns the operations.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// Checks the transaction against [`Limits`], and that no two operations name the same key.
    ///
    /// Stores call this first in [`commit`](super::CoordinationStore::commit).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](super::ErrorKind::Invalid), with the limit and the actual size or count in the message.
    pub fn validate(&self) -> Result<(), StoreError> {
        let at_most = |what: &str, found: usize, limit: usize| match found <= limit {
            true => Ok(()),
            false => Err(StoreError::invalid(format!(
                "a commit may have at most {limit} {what}, this one has {found}"
            ))),
        };
        at_most("guards", self.guards.len(), Limits::GUARDS)?;
        at_most("operations", self.operations.len(), Limits::OPERATIONS)?;
        let keys = self.guards.iter().map(Guard::key).chain(self.operations.iter().map(Operation::key));
        for key in keys {
            if key.is_empty() || key.len() > Limits::KEY {
                let (limit, found) = (Limits::KEY, key.len());
                return Err(StoreError::invalid(format!(
                    "a key must have 1 to {limit} bytes, this one has {found}: {key:?}"
                )));
            }
        }
        for (place, operation) in self.operations.iter().enumerate() {
            let key = operation.key();
            if self.operations[..place].iter().any(|earlier| earlier.key() == key) {
                return Err(StoreError::invalid(format!(
                    "a commit may name each key only once, this one names {key:?} twice"
                )));
            }
            if let Operation::Put { value, .. } = operation
                && value.len() > Limits::VALUE
            {
                let (limit, found) = (Limits::VALUE, value.len());
                return Err(StoreError::invalid(format!(
                    "a value may have at most {limit} bytes, the value of {key:?} has {found}"
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ErrorKind;

    #[track_caller]
    fn assert_invalid(txn: &Txn, expected: &str) {
        let error = txn.validate().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(expected), "{error}");
    }

    #[test]
    fn a_commit_exactly_at_the_limits_is_valid() {
        let mut txn = Txn::new();
        for n in 0..Limits::GUARDS {
            txn = txn.guard(Guard::absent(format!("{n:0>width$}", width = Limits::KEY)));
        }
        for n in 0..Limits::OPERATIONS {
            txn = txn.put(format!("k{n}"), vec![0; Limits::VALUE], None);
        }
        txn.validate().unwrap();
    }

    #[test]
    fn exceeding_a_limit_is_an_error_that_names_the_limit_and_the_actual_size() {
        let many = (0..17).fold(Txn::new(), |txn, n| txn.delete(format!("k{n}")));
        assert_invalid(&many, "at most 16 operations, this one has 17");
        let many = (0..17).fold(Txn::new(), |txn, n| txn.guard(Guard::absent(format!("k{n}"))));
        assert_invalid(&many, "at most 16 guards, this one has 17");
        assert_invalid(&Txn::new().delete("k".repeat(513)), "1 to 512 bytes, this one has 513");
        assert_invalid(&Txn::new().guard(Guard::absent("")), "1 to 512 bytes, this one has 0");
        assert_invalid(
            &Txn::new().put("k", vec![0; 65_537], None),
            "at most 65536 bytes, the value of \"k\" has 65537",
        );
    }

    #[test]
    fn naming_a_key_in_two_operations_is_an_error() {
        assert_invalid(&Txn::new().put("k", "1", None).delete("k"), "names \"k\" twice");
    }

    #[test]
    fn debug_output_does_not_contain_values() {
        let shown = format!("{:?}", Txn::new().put("k", "secret", None));
        assert!(!shown.contains("secret") && shown.contains("6 bytes"), "{shown}");
    }
}
