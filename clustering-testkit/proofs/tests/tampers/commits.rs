//! Helpers that change commits.

use clustering_core::{
    machine::{Output, Purpose},
    store::{Guard, Key, Operation, Txn},
};

/// Changes a commit with this purpose. Passes all other outputs on unchanged.
pub(crate) fn change(output: Output, which: Purpose, change: impl FnOnce(&Txn) -> Txn) -> Vec<Output> {
    match output {
        Output::Commit { token, txn, purpose, timeout } if purpose == which => {
            vec![Output::Commit { token, txn: change(&txn), purpose, timeout }]
        }
        other => vec![other],
    }
}

/// Keeps only the selected guards and operations of a commit.
pub(crate) fn keep(
    txn: &Txn,
    guards: impl Fn(&Guard) -> bool,
    operations: impl Fn(&Operation) -> bool,
) -> Txn {
    let kept = txn.guards().iter().filter(|guard| guards(guard)).cloned();
    let guarded = kept.fold(Txn::new(), Txn::guard);
    txn.operations().iter().filter(|operation| operations(operation)).fold(guarded, |txn, operation| {
        match operation.clone() {
            Operation::Put { key, value, lease } => txn.put(key, value, lease),
            Operation::Delete { key } => txn.delete(key),
        }
    })
}

/// Replaces the values for which `value` returns a new one.
pub(crate) fn rewrite(txn: &Txn, mut value: impl FnMut(&Key, &[u8]) -> Option<Vec<u8>>) -> Txn {
    let guarded = txn.guards().iter().cloned().fold(Txn::new(), Txn::guard);
    txn.operations().iter().fold(guarded, |txn, operation| match operation.clone() {
        Operation::Put { key, value: old, lease } => {
            let new = value(&key, &old).map_or(old, Into::into);
            txn.put(key, new, lease)
        }
        Operation::Delete { key } => txn.delete(key),
    })
}
