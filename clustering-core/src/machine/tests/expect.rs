use std::time::Duration;

use super::bench::Bench;
use crate::{
    machine::{Output, Status},
    store::{Snapshot, Txn},
};

/// Inspects the machine and its outputs.
impl Bench {
    pub(super) fn status(&self) -> Status {
        self.machine.status(self.now)
    }

    /// True if the node may act as leader now.
    pub(super) fn is_leader(&self) -> bool {
        self.status().leadership.is_some_and(|leadership| self.now < leadership.until)
    }

    /// Returns the time until the machine's next wake-up.
    pub(super) fn wakes_in(&self) -> Option<Duration> {
        self.machine.next_wakeup().map(|at| at.since(self.now))
    }

    /// Checks that the outputs since the last check are exactly these, in this order.
    #[track_caller]
    pub(super) fn expect(&mut self, expected: &[&str]) {
        let lines: Vec<String> = self.outputs.drain(..).map(|output| self.names.render(&output)).collect();
        assert_eq!(lines, expected);
    }

    /// Like [`expect`](Self::expect), but considers only the outputs that start with one of `kinds`.
    #[track_caller]
    pub(super) fn expect_only(&mut self, kinds: &[&str], expected: &[&str]) {
        let lines = self.outputs.drain(..).map(|output| self.names.render(&output));
        let lines: Vec<String> =
            lines.filter(|line| kinds.iter().any(|kind| line.starts_with(kind))).collect();
        assert_eq!(lines, expected);
    }

    /// Appends to `collected` the outputs since the last check that start with `kind`, and discards the others.
    pub(super) fn collect(&mut self, kind: &str, collected: &mut Vec<String>) {
        let lines = self.outputs.drain(..).map(|output| self.names.render(&output));
        collected.extend(lines.filter(|line| line.starts_with(kind)));
    }

    /// Discards the outputs since the last check.
    pub(super) fn skip(&mut self) {
        self.outputs.clear();
    }

    /// Returns the transaction of the latest open commit with this purpose.
    pub(super) fn txn(&self, purpose: &str) -> &Txn {
        let of = |call: &Output| self.names.render(call).starts_with(purpose);
        match self.open.iter().rev().find(|call| of(call)) {
            Some(Output::Commit { txn, .. }) => txn,
            other => panic!("no open commit {purpose:?}: {other:?}"),
        }
    }

    /// Returns the time limits of the open calls.
    pub(super) fn timeouts(&self) -> Vec<Duration> {
        let timeout = |call: &Output| match *call {
            Output::Grant { timeout, .. } | Output::Renew { timeout, .. } => Some(timeout),
            Output::Revoke { timeout, .. } | Output::Read { timeout, .. } => Some(timeout),
            Output::Commit { timeout, .. } => Some(timeout),
            _ => None,
        };
        self.open.iter().filter_map(timeout).collect()
    }

    pub(super) fn snapshot(&self, prefix: &str) -> Snapshot {
        self.store.read(&format!("c/{prefix}").into())
    }
}
