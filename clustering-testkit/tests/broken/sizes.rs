//! Stores that break rule 10.

use std::collections::BTreeMap;

use async_trait::async_trait;
use clustering_core::store::{
    CoordinationStore, ErrorKind, Key, Limits, Operation, Revision, Snapshot, StoreError, Txn,
};
use clustering_memory::MemoryStore;

use super::{
    Bend,
    commits::{with_guards, with_operations},
};

/// Returns the transaction with values truncated to `size` bytes.
fn cut(txn: &Txn, size: usize) -> Txn {
    let operations: Vec<Operation> = txn
        .operations()
        .iter()
        .cloned()
        .map(|operation| match operation {
            Operation::Put { key, mut value, lease } => {
                value.truncate(size);
                Operation::Put { key, value, lease }
            }
            delete => delete,
        })
        .collect();
    with_operations(txn, &operations)
}

/// Defines a bend that overrides only `commit`.
macro_rules! commit {
    ($(#[$doc:meta])* $name:ident, |$store:ident, $txn:ident| $body:expr) => {
        $(#[$doc])*
        #[derive(Clone, Default)]
        pub(crate) struct $name;

        #[async_trait]
        impl Bend for $name {
            async fn commit(&self, $store: &MemoryStore, $txn: Txn) -> Result<Revision, StoreError> {
                $body
            }
        }
    };
}

commit! {
    /// Stores only the first 65,535 bytes of a value.
    TruncatesValues, |store, txn| match txn.validate() {
        Ok(()) => store.commit(cut(&txn, Limits::VALUE - 1)).await,
        Err(error) => Err(error),
    }
}

commit! {
    /// Truncates a value that is too large instead of refusing it.
    TruncatesLargeValues, |store, txn| store.commit(cut(&txn, Limits::VALUE)).await
}

commit! {
    /// Refuses values of more than 32 KiB.
    RefusesLargeValues, |store, txn| {
        let large = |operation: &Operation| matches!(operation, Operation::Put { value, .. } if value.len() > 1 << 15);
        if txn.operations().iter().any(large) {
            return Err(StoreError::invalid("a value has at most 32768 bytes"));
        }
        store.commit(txn).await
    }
}

commit! {
    /// Treats a put of an empty value as a delete.
    DropsEmptyValues, |store, txn| {
        let operations: Vec<Operation> = txn
            .operations()
            .iter()
            .cloned()
            .map(|operation| match operation {
                Operation::Put { key, value, .. } if value.is_empty() => Operation::Delete { key },
                operation => operation,
            })
            .collect();
        store.commit(with_operations(&txn, &operations)).await
    }
}

commit! {
    /// Refuses keys of more than 255 bytes.
    RefusesLongKeys, |store, txn| {
        if txn.operations().iter().any(|operation| operation.key().len() > 255) {
            return Err(StoreError::invalid("a key has at most 255 bytes"));
        }
        store.commit(txn).await
    }
}

commit! {
    /// Limits the characters of a key instead of its bytes, and reports success for keys that are too long.
    CountsCharacters, |store, txn| {
        let mut keys = txn.operations().iter().map(Operation::key);
        if keys.any(|key| key.len() > Limits::KEY && key.chars().count() <= Limits::KEY) {
            return Ok(store.revision());
        }
        store.commit(txn).await
    }
}

commit! {
    /// Refuses more than eight guards.
    RefusesManyGuards, |store, txn| match txn.guards().len() {
        0..=8 => store.commit(txn).await,
        _ => Err(StoreError::invalid("a commit takes at most 8 guards")),
    }
}

commit! {
    /// Ignores all guards after the first 16.
    AcceptsManyGuards, |store, txn| {
        store.commit(with_guards(&txn, txn.guards().iter().take(16).cloned())).await
    }
}

commit! {
    /// Applies any number of operations, 16 at a time.
    AcceptsManyOperations, |store, txn| {
        if txn.operations().len() <= Limits::OPERATIONS {
            return store.commit(txn).await;
        }
        let mut revision = store.revision();
        for some in txn.operations().chunks(Limits::OPERATIONS) {
            revision = store.commit(with_operations(&txn, some)).await?;
        }
        Ok(revision)
    }
}

commit! {
    /// Applies the last of several operations on a key.
    AcceptsAKeyTwice, |store, txn| {
        let last: BTreeMap<&Key, &Operation> =
            txn.operations().iter().map(|operation| (operation.key(), operation)).collect();
        if txn.operations().len() > Limits::OPERATIONS {
            return store.commit(txn).await;
        }
        store.commit(with_operations(&txn, last.into_values())).await
    }
}

commit! {
    /// Writes the valid operations of an invalid commit.
    WritesWhatIsValid, |store, txn| {
        let answer = store.commit(txn.clone()).await;
        if matches!(&answer, Err(error) if error.kind() == ErrorKind::Invalid) {
            for operation in txn.operations() {
                let _ = store.commit(with_operations(&Txn::new(), [operation])).await;
            }
        }
        answer
    }
}

/// Refuses reads of more than 4 MiB.
#[derive(Clone, Default)]
pub(crate) struct RefusesLargeReads;

#[async_trait]
impl Bend for RefusesLargeReads {
    async fn read(&self, store: &MemoryStore, prefix: &str) -> Result<Snapshot, StoreError> {
        let snapshot = store.read(prefix).await?;
        match snapshot.entries.iter().map(|entry| entry.value.len()).sum::<usize>() {
            0..=0x40_0000 => Ok(snapshot),
            _ => Err(StoreError::busy("the answer is too large")),
        }
    }
}
