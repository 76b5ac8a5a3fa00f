//! Prints the results as text or as JSON objects, and judges them.

use std::{error::Error, time::Duration};

use serde_json::json;

use crate::log::Counts;

/// The cost of one case, and its targets.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) case: String,
    pub(crate) nodes: usize,
    pub(crate) slots: u16,
    pub(crate) counts: Counts,
    pub(crate) stabilizes: u64,
    /// Time until the cluster was stable after an outage.
    pub(crate) stable: Option<Duration>,
    pub(crate) most_elections: Option<u64>,
    /// Most moves of all slots together.
    pub(crate) most_moves: u64,
}

/// The results so far.
pub(crate) struct Report {
    json: bool,
    missed: Vec<String>,
}

impl Outcome {
    fn per_slot(&self, moves: u64) -> f64 {
        (moves as f64 / f64::from(self.slots) * 1e3).round() / 1e3
    }

    fn print(&self, as_json: bool) {
        let Outcome { case, nodes, slots, stabilizes, .. } = self;
        let Counts { versions, elections, moves } = self.counts;
        let moves = self.per_slot(moves);
        let stable = self.stable.map(|stable| stable.as_millis() as u64);
        if as_json {
            let mut line = json!({
                "case": case, "nodes": nodes, "slots": slots, "versions": versions, "elections": elections,
                "stabilizes": stabilizes, "moves_per_slot": moves,
            });
            if let Some(stable) = stable {
                line["stable_ms"] = stable.into();
            }
            return println!("{line}");
        }
        let stable = stable.map_or_else(String::new, |stable| format!("  stable after {stable} ms"));
        println!(
            "{case:26} {nodes:3} nodes  {versions:3} versions  {elections:2} elections  {stabilizes:5} stabilizes  \
             {moves:5.2} moves per slot{stable}"
        );
    }

    fn missed(&self) -> Vec<String> {
        let Outcome { case, counts, .. } = self;
        let mut missed = Vec::new();
        if let Some(most) = self.most_elections.filter(|most| counts.elections > *most) {
            missed.push(format!("{case}: {} elections, target {most}", counts.elections));
        }
        if counts.moves > self.most_moves {
            let (moves, most) = (self.per_slot(counts.moves), self.per_slot(self.most_moves));
            missed.push(format!("{case}: {moves} moves per slot, target {most}"));
        }
        missed
    }
}

impl Report {
    pub(crate) fn begin(json: bool, etcd: &str) -> Self {
        if !json {
            println!("etcd {etcd}");
        }
        Report { json, missed: Vec::new() }
    }

    pub(crate) fn add(&mut self, outcome: Outcome) {
        outcome.print(self.json);
        self.missed.extend(outcome.missed());
    }

    /// Returns an error that lists the missed targets, if there are any.
    pub(crate) fn end(self) -> Result<(), Box<dyn Error>> {
        match self.missed.is_empty() {
            true => Ok(()),
            false => Err(format!("missed targets:\n  {}", self.missed.join("\n  ")).into()),
        }
    }
}
