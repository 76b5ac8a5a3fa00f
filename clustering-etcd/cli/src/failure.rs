use std::{fmt, process::ExitCode};

use clustering_core::{
    InvalidInput, Namespace, OperatorError,
    store::{ErrorKind, StoreError},
};

/// The failure of a command: an exit code, a message, and advice.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    text: String,
    hints: Vec<String>,
    /// The kind of store error that caused the failure.
    store_error: Option<ErrorKind>,
}

/// Exit code for the answer no: the cluster is not stable, the key has no owner, the time limit has passed.
pub(crate) const NO: u8 = 1;
/// Exit code if there is no answer: wrong usage, no store, no permission, no cluster.
pub(crate) const UNKNOWN: u8 = 2;

impl Failure {
    /// Creates a failure with exit code 2: there is no answer, for example because the arguments are invalid.
    pub fn unknown(text: impl Into<String>) -> Self {
        Failure::with_code(UNKNOWN, text)
    }

    /// Creates a failure with exit code 1: the answer is no.
    pub(crate) fn no(text: impl Into<String>) -> Self {
        Failure::with_code(NO, text)
    }

    pub(crate) fn with_code(code: u8, text: impl Into<String>) -> Self {
        Failure { code, text: text.into(), hints: Vec::new(), store_error: None }
    }

    /// Adds a line of advice.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        self.hints([hint.into()])
    }

    /// Adds lines of advice.
    pub(crate) fn hints(mut self, hints: impl IntoIterator<Item = String>) -> Self {
        self.hints.extend(hints);
        self
    }

    /// Adds the store's own advice, if an error of the store caused the failure.
    pub(crate) fn hint_of_store(self, hint: impl Fn(&ErrorKind) -> Option<&'static str>) -> Self {
        let hint = self.store_error.as_ref().and_then(hint).map(str::to_owned);
        self.hints(hint)
    }

    /// Formats the failure as lines: the message first, then the advice.
    pub(crate) fn lines(&self) -> Vec<String> {
        let first = format!("clustering: {}", self.text);
        [first].into_iter().chain(self.hints.iter().map(|hint| format!("  {hint}"))).collect()
    }

    pub(crate) fn no_cluster(namespace: &Namespace) -> Self {
        Failure::unknown(format!("there is no cluster in the namespace {namespace}")).hint(
            "set the namespace with --namespace or CLUSTERING_NAMESPACE; `clustering services` lists all",
        )
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let mut failure = Failure::unknown(error.to_string());
        if error.kind() == ErrorKind::OutcomeUnknown {
            let hint =
                "the command may have taken effect: check with `clustering status` before you repeat it";
            failure = failure.hint(hint);
        }
        failure.store_error = Some(error.kind());
        failure
    }
}

impl From<OperatorError> for Failure {
    fn from(error: OperatorError) -> Self {
        let text = error.to_string();
        match error {
            OperatorError::Store(error) => error.into(),
            OperatorError::NoCluster(namespace) => Failure::no_cluster(&namespace),
            OperatorError::NodesPresent(_) => Failure::no(text)
                .hint("stop them first; --force deletes their keys too, and nodes that are alive rejoin"),
            OperatorError::Alone => {
                Failure::no(text).hint("start another node first, or stop this one if it should end")
            }
            _ => Failure::no(text),
        }
    }
}

impl From<InvalidInput> for Failure {
    fn from(error: InvalidInput) -> Self {
        Failure::unknown(error.to_string())
    }
}
