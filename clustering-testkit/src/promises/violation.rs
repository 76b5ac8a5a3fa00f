use std::{error::Error, fmt};

/// A broken promise, with the events that led to it.
#[derive(Clone, PartialEq, Eq)]
pub struct Violation {
    /// Number and name of the promise.
    pub promise: &'static str,
    /// The behaviour that the promise requires.
    pub expected: String,
    /// The behaviour that was observed.
    pub found: String,
    /// The nodes and versions that are concerned.
    pub about: Vec<String>,
    /// The last events that concern them, in the order of time.
    pub timeline: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} is broken", self.promise)?;
        writeln!(f, "  expected: {}", self.expected)?;
        write!(f, "  found:    {}", self.found)?;
        self.timeline.iter().try_for_each(|line| write!(f, "\n  | {line}"))
    }
}

/// Same as `Display`, so that `unwrap` prints the timeline.
impl fmt::Debug for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for Violation {}

/// A checker's description of a violation. The caller adds the timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) expected: String,
    pub(crate) found: String,
    /// Names and versions. Events that mention one of them belong to the timeline.
    pub(crate) about: Vec<String>,
}

impl Broken {
    pub(crate) fn new(expected: impl Into<String>, found: impl Into<String>) -> Self {
        Broken { expected: expected.into(), found: found.into(), about: Vec::new() }
    }

    pub(crate) fn about(mut self, what: impl fmt::Display) -> Self {
        self.about.push(what.to_string());
        self
    }
}

/// Result of checking a promise.
pub(crate) type Kept = Result<(), Broken>;
