use std::{error::Error, fmt};

use super::{Fault, Kind, Simulation, book::Broken};

/// Number of log lines that are shown.
const LINES: usize = 80;

/// A seed that breaks a promise, with the log of the failure.
#[derive(Clone)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// Description of the broken promise.
    pub broken: String,
    /// Faults that suffice to break it, with their numbers in the seed's plan.
    pub faults: Vec<(usize, Fault)>,
    /// Number of faults in the plan.
    pub planned: usize,
    /// Last part of the log of a run with only these faults.
    pub story: Vec<String>,
    /// Command that reproduces the failure.
    pub command: String,
}

impl Failure {
    /// Finds the fewest faults with which the seed fails in the same way, and logs a run with them.
    pub(super) fn of(simulation: &Simulation, seed: u64, broken: &Broken) -> Self {
        let all: Vec<usize> = simulation.plan(seed).into_iter().map(|(number, _)| number).collect();
        let planned = all.len();
        let same = |keep: &[usize]| {
            let shrunk = simulation.clone().keep(keep.iter().copied());
            let broken_too = shrunk.world(seed, false).book.take_broken();
            broken_too.is_some_and(|too| too.kind() == broken.kind())
        };
        let kept = shrink(all, same);
        let shrunk = simulation.clone().keep(kept.iter().copied());
        let (mut story, result) = shrunk.story(seed);
        // Most lines are about successful renewals.
        story.retain(|line| !["◀ tick", "▶ renew lease", "s left"].iter().any(|dull| line.contains(dull)));
        let story = story.split_off(story.len().saturating_sub(LINES));
        let broken = result.err().unwrap_or_else(|| broken.words());
        let faults = shrunk.plan(seed);
        let command = command(simulation, seed, (kept.len() < planned).then_some(&kept[..]));
        Failure { seed, broken, faults, planned, story, command }
    }
}

/// Returns a minimal subset of `kept` that still fails: no element can be left out. Tries to leave out many elements at
/// a time first, then fewer.
fn shrink(mut kept: Vec<usize>, fails: impl Fn(&[usize]) -> bool) -> Vec<usize> {
    let mut chunk = kept.len().div_ceil(2).max(1);
    loop {
        let (mut from, before) = (0, kept.len());
        while from < kept.len() {
            let until = (from + chunk).min(kept.len());
            let without: Vec<usize> = [&kept[..from], &kept[until..]].concat();
            if fails(&without) {
                kept = without;
            } else {
                from = until;
            }
        }
        if chunk == 1 && kept.len() == before {
            return kept;
        }
        chunk = chunk.div_ceil(2);
    }
}

fn command(simulation: &Simulation, seed: u64, keep: Option<&[usize]>) -> String {
    let mut command = format!(
        "cargo run --release -p clustering-proofs --example simulate -- --seed {seed} --nodes {} --seconds {} --ttl {}",
        simulation.nodes,
        simulation.storm.as_secs(),
        simulation.ttl.as_secs()
    );
    if simulation.kinds != Kind::ALL {
        let kinds: Vec<_> = simulation.kinds.iter().map(|kind| format!("{kind:?}")).collect();
        command += &format!(" --only {}", kinds.join(","));
    }
    if let Some(keep) = keep {
        let keep: Vec<_> = keep.iter().map(usize::to_string).collect();
        command += &format!(" --keep {}", if keep.is_empty() { "none".to_owned() } else { keep.join(",") });
    }
    if simulation.tamper.is_some() {
        command += " (with the tamper)";
    }
    command + " --trace"
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {}", self.seed, self.broken)?;
        writeln!(f, "{} of {} faults suffice:", self.faults.len(), self.planned)?;
        for (number, fault) in &self.faults {
            writeln!(f, "{number:>4}  {fault}")?;
        }
        writeln!(f, "last part of the log:")?;
        for line in &self.story {
            writeln!(f, "  | {line}")?;
        }
        write!(f, "to reproduce it with the full log: {}", self.command)
    }
}

/// Same as `Display`, so that `unwrap` prints the log.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shrinking_finds_a_minimal_set_of_faults() {
        let fails = |kept: &[usize]| kept.contains(&3) && kept.contains(&17);
        assert_eq!(shrink((0..20).collect(), fails), [3, 17]);
        assert_eq!(shrink((0..20).collect(), |_| true), [0; 0]);
        assert_eq!(shrink(vec![5], |kept| !kept.is_empty()), [5]);
    }

    #[test]
    fn the_command_reproduces_the_failure_with_all_its_settings() {
        let usual = command(&Simulation::new(), 7, None);
        assert_eq!(
            usual,
            "cargo run --release -p clustering-proofs --example simulate -- --seed 7 --nodes 7 --seconds 60 --ttl 5 --trace"
        );
        let other =
            command(&Simulation::new().nodes(3).only([Kind::Pause, Kind::RequestVersion]), 7, Some(&[1, 4]));
        assert!(
            other.ends_with("--nodes 3 --seconds 60 --ttl 5 --only Pause,RequestVersion --keep 1,4 --trace"),
            "{other}"
        );
    }
}
