use std::time::Duration;

use clustering_core::{
    Config, NodeName, View,
    machine::{Input, Machine, Phase},
};
use clustering_testkit::history::Moment;

use super::{Due, World};
use crate::sim::{Kind, Simulation, swarm::Exclusivity};

/// Interval at which the cluster is checked for stability.
const LOOK: Duration = Duration::from_millis(100);

impl Simulation {
    /// Returns the time after the last fault within which the cluster must become stable (P8).
    ///
    /// The after-effects of the storm may follow one another. Each of these times is measured by a clock that may run
    /// at only four fifths of the true rate:
    ///
    /// - 2 TTL: the leases of dead processes expire, and then those that a restore of the store has revived. A process
    ///   that gave up because such a lease held its name is started again.
    /// - 1 TTL: a leader that resigned waits this long before it campaigns again, if no other node can lead.
    /// - 4 TTL: a node whose acknowledgement was lost without a trace checks for it at least this often.
    /// - 1 minute: a node that was removed, by hand or as a laggard, stays away for at most this long.
    /// - 6 times 5 s: the longest pause between two attempts, for each of the calls that depend on one another: the
    ///   watch or the snapshot, the lease, the record, the election, the version, and the acknowledgement (or the
    ///   stabilize).
    /// - 15 s: a node that cannot release its slots in time leaves.
    /// - 30 s: joins wait while slots are handed over.
    /// - 1 TTL and 3 s: a node that is unhealthy at its start, or whose check hung, is checked again.
    /// - 5 s for the gap between two publications, and 5 s for calls in flight and for callbacks.
    pub fn calm_within(&self) -> Duration {
        let by_clocks = self.ttl * 8 + Duration::from_secs(60 + 6 * 5 + 15 + 30 + 3 + 5 + 5);
        by_clocks * 5 / 4
    }

    /// Returns the time without writes after which the cluster counts as calm.
    ///
    /// It exceeds the longest gap between two publications on the slowest clock: a leader may wait that long before it
    /// publishes a change, while the newest version is stable.
    fn quiet(&self) -> Duration {
        let longest_gap = Config::default().publish_gap.max;
        (self.ttl * 2).max((longest_gap + Duration::from_secs(1)) * 5 / 4)
    }
}

impl World<'_> {
    /// Ends all faults and waits until the cluster is stable. After that, nothing more may be written.
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
                        "P8, no calm: the cluster is not stable {within:?} after the last fault\n{report}"
                    ));
                }
                if self.book.is_broken() {
                    return;
                }
                self.run_until(self.now + LOOK);
            }
            self.settled_after = self.now.since(began);
            // Calls that the storm left in flight may disturb the cluster once more.
            let (revision, handled) = (self.store.revision(), self.handled());
            let quiet = self.setup.quiet();
            self.run_until(self.now + quiet);
            if self.book.is_broken() {
                return;
            }
            let per_node = (self.handled() - handled) / self.setup.nodes as u64;
            if self.store.revision() == revision {
                // A renewal and a health check take two inputs each, and happen three times per TTL, or four times on
                // the fastest clock.
                if per_node > 25 * u64::from(quiet.div_duration_f64(self.setup.ttl).ceil() as u32) {
                    self.book.fail(format!(
                        "busy loop: {per_node} inputs per node in {quiet:?} without any change"
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
        self.uncordon_all();
        for process in 0..self.processes.len() {
            self.processes[process].close_windows();
            if self.processes[process].frozen {
                self.over(Kind::Pause, process);
            }
            self.unstick(process);
            self.unstick_release(process);
            self.over(Kind::Deaf, process);
            self.drop_patient_holds(process);
            let life = self.processes[process].life;
            if self.processes[process].twin.is_some() {
                // Half of the second instances crash, the other half leave.
                if self.processes[process].random.percent(50) {
                    self.kill(process);
                } else {
                    self.queue.push(self.now, Due::Stop { process, life });
                }
            } else if self.processes[process].is_up() {
                let id = self.request();
                self.handle(process, Input::Register { id });
                self.roll_out(process);
            } else {
                self.queue.push(self.now, Due::Start { process });
            }
        }
    }

    /// Restarts a process that is not exclusive, if the run ends with a rollout to all nodes.
    fn roll_out(&mut self, process: usize) {
        let is_mixed = self.swarm.exclusivity == Exclusivity::Some && self.swarm.rolled_out == 100;
        if is_mixed && !self.is_exclusive(process) {
            let this = &mut self.processes[process];
            let (at, life) = (self.now + this.random.ms(0, 3_000), this.life);
            self.queue.push(at, Due::Stop { process, life });
        }
    }

    fn handled(&self) -> u64 {
        self.processes.iter().map(|process| process.handled).sum()
    }

    /// True if all nodes are members of the newest version, and know that it is stable.
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
            && self.are_slots_held()
            && machines().zip(&self.processes).all(|(machine, process)| {
                let Some(machine) = machine else { return false };
                let status = machine.status(process.clock.at(self.now));
                let same = status.newest.as_ref().map(View::revision) == Some(newest.revision());
                same && status.phase == Phase::Member && status.consistent && status.stale_since.is_none()
            })
    }

    fn report(&self) -> String {
        let of = |process: &super::Process| match &process.machine {
            None => format!("  {} is down", process.label),
            Some(machine) => format!("  {}: {:?}", process.label, machine.status(process.clock.at(self.now))),
        };
        self.processes.iter().map(of).collect::<Vec<_>>().join("\n")
    }
}
