use std::{error::Error, fmt};

use crate::promises::Violation;

/// What went wrong in a test with a [`TestCluster`](super::TestCluster), and the story of it. Prints the same with `{}`
/// and `{:?}`, so that `unwrap` tells it too.
#[derive(Clone)]
pub struct Failure {
    /// What went wrong.
    pub what: String,
    /// What is to be looked at or done, if that is known.
    pub hint: Option<String>,
    /// How each node stands.
    pub nodes: Vec<String>,
    /// What happened before, in the order of the times.
    pub timeline: Vec<String>,
}

impl Failure {
    /// One of which no more is known.
    pub fn new(what: impl Into<String>) -> Self {
        Failure { what: what.into(), hint: None, nodes: Vec::new(), timeline: Vec::new() }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// A promise that was broken, with its own timeline.
impl From<Violation> for Failure {
    fn from(violation: Violation) -> Self {
        let Violation { promise, expected, found, timeline, .. } = violation;
        let what = format!("{promise} is broken\n  expected: {expected}\n  found:    {found}");
        Failure { what, hint: None, nodes: Vec::new(), timeline }
    }
}

impl From<String> for Failure {
    fn from(what: String) -> Self {
        Failure::new(what)
    }
}

impl From<&str> for Failure {
    fn from(what: &str) -> Self {
        Failure::new(what)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(hint) = &self.hint {
            write!(f, "\n  {hint}")?;
        }
        if !self.nodes.is_empty() {
            f.write_str("\nthe nodes:")?;
        }
        self.nodes.iter().try_for_each(|line| write!(f, "\n  {line}"))?;
        if !self.timeline.is_empty() {
            f.write_str("\nwhat happened, by the seconds:")?;
        }
        self.timeline.iter().try_for_each(|line| write!(f, "\n  | {line}"))
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for Failure {}
