use std::{collections::BTreeSet, time::Duration};

use clustering_core::{
    Config, CrashDetection, Endpoint, Evidence, ProcessId,
    machine::{Input, Purpose},
    store::{LeaseId, Txn},
};

use super::{Due, World};
use crate::sim::{Reached, checks::crashes};

/// Results of the connections between the processes so far.
#[derive(Debug, Default)]
pub(super) struct Reports {
    /// The processes that were killed.
    dead: BTreeSet<ProcessId>,
    /// The processes that were reported as gone.
    pub(super) reported: BTreeSet<ProcessId>,
}

/// Simulates the connections between the processes. They show that a process was killed, and some are refused
/// although the process is alive.
impl World<'_> {
    /// Lets a process that starts detect crashes, if this run calls for it. Returns its endpoint.
    pub(super) fn detect_crashes(&mut self, number: usize, config: &mut Config) -> Option<Endpoint> {
        let process = &mut self.processes[number];
        if self.swarm.detects == 0 || !process.random.percent(self.swarm.detects) {
            return None;
        }
        let mut detection = CrashDetection::default();
        detection.trust_refused = self.swarm.trusts;
        config.crash_detection = Some(detection);
        Some(Endpoint { address: format!("n{number}:1"), process: identity(number, process.life) })
    }

    /// The process now watches these endpoints. Its connections to dead processes are refused.
    pub(super) fn watch_processes(&mut self, watcher: usize, endpoints: Vec<Endpoint>) {
        let before = std::mem::take(&mut self.processes[watcher].watched);
        for endpoint in &endpoints {
            if self.reports.dead.contains(&endpoint.process) && !before.contains(endpoint) {
                self.report_gone(watcher, endpoint.process);
            }
        }
        self.processes[watcher].watched = endpoints;
    }

    /// Notes that a process was killed, which breaks the connections of its watchers.
    pub(super) fn break_connections(&mut self, process: usize) {
        let Some(dead) = self.processes[process].endpoint.take().map(|endpoint| endpoint.process) else {
            return;
        };
        self.reports.dead.insert(dead);
        for watcher in self.watchers(dead) {
            self.report_gone(watcher, dead);
        }
    }

    /// Something refuses connections to a live process.
    pub(super) fn refuse_connections(&mut self, process: usize) {
        let Some(endpoint) = self.processes[process].endpoint.clone() else { return };
        for watcher in self.watchers(endpoint.process) {
            self.report_gone(watcher, endpoint.process);
        }
    }

    fn watchers(&self, process: ProcessId) -> Vec<usize> {
        let watches =
            |watcher: &usize| self.processes[*watcher].watched.iter().any(|it| it.process == process);
        (0..self.processes.len()).filter(watches).collect()
    }

    /// Reports a process as gone: mostly within milliseconds, but also late, twice or never.
    fn report_gone(&mut self, watcher: usize, gone: ProcessId) {
        let this = &mut self.processes[watcher];
        let times = [0, 1, 1, 1, 2][this.random.below(5) as usize];
        for _ in 0..times {
            let most = if this.random.percent(15) { 8_000 } else { 5 };
            let delay: Duration = this.random.ms(0, most);
            let evidence = if this.random.percent(50) { Evidence::Refused } else { Evidence::Replaced };
            let life = this.life;
            self.queue.push(self.now + delay, Due::Gone { process: watcher, life, gone, evidence });
        }
    }

    /// A report reaches the process.
    pub(super) fn gone(&mut self, process: usize, gone: ProcessId, evidence: Evidence) {
        self.reports.reported.insert(gone);
        self.handle(process, Input::ProcessGone { process: gone, evidence });
    }

    /// P7. Checks that a node that learned that it was removed by mistake does not publish its endpoint again.
    pub(super) fn look_at_endpoint(&mut self, process: usize, purpose: Purpose, txn: &Txn) {
        let this = &self.processes[process];
        if this.knows_false_alarm {
            let result = crashes::hidden(&this.label, purpose, txn);
            self.book.check(result);
        }
    }

    /// Counts a revocation, if it ends the lease of a process that was killed.
    pub(super) fn note_revocation(&mut self, lease: LeaseId) {
        let owner = self.owners.get(lease.get() as usize);
        if owner.is_some_and(|(process, life)| self.reports.dead.contains(&identity(*process, *life))) {
            self.book.counts.note(Reached::LeaseRevoked);
        }
    }
}

/// Returns the identity of a process in one of its lives.
fn identity(process: usize, life: u32) -> ProcessId {
    ProcessId::from_u128((process as u128) << 64 | u128::from(life))
}
