//! Commits that lack something.

use clustering_core::machine::{Output, Purpose};
use clustering_proofs::sim::{Seat, Tamper};

use super::commits;

/// Drops the guards on these keys from commits for that purpose.
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

/// Lets the acknowledgement stand when the record that it was given under is put again.
pub(crate) struct LeavesItStanding;

impl Tamper for LeavesItStanding {
    fn output(&mut self, _: &Seat<'_>, output: Output) -> Vec<Output> {
        let kept =
            |txn: &_| commits::keep(txn, |_| true, |operation| !operation.key().starts_with("c/ready/"));
        commits::change(output, Purpose::Rewrite, kept)
    }
}
