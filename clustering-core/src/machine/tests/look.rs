use std::time::Duration;

use super::bench::Bench;
use crate::{
    machine::{Output, Status},
    store::{Snapshot, Txn},
};

/// Looking.
impl Bench {
    pub(super) fn status(&self) -> Status {
        self.machine.status(self.now)
    }

    /// Whether the node may say that it leads, now.
    pub(super) fn is_leader(&self) -> bool {
        self.status().leadership.is_some_and(|leadership| self.now < leadership.until)
    }

    /// How long until the machine wants to be woken.
    pub(super) fn wakes_in(&self) -> Option<Duration> {
        self.machine.next_wakeup().map(|at| at.since(self.now))
    }

    /// Everything that the machine put out since the last look, in order.
    #[track_caller]
    pub(super) fn says(&mut self, expected: &[&str]) {
        let said: Vec<String> = self.said.drain(..).map(|output| self.names.render(&output)).collect();
        assert_eq!(said, expected);
    }

    /// Like [`says`](Self::says), of the outputs that begin like one of `kinds`.
    #[track_caller]
    pub(super) fn says_of(&mut self, kinds: &[&str], expected: &[&str]) {
        let said = self.said.drain(..).map(|output| self.names.render(&output));
        let said: Vec<String> = said.filter(|line| kinds.iter().any(|kind| line.starts_with(kind))).collect();
        assert_eq!(said, expected);
    }

    /// Adds what was put out since the last look and begins like that.
    pub(super) fn says_if(&mut self, kind: &str, heard: &mut Vec<String>) {
        let said = self.said.drain(..).map(|output| self.names.render(&output));
        heard.extend(said.filter(|line| line.starts_with(kind)));
    }

    /// Does not look.
    pub(super) fn skip(&mut self) {
        self.said.clear();
    }

    /// The last transaction for that purpose that is on its way.
    pub(super) fn txn(&self, purpose: &str) -> &Txn {
        let of = |call: &Output| self.names.render(call).starts_with(purpose);
        match self.open.iter().rev().find(|call| of(call)) {
            Some(Output::Commit { txn, .. }) => txn,
            other => panic!("no commit {purpose:?}: {other:?}"),
        }
    }

    /// How long the open calls may take.
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
