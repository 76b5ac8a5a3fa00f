use std::time::Duration;

use clustering_core::{
    Config, NodeName, View,
    machine::{Input, Machine, Phase},
};
use clustering_testkit::history::Moment;

use super::{Due, World};
use crate::sim::{Kind, Simulation};

/// How often is looked whether all is well.
const LOOK: Duration = Duration::from_millis(100);

impl Simulation {
    /// How long after the last fault all is well at the latest (P8).
    ///
    /// What the storm leaves behind takes its time, one thing after the other, each by a clock that may count only four
    /// fifths of a second in one:
    ///
    /// - 2 TTL: the leases of the dead expire, and so do those of the dead that a restored store gave their time again;
    ///   a process that found its name held by one of these and gave up is started again.
    /// - 1 TTL: who resigned, if nobody else is left to lead, waits so long before it campaigns again.
    /// - 4 TTL: a node whose acknowledgement was lost unseen looks whether it stands no less often.
    /// - a minute: a node that was removed, by hand or as a laggard, stays away so long at most.
    /// - 6 times 5 s: the longest pause between two tries, of each of the calls that build on each other: the watch or
    ///   the snapshot; the lease; the record; the election; the version; the acknowledgement (or the stabilize).
    /// - 1 TTL and 3 s: a node that is found ill at its start, or that was hung up, is checked again.
    /// - 5 s for the gap between two publications, 5 s for what is on its way and for callbacks.
    pub fn calm_within(&self) -> Duration {
        let by_clocks = self.ttl * 8 + Duration::from_secs(60 + 6 * 5 + 3 + 5 + 5);
        by_clocks * 5 / 4
    }

    /// Returns the time without writes after which the cluster counts as calm.
    ///
    /// It exceeds the longest gap between two publications by the slowest clock: a leader may wait that long before it
    /// publishes a change, while the newest version is stable.
    fn quiet(&self) -> Duration {
        let longest_gap = Config::default().publish_gap.max;
        (self.ttl * 2).max((longest_gap + Duration::from_secs(1)) * 5 / 4)
    }
}

impl World<'_> {
    /// No more faults: everything must become stable, and then nothing more must happen.
    pub(super) fn settle(&mut self) {
        if self.book.is_broken() {
            return;
        }
        self.end_storm();
        let end = self.now + self.setup.calm_within();
        let began = self.now;
        loop {
            while !self.is_well() {
                if self.now >= end {
                    let report = self.report();
                    let within = self.setup.calm_within();
                    self.book.fail(format!(
                        "P8, no calm: {within:?} after the last fault not all is well\n{report}"
                    ));
                }
                if self.book.is_broken() {
                    return;
                }
                self.run_until(self.now + LOOK);
            }
            self.settled_after = self.now.since(began);
            // What the storm left on its way may stir it once more.
            let (revision, handled) = (self.store.revision(), self.handled());
            let quiet = self.setup.quiet();
            self.run_until(self.now + quiet);
            if self.book.is_broken() {
                return;
            }
            let per_node = (self.handled() - handled) / self.setup.nodes as u64;
            if self.store.revision() == revision {
                // A renewal and a health check take two inputs each, and come three times in a TTL, or four by the fastest
                // clock.
                if per_node > 25 * u64::from(quiet.div_duration_f64(self.setup.ttl).ceil() as u32) {
                    self.book.fail(format!(
                        "a busy loop: {per_node} inputs a node in {quiet:?}, and nothing happens"
                    ));
                }
                break;
            }
        }
        let names = (0..self.setup.nodes).map(|node| self.processes[node].name.as_str().to_owned());
        let calm = clustering_testkit::promises::Calm::of(names.collect::<Vec<_>>());
        self.book.calm(&calm);
    }

    fn end_storm(&mut self) {
        self.stormy = false;
        self.outage_until = Moment::default();
        for process in 0..self.processes.len() {
            self.processes[process].close_windows();
            if self.processes[process].frozen {
                self.over(Kind::Pause, process);
            }
            self.unstick(process);
            let life = self.processes[process].life;
            if self.processes[process].twin.is_some() {
                // Half of the second instances crash, half of them leave.
                if self.processes[process].random.percent(50) {
                    self.kill(process);
                } else {
                    self.queue.push(self.now, Due::Stop { process, life });
                }
            } else if self.processes[process].is_up() {
                let id = self.request();
                self.handle(process, Input::Register { id });
            } else {
                self.queue.push(self.now, Due::Start { process });
            }
        }
    }

    fn handled(&self) -> u64 {
        self.processes.iter().map(|process| process.handled).sum()
    }

    /// All nodes are members of the newest version, and it is stable for everyone.
    fn is_well(&self) -> bool {
        let machines = || self.processes[..self.setup.nodes].iter().map(|process| process.machine.as_ref());
        let Some(Some(newest)) = machines().next().map(|machine| machine.and_then(Machine::newest)) else {
            return false;
        };
        let names = self.processes[..self.setup.nodes].iter().map(|process| &process.name);
        let whole = newest.len() == self.setup.nodes
            && names.clone().all(|name: &NodeName| newest.get(name).is_some());
        let twins_gone = self.processes[self.setup.nodes..].iter().all(|twin| !twin.is_up());
        whole
            && twins_gone
            && machines().zip(&self.processes).all(|(machine, process)| {
                let Some(machine) = machine else { return false };
                let status = machine.status(process.clock.at(self.now));
                let same = status.newest.as_ref().map(View::revision) == Some(newest.revision());
                same && status.phase == Phase::Member && status.consistent && status.stale_since.is_none()
            })
    }

    fn report(&self) -> String {
        let of = |process: &super::Process| match &process.machine {
            None => format!("  {} does not run", process.label),
            Some(machine) => format!("  {}: {:?}", process.label, machine.status(process.clock.at(self.now))),
        };
        self.processes.iter().map(of).collect::<Vec<_>>().join("\n")
    }
}
