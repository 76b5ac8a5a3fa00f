use std::fmt;

/// Error of a test server: the operation, the cause, and the beginning and end of the server's log.
///
/// Its `Debug` output is the same as its `Display` output, for the sake of tests that call `unwrap`.
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

    /// Returns true if another program took a reserved port before the server could listen on it.
    pub(super) fn is_port_taken(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.contains("address already in use"))
    }
}

impl fmt::Display for EtcdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)?;
        match self.log.as_deref() {
            None => Ok(()),
            Some("") => f.write_str("\nthe server's log is empty"),
            Some(log) => write!(f, "\nthe server's log:\n{log}"),
        }
    }
}

impl fmt::Debug for EtcdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for EtcdError {}
