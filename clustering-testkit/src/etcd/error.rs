use std::fmt;

/// What went wrong with a test server: what was tried, why it failed, and how the log of the server begins and ends.
///
/// Its `Debug` is as readable as its `Display`, for tests that `unwrap`.
pub struct EtcdError {
    what: String,
    why: String,
    log: Option<String>,
}

impl EtcdError {
    pub(super) fn new(what: impl Into<String>, why: impl fmt::Display) -> Self {
        Self { what: what.into(), why: why.to_string(), log: None }
    }

    pub(super) fn with_log(mut self, log: String) -> Self {
        self.log = Some(log);
        self
    }

    /// Whether a port that looked free was taken before the server had it.
    pub(super) fn is_port_taken(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.contains("address already in use"))
    }
}

impl fmt::Display for EtcdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)?;
        match self.log.as_deref() {
            None => Ok(()),
            Some("") => f.write_str("\nits log is empty"),
            Some(log) => write!(f, "\nits log:\n{log}"),
        }
    }
}

impl fmt::Debug for EtcdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for EtcdError {}
