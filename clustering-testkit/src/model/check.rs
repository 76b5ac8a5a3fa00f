use std::{
    fmt,
    time::{Duration, Instant},
};

use serde::Serialize;
use stateright::{Checker, HasDiscoveries, Model, Path};

use super::{Action, Bounds, ClusterModel, Promise, Reached, State, step::Step};

/// What exploring a model came to.
#[derive(Clone, Debug, Serialize)]
pub struct Checked {
    /// How far it was explored.
    pub bounds: Bounds,
    /// How many different states there are.
    pub states: usize,
    /// How many steps lead to them.
    pub steps: usize,
    /// How many steps the longest of the shortest paths to a state has.
    pub depth: usize,
    /// How long it took.
    pub seconds: f64,
    /// Whether all states within the bounds were seen: the time was enough, and no promise is broken.
    pub exhausted: bool,
    /// The promises that hold in all states that were seen.
    pub held: Vec<&'static str>,
    /// What was reached.
    pub reached: Vec<&'static str>,
    /// The promise that is broken, and how.
    pub broken: Option<Counterexample>,
}

/// A way to a state in which a promise is broken.
#[derive(Clone, Debug, Serialize)]
pub struct Counterexample {
    /// The promise.
    pub promise: &'static str,
    /// How it is broken.
    pub found: String,
    /// How many steps lead there.
    pub steps: usize,
    /// What happens on the way, a line each: the steps, and below each what it brings about.
    pub story: Vec<String>,
}

impl Checked {
    /// Whether that was reached.
    pub fn reached(&self, what: Reached) -> bool {
        self.reached.contains(&what.name())
    }
}

impl ClusterModel {
    /// Explores all states within the bounds, those near the beginning first; for no longer than `limit`.
    ///
    /// Ends as soon as a promise is broken.
    pub fn check(&self, threads: usize, limit: Option<Duration>) -> Checked {
        let began = Instant::now();
        let mut builder = self.clone().checker().threads(threads).finish_when(HasDiscoveries::AnyFailures);
        if let Some(limit) = limit {
            builder = builder.timeout(limit);
        }
        let checker = builder.spawn_bfs().join();
        let took = began.elapsed();
        let found = checker.discoveries();
        let broken = Promise::ALL
            .into_iter()
            .find_map(|promise| Some((promise, found.get(promise.name())?)))
            .map(|(promise, path)| self.counterexample(promise, path));
        let in_time = limit.is_none_or(|limit| took < limit);
        let reached = Reached::ALL.iter().map(|reached| reached.name());
        Checked {
            bounds: self.bounds(),
            states: checker.unique_state_count(),
            steps: checker.state_count(),
            depth: checker.max_depth(),
            seconds: took.as_secs_f64(),
            exhausted: in_time && broken.is_none(),
            held: Promise::ALL
                .into_iter()
                .map(Promise::name)
                .filter(|property| !found.contains_key(property))
                .collect(),
            reached: reached.filter(|property| found.contains_key(property)).collect(),
            broken,
        }
    }

    fn counterexample(&self, promise: Promise, path: &Path<State, Action>) -> Counterexample {
        let actions: Vec<Action> = path.clone().into_actions();
        let mut state = self.init_states().remove(0);
        let mut story = Vec::new();
        for (number, action) in actions.iter().enumerate() {
            let (next, lines) = Step::told(self, &state).take_and_tell(*action);
            story.push(format!("{}. {action}", number + 1));
            story.extend(lines);
            state = next;
        }
        let found = match &state.breach {
            Some(breach) => breach.said.clone(),
            None => super::calm::run(self, &state).err().unwrap_or_default(),
        };
        Counterexample { promise: promise.name(), found, steps: actions.len(), story }
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exhausted = if self.exhausted { "" } else { ", not exhausted" };
        writeln!(f, "{}", self.bounds)?;
        writeln!(
            f,
            "  {} states, {} steps, depth {}, {:.1} s{exhausted}",
            self.states, self.steps, self.depth, self.seconds
        )?;
        writeln!(f, "  reached: {}", self.reached.join(", "))?;
        match &self.broken {
            None => writeln!(f, "  all {} promises hold", self.held.len()),
            Some(broken) => broken.fmt(f),
        }
    }
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  BROKEN after {} steps: {}", self.steps, self.promise)?;
        writeln!(f, "  {}", self.found)?;
        self.story.iter().try_for_each(|line| writeln!(f, "  | {line}"))
    }
}
