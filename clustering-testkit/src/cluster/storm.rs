use std::{fmt, future::Future, sync::Arc, time::Duration};

use clustering_core::Clustering;
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    Failure, TestCluster,
    gate::{Gate, spawn_in},
    shared::Stage,
};
use crate::{faulty::Chances, history::Observation, random::Random};

/// Kinds of faults in a [`Storm`], and requests that users make during it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Trouble {
    /// The process is killed, and started again later.
    Crash,
    /// The node leaves gracefully, and is started again later.
    Leave,
    /// All processes are stopped and started one after the other, as when new software is rolled out.
    RollingRestart,
    /// The process is paused for a while.
    Pause,
    /// The process's calls fail and its watches break for a while.
    CutOff,
    /// The process's calls are not answered for a while.
    Hang,
    /// No process reaches the store for a while.
    Outage,
    /// The store ends the node's lease early, in breach of its contract. The node cannot know that in time.
    Expire,
    /// The node's network is [bad](Chances::bad_network) for a while: slow calls, lost replies, late commits and broken
    /// watches.
    BadNetwork,
    /// The node's watches deliver nothing for a while.
    WatchLag,
    /// The node's watches break, and the changes that they have not delivered are compacted.
    WatchGap,
    /// A user requests a new version.
    Ask,
    /// A user makes the leader resign.
    Resign,
}

impl Trouble {
    /// All kinds of troubles.
    pub const ALL: [Trouble; 13] = [
        Trouble::Crash,
        Trouble::Leave,
        Trouble::RollingRestart,
        Trouble::Pause,
        Trouble::CutOff,
        Trouble::Hang,
        Trouble::Outage,
        Trouble::Expire,
        Trouble::BadNetwork,
        Trouble::WatchLag,
        Trouble::WatchGap,
        Trouble::Ask,
        Trouble::Resign,
    ];

    /// Returns the minimum and maximum duration in milliseconds.
    const fn lasts(self) -> (u64, u64) {
        match self {
            Trouble::Pause | Trouble::CutOff | Trouble::Hang => (100, 25_000),
            Trouble::Outage => (100, 20_000),
            Trouble::Crash | Trouble::Leave => (1, 10_000),
            Trouble::RollingRestart => (100, 15_000),
            Trouble::BadNetwork => (1_000, 20_000),
            Trouble::WatchLag => (100, 8_000),
            Trouble::Expire | Trouble::WatchGap | Trouble::Ask | Trouble::Resign => (0, 0),
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Trouble::Crash => "crash",
            Trouble::Leave => "leave",
            Trouble::RollingRestart => "rolling restart",
            Trouble::Pause => "pause",
            Trouble::CutOff => "cut off",
            Trouble::Hang => "hang",
            Trouble::Outage => "store outage",
            Trouble::Expire => "early expiry",
            Trouble::BadNetwork => "bad network",
            Trouble::WatchLag => "watch lag",
            Trouble::WatchGap => "watch gap",
            Trouble::Ask => "ask",
            Trouble::Resign => "resign",
        })
    }
}

/// Random troubles from a seed, for [`TestCluster::storm`].
///
/// ```
/// # use std::time::Duration;
/// # use clustering_testkit::cluster::{Failure, Storm, TestCluster, Trouble};
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Failure> {
/// let cluster = TestCluster::start(3, |process| process.builder().start()).await?;
/// let storm = Storm::new(7).lasting(Duration::from_secs(60)).without([Trouble::Expire]);
/// cluster.storm(&storm).await?;
/// cluster.settle().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a storm does nothing until it is passed to `TestCluster::storm`"]
pub struct Storm {
    seed: u64,
    length: Duration,
    gap: Duration,
    troubles: Vec<Trouble>,
}

/// A trouble that a storm has planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Planned {
    trouble: Trouble,
    at: Duration,
    lasts: Duration,
    /// Selects the process, modulo the number of processes at that time.
    whom: u64,
}

impl Storm {
    /// Creates a storm of one minute with all kinds of troubles, one every two seconds on average.
    pub fn new(seed: u64) -> Self {
        let secs = Duration::from_secs;
        Storm { seed, length: secs(60), gap: secs(2), troubles: Trouble::ALL.to_vec() }
    }

    /// Sets the length of the storm.
    pub fn lasting(mut self, length: Duration) -> Self {
        self.length = length;
        self
    }

    /// Sets the average time between the starts of two troubles.
    ///
    /// # Panics
    ///
    /// Panics if `gap` is less than a millisecond.
    pub fn every(mut self, gap: Duration) -> Self {
        assert!(gap >= Duration::from_millis(1), "the gap between troubles must be at least 1 ms");
        self.gap = gap;
        self
    }

