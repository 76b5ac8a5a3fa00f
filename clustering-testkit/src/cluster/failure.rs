use std::{error::Error, fmt};

use crate::promises::Violation;

/// Error of a test with a [`TestCluster`](super::TestCluster), with the context needed to diagnose it. `{:?}` prints
/// the same text as `{}`, so that the panic message of `unwrap` is readable too.
#[derive(Clone)]
pub struct Failure {
    /// Description of the failure.
    pub what: String,
    /// Advice on how to fix the failure, if there is any.
    pub hint: Option<String>,
    /// State of each process and its node, one line each.
    pub nodes: Vec<String>,
    /// Events that led to the failure, in order of time.
    pub timeline: Vec<String>,
}

impl Failure {
    /// Creates a failure with only a description.
    pub fn new(what: impl Into<String>) -> Self {
        Failure { what: what.into(), hint: None, nodes: Vec::new(), timeline: Vec::new() }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Converts a broken promise and its timeline.
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
            f.write_str("\nnodes:")?;
        }
        self.nodes.iter().try_for_each(|line| write!(f, "\n  {line}"))?;
        if !self.timeline.is_empty() {
            f.write_str("\ntimeline (in seconds):")?;
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
