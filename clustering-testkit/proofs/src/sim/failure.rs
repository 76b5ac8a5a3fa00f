use std::{error::Error, fmt};

use super::{Fault, Kind, Simulation, book::Broken};

/// How many lines of the story are shown.
const LINES: usize = 80;

/// A seed under which a promise is broken, and the story of it.
#[derive(Clone)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What is broken, and how.
    pub broken: String,
    /// The faults that are enough for it, with their numbers in the seed's plan.
    pub faults: Vec<(usize, Fault)>,
    /// How many faults the plan has.
    pub planned: usize,
    /// What happened last, with those faults.
    pub story: Vec<String>,
    /// What does it again.
    pub command: String,
}

impl Failure {
    /// Finds the fewest faults under which the seed fails in the same way, and tells the story.
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
        // Renewals that go well are most of it.
        story.retain(|line| !["◀ tick", "▶ renew lease", "s left"].iter().any(|dull| line.contains(dull)));
        let story = story.split_off(story.len().saturating_sub(LINES));
        let broken = result.err().unwrap_or_else(|| broken.words());
        let faults = shrunk.plan(seed);
        let command = command(simulation, seed, (kept.len() < planned).then_some(&kept[..]));
        Failure { seed, broken, faults, planned, story, command }
    }
}

/// As few of these as are enough to fail: none of them can be left out. Found by leaving out many at once and then fewer.
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
        command += " (and the tamper)";
    }
    command + " --trace"
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {}", self.seed, self.broken)?;
        writeln!(f, "{} of {} faults are enough for it:", self.faults.len(), self.planned)?;
        for (number, fault) in &self.faults {
            writeln!(f, "{number:>4}  {fault}")?;
        }
        writeln!(f, "what happened last:")?;
        for line in &self.story {
            writeln!(f, "  | {line}")?;
        }
        write!(f, "again, and all of it: {}", self.command)
    }
}

/// As `Display`, so that `unwrap` tells the story too.
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
    fn what_is_enough_is_found() {
        let fails = |kept: &[usize]| kept.contains(&3) && kept.contains(&17);
        assert_eq!(shrink((0..20).collect(), fails), [3, 17]);
        assert_eq!(shrink((0..20).collect(), |_| true), [0; 0]);
        assert_eq!(shrink(vec![5], |kept| !kept.is_empty()), [5]);
    }

    #[test]
    fn the_command_says_all_that_is_not_usual() {
        let usual = command(&Simulation::new(), 7, None);
        assert_eq!(
            usual,
            "cargo run --release -p clustering-proofs --example simulate -- --seed 7 --nodes 7 --seconds 60 --ttl 5 --trace"
        );
        let other = command(&Simulation::new().nodes(3).only([Kind::Pause, Kind::Ask]), 7, Some(&[1, 4]));
        assert!(
            other.ends_with("--nodes 3 --seconds 60 --ttl 5 --only Pause,Ask --keep 1,4 --trace"),
            "{other}"
        );
    }
}
