use std::fmt;

use bytes::Bytes;

use super::{Key, LeaseId, Revision, StoreError};

/// The sizes that every store accepts (contract rule 10).
#[derive(Debug)]
pub struct Limits;

impl Limits {
    /// The longest key, in bytes.
    pub const KEY: usize = 512;
    /// The longest value, in bytes.
    pub const VALUE: usize = 64 * 1024;
    /// The most guards in one commit.
    pub const GUARDS: usize = 16;
    /// The most operations in one commit.
    pub const OPERATIONS: usize = 16;
}

/// What must hold for a commit to be applied.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Guard {
    /// The key was created at that revision; [`Revision::ZERO`]: it is absent.
    CreatedAt(Key, Revision),
    /// The key was last put at that revision; [`Revision::ZERO`]: it is absent.
    ModifiedAt(Key, Revision),
}

impl Guard {
    /// The key is absent.
    pub fn absent(key: impl Into<Key>) -> Self {
        Guard::CreatedAt(key.into(), Revision::ZERO)
    }

    /// The key was created at `revision` and not deleted since.
    pub fn created_at(key: impl Into<Key>, revision: Revision) -> Self {
        Guard::CreatedAt(key.into(), revision)
    }

    /// The key was last put at `revision` and stands unchanged.
    pub fn modified_at(key: impl Into<Key>, revision: Revision) -> Self {
        Guard::ModifiedAt(key.into(), revision)
    }

    /// The key that it is about.
    pub fn key(&self) -> &Key {
        match self {
            Guard::CreatedAt(key, _) | Guard::ModifiedAt(key, _) => key,
        }
    }
}

/// What a commit does to one key.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Writes the key.
    Put {
        /// The key.
        key: Key,
        /// Its new value.
        value: Bytes,
        /// The lease that it lives under from now on; `None` detaches it from the one that it had.
        lease: Option<LeaseId>,
    },
    /// Deletes the key, if it is there.
    Delete {
        /// The key.
        key: Key,
    },
}

impl Operation {
    /// The key that it is about.
    pub fn key(&self) -> &Key {
        match self {
            Operation::Put { key, .. } | Operation::Delete { key } => key,
        }
    }
}

/// Values may hold what is nobody's business: only their length is shown.
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

/// A commit to be: guards, then puts and deletes, all or nothing.
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
    /// One without guards and operations.
    pub fn new() -> Self {
        Txn::default()
    }

    /// Adds a guard.
    pub fn guard(mut self, guard: Guard) -> Self {
        self.guards.push(guard);
        self
    }

    /// Adds a put, under `lease` if one is given.
    pub fn put(
        mut self,
        key: impl Into<Key>,
        value: impl Into<Bytes>,
        lease: impl Into<Option<LeaseId>>,
    ) -> Self {
        self.operations.push(Operation::Put { key: key.into(), value: value.into(), lease: lease.into() });
        self
    }

    /// Adds a delete. Deleting an absent key is no error and no change.
    pub fn delete(mut self, key: impl Into<Key>) -> Self {
        self.operations.push(Operation::Delete { key: key.into() });
        self
    }

    /// Its guards.
    pub fn guards(&self) -> &[Guard] {
        &self.guards
    }

    /// Its operations.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// Checks it against [`Limits`], and that no two operations name the same key.
    ///
    /// Stores call this first in [`commit`](super::CoordinationStore::commit).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](super::ErrorKind::Invalid), saying which limit and what was found.
    pub fn validate(&self) -> Result<(), StoreError> {
        let at_most = |what: &str, found: usize, limit: usize| match found <= limit {
            true => Ok(()),
            false => Err(StoreError::invalid(format!(
                "a commit takes at most {limit} {what}, this one has {found}"
            ))),
        };
        at_most("guards", self.guards.len(), Limits::GUARDS)?;
        at_most("operations", self.operations.len(), Limits::OPERATIONS)?;
        let keys = self.guards.iter().map(Guard::key).chain(self.operations.iter().map(Operation::key));
        for key in keys {
            if key.is_empty() || key.len() > Limits::KEY {
                let (limit, found) = (Limits::KEY, key.len());
                return Err(StoreError::invalid(format!(
                    "a key has 1 to {limit} bytes, this one has {found}: {key:?}"
                )));
            }
        }
        for (place, operation) in self.operations.iter().enumerate() {
            let key = operation.key();
            if self.operations[..place].iter().any(|earlier| earlier.key() == key) {
                return Err(StoreError::invalid(format!(
                    "a commit names each key once, this one names {key:?} twice"
                )));
            }
            if let Operation::Put { value, .. } = operation
                && value.len() > Limits::VALUE
            {
                let (limit, found) = (Limits::VALUE, value.len());
                return Err(StoreError::invalid(format!(
                    "a value has at most {limit} bytes, that of {key:?} has {found}"
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
    fn refused(txn: &Txn, says: &str) {
        let error = txn.validate().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(says), "{error}");
    }

    #[test]
    fn what_is_at_the_limits_passes() {
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
    fn what_is_over_a_limit_is_refused_with_both_numbers() {
        let many = (0..17).fold(Txn::new(), |txn, n| txn.delete(format!("k{n}")));
        refused(&many, "at most 16 operations, this one has 17");
        let many = (0..17).fold(Txn::new(), |txn, n| txn.guard(Guard::absent(format!("k{n}"))));
        refused(&many, "at most 16 guards, this one has 17");
        refused(&Txn::new().delete("k".repeat(513)), "1 to 512 bytes, this one has 513");
        refused(&Txn::new().guard(Guard::absent("")), "1 to 512 bytes, this one has 0");
        refused(&Txn::new().put("k", vec![0; 65_537], None), "at most 65536 bytes, that of \"k\" has 65537");
    }

    #[test]
    fn one_key_in_two_operations_is_refused() {
        refused(&Txn::new().put("k", "1", None).delete("k"), "names \"k\" twice");
    }

    #[test]
    fn values_do_not_show_in_debug() {
        let shown = format!("{:?}", Txn::new().put("k", "secret", None));
        assert!(!shown.contains("secret") && shown.contains("6 bytes"), "{shown}");
    }
}
