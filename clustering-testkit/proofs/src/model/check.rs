use std::{
    fmt,
    time::{Duration, Instant},
};

use serde::Serialize;
use stateright::{Checker, HasDiscoveries, Model, Path};

use super::{Action, Bounds, ClusterModel, Promise, Reached, State, step::Step};

/// Result of exploring a model.
#[derive(Clone, Debug, Serialize)]
pub struct Checked {
    /// Bounds within which the model was explored.
    pub bounds: Bounds,
    /// Number of different states.
    pub states: usize,
    /// Number of steps between the states.
    pub steps: usize,
    /// Maximum distance of a state from the initial state, in steps.
    pub depth: usize,
    /// Duration of the exploration in seconds.
    pub seconds: f64,
    /// True if all states within the bounds were visited: the time limit sufficed and no promise was broken.
    pub exhausted: bool,
    /// Promises that hold in all visited states.
    pub held: Vec<&'static str>,
    /// Names of the [`Reached`] situations that occurred.
    pub reached: Vec<&'static str>,
    /// The broken promise, if any, with the path that breaks it.
    pub broken: Option<Counterexample>,
}

/// Path to a state in which a promise is broken.
#[derive(Clone, Debug, Serialize)]
pub struct Counterexample {
    /// Name of the promise.
    pub promise: &'static str,
    /// Description of the violation.
    pub found: String,
    /// Number of steps on the path.
    pub steps: usize,
    /// Log of the path, one line per step, each followed by lines for its effects.
    pub story: Vec<String>,
}

impl Checked {
    /// True if the situation occurred.
    pub fn reached(&self, what: Reached) -> bool {
        self.reached.contains(&what.name())
    }
}

impl ClusterModel {
    /// Explores all states within the bounds, breadth first, for at most `limit`.
    ///
    /// Stops as soon as a promise is broken.
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
