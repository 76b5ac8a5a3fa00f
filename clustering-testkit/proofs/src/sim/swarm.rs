use std::time::Duration;

use clustering_testkit::random::Random;

/// The mix of configurations and delays that a seed draws for its whole run.
///
/// If every run used all features at the same rates, it would hardly ever reach rare states that need much of one
/// feature and none of another. Therefore each seed has its own rates, some of which are zero ("swarm testing").
#[derive(Clone, Debug)]
pub(super) struct Swarm {
    /// Largest difference between the nodes' wall clocks, in milliseconds.
    pub(super) wall_spread: u64,
    /// Percentage of nodes that take their name over at the start.
    pub(super) take_over: u64,
    /// Percentage of nodes that end if their name is taken.
    pub(super) fail: u64,
    /// Percentage of nodes that evict laggards while they lead.
    pub(super) evict: u64,
    /// Percentage of nodes that have a time limit for stabilize.
    pub(super) stabilize_timeout: u64,
    /// Percentage of nodes that have a health check.
    pub(super) health: u64,
    /// Percentage of nodes that have a weight, and of metadata changes that change a weight.
    pub(super) weighted: u64,
    /// The nodes that are exclusive.
    pub(super) exclusivity: Exclusivity,
    /// Percentage of processes that are exclusive during the storm, if only some are.
    pub(super) mixed: u64,
    /// Percentage of nodes that are exclusive if they start after the storm, if only some are.
    pub(super) rolled_out: u64,
    /// Number of slots of exclusive nodes.
    pub(super) slots: u16,
    /// Number of nodes with which the cluster begins to work, if there are so many.
    pub(super) min_nodes: usize,
    /// Percentage of processes with another priority than the default.
    pub(super) prioritized: u64,
    /// Percentage of processes that detect crashes.
    pub(super) detects: u64,
    /// True if nodes trust refused connections. Then no report of a crash is false.
    pub(super) trusts: bool,
    /// Percentage of nodes that have a restart grace, and of stops that are announced as restarts.
    pub(super) restarts: u64,
    slow: Vec<Slow>,
}

/// The nodes of a run that are exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exclusivity {
    Nobody,
    /// Each process decides at random at its start whether it is exclusive, as in a rollout.
    Some,
    Everybody,
}

/// Step that is slower than usual in this run.
#[derive(Clone, Debug)]
struct Slow {
    way: Way,
    /// Percentage of cases in which the step is slow.
    chance: u64,
    /// Largest additional delay, in milliseconds.
    most: u64,
}

/// Steps that can be slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Delivery of changes of the log.
    Log,
    /// Delivery of changes of the acknowledgements.
    Ready,
    /// Opening of a watch.
    Watch,
    /// A read on its way to the store.
    Read,
    /// A commit on its way to the store.
    Commit,
    /// The reply to a call.
    Reply,
}

const WAYS: [Way; 6] = [Way::Log, Way::Ready, Way::Watch, Way::Read, Way::Commit, Way::Reply];

impl Swarm {
    pub(super) fn draw(seed: u64) -> Self {
        let mut random = Random::stream(seed, 3);
        let mut one_of = |rates: &[u64]| rates[random.below(rates.len() as u64) as usize];
        let wall_spread = one_of(&[0, 2_000, 600_000, 10_800_000]);
        let take_over = one_of(&[0, 10, 10, 60]);
        let fail = one_of(&[0, 10, 10, 30]);
        let evict = one_of(&[0, 35, 35, 100]);
        let stabilize_timeout = one_of(&[0, 25, 60]);
        let health = one_of(&[0, 60, 100]);
        let weighted = one_of(&[0, 0, 40]);
        // The two prefixes have separate watches. If one lags behind the other, nodes see changes in a different order.
        let slow = (0..one_of(&[0, 1, 2, 3])).map(|_| Slow {
            way: WAYS[one_of(&[0, 0, 1, 1, 2, 3, 4, 5]) as usize],
            chance: one_of(&[5, 15, 40]),
            most: one_of(&[20, 200, 1_500]),
        });
        let slow = slow.collect();
        let exclusivity = [Exclusivity::Nobody, Exclusivity::Some, Exclusivity::Everybody]
            [one_of(&[0, 0, 1, 2, 2]) as usize];
        let mixed = one_of(&[50, 90, 97]);
        let rolled_out = one_of(&[0, 100]);
        let slots = one_of(&[1, 2, 3, 4, 5, 6, 7, 7, 7, 64]) as u16;
        let min_nodes = one_of(&[1, 1, 1, 2, 3, 5]) as usize;
        let prioritized = one_of(&[0, 0, 40, 100]);
        let restarts = one_of(&[0, 0, 30, 90]);
        let mut random = Random::stream(seed, 4);
        let detects = [0, 0, 60, 100, 100][random.below(5) as usize];
        let trusts = random.percent(35);
        Swarm {
            restarts,
            exclusivity,
            mixed,
            rolled_out,
            slots,
            min_nodes,
            prioritized,
            wall_spread,
            take_over,
            fail,
            evict,
            stabilize_timeout,
            health,
            weighted,
            detects,
            trusts,
            slow,
        }
    }

    /// Draws the additional delay of a step.
    pub(super) fn delay(&self, way: Way, random: &mut Random) -> Duration {
        let slow = self.slow.iter().find(|slow| slow.way == way);
        slow.filter(|slow| random.percent(slow.chance)).map_or(Duration::ZERO, |slow| random.ms(0, slow.most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_draw_different_mixes_and_each_step_is_slow_in_some() {
        let swarms: Vec<Swarm> = (0..200).map(Swarm::draw).collect();
        for way in WAYS {
            assert!(swarms.iter().any(|swarm| swarm.slow.iter().any(|slow| slow.way == way)), "{way:?}");
        }
        let spreads = |least| swarms.iter().filter(|swarm| swarm.wall_spread >= least).count();
        assert!(spreads(3_600_000) > 20 && spreads(1) < 190);
        assert!(swarms.iter().any(|swarm| swarm.slow.is_empty()));
    }
}
