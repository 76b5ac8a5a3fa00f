use std::time::Duration;

use clustering_testkit::sim::{Counts, Failure, Kind, Reached, Report};
use serde_json::{Map, Value, json};

use crate::arguments::Seeds;

/// How often it tells how far it is.
const EVERY: Duration = Duration::from_secs(5);

/// What all seeds came to so far.
pub(crate) struct Progress {
    seeds: Seeds,
    json: bool,
    done: u64,
    counts: Counts,
    /// How many seeds had faults of several kinds.
    mixed: u64,
    slowest: (Duration, u64),
    told: Duration,
}

impl Progress {
    pub(crate) fn new(seeds: Seeds, json: bool) -> Self {
        let slowest = (Duration::ZERO, seeds.from);
        Progress { seeds, json, done: 0, counts: Counts::default(), mixed: 0, slowest, told: Duration::ZERO }
    }

    pub(crate) fn add(&mut self, report: &Report, after: Duration) {
        self.done += 1;
        self.counts += &report.counts;
        self.mixed += u64::from(Kind::ALL.iter().filter(|kind| report.counts.faults(**kind) > 0).count() > 1);
        self.slowest = self.slowest.max((report.settled_after, report.seed));
        if after - self.told >= EVERY {
            self.told = after;
            let rate = self.done as f64 / after.as_secs_f64();
            if self.json {
                println!("{}", json!({ "done": self.done, "of": self.seeds.count, "seeds_per_s": rate }));
            } else {
                eprintln!("{} of {} seeds, {rate:.1} a second", self.done, self.seeds.count);
            }
        }
    }

    pub(crate) fn summary(&self, took: Duration, failures: &[Failure]) {
        let rate = self.done as f64 / took.as_secs_f64();
        if self.json {
            return println!("{}", self.as_json(took, rate, failures));
        }
        println!(
            "{} seeds in {took:.1?}, {rate:.1} a second; {} with faults of several kinds",
            self.done, self.mixed
        );
        println!("{} inputs, {} revisions", self.counts.inputs, self.counts.revisions);
        println!("the longest calm took {:.1?} to come (seed {})", self.slowest.0, self.slowest.1);
        println!("\nfaults:");
        for kind in Kind::ALL {
            println!("{:>10}  {}", self.counts.faults(kind), kind.name());
        }
        println!("\nreached:");
        for reached in Reached::ALL {
            println!("{:>10}  {}", self.counts.reached(*reached), reached.name());
        }
        failures.iter().for_each(|failure| println!("\n{failure}"));
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
            "with_several_kinds": self.mixed,
            "inputs": self.counts.inputs,
            "revisions": self.counts.revisions,
            "slowest_calm_ms": self.slowest.0.as_millis() as u64,
            "faults": faults.collect::<Map<_, _>>(),
            "reached": reached.collect::<Map<_, _>>(),
            "failures": failures.iter().map(failure).collect::<Vec<_>>(),
        })
    }
}