    /// Restricts the storm to these troubles.
    pub fn only(mut self, troubles: impl IntoIterator<Item = Trouble>) -> Self {
        self.troubles = troubles.into_iter().collect();
        self
    }

    /// Excludes these troubles.
    pub fn without(mut self, troubles: impl IntoIterator<Item = Trouble>) -> Self {
        let out: Vec<_> = troubles.into_iter().collect();
        self.troubles.retain(|trouble| !out.contains(trouble));
        self
    }

    fn plan(&self) -> Vec<Planned> {
        let mut random = Random::stream(self.seed, 1);
        let gap = u64::try_from(self.gap.as_millis()).unwrap_or(u64::MAX / 4);
        let (mut plan, mut at) = (Vec::new(), Duration::ZERO);
        if self.troubles.is_empty() {
            return plan;
        }
        loop {
            at += random.ms(0, gap * 2);
            if at >= self.length {
                return plan;
            }
            let trouble = self.troubles[random.below(self.troubles.len() as u64) as usize];
            let (least, most) = trouble.lasts();
            // Drawing the maximum first makes short troubles more likely.
            let most = random.between(least, most);
            let lasts = random.ms(least, most);
            plan.push(Planned { trouble, at, lasts, whom: random.next_u64() });
        }
    }
}

/// Interval at which the storm checks whether a process has stopped.
const LOOK: Duration = Duration::from_millis(100);

/// The start or the end of a trouble.
#[derive(Clone, Debug)]
enum Step {
    Begin(Planned, usize),
    End(Trouble, String),
}

