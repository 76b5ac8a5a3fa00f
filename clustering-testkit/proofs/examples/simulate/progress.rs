use std::time::Duration;

use clustering_proofs::sim::{Counts, Failure, Kind, Reached, Report};
use serde_json::{Map, Value, json};

use crate::arguments::Seeds;

/// Interval of the progress reports.
const EVERY: Duration = Duration::from_secs(5);

/// Sums over the seeds that have run so far.
pub(crate) struct Progress {
    seeds: Seeds,
    json: bool,
    done: u64,
    counts: Counts,
    /// Number of different kinds of faults per seed: minimum, maximum, and sum over all seeds.
    kinds: (u64, u64, u64),
    slowest: (Duration, u64),
    told: Duration,
}

impl Progress {
    pub(crate) fn new(seeds: Seeds, json: bool) -> Self {
        let slowest = (Duration::ZERO, seeds.from);
        let kinds = (u64::MAX, 0, 0);
        Progress { seeds, json, done: 0, counts: Counts::default(), kinds, slowest, told: Duration::ZERO }
    }

    pub(crate) fn add(&mut self, report: &Report, after: Duration) {
        self.done += 1;
        self.counts += &report.counts;
        let kinds = Kind::ALL.iter().filter(|kind| report.counts.faults(**kind) > 0).count() as u64;
        let (fewest, most, sum) = self.kinds;
        self.kinds = (fewest.min(kinds), most.max(kinds), sum + kinds);
        self.slowest = self.slowest.max((report.settled_after, report.seed));
        if after - self.told >= EVERY {
            self.told = after;
            let rate = self.done as f64 / after.as_secs_f64();
            if self.json {
                println!("{}", json!({ "done": self.done, "of": self.seeds.count, "seeds_per_s": rate }));
            } else {
                eprintln!("{} of {} seeds, {rate:.1} per second", self.done, self.seeds.count);
            }
        }
    }

    pub(crate) fn summary(&self, took: Duration, failures: &[Failure]) {
        let rate = self.done as f64 / took.as_secs_f64();
        if self.json {
            return println!("{}", self.as_json(took, rate, failures));
        }
        println!("{} seeds in {took:.1?}, {rate:.1} per second", self.done);
        if let Some((fewest, most, average)) = self.kinds_of_a_seed() {
            println!("{fewest} to {most} kinds of faults per seed, {average:.1} on average");
        }
        println!("{} inputs, {} revisions", self.counts.inputs, self.counts.revisions);
        println!(
            "longest time until stable after the last fault: {:.1?} (seed {})",
            self.slowest.0, self.slowest.1
        );
        println!("\nfaults:");
        for kind in Kind::ALL {
            println!("{:>10}  {}", self.counts.faults(kind), kind.name());
        }
        println!("\nreached:");
        for reached in Reached::ALL {
            println!("{:>10}  {}", self.counts.reached(reached), reached.name());
        }
        failures.iter().for_each(|failure| println!("\n{failure}"));
    }

    /// Returns the minimum, maximum and average number of different kinds of faults per seed.
    fn kinds_of_a_seed(&self) -> Option<(u64, u64, f64)> {
        let (fewest, most, sum) = self.kinds;
        (self.done > 0).then(|| (fewest, most, sum as f64 / self.done as f64))
    }

    fn as_json(&self, took: Duration, rate: f64, failures: &[Failure]) -> Value {
        let faults = Kind::ALL.iter().map(|kind| (kind.name().to_owned(), json!(self.counts.faults(*kind))));
        let reached = Reached::ALL
            .iter()
            .map(|reached| (reached.name().to_owned(), json!(self.counts.reached(*reached))));
        let failure = |failure: &Failure| json!({ "seed": failure.seed, "broken": failure.broken, "command": failure.command, "story": failure.story });
        json!({
            "seeds": self.done,
            "from": self.seeds.from,
            "seconds": took.as_secs_f64(),
            "seeds_per_s": rate,
            "kinds_of_a_seed": self.kinds_of_a_seed().map(|(fewest, most, average)| {
                json!({ "fewest": fewest, "most": most, "average": average })
            }),
            "inputs": self.counts.inputs,
            "revisions": self.counts.revisions,
            "slowest_calm_ms": self.slowest.0.as_millis() as u64,
            "faults": faults.collect::<Map<_, _>>(),
            "reached": reached.collect::<Map<_, _>>(),
            "failures": failures.iter().map(failure).collect::<Vec<_>>(),
        })
    }
}
