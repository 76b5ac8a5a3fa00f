use std::{error::Error, fmt};

/// A promise that was not kept, and the story of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub promise: &'static str,
    /// What it says.
    pub expected: String,
    /// What came instead.
    pub found: String,
    /// The nodes and versions that are concerned.
    pub about: Vec<String>,
    /// The last things that happened to those concerned, in the order of their times.
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

/// As `Display`, so that `unwrap` tells the story too.
impl fmt::Debug for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for Violation {}

/// What a checker says of a violation: the story is added by those who know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) expected: String,
    pub(crate) found: String,
    /// Names and versions: lines that hold one of them belong to the story.
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

/// Whether a promise is still kept.
pub(crate) type Kept = Result<(), Broken>;
