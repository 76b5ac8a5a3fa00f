use std::{collections::BTreeSet, time::Duration};

use super::{Due, World};
use crate::{
    config::{Config, CrashDetection},
    event::Evidence,
    machine::{Input, tests::bench::ms},
    node::{Endpoint, ProcessId},
};

/// The detection of crashes in a run.
#[derive(Debug, Default)]
pub(super) struct Detection {
    /// True if the nodes detect crashes.
    pub(super) is_on: bool,
    /// True if the nodes trust reports. Then all reports are true.
    pub(super) is_trusted: bool,
    /// The processes that were killed.
    dead: BTreeSet<ProcessId>,
}

/// Simulates the connections between the processes: reports killed processes, and live processes by mistake.
impl World {
    pub(super) fn detect_crashes(&self, config: &mut Config) {
        let detection =
            CrashDetection { trust_refused: self.detection.is_trusted, ..CrashDetection::default() };
        config.crash_detection = Some(detection).filter(|_| self.detection.is_on);
    }

    pub(super) fn endpoint(&self, process: usize) -> Option<Endpoint> {
        let generation = self.processes[process].generation;
        let identity = ProcessId::from_u128((process as u128) << 64 | u128::from(generation));
        let address = format!("{}:1", self.processes[process].name);
        self.detection.is_on.then_some(Endpoint { address, process: identity })
    }

    /// Notes that a process is about to be killed, and reports it to its watchers.
    pub(super) fn dies(&mut self, process: usize) {
        let Some(Endpoint { process: dead, .. }) = self.endpoint(process) else { return };
        self.detection.dead.insert(dead);
        for watcher in 0..self.processes.len() {
            if self.processes[watcher].watched.iter().any(|endpoint| endpoint.process == dead) {
                self.report_gone(watcher, dead);
            }
        }
    }

    /// The process now watches these endpoints.
    pub(super) fn watch(&mut self, watcher: usize, endpoints: Vec<Endpoint>) {
        let dead: Vec<ProcessId> = endpoints
            .iter()
            .map(|endpoint| endpoint.process)
            .filter(|process| self.detection.dead.contains(process))
            .collect();
        self.processes[watcher].watched = endpoints;
        dead.into_iter().for_each(|dead| self.report_gone(watcher, dead));
    }

    /// Tells a process that one of those that it watches is gone, although it is not.
    pub(super) fn report_falsely(&mut self, watcher: usize) {
        let watched = &self.processes[watcher].watched;
        if watched.is_empty() || self.detection.is_trusted {
            return;
        }
        let watched = watched[self.numbered as usize % watched.len()].process;
        self.report_gone(watcher, watched);
    }

    /// Reports a process as gone: mostly at once, sometimes late, twice or never.
    fn report_gone(&mut self, watcher: usize, process: ProcessId) {
        let generation = self.processes[watcher].generation;
        let evidence = if self.below(2) == 0 { Evidence::Refused } else { Evidence::Replaced };
        for _ in 0..self.below(3) {
            let late = self.below(5) == 0;
            let delay: Duration = ms(self.below(if late { 6_000 } else { 10 }));
            let input = Input::ProcessGone { process, evidence };
            self.at(self.now + delay, Due::Report { process: watcher, generation, input });
        }
    }
}