impl<S: Send + Sync + 'static> TestCluster<S> {
    /// Injects random faults for the length of the storm, and then ends them all: [heals](Self::heal) everything,
    /// waits for processes that are stopping, and starts every process that is down. The timeline shows each fault.
    ///
    /// # Errors
    ///
    /// Returns an error if a process cannot be started again. Returns early with an error if the service
    /// [reports](super::Process::violates) that it broke one of its own promises, or
    /// [works](super::Process::working_on) on a key without a valid hold.
    pub async fn storm(&self, storm: &Storm) -> Result<(), Failure> {
        self.unless_still(self.run_storm(storm)).await
    }

    async fn run_storm(&self, storm: &Storm) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut steps: Vec<(Duration, Step)> = storm
            .plan()
            .into_iter()
            .enumerate()
            .map(|(n, planned)| (planned.at, Step::Begin(planned, n)))
            .collect();
        // Lives that were asked to stop.
        let mut stopping = Vec::new();
        while let Some(next) = steps.iter().enumerate().min_by_key(|(place, (at, _))| (*at, *place)) {
            let (at, step) = steps.remove(next.0);
            if at >= storm.length {
                break;
            }
            sleep_until(begun + at).await;
            self.not_violated()?;
            self.not_without_hold()?;
            match step {
                Step::Begin(planned, number) if planned.trouble == Trouble::RollingRestart => {
                    steps.extend(self.one_by_one(planned, at, number));
                }
                Step::Begin(planned, number) => {
                    let names = self.names();
                    let Some(name) = names.get((planned.whom % names.len().max(1) as u64) as usize) else {
                        break;
                    };
                    let seed = Random::stream(storm.seed, 2 + number as u64).next_u64();
                    stopping.extend(self.trouble(name, planned, seed).await);
                    steps.push((at + planned.lasts, Step::End(planned.trouble, name.clone())));
                }
                Step::End(Trouble::Leave, name) if self.is_stopping(&name, &stopping) => {
                    steps.push((at + LOOK, Step::End(Trouble::Leave, name)));
                }
                Step::End(trouble, name) => self.end_trouble(&name, trouble),
            }
        }
        sleep_until(begun + storm.length).await;
        self.clear_up(&stopping).await
    }

    /// Ends all troubles, and starts every process that is down.
    async fn clear_up(&self, stopping: &[Arc<Gate>]) -> Result<(), Failure> {
        self.heal();
        while stopping.iter().any(|gate| gate.is_alive()) {
            sleep(LOOK).await;
        }
        for name in self.names_of(|seat| !seat.runs()) {
            self.restart(&name);
        }
        match self.names_of(|seat| seat.has_failed()).first() {
            Some(_) => self.wait_started().await,
            None => Ok(()),
        }
    }

    /// Returns the steps of a rolling restart.
    fn one_by_one(&self, planned: Planned, at: Duration, number: usize) -> Vec<(Duration, Step)> {
        let count = self.names().len() as u32;
        let each = planned.lasts / count.max(1);
        let restart = |n: u32| {
            let at = at + each * n;
            let leave = Planned { trouble: Trouble::Leave, at, lasts: each / 2, whom: n.into() };
            (at, Step::Begin(leave, number))
        };
        (0..count).map(restart).collect()
    }

    fn is_stopping(&self, name: &str, stopping: &[Arc<Gate>]) -> bool {
        let gate = self.with_seat(name, |seat| seat.runs().then(|| seat.gate().clone()));
        gate.is_some_and(|gate| gate.is_alive() && stopping.iter().any(|other| Arc::ptr_eq(other, &gate)))
    }

    /// Begins a trouble. Returns the life of a process that is stopping because of it.
    async fn trouble(&self, name: &str, planned: Planned, seed: u64) -> Option<Arc<Gate>> {
        let Planned { trouble, lasts, .. } = planned;
        if let Some(journal) = self.with_seat(name, |seat| seat.gate().journal()) {
            let lasts = if lasts.is_zero() { String::new() } else { format!(" for {lasts:?}") };
            journal.note(Observation::Note { text: format!("storm: {trouble}{lasts}") });
        }
        match trouble {
            Trouble::Crash => self.crash(name),
            // A node that cannot leave gracefully does not leave.
            Trouble::Leave => return self.is_up(name).then(|| self.leave(name)),
            // The steps of the restart are planned individually.
            Trouble::RollingRestart => {}
            Trouble::Pause => self.pause(name),
            Trouble::CutOff => self.cut_off(name),
            Trouble::Hang => self.hang(name),
            Trouble::Outage => self.names().iter().for_each(|name| self.cut_off(name)),
            Trouble::Expire => self.expire(name).await,
            Trouble::BadNetwork => self.line(name).by_chance(Chances::bad_network(seed)),
            Trouble::WatchLag => self.line(name).stall_watches(""),
            Trouble::WatchGap => self.line(name).compact_watches(),
            Trouble::Ask => self.ask(name, |node| async move { drop(node.cluster_change().await) }),
            Trouble::Resign => {
                let leader = self.leader();
                self.ask(leader.as_deref().unwrap_or(name), |node| async move { drop(node.resign().await) });
            }
        }
        None
    }

    fn end_trouble(&self, name: &str, trouble: Trouble) {
        match trouble {
            Trouble::Crash | Trouble::Leave if !self.with_seat(name, |seat| seat.runs()) => {
                self.restart(name);
            }
            Trouble::Pause => self.resume(name),
            Trouble::CutOff | Trouble::Hang | Trouble::WatchLag => self.reconnect(name),
            Trouble::Outage => self.names().iter().for_each(|name| self.reconnect(name)),
            Trouble::BadNetwork => self.line(name).calm(),
            _ => {}
        }
    }

    fn is_up(&self, name: &str) -> bool {
        self.with_seat(name, |seat| {
            matches!(seat.stage, Stage::Up(_)) && seat.takes_part() && seat.node().is_some()
        })
    }

    fn leave(&self, name: &str) -> Arc<Gate> {
        let gate = self.with_seat(name, |seat| seat.gate().clone());
        let (cluster, name) = (self.clone(), name.to_owned());
        // Leaving may take long, or never succeed.
        tokio::spawn(async move { drop(cluster.stop(&name).await) });
        gate
    }

    /// Runs a user's request in the process.
    fn ask<F>(&self, name: &str, asks: impl FnOnce(Clustering) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let found = self.with_seat(name, |seat| Some((seat.gate().clone(), seat.node()?)));
        if let Some((gate, node)) = found {
            spawn_in(&gate, asks(node));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_seed_has_its_own_plan() {
        let plan = |seed| Storm::new(seed).plan();
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
        let all: BTreeSet<_> = (0..20).flat_map(plan).map(|planned| planned.trouble).collect();
        assert_eq!(all, BTreeSet::from(Trouble::ALL));
        assert!((15..60).contains(&plan(3).len()), "{}", plan(3).len());
        assert!(plan(3).iter().all(|planned| planned.at < Duration::from_secs(60)));
    }

    #[test]
    fn a_storm_has_only_the_selected_troubles() {
        let kinds =
            |storm: Storm| -> BTreeSet<_> { storm.plan().iter().map(|planned| planned.trouble).collect() };
        assert_eq!(kinds(Storm::new(1).only([Trouble::Ask])), [Trouble::Ask].into());
        assert!(!kinds(Storm::new(1).without([Trouble::Ask])).contains(&Trouble::Ask));
        assert!(kinds(Storm::new(1).only([])).is_empty());
    }
}
