//! Faults that drop guards or operations from commits.

use clustering_core::machine::{Output, Purpose};
use clustering_proofs::sim::{Seat, Tamper};

use super::commits;

/// Drops the guards on keys with these prefixes from commits with this purpose.
pub(crate) struct Unguarded {
    pub(crate) purpose: Purpose,
    pub(crate) keys: &'static [&'static str],
}

impl Tamper for Unguarded {
    fn output(&mut self, _: &Seat<'_>, output: Output) -> Vec<Output> {
        let dropped = |key: &str| self.keys.iter().any(|start| key.starts_with(start));
        let kept = |txn: &_| commits::keep(txn, |guard| !dropped(guard.key()), |_| true);
        commits::change(output, self.purpose, kept)
    }
}

macro_rules! unguarded {
    ($purpose:ident, $($key:literal),+) => {
        || $crate::tampers::Unguarded {
            purpose: clustering_core::machine::Purpose::$purpose,
            keys: &[$($key),+],
        }
    };
}
pub(crate) use unguarded;

/// Keeps the acknowledgement when the node's record is rewritten.
pub(crate) struct KeepsTheAcknowledgement;

impl Tamper for KeepsTheAcknowledgement {
    fn output(&mut self, _: &Seat<'_>, output: Output) -> Vec<Output> {
        let kept =
            |txn: &_| commits::keep(txn, |_| true, |operation| !operation.key().starts_with("c/ready/"));
        commits::change(output, Purpose::Rewrite, kept)
    }
}
